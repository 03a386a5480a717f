"""Consent to training on the pages: who may record it, what is shown, what stands in the record."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest
from sqlalchemy import select

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.model import Role
from fhir_records.store import review_exports
from fhir_records.store.review_exports import ReviewExport
from tests import seed
from tests.integration.web.forms import Enter, csrf

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)


@pytest.fixture
def study(database: Database) -> seed.Seeded:
    """A study that was read."""
    with database.session() as session:
        return seed.read_study(session, 1)


def test_an_administrator_records_what_the_patient_said(enter: Enter, database: Database, study: seed.Seeded) -> None:
    """Said, by whom and when stand on the page and in the trail; a refusal names what has left already."""
    client, path = enter(Role.ADMIN), f"/studies/{study.study_uid}/consent"
    assert f'href="{path}"' in client.get(f"/studies/{study.study_uid}").text
    page = client.get(path).text
    assert "nobody asked" in page and "No case of this patient is exported" in page
    form = {"csrf_token": csrf(client, path), "said_by": "the patient <b>, form 12"}
    assert client.post(path, data={**form, "state": "given"}).status_code == 303
    page = client.get(path).text
    assert "consent given" in page and "form 12" in page and "<b>," not in page and "To be done" not in page
    export = ReviewExport(
        uuid.uuid4(), "brain_mr_tumour", "command line", NOW, "2026-11", {}, (study.result_id or 0,), 2, 0
    )
    with database.session() as session:
        review_exports.add_export(session, export)
    client.post(path, data={**form, "state": "refused"})
    page = client.get(path).text
    assert "To be done" in page and "in 1 export, listed" in page and str(export.export_uid) in page
    with database.session() as session:
        actions = session.scalars(select(tables.AuditEvent.action).order_by(tables.AuditEvent.id)).all()
    assert [action for action in actions if action.startswith("consent to")] == [
        "consent to training given", "consent to training refused",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "data", [{"state": "given", "said_by": " "}, {"state": "unasked", "said_by": "x"}, {"state": "?"}]
)
def test_what_cannot_be_recorded_is_said(enter: Enter, study: seed.Seeded, data: dict[str, str]) -> None:
    """Nobody named, or no answer: a page in words, and nothing is written."""
    client, path = enter(Role.ADMIN), f"/studies/{study.study_uid}/consent"
    answer = client.post(path, data={**data, "csrf_token": csrf(client, path)})
    assert answer.status_code == 400
    assert "nobody asked" in client.get(path).text


@pytest.mark.parametrize("role", [Role.RADIOLOGIST, Role.CLINICIAN])
def test_only_administrators_see_it(enter: Enter, study: seed.Seeded, role: Role) -> None:
    """Others find neither the link nor the page."""
    client, path = enter(role), f"/studies/{study.study_uid}/consent"
    assert path not in client.get(f"/studies/{study.study_uid}").text
    assert client.get(path).status_code == 403


def test_nobody_speaks_for_a_patient_who_is_not_settled(enter: Enter, database: Database) -> None:
    """The page of a held study has no form, and a form that is sent all the same is refused."""
    with database.session() as session:
        uid = seed.add_study(session, 7, hold_reason="Other birth date.").study_uid
    client, path = enter(Role.ADMIN), f"/studies/{uid}/consent"
    page = client.get(path).text
    assert "not settled" in page and "said_by" not in page
    token = csrf(client, "/")
    answer = client.post(path, data={"csrf_token": token, "state": "given", "said_by": "she"})
    assert answer.status_code == 400
