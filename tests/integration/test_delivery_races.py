"""Two things at once: attempts that overlap, end too late or never, while people withdraw, pause and resume."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import text

from fhir_records import jobs, tables
from fhir_records.database import Database
from fhir_records.errors import PeerRefused, PeerUnavailable
from fhir_records.model import Act, Delivery, DeliveryState
from fhir_records.store import confirmations, deliveries, destinations, withdrawals
from fhir_records.store.deliveries import ATTEMPT_LEASE
from fhir_records.store.destinations import Fallback
from tests.integration.signed_results import INSTALLATION, NOW, Bench
from tests.peers import wait_until
from workflow.delivery import Deliver
from workflow.withdrawal import ByDeletion, ByNote, Withdraw

LATER = NOW + dt.timedelta(hours=1)
AWAY = PeerUnavailable("pacs cannot be reached.")
SILENCE = PeerUnavailable("No answer.", maybe_there=True)
REFUSED = PeerRefused("No.", status=0xC000)


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    """A record with one read study whose report waits for the destination `pacs`."""
    made = Bench(database, tmp_path)
    made.read()
    return made


def attempt(
    bench: Bench,
    answer: Exception | None = None,
    *,
    meanwhile: Callable[[], object] = lambda: None,
    at: dt.datetime = NOW,
    number: int = 0,
) -> None:
    """One attempt of the delivery with this place in the list; something else happens before its answer comes."""

    def send(_: bytes) -> tuple[int, str]:
        meanwhile()
        if answer is not None:
            raise answer
        return 0, "success"

    Deliver(bench.database, {"pacs": send}, lambda: at, {"pacs": 5})(bench.deliveries()[number].id)


def die(bench: Bench, at: dt.datetime = NOW) -> None:
    """An attempt begins, and its worker dies in it."""
    with bench.database.session() as session:
        assert destinations.begin(session, bench.deliveries()[0].id, 5, at)


def reject(bench: Bench) -> None:
    bench.sign(Act.REJECT)


def end_by_hand(bench: Bench) -> None:
    with bench.database.session() as session:
        withdrawals.note_done(session, bench.deliveries()[0].id, NOW, by="admin")


def asked(bench: Bench) -> int:
    """How many jobs of deliveries and withdrawals were asked for."""
    with bench.database.session() as session:
        return jobs.queue_depths(session)[("deliveries", "todo")]


def first(bench: Bench) -> Delivery:
    return bench.deliveries()[0]


def test_what_a_dead_worker_may_have_brought_is_not_forgotten(bench: Bench) -> None:
    """Its attempt may have arrived; that the next one reaches nobody proves nothing, and the object is taken back."""
    die(bench)
    attempt(bench, AWAY, at=LATER)
    reject(bench)
    assert bench.states() == ["withdrawal open"]


def test_what_arrives_after_it_was_taken_back_is_taken_back_again(bench: Bench) -> None:
    """An attempt ends long after the withdrawal: the object is there now, whatever was said before."""

    def meanwhile() -> None:
        reject(bench)
        end_by_hand(bench)

    attempt(bench, meanwhile=meanwhile)
    assert bench.states() == ["withdrawal open"]
    assert first(bench).withdrawn_at is None


def test_an_attempt_in_vain_does_not_open_what_was_taken_back(bench: Bench) -> None:
    """It brought nothing there."""
    attempt(bench, SILENCE)

    def meanwhile() -> None:
        reject(bench)
        end_by_hand(bench)

    attempt(bench, AWAY, meanwhile=meanwhile)
    assert bench.states() == ["withdrawn"]


def test_nothing_is_taken_back_while_it_is_still_being_sent(bench: Bench) -> None:
    """An earlier attempt may have arrived, and another is under way: it is deleted after that one has ended."""
    attempt(bench, SILENCE)
    before, seen = asked(bench), []

    def meanwhile() -> None:
        reject(bench)
        seen.append((asked(bench) - before, first(bench).next_attempt_at))

    attempt(bench, AWAY, meanwhile=meanwhile)
    assert seen == [(0, NOW + ATTEMPT_LEASE)]
    assert bench.states() == ["withdrawal open"] and asked(bench) - before == 1


def test_a_success_beats_a_refusal(bench: Bench) -> None:
    """Of two attempts that overlap one was refused: the destination has it all the same, and it can be taken back."""
    attempt(bench, meanwhile=lambda: attempt(bench, REFUSED))
    assert bench.states() == ["delivered"]
    reject(bench)
    assert bench.states() == ["withdrawal open"]


def test_a_failure_does_not_hide_what_another_attempt_brought(bench: Bench) -> None:
    """Delivered by one attempt, then rejected, then the other attempt fails: it is there, and taken back."""

    def meanwhile() -> None:
        attempt(bench)
        reject(bench)

    attempt(bench, AWAY, meanwhile=meanwhile)
    assert bench.states() == ["withdrawal open"]


def test_nothing_is_sent_that_was_withdrawn_before_the_attempt_began(bench: Bench) -> None:
    """The right to make an attempt is not had for what waits no longer."""
    reject(bench)
    with bench.database.session() as session:
        assert not destinations.begin(session, first(bench).id, 5, NOW)
        assert session.get_one(tables.Delivery, first(bench).id).sending_since is None


@pytest.mark.parametrize("seen", [NOW + dt.timedelta(seconds=20), LATER])
def test_what_a_dead_worker_left_goes_on_when_the_destination_is_resumed(bench: Bench, seen: dt.datetime) -> None:
    """A pause puts it off for good; resuming makes it due, although an attempt of it never ended."""
    die(bench)
    with bench.database.session() as session:
        destinations.pause(session, "pacs", "admin", NOW)
    attempt(bench, at=seen)
    assert bench.states() == ["waiting"]
    resumed = seen + dt.timedelta(seconds=20)
    with bench.database.session() as session:
        destinations.resume(session, "pacs", resumed)
    with bench.database.session() as session:
        assert deliveries.take_due(session, resumed) == (first(bench).id,)


def test_what_was_set_on_its_way_while_it_was_withdrawn_comes_to_its_end(bench: Bench) -> None:
    """A delivery that the withdrawal did not see is not sent, and waits no longer."""
    reject(bench)
    with bench.database.session() as session:
        (late,) = deliveries.add_deliveries(session, first(bench).document_id, ["other"], NOW)
    sent: list[bytes] = []
    Deliver(bench.database, {"other": lambda content: (sent.append(content), (0, ""))[1]}, lambda: NOW)(late)
    assert sent == [] and bench.states() == ["filtered", "filtered"]


def with_note(bench: Bench) -> None:
    """The report is delivered and rejected, and its rejection note waits."""
    bench.ways["pacs"] = ByNote("113037", "111220")
    attempt(bench)
    reject(bench)
    bench.withdraw()
    assert bench.states() == ["withdrawal open", "waiting"]


def test_a_rejection_note_goes_to_nobody_else(bench: Bench) -> None:
    """What it takes back is at its destination alone: no fallback gets it, whose own withdrawal has its own note."""
    with_note(bench)
    with bench.database.session() as session:
        for row in session.query(tables.Delivery):
            row.created_at = NOW
    with bench.database.session() as session:
        assert destinations.fall_back(session, {"pacs": Fallback("other", dt.timedelta(minutes=1))}, LATER) == ()


def test_a_note_that_was_refused_is_sent_again_when_a_person_tries_again(bench: Bench) -> None:
    """The withdrawal says that a note is on its way only where one is."""
    with_note(bench)
    attempt(bench, REFUSED, number=1)
    assert bench.states() == ["withdrawal open", "refused"]
    with bench.database.session() as session:
        jobs.retry_withdrawal(session, first(bench).id)
    bench.withdraw()
    assert bench.states() == ["withdrawal open", "waiting"]
    attempt(bench, number=1)
    assert bench.states() == ["withdrawn", "delivered"]


def test_what_arrives_after_its_note_gets_the_note_again(bench: Bench) -> None:
    """The note came first, then the object: the destination is told once more."""
    bench.ways["pacs"] = ByNote("113037", "111220")

    def meanwhile() -> None:
        reject(bench)
        bench.withdraw()
        attempt(bench, number=1)
        assert bench.states() == ["withdrawn", "delivered"]

    attempt(bench, meanwhile=meanwhile)
    assert bench.states() == ["withdrawal open", "delivered"]
    bench.withdraw()
    assert bench.states() == ["withdrawal open", "waiting"]
    attempt(bench, number=1)
    assert bench.states() == ["withdrawn", "delivered"]


def test_a_withdrawal_that_a_person_ends_meanwhile_is_ended(bench: Bench) -> None:
    """The destination deletes it while an administrator says that it is done: the job ends like any other."""
    attempt(bench)
    reject(bench)
    ways = {"pacs": ByDeletion(lambda _: end_by_hand(bench))}
    Withdraw(bench.database, INSTALLATION, ways, lambda: NOW)(first(bench).id)
    with bench.database.session() as session:
        assert session.get_one(tables.Delivery, first(bench).id).withdrawn_by == "admin"


def test_a_report_on_what_was_lost_since_confirms_nothing(bench: Bench) -> None:
    """Two were asked for; one says that it is lost, so it is sent again; what the other says is about the lost one."""
    delivery_id, sop_uid = first(bench).id, "2.25.0"
    attempt(bench)
    with bench.database.session() as session:
        sop_uid = session.get_one(tables.Delivery, delivery_id).document.sop_uid
        confirmations.requested(session, delivery_id, "2.25.1", NOW)
        confirmations.requested(session, delivery_id, "2.25.2", NOW)

    def report(transaction_uid: str, *, kept: bool) -> bool:
        with bench.database.session() as session:
            return confirmations.note_report(
                session,
                transaction_uid,
                [sop_uid] if kept else [],
                {} if kept else {sop_uid: "no such object instance (0112)"},
                {} if kept else {sop_uid: 0x0112},
                from_destinations=["pacs"],
                now=NOW,
            )

    assert report("2.25.2", kept=False)
    assert first(bench).state is DeliveryState.WAITING
    attempt(bench)
    assert report("2.25.1", kept=True)
    assert bench.states() == ["delivered"]
    assert report("2.25.1", kept=False)
    assert bench.states() == ["delivered"]


def test_what_a_destination_says_it_lost_is_taken_back_all_the_same(bench: Bench) -> None:
    """It took it once, and reports are not always right: a deletion of what is not there does no harm."""
    attempt(bench)
    with bench.database.session() as session:
        confirmations.unlisted(session, first(bench).id, NOW + 2 * confirmations.LISTED_WITHIN)
    assert bench.states() == ["waiting"]
    reject(bench)
    assert bench.states() == ["withdrawal open"]


def test_an_attempt_that_ends_leaves_the_room_that_another_has(bench: Bench) -> None:
    """The first of two attempts at once is over: the second is still under way, and counted."""
    noon = NOW + dt.timedelta(minutes=1)
    seen = []

    def under_way() -> None:
        with bench.database.session() as session:
            seen.append(session.get_one(tables.Delivery, first(bench).id).sending_since)

    die(bench, noon)
    with bench.database.session() as session:
        destinations.end(session, first(bench).id, away=False, words="", now=noon, began=NOW)
    under_way()
    with bench.database.session() as session:
        destinations.end(session, first(bench).id, away=False, words="", now=noon, began=noon)
    under_way()
    assert seen == [noon, None]


def test_a_duplicate_is_what_an_attempt_without_an_answer_brought(bench: Bench) -> None:
    """The destination says that it has the object already: it is delivered, where it can be ours, and else refused."""
    duplicate = PeerRefused("pacs answered C-STORE with 0111.", status=0x0111)
    attempt(bench, duplicate)
    assert bench.states() == ["refused"]
    with bench.database.session() as session:
        jobs.retry_delivery(session, first(bench).id)
    attempt(bench, SILENCE)
    attempt(bench, duplicate, at=LATER)
    assert bench.states() == ["delivered"] and first(bench).delivered_at == LATER


def test_who_waits_for_a_destination_holds_none_of_its_deliveries(bench: Bench) -> None:
    """Else it and the one who decides about the destination, and needs the delivery, would wait for each other."""
    with bench.database.session() as session:
        extra = deliveries.add_document(
            session,
            session.query(tables.Document).one().result_id,
            kind="dicom_sr",
            variant="second",
            sop_uid="2.25.2",
            sop_class_uid="1.2",
            content=b"second",
        )
        (other,) = deliveries.add_deliveries(session, extra, ["pacs"], NOW)
    is_sending, may_end = threading.Event(), threading.Event()
    worker = threading.Thread(target=attempt, args=(bench,), kwargs={"meanwhile": lambda: _pass(is_sending, may_end)})
    worker.start()
    assert is_sending.wait(30)
    with bench.database.session() as session:
        assert destinations.begin(session, other, 5, NOW)
        may_end.set()
        wait_until(lambda: _waits(bench), what="the attempt's end")
        session.get_one(tables.Delivery, first(bench).id, with_for_update={"nowait": True})
    worker.join(30)
    assert first(bench).state is DeliveryState.DELIVERED


def _pass(here: threading.Event, on: threading.Event) -> None:
    here.set()
    on.wait(30)


def _waits(bench: Bench) -> bool:
    with bench.database.session() as session:
        return session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")) > 0
