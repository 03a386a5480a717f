"""The main job, whole: a scan goes in over DICOM, one report comes out, whatever dies or is away in between."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pydicom
import pydicom.encaps
import pytest
from sqlalchemy import select

from deploy.phantom import phantom_study
from fhir_records import tables
from fhir_records.model import DeliveryState, ReadState
from fhir_records.store import studies
from tests.peers import OrthancPeer, dciodvfy, dsrdump, orthanc_server, storescu
from tests.service import Service, running, until


def destination(peer: OrthancPeer) -> str:
    return f"""
[[destination]]
name = "pacs"
ae_title = "{peer.ae_title}"
host = "127.0.0.1"
port = {peer.dicom_port}
timeout_seconds = 30
"""


def send(service: Service, files: list[Path]) -> None:
    """Store the files as a modality does: again, until every one of them has been acknowledged."""
    until(
        lambda: storescu(files, "127.0.0.1", service.dicom_port, called="WETREAD", calling="CT1").status == 0,
        what="an acknowledgement of every object",
    )


def reports(peer: OrthancPeer) -> list[str]:
    with suppress(OSError):
        return peer.instances()
    return []


def read_state(service: Service, study_uid: str) -> str:
    with service.database() as database, database.session() as session:
        row = session.scalar(select(tables.Read).join(tables.Study).where(tables.Study.study_uid == study_uid))
        return row.state.value if row else ""


def stored_sha256(service: Service) -> list[str]:
    with service.database() as database, database.session() as session:
        return [hashlib.sha256(content).hexdigest() for content in session.scalars(select(tables.Document.content))]


def data_set_of(content: bytes) -> bytes:
    return content[144 + int.from_bytes(content[140:144], "little") :]


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancPeer]:
    """An Orthanc that stands in for the PACS."""
    with orthanc_server(tmp_path_factory.mktemp("pacs")) as peer:
        yield peer


@pytest.fixture
def clean_pacs(pacs: OrthancPeer) -> OrthancPeer:
    """The same, running and with nothing in it."""
    with suppress(OSError):
        for study in pacs.studies():
            pacs.rest(f"/studies/{study}", method="DELETE")
    return pacs


def philips(test_data: Path, count: int | None = None) -> list[Path]:
    files = sorted((test_data / "dicom" / "philips_brain_mr").glob("*.dcm"))
    step = max(1, len(files) // count) if count else 1
    return files[::step][:count]


def study_uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).StudyInstanceUID)


@pytest.fixture(scope="module")
def service(
    pacs: OrthancPeer, tmp_path_factory: pytest.TempPathFactory, begun: Callable[[Path], Path]
) -> Iterator[Service]:
    """A running Wetread for the tests that leave it alive."""
    home = begun(tmp_path_factory.mktemp("service") / "home")
    with running(home, destination(pacs), idle=2) as started:
        yield started


def test_a_real_series_becomes_one_report(
    service: Service, clean_pacs: OrthancPeer, test_data: Path, tmp_path: Path
) -> None:
    """170 slices by storescu become one valid TID 1500 SR in the PACS, and the record in FHIR."""
    files = philips(test_data)
    send(service, files)
    (instance,) = until(lambda: reports(clean_pacs), what="the report")
    sr = tmp_path / "sr.dcm"
    sr.write_bytes(clean_pacs.file(instance))
    _check_sr(sr, files)
    _check_fhir(service, study_uid_of(files[0]))
    send(service, files[:40])  # the same images again change nothing
    time.sleep(6)
    assert len(reports(clean_pacs)) == 1
    assert str(pydicom.dcmread(files[0], stop_before_pixels=True).PatientName) not in service.log()


def _check_sr(sr: Path, files: list[Path]) -> None:
    source = dciodvfy(files[0])
    verdict = dciodvfy(sr)
    assert verdict.errors == ()
    assert {line.split("-")[1] for line in verdict.warnings} <= {line.split("-")[1] for line in source.warnings}
    text = dsrdump(sr)
    for words in ("Neoplasm", "Absent", "Probability", "Algorithm Name", "Tracking Unique Identifier", "MR image"):
        assert words.lower() in text.lower(), words
    ds = pydicom.dcmread(sr)
    assert (ds.CompletionFlag, ds.VerificationFlag, ds.PreliminaryFlag) == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")
    assert ds.StudyInstanceUID == study_uid_of(files[0])
    evidence = ds.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
    assert len(evidence) == len(files)
    for keyword in ("Laterality", "StudyComments"):
        assert keyword not in ds
    assert "UNDEFINED" not in str(ds)


def _check_fhir(service: Service, study_uid: str) -> None:
    token = service.run("tokens", "create", "--name", "test", "--scope", "system/*.rs").stdout.strip()
    fhir = httpx.Client(
        base_url=f"{service.url}/fhir", headers={"Authorization": f"Bearer {token}"}, timeout=60, follow_redirects=True
    )
    with fhir:
        found = fhir.get("/ImagingStudy", params={"identifier": f"urn:dicom:uid|urn:oid:{study_uid}"}).json()
        assert found["total"] == 1
        patient = found["entry"][0]["resource"]["subject"]["reference"]
        for kind in ("Observation", "DiagnosticReport"):
            bundle = fhir.get(f"/{kind}", params={"patient": patient, "status": "preliminary"}).json()
            assert bundle["total"] == 1, kind
        observation = fhir.get("/Observation", params={"code": "http://snomed.info/sct|108369006"}).json()
        (coding,) = observation["entry"][0]["resource"]["valueCodeableConcept"]["coding"]
        assert coding["code"] == "272519000"
        assert fhir.get("/metadata").json()["fhirVersion"] == "4.0.1"
    assert httpx.get(f"{service.url}/fhir/Patient").status_code == 401


def test_a_ct_is_refused_in_words(service: Service, clean_pacs: OrthancPeer, test_data: Path, tmp_path: Path) -> None:
    """A study outside the contract has an answer too: refused, with the reason, in record and PACS."""
    ct = test_data / "dicom" / "transfer_syntaxes" / "CTImage.dcm"
    send(service, [ct])
    (instance,) = until(lambda: reports(clean_pacs), what="the report of the refusal")
    assert read_state(service, study_uid_of(ct)) == ReadState.REFUSED
    sr = tmp_path / "refusal.dcm"
    sr.write_bytes(clean_pacs.file(instance))
    items = list(_content_items(pydicom.dcmread(sr)))
    assert any(str(item.get("TextValue", "")).startswith("Not read, because") for item in items)
    assert any("373068000" in str(item.get("ConceptCodeSequence", "")) for item in items)  # SCT: Undetermined
    assert dciodvfy(sr).errors == ()


def _content_items(item: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    for child in item.get("ContentSequence", ()):
        yield child
        yield from _content_items(child)


def test_a_study_without_a_readable_image_is_refused(service: Service, clean_pacs: OrthancPeer, tmp_path: Path) -> None:
    """A study whose images cannot be decoded is answered with a refusal, and stops nobody else's."""
    paths = []
    for number, ds in enumerate(phantom_study(seed=1)[:6]):
        ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 this is no JPEG stream at all"])
        ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
        ds["PixelData"].VR = "OB"
        paths.append(tmp_path / f"{number}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    # DCMTK's storescu looks into the pixels first; ours sends what it is told to.
    sent = service.run("send", *map(str, paths), "--to", f"WETREAD@127.0.0.1:{service.dicom_port}")
    assert sent.returncode == 0, sent.stdout
    until(lambda: read_state(service, study_uid_of(paths[0])) == ReadState.REFUSED, what="the refusal")
    until(lambda: reports(clean_pacs), what="the report of the refusal")


def test_killed_processes_lose_nothing(clean_pacs: OrthancPeer, home: Path, test_data: Path) -> None:
    """Processes killed at random while a series arrives and is read: each report comes once, as first rendered."""
    files = philips(test_data, 60)
    chance = random.Random(3)
    with running(home, destination(clean_pacs), idle=2) as service:
        for part in (files[:20], files[20:40], files[40:]):
            send(service, part)
            for role in ("listen", "work", "web"):
                for pid in service.pids(role):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
        for _ in range(3):
            time.sleep(chance.uniform(0.5, 2.5))
            for pid in service.pids("work"):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        until(lambda: reports(clean_pacs), what="the report")
        time.sleep(6)
        contents = [clean_pacs.file(instance) for instance in reports(clean_pacs)]
        with service.database() as database, database.session() as session:
            study = studies.study_by_uid(session, study_uid_of(files[0]))
            documents = list(session.scalars(select(tables.Document).order_by(tables.Document.id)))
            assert study.image_count == len(files)
            assert len(documents) == study.revision
            assert sorted(data_set_of(content) for content in contents) == sorted(
                data_set_of(document.content) for document in documents
            )


def test_the_whole_service_killed_and_started_again_goes_on(
    clean_pacs: OrthancPeer, home: Path, test_data: Path
) -> None:
    """A power cut between the last image and the report: after the next start the study is complete and read, once."""
    files = philips(test_data, 30)
    service = Service(home, destination(clean_pacs), idle=4)
    service.start()
    try:
        send(service, files)
        service.kill()
        until(lambda: not any(service.pids(role) for role in ("listen", "work", "web")), what="the end of all roles")
        assert reports(clean_pacs) == []
        service.start()
        until(lambda: reports(clean_pacs), what="the report")
        time.sleep(3)
        assert len(reports(clean_pacs)) == 1
    finally:
        service.stop()


def test_a_pacs_that_is_down_gets_the_report_when_it_returns(
    clean_pacs: OrthancPeer, home: Path, test_data: Path
) -> None:
    """A delivery waits while the PACS is away, says so, and goes out byte for byte when it is back."""
    files = philips(test_data, 30)
    clean_pacs.stop()
    try:
        with running(home, destination(clean_pacs)) as service:
            send(service, files)

            def waiting() -> bool:
                with service.database() as database, database.session() as session:
                    row = session.scalar(select(tables.Delivery))
                    return row is not None and row.attempts >= 1 and row.state is DeliveryState.WAITING

            until(waiting, what="an attempt in vain")
            before = stored_sha256(service)
            clean_pacs.start()
            until(lambda: reports(clean_pacs), what="the report")
            (content,) = [clean_pacs.file(instance) for instance in reports(clean_pacs)]
            with service.database() as database, database.session() as session:
                (document,) = session.scalars(select(tables.Document))
                assert data_set_of(content) == data_set_of(document.content)
            assert stored_sha256(service) == before
    finally:
        if clean_pacs.peer is None or not clean_pacs.peer.running:
            clean_pacs.start()


def test_a_database_that_restarts_in_between_costs_nothing(
    clean_pacs: OrthancPeer, home: Path, test_data: Path
) -> None:
    """PostgreSQL killed while images arrive: every image is acknowledged and kept, and the study is read."""
    files = philips(test_data, 40)
    with running(home, destination(clean_pacs), idle=3) as service:
        send(service, files[:20])
        _kill_postmaster(service)
        send(service, files[20:])
        until(lambda: reports(clean_pacs), what="the report")

        def all_there() -> bool:
            with service.database() as database, database.session() as session:
                study = studies.study_by_uid(session, study_uid_of(files[0]))
                reads = session.scalars(select(tables.Read).where(tables.Read.revision == study.revision)).all()
                return study.image_count == len(files) and [read.state for read in reads] == [ReadState.READ]

        until(all_there, what="a read of all images")


def _kill_postmaster(service: Service) -> None:
    pid_file = next(service.home.rglob("postmaster.pid"))
    os.kill(int(pid_file.read_text().splitlines()[0]), signal.SIGKILL)
