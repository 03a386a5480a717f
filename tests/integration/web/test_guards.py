"""Forged requests, roles, and the headers that guard every answer."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from fhir_records.database import Database
from fhir_records.model import Role
from tests import seed
from tests.integration.web.forms import LOCAL, Enter, csrf

OPEN_PATHS = {"/login", "/health/live", "/health/ready", "/metrics", "/fhir/metadata"}


def routes(client: TestClient) -> Iterator[tuple[str, str]]:
    for route in all_routes(client.app.routes):  # type: ignore[attr-defined]
        path = re.sub(r"{[^}]+}", "1", route.path)
        for method in route.methods:
            yield method, path


def all_routes(found: list[object]) -> Iterator[APIRoute]:
    for route in found:
        if isinstance(route, APIRoute):
            yield route
        elif nested := getattr(route, "routes", None) or getattr(
            getattr(route, "original_router", None), "routes", None
        ):
            yield from all_routes(nested)


def test_every_address_but_a_few_needs_a_log_in(browser: Enter) -> None:
    """Walks all routes there are: without a session none answers anything but "log in"."""
    client = browser()
    seen = 0
    for method, path in routes(client):
        if path in OPEN_PATHS:
            continue
        answer = client.request(method, path)
        assert answer.status_code in (303, 401, 404, 405, 415), (method, path, answer.status_code)
        if answer.status_code == 303:
            assert answer.headers["location"].startswith("/login")
        seen += 1
    assert seen > 15


# Of STOW-RS, below /dicom-web: no forms of the pages. That a log-in needs its token there has a test of its own.
STORED_TO = frozenset({"/studies", "/studies/1"})


def test_every_form_of_the_pages_needs_the_csrf_token(enter: Enter) -> None:
    """A POST without the session's token changes nothing and is answered in words."""
    client = enter(Role.ADMIN)
    posts = [path for method, path in routes(client) if method == "POST" and not path.startswith(("/fhir", "/login"))]
    posts = [path for path in posts if path not in STORED_TO]
    assert len(posts) >= 6
    for path in posts:
        for data in ({}, {"csrf_token": "made up"}):
            assert client.post(path, data=data).status_code == 403, path
    assert client.get("/").status_code == 200, "nobody was logged out"


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}]
)
def test_a_post_that_another_site_caused_is_turned_away(enter: Enter, headers: dict[str, str]) -> None:
    """Even with a right token: Fetch Metadata or the Origin give it away."""
    client = enter()
    token = csrf(client)
    assert client.post("/logout", data={"csrf_token": token}, headers=headers).status_code == 403
    assert client.post("/logout", data={"csrf_token": "wrong"}, headers={"Origin": "null"}).status_code == 403
    assert client.post("/logout", data={"csrf_token": token}, headers={"Origin": LOCAL}).status_code == 303


def test_htmx_may_send_the_csrf_token_as_a_header(enter: Enter) -> None:
    """The token counts in X-CSRF-Token as well."""
    client = enter()
    assert client.post("/logout", headers={"X-CSRF-Token": csrf(client)}).status_code == 303


@pytest.mark.parametrize("role", [Role.RADIOLOGIST, Role.CLINICIAN])
def test_administration_is_for_administrators(enter: Enter, role: Role) -> None:
    """Others get a page that says so in words, with a way out."""
    answer = enter(role).get("/admin")
    assert answer.status_code == 403
    assert "This is for an admin" in answer.text and 'href="/"' in answer.text


def test_every_answer_carries_the_guarding_headers(enter: Enter, database: Database) -> None:
    """Pages, errors and static files alike; WebAssembly and workers are allowed on the study page alone."""
    with database.session() as session:
        study = seed.read_study(session, 1)
    client = enter()
    for path in ("/", "/nowhere", "/static/pages.js", "/health/live", "/dicom-web/studies", "/fhir/metadata"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "wasm-unsafe-eval" not in headers["content-security-policy"]
    policy = client.get(f"/studies/{study.study_uid}").headers["content-security-policy"]
    assert "'wasm-unsafe-eval'" in policy and "worker-src 'self' blob:" in policy
    assert "unsafe-inline" not in policy and "'unsafe-eval'" not in policy


def test_pages_with_patients_are_kept_by_no_cache(enter: Enter) -> None:
    """no-store on pages, a year for static files asked for by their hash."""
    client = enter()
    assert client.get("/").headers["cache-control"] == "no-store"
    link = re.search(r'href="(/static/css/pages.css\?v=[^"]+)"', client.get("/").text)
    assert link and "immutable" in client.get(link[1]).headers["cache-control"]


def test_no_page_has_inline_scripts_or_styles(enter: Enter, database: Database) -> None:
    """What the policy would block is not there to begin with."""
    with database.session() as session:
        seed.every_state(session)
        study = seed.read_study(session, 9)
    client = enter(Role.ADMIN)
    for path in ("/login", "/", f"/studies/{study.study_uid}", "/admin", "/admin/audit"):
        text = client.get(path).text
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text), path
