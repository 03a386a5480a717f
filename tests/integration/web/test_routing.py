"""The pages about routing: who may see them, and what they keep."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from sqlalchemy import select

from fhir_records import jobs, tables
from fhir_records.database import Database
from fhir_records.model import DeliveryState, Role
from tests import routed, seed
from tests.integration.web.forms import Enter, csrf

SATURDAY_NIGHT = dt.datetime(2026, 11, 21, 22, 10, tzinfo=routed.ZONE)


@pytest.mark.parametrize("role", [Role.CLINICIAN, Role.RADIOLOGIST])
def test_only_administrators_see_routing(enter: Enter, database: Database, role: Role) -> None:
    """Rules and decisions are the administrators'; others are told that they may not."""
    with database.session() as session:
        uid = seed.add_study(session, 1).study_uid
    client = enter(role)
    for path in ("", f"/studies/{uid}", "/trials/1"):
        assert client.get(f"/admin/routing{path}").status_code == 403
    assert "/admin/routing" not in client.get(f"/studies/{uid}").text


def test_a_study_page_leads_to_the_reasons(enter: Enter, database: Database, tmp_path: Path) -> None:
    """An administrator comes from a study to why it went there; that somebody looked is in the audit trail."""
    (uid,) = routed.some_studies(database, 1)
    routed.route_all(database, tmp_path, SATURDAY_NIGHT)
    client = enter(Role.ADMIN)
    path = f"/admin/routing/studies/{uid}"
    assert path in client.get(f"/studies/{uid}").text
    text = client.get(path).text
    for words in ("nights and weekends", "now.hour &gt;= 18", "&#34;MR knee&#34;", "Asia/Kolkata", "22:10"):
        assert words in text, words
    with database.session() as session:
        seen = session.scalars(select(tables.AuditEvent).where(tables.AuditEvent.action == "routing viewed")).one()
        assert (seen.actor, seen.study_uid) == ("admin", uid)
    assert client.get("/admin/routing/studies/1.2.3").status_code == 404


def test_a_study_without_a_kept_decision_says_so(enter: Enter, database: Database) -> None:
    """It was routed by an older version; the page names the command that explains it now."""
    with database.session() as session:
        uid = seed.add_study(session, 1).study_uid
    assert f"wetread route --dry-run {uid}" in enter(Role.ADMIN).get(f"/admin/routing/studies/{uid}").text


def test_rules_are_asked_to_be_tried(enter: Enter, database: Database) -> None:
    """A trial is a row and a job, with whoever asked; what is not allowed is refused, and needs the page's own form."""
    client = enter(Role.ADMIN)
    form = {"rules": "[[route]]\r\n", "studies": "50"}
    assert client.post("/admin/routing/trials", data=form).status_code == 403
    form["csrf_token"] = csrf(client, "/admin/routing")
    answer = client.post("/admin/routing/trials", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/admin/routing/trials/1")
    assert "under way" in client.get("/admin/routing/trials/1").text
    with database.session() as session:
        row = session.scalars(select(tables.RuleTrial)).one()
        assert (row.rules, row.studies, row.asked_by) == ("[[route]]\n", 50, "admin")
        assert jobs.queue_depths(session) == {("steps", "todo"): 1}
    for studies in ("0", "501", "many"):
        assert client.post("/admin/routing/trials", data={**form, "studies": studies}).status_code == 400
    assert client.get("/admin/routing/trials/2").status_code == 404


def test_rules_from_the_page_are_shown_as_text(enter: Enter, database: Database, tmp_path: Path) -> None:
    """Whatever is written into a rule or comes with a study, nothing of it is markup."""
    routed.some_studies(database, 1)
    with database.session() as session:
        session.get_one(tables.Study, 1).description = "<script>alert(1)</script>"
    rules = '[[route]]\nname = "a"\nwhen = \'study.StudyDescription != "<b>x</b>"\'\nforward_to = ["pacs"]\n'
    routed.route_all(database, tmp_path, SATURDAY_NIGHT, rules)
    client = enter(Role.ADMIN)
    with database.session() as session:
        uid = session.get_one(tables.Study, 1).study_uid
    for path in ("/admin/routing", f"/admin/routing/studies/{uid}"):
        text = client.get(path).text
        assert "<script>alert" not in text and "<b>x" not in text
    assert "&lt;b&gt;x&lt;/b&gt;" in client.get("/admin/routing").text


def test_images_that_were_refused_are_shown_and_tried_again(enter: Enter, database: Database, tmp_path: Path) -> None:
    """They count among what needs a person, with the reason and a button."""
    routed.some_studies(database, 1)
    routed.route_all(database, tmp_path, SATURDAY_NIGHT)
    with database.session() as session:
        row = session.scalars(select(tables.Forward)).one()
        row.state, row.last_error, row.next_attempt_at = DeliveryState.REFUSED, "It answered A900.", None
    client = enter(Role.ADMIN)
    text = client.get("/admin").text
    assert "It answered A900." in text and "0 of 3" in text
    token = csrf(client, "/admin")
    path = "/admin/routing/forwards/1/retry"
    assert client.post(path, data={"csrf_token": token}).status_code == 303
    with database.session() as session:
        assert session.scalars(select(tables.Forward)).one().state is DeliveryState.WAITING
        session.scalars(select(tables.Forward)).one().state = DeliveryState.DELIVERED
    assert client.post(path, data={"csrf_token": token}).status_code == 404
