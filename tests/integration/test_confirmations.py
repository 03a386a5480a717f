"""Delivered is claimed on the peer's success, confirmed on its word: with Orthanc, DCMTK, and a peer that lies."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from sqlalchemy import text

from dicom_listener import orthanc, sender
from dicom_listener.arrivals import CompletionRules
from dicom_listener.commitment import request_commitment
from dicom_listener.query import has_object
from dicom_listener.settings import Node, SenderSettings
from fhir_records import jobs, tables
from fhir_records.database import Database
from fhir_records.errors import PeerRefused, PeerUnavailable
from fhir_records.model import Act
from fhir_records.store import confirmations, destinations
from fhir_records.store.destinations import Fallback
from tests.integration.liar import Liar, liar, report_listener
from tests.integration.signed_results import INSTALLATION, NOW, Bench
from tests.peers import OrthancPeer, free_port, orthanc_server, storescp_server, wait_until
from workflow.confirmation import ByCommitment, ByReadingBack, Confirm, ConfirmWay, TakeCommitmentReport
from workflow.delivery import Deliver
from workflow.sweeps import Sweeper
from workflow.withdrawal import ByDeletion, Withdraw

TOLD = SenderSettings(ae_title="WETREAD")
LATER = NOW + dt.timedelta(hours=2)


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    """A record with one read study whose report waits for the destination `pacs`."""
    made = Bench(database, tmp_path)
    made.read()
    return made


@pytest.fixture
def peer() -> Iterator[Liar]:
    """A peer that behaves as the test wants."""
    with liar() as running:
        yield running


def send_to(node: Node) -> Callable[[bytes], tuple[int, str]]:
    def send(content: bytes) -> tuple[int, str]:
        outcome = sender.send(content, node, TOLD)
        return outcome.status, outcome.meaning

    return send


def taker(bench: Bench, ae_title: str = "LIAR", now: dt.datetime = NOW) -> TakeCommitmentReport:
    return TakeCommitmentReport(bench.database, {"pacs": ae_title}, lambda: now)


def commitment(node: Node, wait_s: float = 2) -> dict[str, ConfirmWay]:
    return {"pacs": ByCommitment(partial(request_commitment, node, TOLD, wait_s=wait_s))}


def deliver(bench: Bench, node: Node) -> None:
    (delivery,) = bench.deliveries()
    Deliver(bench.database, {"pacs": send_to(node)}, lambda: NOW, {}, {"pacs"})(delivery.id)


def confirm(bench: Bench, ways: dict[str, ConfirmWay], ae_title: str = "LIAR") -> None:
    (delivery,) = bench.deliveries()
    Confirm(bench.database, ways, taker(bench, ae_title), lambda: NOW)(delivery.id)


def test_a_report_on_the_same_association_confirms(bench: Bench, peer: Liar) -> None:
    """The peer commits at once: the delivery is confirmed, and the report answered with success."""
    deliver(bench, peer.node)
    assert bench.states() == ["delivered"]
    confirm(bench, commitment(peer.node))
    assert bench.states() == ["confirmed"]
    assert peer.statuses == [0]
    confirm(bench, commitment(peer.node))
    assert len(peer.asked) == 1


def test_a_report_on_a_new_association_confirms(bench: Bench, peer: Liar) -> None:
    """The peer reports later on an association of its own, in the SCP role."""
    peer.commit = "new"
    deliver(bench, peer.node)
    with report_listener(taker(bench)) as port:
        peer.report_to = port
        confirm(bench, commitment(peer.node, wait_s=0))
        wait_until(lambda: bench.states() == ["confirmed"], what="the report")
    assert peer.statuses == [0]


def test_a_report_twice_changes_nothing(bench: Bench, peer: Liar) -> None:
    """The second one is answered with success and finds it settled, also where it says the opposite."""
    deliver(bench, peer.node)
    confirm(bench, commitment(peer.node))
    peer.verdict = "lost"
    with report_listener(taker(bench)) as port:
        peer.report_to = port
        peer.send_report(peer.asked[0])
    assert peer.statuses == [0, 0] and bench.states() == ["confirmed"]


def test_what_is_not_kept_is_sent_again_and_in_the_end_refused(bench: Bench, peer: Liar) -> None:
    """The same bytes go three times; then a person has to look, and reads why."""
    peer.verdict = "lost"
    for number in (1, 2, 3):
        deliver(bench, peer.node)
        confirm(bench, commitment(peer.node))
        (delivery,) = bench.deliveries()
        assert delivery.last_error == "pacs took it and does not keep it: no such object instance (0112)."
        assert delivery.state.value == ("waiting" if number < 3 else "refused")
    assert len(set(peer.stored)) == 1 and len(peer.stored) == 3


@pytest.mark.parametrize("verdict", ["other", "stranger"])
def test_a_report_about_something_else_confirms_nothing(bench: Bench, peer: Liar, verdict: str) -> None:
    """A report of an unknown transaction, or about another object, is answered with a failure."""
    peer.verdict = verdict
    deliver(bench, peer.node)
    confirm(bench, commitment(peer.node))
    assert bench.states() == ["delivered"] and peer.statuses == [0x0110]


def test_only_the_destination_itself_confirms(bench: Bench, peer: Liar) -> None:
    """Another node that knows the transaction is not believed."""
    peer.commit = "never"
    deliver(bench, peer.node)
    confirm(bench, commitment(peer.node, wait_s=0))
    with report_listener(taker(bench)) as port:
        peer.report_to = port
        peer.send_report(peer.asked[0], calling="OTHER")
        assert bench.states() == ["delivered"]
        peer.send_report(peer.asked[0])
    assert peer.statuses == [0x0110, 0] and bench.states() == ["confirmed"]


def test_without_a_report_it_is_asked_again(bench: Bench, peer: Liar) -> None:
    """After an hour it is asked again, under a new transaction; a late report of the first counts, too."""
    peer.commit = "never"
    deliver(bench, peer.node)
    confirm(bench, commitment(peer.node, wait_s=0))
    with bench.database.session() as session:
        assert confirmations.take_due(session, NOW + dt.timedelta(minutes=59)) == ()
        assert len(confirmations.take_due(session, LATER)) == 1
    confirm(bench, commitment(peer.node, wait_s=0))
    first, second = peer.asked
    assert first.TransactionUID != second.TransactionUID
    with report_listener(taker(bench)) as port:
        peer.report_to = port
        peer.send_report(first)
    assert bench.states() == ["confirmed"]


def test_a_peer_that_refuses_the_request_leaves_it_delivered(bench: Bench, peer: Liar) -> None:
    """Delivered stays delivered, with the reason, and is asked again later."""
    peer.commit = "refuse"
    deliver(bench, peer.node)
    confirm(bench, commitment(peer.node))
    (delivery,) = bench.deliveries()
    assert delivery.state.value == "delivered" and "0110" in (delivery.last_error or "")


def test_a_peer_that_knows_no_commitment_is_told_of(bench: Bench, tmp_path: Path) -> None:
    """DCMTK's storescp takes the report and accepts no context for commitment."""
    with storescp_server(tmp_path) as scp:
        node = Node("pacs", scp.ae_title, scp.host, scp.dicom_port, 5)
        deliver(bench, node)
        confirm(bench, commitment(node), scp.ae_title)
    (delivery,) = bench.deliveries()
    assert delivery.state.value == "delivered" and "does not take this kind" in (delivery.last_error or "")


@pytest.mark.parametrize("fault", ["abort", "stall"])
def test_an_answer_that_never_comes_is_no_delivery(bench: Bench, peer: Liar, fault: str) -> None:
    """The peer aborts, or answers after the time limit: the delivery waits, and counts as maybe there when rejected."""
    peer.fault = fault
    deliver(bench, peer.node)
    (delivery,) = bench.deliveries()
    assert delivery.state.value == "waiting" and delivery.last_error
    bench.sign(Act.REJECT)
    assert bench.states() == ["withdrawal open"]


@pytest.mark.parametrize(("status", "state"), [(0xA700, "waiting"), (0xC001, "refused"), (0xB000, "delivered")])
def test_a_peers_answer_is_taken_at_its_word(bench: Bench, peer: Liar, status: int, state: str) -> None:
    """Out of resources waits, cannot understand is refused, a warning is delivered."""
    peer.store_status = status
    deliver(bench, peer.node)
    assert bench.states() == [state]


@pytest.fixture
def real(tmp_path: Path) -> Iterator[OrthancPeer]:
    """A real Orthanc that reports commitment to our port."""
    port = free_port()
    with orthanc_server(tmp_path, modalities={"WETREAD": ("WETREAD", "127.0.0.1", port)}) as running:
        running.report_port = port  # type: ignore[attr-defined]
        yield running


def test_orthanc_commits_on_a_new_association(bench: Bench, real: OrthancPeer) -> None:
    """The real one keeps our report and says so; where it has deleted it, it says that, and gets it again."""
    node = Node("pacs", real.ae_title, real.host, real.dicom_port, 10)
    take = taker(bench, real.ae_title)
    with report_listener(take, real.report_port):  # type: ignore[attr-defined]
        deliver(bench, node)
        confirm(bench, commitment(node, wait_s=0), real.ae_title)
        wait_until(lambda: bench.states() == ["confirmed"], what="Orthanc's report")
        with bench.database.session() as session:
            row = session.query(tables.Delivery).one()
            row.state, row.confirm_at = tables.DeliveryState.DELIVERED, NOW
        for instance in real.instances():
            real.rest(f"instances/{instance}", method="DELETE")
        confirm(bench, commitment(node, wait_s=0), real.ae_title)
        wait_until(lambda: bench.states() == ["waiting"], what="Orthanc's report of the loss")
    deliver(bench, node)
    assert bench.states() == ["delivered"] and len(real.instances()) == 1


def test_orthanc_is_read_back_and_what_it_lost_is_not_confirmed(bench: Bench, real: OrthancPeer) -> None:
    """C-FIND and REST find the report, and no longer after it was deleted there."""
    node = Node("pacs", real.ae_title, real.host, real.dicom_port, 10)
    archive = orthanc.OrthancNode("archive", real.url)
    deliver(bench, node)
    ds = dcmread(DicomBytesIO(real.file(real.instances()[0])))
    assert orthanc.has_instance(archive, ds.SOPInstanceUID)
    ways: dict[str, ConfirmWay] = {"pacs": ByReadingBack(partial(has_object, node, TOLD))}
    confirm(bench, ways)
    assert bench.states() == ["confirmed"]
    with bench.database.session() as session:
        row = session.query(tables.Delivery).one()
        row.state, row.confirm_at = tables.DeliveryState.DELIVERED, NOW
    assert orthanc.remove(archive, ds.SOPInstanceUID) == 1
    assert orthanc.remove(archive, ds.SOPInstanceUID) == 0
    confirm(bench, ways)
    (delivery,) = bench.deliveries()
    assert (delivery.state.value, delivery.last_error) == ("delivered", "Delivered, but not found there.")


def test_a_rejected_report_is_deleted_from_a_real_orthanc(bench: Bench, real: OrthancPeer) -> None:
    """From rejection to an empty archive, through Orthanc's REST API; while it is down the withdrawal stays open."""
    node = Node("pacs", real.ae_title, real.host, real.dicom_port, 10)
    archive = orthanc.OrthancNode("archive", real.url, timeout_s=30)
    deliver(bench, node)
    assert len(real.instances()) == 1
    bench.sign(Act.REJECT)
    job = Withdraw(bench.database, INSTALLATION, {"pacs": ByDeletion(partial(orthanc.remove, archive))}, lambda: NOW)
    real.stop(kill=True)
    job(bench.deliveries()[0].id)
    assert bench.states() == ["withdrawal open"]
    real.start()
    job(bench.deliveries()[0].id)
    assert bench.states() == ["withdrawn"] and real.instances() == []


# --- queues of destinations


def due(bench: Bench, number: int) -> list[int]:
    """More deliveries of the same report, to the same destination under other documents."""
    with bench.database.session() as session:
        first = session.query(tables.Document).one()
        ids = []
        for extra in range(number):
            row = tables.Document(
                result_id=first.result_id,
                kind=f"kind{extra}",
                sop_uid=f"2.25.{extra}",
                sop_class_uid=first.sop_class_uid,
                content=first.content,
                sha256=first.sha256,
            )
            session.add(row)
            session.flush()
            delivery = tables.Delivery(document_id=row.id, destination="pacs", next_attempt_at=NOW)
            session.add(delivery)
            session.flush()
            ids.append(delivery.id)
        return ids


def test_no_more_than_so_many_at_once(bench: Bench) -> None:
    """The third of three waits for room; a slot that a dead worker left is free after its lease."""
    ids = due(bench, 3)
    with bench.database.session() as session:
        assert [destinations.begin(session, number, 2, NOW) for number in ids] == [True, True, False]
        assert session.get_one(tables.Delivery, ids[2]).next_attempt_at == NOW + destinations.ROOM_WAIT
        destinations.end(session, ids[0], began=NOW, away=False, words="", now=NOW)
        assert destinations.begin(session, ids[2], 2, NOW)
    with bench.database.session() as session:
        assert destinations.begin(session, ids[0], 2, LATER)


def test_a_destination_that_is_away_is_left_alone_and_found_again(bench: Bench) -> None:
    """After three failures nothing is tried for a while; the first success makes everything due at once."""
    ids = due(bench, 5)
    tried: list[bytes] = []

    def away(content: bytes) -> tuple[int, str]:
        tried.append(content)
        raise PeerUnavailable("pacs cannot be reached.")

    for number in ids:
        Deliver(bench.database, {"pacs": away}, lambda: NOW)(number)
    assert len(tried) == 3
    rested = NOW + dt.timedelta(seconds=5)
    Deliver(bench.database, {"pacs": lambda content: (0, "success")}, lambda: rested)(ids[3])
    with bench.database.session() as session:
        (line,) = destinations.lines(session)
        assert (line.failures, line.not_before) == (0, None)
        waiting = session.query(tables.Delivery).filter_by(state="waiting").all()
        assert len(waiting) == 5 and all(row.next_attempt_at <= rested for row in waiting if row.id in ids)


def test_a_paused_destination_gets_nothing_until_it_is_resumed(bench: Bench) -> None:
    """Pausing holds what comes due; resuming makes it due; "try again" does not get around the pause."""
    (number, _) = due(bench, 2)
    sent: list[bytes] = []

    def send(content: bytes) -> tuple[int, str]:
        sent.append(content)
        return 0, "success"

    with bench.database.session() as session:
        destinations.pause(session, "pacs", "admin", NOW)
    Deliver(bench.database, {"pacs": send}, lambda: NOW)(number)
    with bench.database.session() as session:
        jobs.retry_delivery(session, number)
    Deliver(bench.database, {"pacs": send}, lambda: NOW)(number)
    assert sent == []
    with bench.database.session() as session:
        destinations.resume(session, "pacs", LATER)
    with bench.database.session() as session:
        assert session.get_one(tables.Delivery, number).next_attempt_at == LATER
    Deliver(bench.database, {"pacs": send}, lambda: LATER)(number)
    assert len(sent) == 1


def test_what_does_not_arrive_goes_to_the_fallback_once(bench: Bench) -> None:
    """After its time, not before, not where it waits for a signature, and only once; it goes on waiting, too."""
    ways = {"pacs": Fallback("other", dt.timedelta(hours=1))}
    with bench.database.session() as session:
        session.query(tables.Delivery).one().created_at = NOW
    with bench.database.session() as session:
        assert destinations.fall_back(session, ways, NOW + dt.timedelta(minutes=59)) == ()
        assert len(destinations.fall_back(session, ways, LATER)) == 1
    with bench.database.session() as session:
        assert destinations.fall_back(session, ways, LATER) == ()
        rows = session.query(tables.Delivery).order_by(tables.Delivery.id).all()
        assert [(row.destination, row.state.value) for row in rows] == [("pacs", "waiting"), ("other", "waiting")]
        assert rows[0].document_id == rows[1].document_id
        rows[1].next_attempt_at, rows[1].created_at = None, NOW  # as if it waited for a signature
        session.flush()
        assert destinations.fall_back(session, {"other": Fallback("pacs", dt.timedelta(0))}, LATER) == ()


def test_a_refusal_is_an_answer(bench: Bench) -> None:
    """A destination that refuses is not away: it is not left alone."""

    def refuse(_: bytes) -> tuple[int, str]:
        raise PeerRefused("No.", status=0xC000)

    for number in due(bench, 4):
        Deliver(bench.database, {"pacs": refuse}, lambda: NOW)(number)
    with bench.database.session() as session:
        assert session.query(tables.Delivery).filter_by(state="refused").count() == 4


def test_a_sweep_asks_for_what_comes_due(bench: Bench) -> None:
    """Open withdrawals, unconfirmed deliveries and late ones with a fallback get their jobs, once."""
    first, second, third = due(bench, 3)
    with bench.database.session() as session:
        rows = {row.id: row for row in session.query(tables.Delivery)}
        rows[first].state, rows[first].next_attempt_at = tables.DeliveryState.WITHDRAWAL_OPEN, NOW
        rows[second].state, rows[second].confirm_at = tables.DeliveryState.DELIVERED, NOW
        rows[third].created_at, rows[third].next_attempt_at = NOW - dt.timedelta(hours=2), LATER
    fallbacks = {"pacs": Fallback("other", dt.timedelta(hours=1))}
    sweeper = Sweeper(bench.database, CompletionRules(60, 3600), lambda: NOW, fallbacks)
    with bench.database.session() as session:
        before = jobs.queue_depths(session)[("deliveries", "todo")]
    sweeper.sweep()
    sweeper.sweep()
    with bench.database.session() as session:
        assert jobs.queue_depths(session)[("deliveries", "todo")] == before + 3


def test_a_rejected_result_without_documents_is_not_rendered_again_and_again(bench: Bench) -> None:
    """The reconciler sees by the finished step that nothing is to be done."""
    bench.sign(Act.REJECT)
    with bench.database.session() as session:
        session.execute(text("DELETE FROM procrastinate_jobs"))
    sweeper = Sweeper(bench.database, CompletionRules(60, 3600), lambda: LATER + dt.timedelta(days=1))
    assert sweeper.reconcile() == 0
