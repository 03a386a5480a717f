"""The rendering job: what each destination gets, what the conformance gate holds, and how it is let go."""

from __future__ import annotations

import datetime as dt
import io
import uuid
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from fhir_records import jobs, tables
from fhir_records.database import Database
from fhir_records.errors import NotAllowed, NotFound, PixelsNotReadable
from fhir_records.model import DeliveryState, Installation, ReadState
from fhir_records.renderings.kinds import KIND_OF_WORD
from fhir_records.store import attention, deliveries, saliency
from tests import seed
from tests.integration.object_sources import blob
from workflow import rendering
from workflow.delivery import Deliver
from workflow.rendering import RenderResult

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
EVERY = frozenset(KIND_OF_WORD.values())


@pytest.fixture
def result_id(database: Database, tmp_path: Path) -> int:
    """A read study with images, maps and two destinations, that nothing was rendered of."""
    with database.session() as session:
        study = seed.add_study(session, 1)
        read = seed.add_read(session, study, ReadState.READ)
        read.results_to = ["pacs", "old pacs"]
        finding = seed.glioma(study)
        result = seed.add_result(session, read, finding=finding)
        seed.write_images(tmp_path, session, study.id)
        saliency.add_maps(session, read.id, [blob(image, "glioma") for image in finding.key_images])
        return result.id


def render(
    database: Database,
    folder: Path,
    result_id: int,
    objects: Mapping[str, frozenset[str]],
    releases: Mapping[str, str] | None = None,
    **more: object,
) -> None:
    RenderResult(
        database=database,
        installation=Installation(uuid.UUID(int=7), "For evaluation."),
        path_of=lambda key: folder / key,
        now=lambda: NOW,
        releases=releases or {},
        objects=objects,
        **more,  # type: ignore[arg-type]
    )(result_id)


def states(database: Database) -> dict[tuple[str, str], DeliveryState]:
    """The state of each delivery, by kind and destination."""
    with database.session() as session:
        rows = session.query(tables.Delivery).all()
        return {(row.document.kind, row.destination): row.state for row in rows}


def documents(database: Database) -> dict[str, Dataset]:
    """What was rendered, by kind."""
    with database.session() as session:
        return {row.kind: dcmread(io.BytesIO(row.content)) for row in session.query(tables.Document).all()}


def test_each_destination_gets_what_it_chose(database: Database, tmp_path: Path, result_id: int) -> None:
    """A PACS gets every kind; one that is not configured gets the report, and the rest is filtered there."""
    render(database, tmp_path, result_id, {"pacs": EVERY})
    found = states(database)
    kinds = {kind for kind, _ in found}
    assert {"dicom_sr", "secondary_capture", "parametric_map", "key_objects"} <= kinds
    assert {state for (_, to), state in found.items() if to == "pacs"} == {DeliveryState.WAITING}
    assert found["dicom_sr", "old pacs"] is DeliveryState.WAITING
    assert {found[kind, "old pacs"] for kind in kinds - {"dicom_sr"}} == {DeliveryState.FILTERED}
    with database.session() as session:
        assert all(not row.faults for row in session.query(tables.Document).all())


def test_the_report_alone_where_nothing_is_chosen(database: Database, tmp_path: Path, result_id: int) -> None:
    """Without a choice there is one document, and a second run of the job changes nothing."""
    render(database, tmp_path, result_id, {})
    render(database, tmp_path, result_id, {"pacs": EVERY})
    assert set(documents(database)) == {"dicom_sr"}


def test_the_map_and_the_key_image_are_those_of_the_read(database: Database, tmp_path: Path, result_id: int) -> None:
    """The stored maps come out as they went in, and the page names its key image."""
    render(database, tmp_path, result_id, {"pacs": EVERY})
    found = documents(database)
    ds = found["parametric_map"]
    values = np.frombuffer(ds.FloatPixelData, "<f4").reshape(ds.NumberOfFrames, ds.Rows, ds.Columns)
    assert ds.NumberOfFrames == 2 and values.max() == pytest.approx(3.2, rel=0.02)
    page = found["secondary_capture"]
    assert page.SourceImageSequence[0].ReferencedSOPInstanceUID.endswith(".2")
    assert page.pixel_array.shape == (1024, 1024, 3)


def test_a_key_image_that_cannot_be_decoded(database: Database, tmp_path: Path, result_id: int) -> None:
    """The page comes out without a picture, and says so in place of it."""

    def fail(path: Path, frame: int) -> np.ndarray:
        raise PixelsNotReadable

    render(database, tmp_path, result_id, {"pacs": EVERY}, display=fail)
    assert "SourceImageSequence" not in documents(database)["secondary_capture"]


def test_unsigned_objects_wait_for_a_signature(database: Database, tmp_path: Path, result_id: int) -> None:
    """A destination that wants signed results gets none of the kinds yet."""
    render(database, tmp_path, result_id, {"pacs": EVERY, "old pacs": EVERY}, {"pacs": "after_signing"})
    with database.session() as session:
        rows = session.query(tables.Delivery).filter_by(destination="pacs").all()
        assert rows and all(deliveries.delivery_record(row).is_held for row in rows)


@pytest.fixture
def held(database: Database, tmp_path: Path, result_id: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """The number of a document that the gate holds."""
    right = rendering.faults_of
    fault = "Rows is missing; its type is 1."
    is_ko = b"\x08\x00\x60\x00CS\x02\x00KO"
    monkeypatch.setattr(rendering, "faults_of", lambda made: (fault, "x") if is_ko in made else right(made))
    render(database, tmp_path, result_id, {"pacs": EVERY})
    with database.session() as session:
        return session.query(tables.Document).filter_by(kind="key_objects").one().id


def attempt(database: Database, document_id: int) -> list[bytes]:
    """What leaves when the document's delivery to the PACS is attempted."""
    sent: list[bytes] = []

    def send(content: bytes) -> tuple[int, str]:
        sent.append(content)
        return 0, "success"

    with database.session() as session:
        delivery_id = session.query(tables.Delivery).filter_by(document_id=document_id, destination="pacs").one().id
    Deliver(database, {"pacs": send}, lambda: NOW)(delivery_id)
    return sent


def test_what_the_gate_holds_does_not_leave(database: Database, held: int) -> None:
    """It is refused with its reason before any attempt; the other objects go their way."""
    found = states(database)
    assert found["key_objects", "pacs"] is DeliveryState.REFUSED
    assert found["dicom_sr", "pacs"] is DeliveryState.WAITING
    with database.session() as session:
        row = session.query(tables.Delivery).filter_by(document_id=held, destination="pacs").one()
        assert row.last_error == "Held by the conformance gate: Rows is missing; its type is 1. And 1 more."
        (line,) = attention.held_objects(session)
        assert (line.document_id, line.kind, line.destinations) == (held, "key_objects", ("pacs",))
        assert (attention.counts(session).held_objects, attention.counts(session).refused) == (1, 0)


def test_nobody_gets_round_the_gate(database: Database, held: int) -> None:
    """Neither "try again" nor a delivery that became due by another way sends a held object."""
    with database.session() as session:
        row = session.query(tables.Delivery).filter_by(document_id=held, destination="pacs").one()
        with pytest.raises(NotFound, match="conformance gate"):
            jobs.retry_delivery(session, row.id)
        row.state, row.next_attempt_at = DeliveryState.WAITING, NOW
    assert attempt(database, held) == []
    assert states(database)["key_objects", "pacs"] is DeliveryState.REFUSED


def test_an_administrator_lets_it_go_and_says_why(database: Database, held: int) -> None:
    """With a reason it is sent, as it was rendered; without one it is not, and a second time there is nothing to do."""
    with database.session() as session, pytest.raises(NotAllowed):
        jobs.release_document(session, held, by="ada", reason="  ")
    with database.session() as session:
        jobs.release_document(session, held, by="ada", reason="The PACS wants it so.")
        content = session.get_one(tables.Document, held).content
    assert attempt(database, held) == [content]
    with database.session() as session:
        row = session.get_one(tables.Document, held)
        assert (row.released_by, row.release_reason) == ("ada", "The PACS wants it so.")
        assert attention.held_objects(session) == ()
        with pytest.raises(NotFound):
            jobs.release_document(session, held, by="ada", reason="Again.")
