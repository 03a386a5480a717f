"""A report goes to each destination in the best SR class that it takes, and everything refers to what is there."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import select

from fhir_records import jobs, tables
from fhir_records.database import Database
from fhir_records.errors import PeerRefused, PeerUnavailable
from fhir_records.model import Act
from fhir_records.store import destinations, report_classes
from tests import seed
from tests.integration.signed_results import NOW, Bench
from tests.integration.sr_classes import COMPREHENSIVE, COMPREHENSIVE_3D, ENHANCED, Picky, Way
from workflow.withdrawal import ByNote

EVERY = {COMPREHENSIVE_3D, COMPREHENSIVE, ENHANCED}


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    """A record without studies."""
    return Bench(database, tmp_path)


@pytest.mark.parametrize(
    ("takes", "offered", "states"),
    [
        (EVERY, [COMPREHENSIVE_3D], ["delivered"]),
        ({COMPREHENSIVE, ENHANCED}, [COMPREHENSIVE_3D, COMPREHENSIVE], ["filtered", "delivered"]),
        ({ENHANCED}, [COMPREHENSIVE_3D, COMPREHENSIVE, ENHANCED], ["filtered", "filtered", "delivered"]),
        (set(), [COMPREHENSIVE_3D, COMPREHENSIVE, ENHANCED], ["filtered", "filtered", "refused"]),
    ],
)
def test_the_best_class_that_is_taken(bench: Bench, takes: set[str], offered: list[str], states: list[str]) -> None:
    """Each class is offered once, in order, until one is taken; one object arrives, or a person sees the refusal."""
    pacs = Picky(takes)
    way = Way(bench, {"pacs": pacs})
    bench.read()
    way.deliver()
    assert pacs.offered == offered
    assert [state for _, _, state in way.lines()] == states
    assert [ds.SOPClassUID for ds in pacs.documents()] == ([offered[-1]] if takes else [])


def test_what_was_learnt_is_used_and_looked_at_again_after_a_day(bench: Bench) -> None:
    """The next result is offered as what is taken; a day later the better class is tried again, and taken."""
    pacs = Picky({ENHANCED})
    way = Way(bench, {"pacs": pacs})
    bench.read()
    way.deliver()
    pacs.offered.clear()
    bench.read_again(new_images=True)
    way.deliver()
    assert pacs.offered == [ENHANCED]
    pacs.offered.clear()
    pacs.takes = set(EVERY)
    way.now = NOW + report_classes.LOOK_AGAIN
    bench.read_again(new_images=True)
    way.deliver()
    assert pacs.offered == [COMPREHENSIVE_3D]
    with bench.database.session() as session:
        assert {line.sop_class_uid for line in report_classes.lines(session)} == {COMPREHENSIVE}


def test_nothing_is_learnt_from_another_refusal(bench: Bench) -> None:
    """A failure that says nothing of the class stays a refusal of this object, in this class."""
    bench.read()

    def refuse(_: bytes) -> tuple[int, str]:
        raise PeerRefused("It answered A900.", status=0xA900)

    way = Way(bench, {"pacs": refuse})
    way.deliver()
    assert way.lines() == [(COMPREHENSIVE_3D, "pacs", "refused")]
    with bench.database.session() as session:
        assert report_classes.lines(session) == ()


def test_a_site_fixes_the_class(bench: Bench) -> None:
    """Where the configuration names one class, no other is offered, from the first result on."""
    pacs = Picky(set(EVERY))
    way = Way(bench, {"pacs": pacs}, {"pacs": (ENHANCED,)})
    bench.read()
    way.deliver()
    assert pacs.offered == [ENHANCED]
    pacs.takes.clear()
    bench.read_again(new_images=True)
    way.deliver()
    assert pacs.offered == [ENHANCED, ENHANCED]
    assert way.lines()[-1] == (ENHANCED, "pacs", "refused")


def test_try_again_begins_with_the_first_class(bench: Bench) -> None:
    """Where every class was refused and the PACS has learnt one since, "try again" finds it."""
    pacs = Picky(set())
    way = Way(bench, {"pacs": pacs})
    bench.read()
    way.deliver()
    pacs.offered.clear()
    pacs.takes = {COMPREHENSIVE}
    refused = next(one for one in bench.deliveries() if one.state.value == "refused")
    with bench.database.session() as session:
        jobs.retry_delivery(session, refused.id)
    way.deliver()
    assert pacs.offered == [COMPREHENSIVE_3D, COMPREHENSIVE]
    assert way.lines() == [
        (COMPREHENSIVE_3D, "pacs", "filtered"),
        (COMPREHENSIVE, "pacs", "delivered"),
        (ENHANCED, "pacs", "filtered"),
    ]


def test_a_stand_in_says_the_same_under_its_own_uids(bench: Bench) -> None:
    """But for class and UIDs, every element is the one that was rendered."""
    pacs = Picky({COMPREHENSIVE})
    first = bench.read()
    Way(bench, {"pacs": pacs}).deliver()
    (got,), rendered = pacs.documents(), bench.report(first)
    assert {got.SOPInstanceUID, got.SeriesInstanceUID}.isdisjoint({rendered.SOPInstanceUID, rendered.SeriesInstanceUID})
    differing = {element.keyword for element in got if element != rendered[element.tag]}
    assert differing == {"SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"}
    assert [element.tag for element in got] == [element.tag for element in rendered]


def test_predecessors_are_those_that_the_destination_has(bench: Bench) -> None:
    """A signed report names the report that this PACS got before it, and no other PACS's."""
    old, new = Picky({ENHANCED}), Picky(set(EVERY))
    bench.releases = {"pacs": "at_once", "new": "at_once"}
    way = Way(bench, {"pacs": old, "new": new})
    first = bench.read()
    with bench.database.session() as session:
        document = session.scalars(select(tables.Document)).one()
        session.add(tables.Delivery(document_id=document.id, destination="new", next_attempt_at=NOW))
        session.get_one(tables.Read, bench.read_id).results_to = ["pacs", "new"]
    way.deliver()
    signed = bench.sign(Act.ACCEPT)
    way.deliver()
    for pacs in (old, new):
        before, after = pacs.documents()
        series = after.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0]
        (reference,) = series.ReferencedSOPSequence
        assert (reference.ReferencedSOPInstanceUID, series.SeriesInstanceUID, reference.ReferencedSOPClassUID) == (
            before.SOPInstanceUID,
            before.SeriesInstanceUID,
            before.SOPClassUID,
        )
        assert after.VerificationFlag == "VERIFIED" and after.VerifyingObserverSequence
    assert new.documents()[1].SOPInstanceUID == bench.report(signed.id).SOPInstanceUID
    assert new.documents()[0].SOPInstanceUID == bench.report(first).SOPInstanceUID


def test_a_pacs_that_learns_a_class_gets_predecessors_that_it_has(bench: Bench) -> None:
    """The signed report goes as Comprehensive 3D SR and names the Enhanced SR that was sent before."""
    pacs = Picky({ENHANCED})
    way = Way(bench, {"pacs": pacs})
    bench.read()
    way.deliver()
    pacs.takes = set(EVERY)
    way.now = NOW + dt.timedelta(days=2)
    signed = bench.sign(Act.ACCEPT)
    way.deliver()
    before, after = pacs.documents()
    assert (before.SOPClassUID, after.SOPClassUID) == (ENHANCED, COMPREHENSIVE_3D)
    (series,) = after.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert after.SOPInstanceUID != bench.report(signed.id).SOPInstanceUID  # other bytes, so another object


def test_a_rejection_takes_back_what_is_there(bench: Bench) -> None:
    """The note rejects the Enhanced SR that the PACS has, not the report that it never took."""
    bench.ways["pacs"] = ByNote("113037", "111220")
    pacs = Picky({ENHANCED, "1.2.840.10008.5.1.4.1.1.88.59"})
    way = Way(bench, {"pacs": pacs})
    bench.read()
    way.deliver()
    bench.sign(Act.REJECT)
    assert bench.states() == ["filtered", "filtered", "withdrawal open"]
    bench.withdraw()
    way.deliver()
    assert bench.states() == ["filtered", "filtered", "withdrawn", "delivered"]
    report, note = pacs.documents()
    evidence = note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    (reference,) = evidence.ReferencedSOPSequence
    assert (reference.ReferencedSOPInstanceUID, reference.ReferencedSOPClassUID) == (report.SOPInstanceUID, ENHANCED)
    assert evidence.SeriesInstanceUID == report.SeriesInstanceUID


def test_a_report_that_was_rejected_meanwhile_gets_no_stand_in(bench: Bench) -> None:
    """The class is refused while a person rejects the result: nothing more is sent."""
    bench.read()
    offered: list[bytes] = []

    def refuse(content: bytes) -> tuple[int, str]:
        offered.append(content)
        bench.sign(Act.REJECT)
        raise PeerRefused("It does not take this kind of object.", status=0x0122)

    way = Way(bench, {"pacs": refuse})
    way.deliver()
    assert (len(offered), bench.states()) == (1, ["filtered"])


def test_what_may_be_there_is_not_sent_as_another_object(bench: Bench) -> None:
    """After an attempt without an answer the report stays what it is, though its class was refused meanwhile."""
    bench.read()

    def silent(_: bytes) -> tuple[int, str]:
        raise PeerUnavailable("No answer.", maybe_there=True)

    way = Way(bench, {"pacs": silent})
    way.deliver()
    with bench.database.session() as session:
        report_classes.note_refused(session, "pacs", COMPREHENSIVE_3D, NOW)
    pacs = Picky(set(EVERY))
    way = Way(bench, {"pacs": pacs})
    way.deliver()
    assert pacs.offered == [COMPREHENSIVE_3D]


def test_reports_that_wait_learn_from_the_first(bench: Bench) -> None:
    """A PACS comes back after its absence: one report finds out what it takes, the others go so at once."""

    def away(_: bytes) -> tuple[int, str]:
        raise PeerUnavailable("It cannot be reached.")

    for number in (1, 2, 3):
        with bench.database.session() as session:
            study = seed.add_study(session, number)
            bench.study_uid, bench.study_id = study.study_uid, study.id
            seed.write_images(bench.root, session, study.id)
        bench.read_again()
    Way(bench, {"pacs": away}).deliver()
    pacs = Picky({COMPREHENSIVE})
    Way(bench, {"pacs": pacs}, now=NOW + dt.timedelta(hours=1)).deliver()
    assert pacs.offered == [COMPREHENSIVE_3D, COMPREHENSIVE, COMPREHENSIVE, COMPREHENSIVE]
    assert len(pacs.held) == 3


def test_the_same_bytes_however_often(bench: Bench) -> None:
    """A stand-in that is tried twice is the same object, rendered once."""
    pacs = Picky({ENHANCED})
    sent: list[bytes] = []

    def flaky(content: bytes) -> tuple[int, str]:
        if dcmread(io.BytesIO(content)).SOPClassUID == ENHANCED:
            sent.append(content)
            if len(sent) < 3:
                raise PeerUnavailable("It is full.", status=0xA700)
        return pacs(content)

    way = Way(bench, {"pacs": flaky})
    bench.read()
    for minutes in range(3):
        way.now = NOW + dt.timedelta(minutes=minutes)
        way.deliver()
    assert len(sent) == 3 and len(set(sent)) == 1
    with bench.database.session() as session:
        stored = session.scalars(select(tables.Document.content).where(tables.Document.sop_class_uid == ENHANCED)).all()
    assert stored == [sent[0]]


def test_a_fallback_destination_gets_its_own_class(bench: Bench) -> None:
    """What waits too long for one PACS as Enhanced SR goes to the other one as the report that was rendered."""

    def old(content: bytes) -> tuple[int, str]:
        if dcmread(io.BytesIO(content)).SOPClassUID != ENHANCED:
            raise PeerRefused("It does not take this kind of object.", status=0x0122)
        raise PeerUnavailable("It is full.", status=0xA700)

    other = Picky(set(EVERY))
    way = Way(bench, {"pacs": old, "other": other})
    first = bench.read()
    way.deliver()
    with bench.database.session() as session:
        fallbacks = {"pacs": destinations.Fallback("other", dt.timedelta(hours=1))}
        destinations.fall_back(session, fallbacks, dt.datetime.now(dt.UTC) + dt.timedelta(hours=2))
    way.deliver()
    (got,) = other.documents()
    assert got.SOPInstanceUID == bench.report(first).SOPInstanceUID
    assert (COMPREHENSIVE_3D, "other", "delivered") in way.lines()


def test_the_trail_says_in_which_class_it_went(bench: Bench) -> None:
    """Each change of class is a line of the audit trail, with both names."""
    bench.read()
    Way(bench, {"pacs": Picky({ENHANCED})}).deliver()
    with bench.database.session() as session:
        rows = session.scalars(
            select(tables.AuditEvent.detail).where(tables.AuditEvent.action == "report class changed")
        ).all()
    said = [(row["from"], row["to"]) for row in rows]
    assert said == [("Comprehensive 3D SR", "Comprehensive SR"), ("Comprehensive SR", "Enhanced SR")]


def test_a_report_with_a_name_of_its_own_goes_as_it_is(bench: Bench) -> None:
    """Where there is no common document to make another of, the one that waits is sent."""
    bench.read()
    with bench.database.session() as session:
        session.scalars(select(tables.Document)).one().variant = "its own"
    pacs = Picky(set(EVERY))
    way = Way(bench, {"pacs": pacs})
    way.deliver()
    assert way.lines() == [(COMPREHENSIVE_3D, "pacs", "delivered")]
