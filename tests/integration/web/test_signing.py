"""Signing over HTTP: who may, what is answered, and what stands in the trail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.errors import QueryError
from fhir_records.model import Role
from fhir_records.store import destinations, tokens, users
from tests import seed
from tests.integration.web.forms import LOCAL, Enter, csrf


@pytest.fixture
def study(database: Database) -> seed.Seeded:
    """A study that was read."""
    with database.session() as session:
        return seed.read_study(session, 1)


def address(study: seed.Seeded) -> str:
    return f"/api/studies/{study.study_uid}/reads/{study.read_id}/signature"


def token_of(database: Database, username: str, scope: str = tokens.SIGNING_SCOPE) -> dict[str, str]:
    with database.session() as session:
        token = tokens.create(session, f"for {username}", scope, user=users.find(session, username))
    return {"Authorization": f"Bearer {token}"}


def test_a_program_signs_in_a_persons_name(
    browser: Callable[..., TestClient], accounts: None, database: Database, study: seed.Seeded
) -> None:
    """What stands, the signature, what stands then; a second one with the old version is told who was faster."""
    client, headers = browser(LOCAL), token_of(database, "radiologist")
    stands = client.get(address(study), headers=headers).json()
    assert (stands["version"], stands["status"], stands["signed_by"]) == (1, "preliminary", None)
    assert stands["answers"] == ["glioma", "meningioma", "notumor", "pituitary"]
    body = {"version": 1, "act": "correct", "label": "notumor", "note": "Choroid plexus."}
    answer = client.post(address(study), headers=headers, json=body)
    assert answer.status_code == 201
    assert answer.json()["headline"] == "No neoplasm of the brain"
    assert client.get(address(study), headers=headers).json()["signed_by"] == "radiologist"
    late = client.post(address(study), headers=headers, json=body)
    assert late.status_code == 409 and "radiologist has corrected this result meanwhile" in late.json()["message"]
    with database.session() as session:
        rows = session.execute(
            select(tables.AuditEvent.actor, tables.AuditEvent.action).where(tables.AuditEvent.action.like("result %"))
        ).all()
    assert [tuple(row) for row in rows] == [("radiologist", "result corrected")]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"act": "accept"}, 400),
        ({"version": 1, "act": "agree"}, 400),
        ({"version": 1, "act": "accept", "who": "me"}, 400),
        ({"version": 1, "act": "correct", "label": "abscess"}, 400),
        ({"version": 1, "act": "correct", "region": {"sop_instance_uid": "1", "left": 0, "top": 0}}, 400),
        ({"version": 2, "act": "accept"}, 409),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    browser: Callable[..., TestClient],
    accounts: None,
    database: Database,
    study: seed.Seeded,
    body: dict[str, object],
    status: int,
) -> None:
    """A message in words, as JSON."""
    answer = browser(LOCAL).post(address(study), headers=token_of(database, "radiologist"), json=body)
    assert answer.status_code == status and answer.json()["message"]
    with database.session() as session:
        assert len(session.scalars(select(tables.Result)).all()) == 1


def test_only_a_token_for_signing_of_somebody_who_may_signs(
    browser: Callable[..., TestClient], accounts: None, database: Database, study: seed.Seeded
) -> None:
    """Reading tokens, tokens of other roles, none, and wrong ones are turned away; so is that of a closed account."""
    client, body = browser(LOCAL), {"version": 1, "act": "accept"}
    with database.session() as session:
        reading = tokens.create(session, "reader", "system/*.rs")
    for headers in (
        {"Authorization": f"Bearer {reading}"},
        token_of(database, "clinician"),
        token_of(database, "admin"),
    ):
        answer = client.post(address(study), headers=headers, json=body)
        assert answer.status_code == 403, headers
    unknown = {"Authorization": "Bearer wetread_nonsense"}
    assert client.post(address(study), headers=unknown, json=body).status_code == 401
    closed = token_of(database, "radiologist")
    with database.session() as session:
        users.disable(session, "radiologist")
    assert client.post(address(study), headers=closed, json=body).status_code == 403
    assert client.post(address(study), json=body).status_code == 401
    with database.session() as session:
        assert len(session.scalars(select(tables.Result)).all()) == 1


def test_a_signing_scope_needs_a_person(database: Database, accounts: None) -> None:
    """No token without an account gets it, and no other user/ scope is granted."""
    with database.session() as session:
        person = users.find(session, "radiologist")
        with pytest.raises(QueryError, match="needs a person"):
            tokens.create(session, "a", tokens.SIGNING_SCOPE)
        with pytest.raises(QueryError, match="needs a person"):
            tokens.create(session, "b", "user/Observation.u", user=person)
        tokens.create(session, "c", f"{tokens.SIGNING_SCOPE} system/*.rs", user=person)


def test_a_log_in_signs_over_the_api_with_its_csrf_token_only(
    enter: Enter, database: Database, study: seed.Seeded
) -> None:
    """The cookie alone is not enough."""
    client, body = enter(), {"version": 1, "act": "accept"}
    assert client.post(address(study), json=body).status_code == 403
    answer = client.post(address(study), json=body, headers={"X-CSRF-Token": csrf(client)})
    assert answer.status_code == 201


def test_a_form_without_csrf_token_or_role_signs_nothing(enter: Enter, study: seed.Seeded) -> None:
    """Forged requests and other roles get 403."""
    path = f"/studies/{study.study_uid}/reads/{study.read_id}/sign"
    client = enter()
    assert client.post(path, data={"version": "1", "act": "accept"}).status_code == 403
    clinician = enter(Role.CLINICIAN)
    data = {"version": "1", "act": "accept", "csrf_token": csrf(clinician)}
    assert clinician.post(path, data=data).status_code == 403


def test_a_form_signs_once(enter: Enter, database: Database, study: seed.Seeded) -> None:
    """A double click is one signature, and a page in words."""
    client = enter()
    path = f"/studies/{study.study_uid}/reads/{study.read_id}/sign"
    data = {"version": "1", "act": "reject", "note": "Motion.", "csrf_token": csrf(client)}
    first, second = client.post(path, data=data), client.post(path, data=data)
    assert (first.status_code, second.status_code) == (303, 409)
    assert "has rejected this result meanwhile" in second.text
    page = client.get(f"/studies/{study.study_uid}").text
    assert "Rejected by radiologist" in page and "Motion." in page


def test_an_administrator_pauses_and_resumes_a_destination(
    enter: Enter, database: Database, study: seed.Seeded
) -> None:
    """The page says who paused it; others may not; unknown names are not found."""
    assert study.delivery_id
    admin, other = enter(Role.ADMIN), enter()
    token = {"csrf_token": csrf(admin)}
    assert admin.post("/admin/destinations/pacs/pause", data=token).status_code == 303
    assert "paused by admin" in admin.get("/admin").text
    assert admin.post("/admin/destinations/nowhere/pause", data=token).status_code == 404
    assert other.post("/admin/destinations/pacs/resume", data={"csrf_token": csrf(other)}).status_code == 403
    assert admin.post("/admin/destinations/pacs/resume", data=token).status_code == 303
    with database.session() as session:
        assert [line.paused_at for line in destinations.lines(session)] == [None]
