"""The study page, its reports, and "try again"."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from sqlalchemy import delete, select, update

from fhir_records import jobs, tables
from fhir_records.database import Database
from fhir_records.model import Code, DeliveryState, ReadState, Role, SegmentVolume
from tests import seed
from tests.integration.web.forms import Enter, csrf


def test_the_study_page_shows_the_finding_and_what_the_viewer_needs(enter: Enter, database: Database) -> None:
    """Headline, probability, limits, alternatives, standing, statement; key images for the viewer."""
    with database.session() as session:
        study = seed.read_study(session, 1)
    text = enter().get(f"/studies/{study.study_uid}").text
    for words in (
        "Glioma of the brain: present, probability 93\u00a0%",
        "not signed by a person",
        "this study names none",
        "No neoplasm",
        "Not a certified medical device.",
        "Brain MR tumour, version 1.0.0",
        "Image 2 of series 1 (T1 axial)",
        f'data-study-uid="{study.study_uid}"',
        f"/studies/{study.study_uid}/sr/{study.document_id}/text",
        "delivered",
    ):
        assert words in text, words
    keys = re.search(r"data-key-images='([^']+)'", text)
    assert keys and f"{study.study_uid}.1.2" in keys[1] and "&#34;frame&#34;: null" in keys[1]


def test_the_study_page_says_what_is_outlined_and_how_large(enter: Enter, database: Database) -> None:
    """Each thing that the model outlined stands there with its volume; without outlines nothing does."""
    with database.session() as session:
        plain, study = seed.read_study(session, 1), seed.add_study(session, 2)
        site, kind = Code("SCT", "12738006", "Brain"), Code("SCT", "49755003", "Morphologically abnormal structure")
        core = SegmentVolume(
            "core", "Tumour core", seed.GLIOMA, kind, site, (246, 186, 70), 9234.5, "tiny core", "2.25.9"
        )
        finding = replace(seed.glioma(study), segments=(core, replace(core, wording="Edema", volume_mm3=51_000.0)))
        seed.add_result(session, seed.add_read(session, study, ReadState.READ), finding=finding)
        study_uid = study.study_uid
    text = enter().get(f"/studies/{study_uid}").text
    for words in ("Outlined by the model", ">tumour core 9.2 mL</a></li>", ">edema 51.0 mL</a></li>"):
        assert words in text, words
    assert "Outlined by the model" not in enter().get(f"/studies/{plain.study_uid}").text


def test_every_view_of_a_study_is_written_down_once(enter: Enter, database: Database) -> None:
    """Opening the page is one row with who and which; its refreshing adds none."""
    with database.session() as session:
        study = seed.read_study(session, 1)
    client = enter()
    client.get(f"/studies/{study.study_uid}")
    for _ in range(3):
        client.get(f"/studies/{study.study_uid}/finding", headers={"HX-Request": "true"})
    with database.session() as session:
        rows = session.scalars(select(tables.AuditEvent).where(tables.AuditEvent.action == "study viewed")).all()
    assert [(row.actor, row.study_uid) for row in rows] == [("radiologist", study.study_uid)]


def test_a_study_that_is_not_there_is_a_page_in_words(enter: Enter) -> None:
    """404 with a way out."""
    answer = enter().get("/studies/1.2.3")
    assert answer.status_code == 404 and "There is no such study." in answer.text and 'href="/"' in answer.text


def test_the_report_is_downloaded_as_stored_and_read_as_text(enter: Enter, database: Database, tmp_path: Path) -> None:
    """The bytes are the stored ones; the text shows finding and probability from these bytes."""
    with database.session() as session:
        study = seed.read_study(session, 1)
        evidence = seed.write_images(tmp_path, session, study.study_id)
        assert study.result_id and study.document_id
        content = seed.rendered_report(session, study.result_id, evidence)
        session.get_one(tables.Document, study.document_id).content = content
        other = seed.read_study(session, 2)
    client = enter()
    answer = client.get(f"/studies/{study.study_uid}/sr/{study.document_id}")
    assert answer.content == content and answer.headers["content-type"] == "application/dicom"
    text = client.get(f"/studies/{study.study_uid}/sr/{study.document_id}/text").text
    for words in ("Imaging Measurement Report", "Glioma", "Probability", "93.1", "Present", "unverified"):
        assert words in text, words
    assert client.get(f"/studies/{other.study_uid}/sr/{study.document_id}").status_code == 404


def test_a_failed_read_is_tried_again(enter: Enter, database: Database) -> None:
    """The button queues the read anew; a clinician has no such button and no such right."""
    with database.session() as session:
        study = seed.add_study(session, 1)
        read = seed.add_read(session, study, ReadState.FAILED, error="The model's process was killed after 120 s.")
        path, read_id = f"/studies/{study.study_uid}", read.id
    clinician = enter(Role.CLINICIAN)
    assert "Try again" not in clinician.get(path).text
    assert clinician.post(f"{path}/reads/{read_id}/retry", data={"csrf_token": csrf(clinician)}).status_code == 403
    client = enter()
    assert "killed after 120 s" in client.get(path).text and "Try again" in client.get(path).text
    answer = client.post(f"{path}/reads/{read_id}/retry", data={"csrf_token": csrf(client)})
    assert (answer.status_code, answer.headers["location"]) == (303, path)
    with database.session() as session:
        assert session.get_one(tables.Read, read_id).state is ReadState.QUEUED
        assert jobs.queue_depths(session)[("reads", "todo")] == 1


def test_a_refused_delivery_is_tried_again(enter: Enter, database: Database) -> None:
    """The delivery waits again, and its attempt is asked for."""
    with database.session() as session:
        study = seed.read_study(session, 1, delivery=DeliveryState.REFUSED)
    client = enter()
    path = f"/studies/{study.study_uid}"
    client.post(f"{path}/deliveries/{study.delivery_id}/retry", data={"csrf_token": csrf(client)})
    with database.session() as session:
        assert session.get_one(tables.Delivery, study.delivery_id).state is DeliveryState.WAITING


def test_a_study_that_is_arriving_is_read_now(enter: Enter, database: Database) -> None:
    """The button makes a revision of what is there and asks for its routing; a clinician has no such button."""
    with database.session() as session:
        study = seed.add_study(session, 1)
        study.open_since = study.last_arrival_at
        study.revision = 0
        session.execute(delete(tables.RevisionInstance))
        session.execute(delete(tables.Revision))
        path = f"/studies/{study.study_uid}"
    clinician = enter(Role.CLINICIAN)
    assert "Read it now" not in clinician.get(path).text
    assert clinician.post(f"{path}/read-now", data={"csrf_token": csrf(clinician)}).status_code == 403
    client = enter()
    assert "Read it now" in client.get(path).text
    assert client.post(f"{path}/read-now", data={"csrf_token": csrf(client)}).status_code == 303
    with database.session() as session:
        revision = session.scalars(select(tables.Revision)).one()
        queued = jobs.queue_depths(session)
    assert (revision.number, revision.reason) == (1, "a person asked for it to be read now")
    assert queued == {("steps", "todo"): 1}
    assert "Read it now" not in client.get(path).text


def test_a_study_of_which_less_came_than_was_expected_says_so(enter: Enter, database: Database) -> None:
    """The page names how much is there, of how much."""
    with database.session() as session:
        study = seed.read_study(session, 1)
        session.execute(update(tables.Revision).values(arrived=118, expected=120))
    assert "118 of 120 expected objects" in enter().get(f"/studies/{study.study_uid}").text
