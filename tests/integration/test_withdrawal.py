"""What was rejected or superseded is taken back from wherever it is, and never sent again."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from sqlalchemy import select

from fhir_records import jobs, tables
from fhir_records.database import Database
from fhir_records.errors import NotFound, PeerRefused, PeerUnavailable
from fhir_records.model import Act
from fhir_records.store import destinations, withdrawals
from fhir_records.store.deliveries import ATTEMPT_LEASE
from tests.integration.signed_results import NOW, Bench
from tests.peers import dciodvfy, dsrdump
from workflow.delivery import Deliver
from workflow.withdrawal import BY_HAND, ByDeletion, ByNote


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    """A record without studies."""
    return Bench(database, tmp_path)


@pytest.mark.parametrize(
    ("way", "wrong_patient", "title", "modifier"),
    [
        (ByNote("113037", "111220"), False, "113037", None),
        (ByNote("113001", "111219"), False, "113001", "111219"),
        (ByNote("113001", "111219"), True, "113038", None),
    ],
)
def test_a_rejection_note_takes_a_rejected_report_back(
    bench: Bench, tmp_path: Path, way: ByNote, wrong_patient: bool, title: str, modifier: str | None
) -> None:
    """The note stands in the same study, refers to the report, passes the checkers; its arrival ends the withdrawal."""
    bench.ways["pacs"] = way
    first = bench.read()
    bench.deliver()
    bench.sign(Act.REJECT, wrong_patient=wrong_patient)
    assert bench.states() == ["withdrawal open"]
    bench.withdraw()
    assert bench.states() == ["withdrawal open", "waiting"]
    bench.deliver()
    assert bench.states() == ["withdrawn", "delivered"]
    path = tmp_path / "note.dcm"
    path.write_bytes(bench.sent[-1])
    assert dciodvfy(path).errors == ()
    assert dsrdump(path)
    note, report = dcmread(path), bench.report(first)
    assert note.ConceptNameCodeSequence[0].CodeValue == title
    modifiers = [item.ConceptCodeSequence[0].CodeValue for item in note.ContentSequence if item.ValueType == "CODE"]
    assert modifiers == ([modifier] if modifier else [])
    assert note.StudyInstanceUID == report.StudyInstanceUID and note.PatientID == report.PatientID
    evidence = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert evidence.SeriesInstanceUID == report.SeriesInstanceUID
    assert evidence.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == report.SOPInstanceUID
    assert note.ContentSequence[-1].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == report.SOPInstanceUID


def test_the_same_withdrawal_gives_the_same_note(bench: Bench) -> None:
    """A second attempt writes no second note and sends nothing else."""
    bench.ways["pacs"] = ByNote("113037", "111220")
    bench.read()
    bench.deliver()
    bench.sign(Act.REJECT)
    bench.withdraw()
    bench.withdraw()
    assert bench.states() == ["withdrawal open", "waiting"]


def test_a_superseded_report_is_taken_back_too(bench: Bench) -> None:
    """The unsigned report is deleted, and the signed one is delivered under a UID of its own."""
    deleted: list[str] = []
    bench.ways["pacs"] = ByDeletion(deleted.append)
    first = bench.read()
    bench.deliver()
    signed = bench.sign(Act.ACCEPT)
    bench.withdraw()
    bench.deliver()
    assert deleted == [bench.report(first).SOPInstanceUID]
    assert bench.states() == ["withdrawn", "delivered"]
    assert dcmread(DicomBytesIO(bench.sent[-1])).SOPInstanceUID == bench.report(signed.id).SOPInstanceUID != deleted[0]


@pytest.mark.parametrize(
    "error", [PeerUnavailable("It is away."), PeerRefused("It says no."), RuntimeError("Doe^Jane")]
)
def test_a_withdrawal_in_vain_stays_open_and_is_tried_again(bench: Bench, error: Exception) -> None:
    """Whatever stops it, it is open, says why without anybody's name, and comes due later each time."""

    def delete(_: str) -> None:
        raise error

    bench.ways["pacs"] = ByDeletion(delete)
    bench.read()
    bench.deliver()
    bench.sign(Act.REJECT)
    waits = []
    for _ in range(3):
        bench.withdraw()
        (delivery,) = bench.deliveries()
        assert delivery.state.value == "withdrawal open" and delivery.next_attempt_at is not None
        assert delivery.last_error and "Doe" not in delivery.last_error
        waits.append((delivery.next_attempt_at - NOW).total_seconds())
    assert waits == [5, 10, 20]
    with bench.database.session() as session:
        assert len(withdrawals.take_due(session, NOW.replace(hour=13))) == 1
        assert withdrawals.take_due(session, NOW.replace(hour=13)) == ()
    bench.ways["pacs"] = ByDeletion(lambda uid: None)
    bench.withdraw()
    assert bench.states() == ["withdrawn"]


def test_by_hand_it_is_open_until_somebody_says_that_it_is_done(bench: Bench) -> None:
    """An administrator's word ends it, once, with the name beside it."""
    bench.read()
    bench.deliver()
    bench.sign(Act.REJECT)
    bench.withdraw()
    (delivery,) = bench.deliveries()
    assert (delivery.state.value, delivery.last_error) == ("withdrawal open", BY_HAND)
    with bench.database.session() as session:
        assert [line.delivery_id for line in withdrawals.all_open(session)] == [delivery.id]
        withdrawals.note_done(session, delivery.id, NOW, by="admin")
        with pytest.raises(NotFound):
            withdrawals.note_done(session, delivery.id, NOW, by="other")
    with bench.database.session() as session:
        assert session.scalars(select(tables.Delivery.withdrawn_by)).all() == ["admin"]


def test_what_never_arrived_needs_no_taking_back(bench: Bench) -> None:
    """A report that still waits when it is rejected is not sent, also where "try again" is pressed."""
    bench.read()
    bench.sign(Act.REJECT)
    bench.deliver()
    assert bench.sent == [] and bench.states() == ["filtered"]
    (delivery,) = bench.deliveries()
    with bench.database.session() as session, pytest.raises(NotFound):
        jobs.retry_delivery(session, delivery.id)


def test_a_refused_report_is_never_sent_after_it_was_withdrawn(bench: Bench) -> None:
    """A UID that was withdrawn is not offered again, whoever asks."""
    bench.read()
    (delivery,) = bench.deliveries()

    def refuse(_: bytes) -> tuple[int, str]:
        raise PeerRefused("No.")

    Deliver(bench.database, {"pacs": refuse}, lambda: NOW)(delivery.id)
    bench.sign(Act.REJECT)
    with bench.database.session() as session, pytest.raises(NotFound, match="never sent again"):
        jobs.retry_delivery(session, delivery.id)


@pytest.mark.parametrize("answer", ["success", "silence"])
def test_a_report_that_was_being_sent_when_it_was_rejected_is_taken_back(bench: Bench, answer: str) -> None:
    """The attempt ends after the rejection: it arrived, or may have, so it is to be withdrawn."""
    bench.read()
    (delivery,) = bench.deliveries()

    def send(_: bytes) -> tuple[int, str]:
        bench.sign(Act.REJECT)
        if answer == "silence":
            raise PeerUnavailable("No answer.", maybe_there=True)
        return 0, "success"

    Deliver(bench.database, {"pacs": send}, lambda: NOW)(delivery.id)
    assert bench.states() == ["withdrawal open"]
    with bench.database.session() as session:
        assert jobs.queue_depths(session)[("deliveries", "todo")] == 2  # the first attempt's job, and the withdrawal


def test_an_attempt_that_fails_while_it_is_rejected_needs_no_taking_back(bench: Bench) -> None:
    """The destination was never reached: nothing is there."""
    bench.read()
    (delivery,) = bench.deliveries()

    def send(_: bytes) -> tuple[int, str]:
        bench.sign(Act.REJECT)
        raise PeerUnavailable("Cannot be reached.")

    Deliver(bench.database, {"pacs": send}, lambda: NOW)(delivery.id)
    assert bench.states() == ["filtered"]


def test_an_attempt_whose_worker_died_is_taken_back_when_it_is_surely_over(bench: Bench) -> None:
    """Nobody can say whether the object arrived, so the withdrawal comes due after the attempt's lease."""
    bench.read()
    (delivery,) = bench.deliveries()
    with bench.database.session() as session:
        assert destinations.begin(session, delivery.id, 1, NOW)
    bench.sign(Act.REJECT)
    assert bench.states() == ["withdrawal open"]
    with bench.database.session() as session:
        assert withdrawals.take_due(session, NOW + ATTEMPT_LEASE / 2) == ()
        assert withdrawals.take_due(session, NOW + ATTEMPT_LEASE) == (delivery.id,)


def test_a_note_that_cannot_be_written_says_why(bench: Bench) -> None:
    """A stored document that is damaged leaves the withdrawal open, with the reason."""
    bench.ways["pacs"] = ByNote("113037", "111220")
    bench.read()
    bench.deliver()
    bench.sign(Act.REJECT)
    with bench.database.session() as session:
        session.query(tables.Document).one().content = b"damaged"
    bench.withdraw()
    (delivery,) = bench.deliveries()
    assert delivery.state.value == "withdrawal open" and "cannot be read" in (delivery.last_error or "")


def test_an_attempt_without_an_answer_counts_as_maybe_there(bench: Bench) -> None:
    """The object was sent and the association broke: when it is rejected later, it is withdrawn there all the same."""
    bench.read()
    (delivery,) = bench.deliveries()

    def send(_: bytes) -> tuple[int, str]:
        raise PeerUnavailable("No answer.", maybe_there=True)

    Deliver(bench.database, {"pacs": send}, lambda: NOW)(delivery.id)
    bench.sign(Act.REJECT)
    assert bench.states() == ["withdrawal open"]


def test_a_note_that_is_refused_leaves_the_withdrawal_open(bench: Bench) -> None:
    """The administrator reads what the destination said of the note."""
    bench.ways["pacs"] = ByNote("113037", "111220")
    bench.read()
    bench.deliver()
    bench.sign(Act.REJECT)
    bench.withdraw()

    def refuse(_: bytes) -> tuple[int, str]:
        raise PeerRefused("PACS answered 0122.")

    Deliver(bench.database, {"pacs": refuse}, lambda: NOW)(bench.deliveries()[1].id)
    first, note = bench.deliveries()
    assert (first.state.value, note.state.value) == ("withdrawal open", "refused")
    assert first.last_error == "The rejection note has not arrived there: PACS answered 0122."
