"""Logging in and out, guessing, and how long a session lasts."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.model import Role
from fhir_records.store import users, web_sessions
from tests.integration.web.forms import LOCAL, PASSWORD, Enter, csrf, submit
from web.app import create_app
from web.settings import WebSettings


def test_a_right_password_opens_a_session_whose_token_only_the_browser_has(
    browser: Enter, accounts: None, database: Database
) -> None:
    """The cookie is HttpOnly and SameSite, and the database keeps its hash, not its value."""
    client = browser()
    answer = submit(client, "Radiologist ", PASSWORD)
    cookie = next(value for value in answer.headers.get_list("set-cookie") if value.startswith("wetread="))
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    with database.session() as session:
        row = session.scalars(select(tables.WebSession)).one()
    assert client.cookies["wetread"] not in (row.token_sha256, row.csrf_token)
    assert client.get("/").status_code == 200


def test_over_https_the_cookie_is_bound_to_this_host_and_secure(browser: Enter, accounts: None) -> None:
    """Behind TLS the session's cookie has the __Host- prefix and the Secure attribute."""
    client = browser("https://wetread.example.org")
    cookie = "".join(submit(client, "admin", PASSWORD).headers.get_list("set-cookie"))
    assert "__Host-wetread=" in cookie and "Secure" in cookie and "Path=/" in cookie


def test_plain_http_from_elsewhere_is_told_why_it_cannot_log_in(browser: Enter) -> None:
    """The page says that the browser would not keep a secure cookie over plain http."""
    assert "plain http" in browser("http://wetread.example.org").get("/login").text
    assert "plain http" not in browser().get("/login").text


def test_a_token_set_beforehand_never_becomes_a_session(browser: Enter, accounts: None) -> None:
    """Session fixation: the token that the browser had before the log-in is not the one that it has after."""
    client = browser()
    client.cookies.set("wetread", "planted")
    submit(client, "admin", PASSWORD)
    stranger = browser()
    stranger.cookies.set("wetread", "planted")
    assert stranger.get("/").status_code == 303


@pytest.mark.parametrize(("username", "password"), [("radiologist", "wrong password!"), ("nobody", PASSWORD)])
def test_wrong_password_and_unknown_name_get_the_same_answer(
    browser: Enter, accounts: None, username: str, password: str
) -> None:
    """Nobody learns from the log-in which names exist."""
    answer = submit(browser(), username, password)
    assert answer.status_code == 401
    assert "This username and password do not belong together." in answer.text


def test_a_disabled_account_is_out_at_once(enter: Enter, database: Database) -> None:
    """Disabling ends open sessions and refuses the right password."""
    client = enter(Role.CLINICIAN)
    with database.session() as session:
        users.disable(session, "clinician")
    assert client.get("/").status_code == 303
    assert submit(client, "clinician", PASSWORD).status_code == 401


def test_guessing_is_slowed_down_in_every_process(
    browser: Enter, accounts: None, database: Database, settings: WebSettings
) -> None:
    """After five failures even the right password has to wait, in another process too, and the page says how long."""
    client = browser()
    for _ in range(5):
        assert submit(client, "admin", "not the password").status_code == 401
    other = TestClient(create_app(settings, database), base_url=LOCAL, follow_redirects=False)
    answer = submit(other, "admin", PASSWORD)
    assert answer.status_code == 429
    assert re.search(r"Try again in \d+ seconds", answer.text)
    assert int(answer.headers["retry-after"]) > 0
    past = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=16)
    with database.session() as session:
        session.execute(update(tables.LoginFailure).values(at=past))
    assert submit(other, "admin", PASSWORD).status_code == 303


def test_guesses_side_by_side_are_refused(browser: Enter, accounts: None, database: Database) -> None:
    """While one log-in of a name is being checked, a second one of that name is turned away."""
    with database.session() as session:
        assert web_sessions.one_at_a_time(session, "admin")
        assert submit(browser(), "admin", PASSWORD).status_code == 429


def test_sessions_end_by_idling_by_age_and_by_logging_out(enter: Enter, database: Database) -> None:
    """An idle session, an old one, and one that was logged out of no longer open anything."""
    now = dt.datetime.now(dt.UTC)
    for change in ({"last_seen_at": now - dt.timedelta(minutes=61)}, {"expires_at": now}):
        client = enter()
        with database.session() as session:
            session.execute(update(tables.WebSession).values(**change))
        assert client.get("/").status_code == 303
    client = enter()
    token = client.cookies["wetread"]
    assert client.post("/logout", data={"csrf_token": csrf(client)}).headers["location"] == "/login"
    client.cookies.set("wetread", token)
    assert client.get("/").status_code == 303


def test_a_page_that_refreshes_itself_keeps_nobody_logged_in(enter: Enter, database: Database) -> None:
    """Htmx's polling is no sign of life; a click is."""
    client = enter()
    before = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=30)
    with database.session() as session:
        session.execute(update(tables.WebSession).values(last_seen_at=before))
    assert client.get("/worklist/rows", headers={"HX-Request": "true"}).status_code == 200
    with database.session() as session:
        assert session.scalars(select(tables.WebSession.last_seen_at)).one() == before
    client.get("/")
    with database.session() as session:
        assert session.scalars(select(tables.WebSession.last_seen_at)).one() > before


def test_polling_after_the_session_ended_leads_to_the_log_in(browser: Enter) -> None:
    """Htmx is told to load the log-in page, which leads back to where one was."""
    answer = browser().get("/worklist/rows", headers={"HX-Request": "true", "HX-Current-URL": f"{LOCAL}/?q=doe"})
    assert answer.headers["hx-redirect"] == "/login?next=/%3Fq%3Ddoe"


@pytest.mark.parametrize("target", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)"])
def test_the_log_in_leads_to_no_other_site(browser: Enter, accounts: None, target: str) -> None:
    """An address that is not ours is replaced by the worklist's."""
    assert submit(browser(), "admin", PASSWORD, next=target).headers["location"] == "/"


def test_what_is_typed_as_a_name_is_not_kept(browser: Enter, accounts: None, database: Database) -> None:
    """A password typed into the wrong field stands neither in the audit trail nor among the failures."""
    assert submit(browser(), "my secret password", "x").status_code == 401
    assert submit(browser(), "admin", "x").status_code == 401
    with database.session() as session:
        actors = session.scalars(select(tables.AuditEvent.actor).order_by(tables.AuditEvent.id)).all()
        names = session.scalars(select(tables.LoginFailure.username)).all()
    assert actors == ["unknown account", "admin"]
    assert not any("secret" in name for name in names)
