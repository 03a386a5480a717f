"""Administration, health, figures, and who may see images."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from dicom_listener.settings import ClientTls, TlsSettings
from fhir_records import tables
from fhir_records.database import Database
from fhir_records.model import DeliveryState, Role, Standing
from fhir_records.store import tokens
from tests import seed
from tests.certificates import authority
from tests.integration.web.forms import LOCAL, Enter, csrf
from web.app import create_app
from web.settings import WebSettings


def test_the_administrator_sees_what_needs_a_person(enter: Enter, database: Database) -> None:
    """Failed reads, refused deliveries, conflicts, quarantine and Orthancs with errors, and the accounts."""
    with database.session() as session:
        seed.every_state(session)
        image = session.scalars(select(tables.Instance).limit(1)).one()
        image.standing = Standing.CONFLICT
        session.add(tables.QuarantinedObject(file_key="q/1", reason="No SOP Instance UID.", caller="CT1", size=12000))
        session.add(tables.OrthancCursor(name="archive", last_change=7, error="It does not answer."))
    client = enter(Role.ADMIN)
    text = client.get("/admin").text
    for words in (
        "killed after 120 s",
        "A700, out of resources",
        "No SOP Instance UID.",
        "12 kB",
        image.sop_uid,
        "It does not answer.",
        "clinician",
    ):
        assert words in text, words
    assert "1 conflict" in client.get("/").text


def test_only_the_administrator_sees_models_on_trial(enter: Enter, database: Database) -> None:
    """What a version on trial said stands on the administration page, and nowhere that a clinician looks."""
    with database.session() as session:
        seeded = seed.read_study(session, 1)
        assert seeded.read_id is not None
        seed.shadow_read(session, seeded.read_id)
    text = enter(Role.ADMIN).get("/admin").text
    assert "brain_mr_tumour 9.9.9" in text
    assert "→ meningioma" in text
    clinician = enter(Role.CLINICIAN)
    assert clinician.get("/admin").status_code == 403
    assert "9.9.9" not in clinician.get("/").text + clinician.get(f"/studies/{seeded.study_uid}").text


def test_the_administrator_sends_what_the_gate_holds(enter: Enter, database: Database) -> None:
    """A held object stands there with its faults; a reason sends it and stands in the audit trail; others may not."""
    with database.session() as session:
        seeded = seed.read_study(session, 1, delivery=DeliveryState.REFUSED)
        assert seeded.document_id is not None
        session.get_one(tables.Document, seeded.document_id).faults = ["Rows is missing; its type is 1."]
    path, reason = f"/admin/documents/{seeded.document_id}/send", "The PACS wants it so."
    clinician = enter(Role.CLINICIAN)
    assert clinician.post(path, data={"csrf_token": csrf(clinician), "reason": reason}).status_code == 403
    client = enter(Role.ADMIN)
    text = client.get("/admin").text
    assert "Rows is missing; its type is 1." in text and path in text
    assert client.post(path, data={"csrf_token": csrf(client), "reason": " "}).status_code == 403
    answer = client.post(path, data={"csrf_token": csrf(client), "reason": reason}, follow_redirects=False)
    assert answer.status_code == 303
    assert path not in client.get("/admin").text
    assert reason in client.get("/admin/audit").text
    with database.session() as session:
        assert session.get_one(tables.Delivery, seeded.delivery_id).state is DeliveryState.WAITING


def test_the_audit_trail_is_paged_newest_first(enter: Enter, database: Database) -> None:
    """A hundred lines a page, each once."""
    client = enter(Role.ADMIN)
    with database.session() as session:
        session.add_all(tables.AuditEvent(actor="ada", action=f"deed {number:03}", detail={}) for number in range(150))
    first = client.get("/admin/audit").text
    older = re.search(r"/admin/audit\?before=\d+", first)
    assert older
    deeds = [re.findall(r"deed (\d+)", text) for text in (first, client.get(older[0]).text)]
    assert deeds[0][0] == "149" and [*deeds[0], *deeds[1]] == [f"{number:03}" for number in reversed(range(150))]


def test_readiness_names_what_is_missing(browser: Enter, settings: WebSettings, database: Database) -> None:
    """Ready on a current schema; 503 naming the part that is not."""
    assert browser().get("/health/ready").json() == {"status": "ready", "faults": {}}
    settings.spool_root.rmdir()
    answer = browser().get("/health/ready")
    assert answer.status_code == 503 and list(answer.json()["faults"]) == ["spool"]
    gone = Database("postgresql://nobody@127.0.0.1:1/nothing")
    client = TestClient(create_app(settings, gone), base_url=LOCAL)
    assert {"database", "schema"} <= set(client.get("/health/ready").json()["faults"])
    assert client.get("/health/live").status_code == 200
    client.cookies.set("wetread", "any")
    answer = client.get("/")
    assert answer.status_code == 503 and "The database does not answer" in answer.text


def test_metrics_are_for_this_machine_or_a_token(browser: Enter, database: Database) -> None:
    """From elsewhere, or through a proxy, only with a token for everything; no patient is named."""
    with database.session() as session:
        seed.every_state(session)
        wide, narrow = (
            tokens.create(session, "prometheus", "system/*.rs"),
            tokens.create(session, "x", "system/Patient.r"),
        )
    text = browser().get("/metrics").text
    assert "wetread_studies 8.0" in text and "Okafor" not in text
    far = browser(client=("10.0.0.9", 4000))
    assert far.get("/metrics").status_code == 403
    assert browser().get("/metrics", headers={"X-Forwarded-For": "10.0.0.9"}).status_code == 403
    assert far.get("/metrics", headers={"Authorization": f"Bearer {narrow}"}).status_code == 403
    assert far.get("/metrics", headers={"Authorization": f"Bearer {wide}"}).status_code == 200


def test_metrics_tell_when_certificates_end(settings: WebSettings, database: Database, tmp_path: Path) -> None:
    """Of each file that can be read the end is told; one that cannot be read has none, and hides no others."""
    ours = authority(tmp_path, days=5)
    files = ClientTls(ca=ours.certificate, crl=ours.revoke())
    broken = TlsSettings(tmp_path / "none.pem", tmp_path / "none.key")
    told = replace(settings, tls_files=(("listener", broken), ("pacs", files)))
    text = TestClient(create_app(told, database), base_url=LOCAL, client=("127.0.0.1", 50000)).get("/metrics").text
    ends = dict(re.findall(r'wetread_certificate_expires_timestamp\{part="(.+)",use="pacs"\} (\S+)', text))
    days = {part: (float(end) - time.time()) / 86400 for part, end in ends.items()}
    assert days == pytest.approx({"authorities": 5, "revoked": 1}, abs=0.01)
    assert 'use="listener"' not in text


def test_images_need_a_log_in_or_a_token_for_them(enter: Enter, browser: Enter, database: Database) -> None:
    """DICOMweb answers people who are logged in, and tokens that cover ImagingStudy."""
    with database.session() as session:
        study = seed.read_study(session, 1)
        right, wrong = (
            tokens.create(session, "ohif", "system/ImagingStudy.rs"),
            tokens.create(session, "y", "system/Patient.r"),
        )
    path = f"/dicom-web/studies/{study.study_uid}/series"
    answer = browser().get(path)
    assert answer.status_code == 401 and "message" in answer.json()
    assert enter().get(path).status_code == 200
    assert browser().get(path, headers={"Authorization": f"Bearer {right}"}).status_code == 200
    assert browser().get(path, headers={"Authorization": f"Bearer {wrong}"}).status_code == 403


def test_a_failure_of_ours_shows_a_reference_and_nothing_else(
    enter: Enter, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page of an unforeseen error names neither its kind nor its text."""
    client = enter()

    def fail(*_: object) -> None:
        raise RuntimeError("Doe^Jane was here")

    monkeypatch.setattr("web.worklist.worklist", fail)
    answer = client.get("/")
    assert answer.status_code == 500
    assert "Doe" not in answer.text and "RuntimeError" not in answer.text
    assert re.search(r"<code>[0-9a-f]{8}</code>", answer.text)


def test_missing_files_are_shown(enter: Enter, database: Database) -> None:
    """An object whose file is gone is named, with the study it belongs to."""
    with database.session() as session:
        study = seed.read_study(session, 1)
        row = session.scalars(select(tables.Instance).where(tables.Instance.study_id == study.study_id).limit(1)).one()
        row.missing_since = row.received_at
        sop_uid = row.sop_uid
    text = enter(Role.ADMIN).get("/admin").text
    assert "missing files" in text and sop_uid in text
