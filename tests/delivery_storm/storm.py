"""Many deliveries, a clock of its own, workers that die, results that are rejected meanwhile; then the PACS is honest.

The jobs are the product's own, over a real network and a real database. At the end every delivery is judged by what the
PACS wrote into its journal: nothing is claimed that it did not say.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from pydicom.uid import Comprehensive3DSRStorage
from sqlalchemy import func, select

from dicom_listener import sender
from dicom_listener.commitment import request_commitment
from dicom_listener.received import split_file
from dicom_listener.settings import Node, SenderSettings
from fhir_records import tables
from fhir_records.database import Database
from fhir_records.model import DeliveryState, ReadState, Withdrawal
from fhir_records.store import confirmations, deliveries, withdrawals
from tests import seed
from tests.delivery_storm.pacs import Pacs, pacs
from tests.integration.liar import report_listener
from tests.integration.signed_results import INSTALLATION, NOW
from tests.peers import free_port
from tests.unit.dicom_listener.objects import as_file
from tests.unit.fhir_records.renderings.sr_reports import header
from workflow.confirmation import ByCommitment, ByReadingBack, Confirm, TakeCommitmentReport
from workflow.delivery import Deliver
from workflow.withdrawal import ByDeletion, ByNote, Withdraw

TOLD = SenderSettings(ae_title="WETREAD")
PER_RESULT = 8  # documents
WORKERS = 3
THERE = (DeliveryState.DELIVERED, DeliveryState.CONFIRMED)


class WorkerDied(BaseException):
    """The worker is gone in the middle of an attempt: nothing is written down."""


@dataclass(slots=True)
class Account:
    """What the storm came to."""

    deliveries: int = 0
    attempts: int = 0
    deaths: int = 0
    rounds: int = 0
    simulated: dt.timedelta = dt.timedelta()
    seconds: float = 0
    faults: Counter[str] = field(default_factory=Counter)  # of the peers
    states: Counter[str] = field(default_factory=Counter)
    untrue: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.deliveries} deliveries, {self.attempts} attempts, {self.deaths} workers died in one"
        yield f"{self.rounds} rounds, {self.simulated} on its clock, {self.seconds:.0f} s"
        yield "the PACS: " + ", ".join(f"{name} {count}" for name, count in sorted(self.faults.items()))
        yield "in the end: " + ", ".join(f"{name} {count}" for name, count in sorted(self.states.items()))
        yield f"untrue: {len(self.untrue)}"
        yield from self.untrue[:20]


def storm(database: Database, count: int, number: int, *, say: Callable[[str], None] = lambda line: None) -> Account:
    """Bring `count` documents to two destinations each, through everything; `number` seeds what is chance."""
    with _storm(database, count, number) as blowing:
        started = time.monotonic()
        blowing.blow(say)
        blowing.account.seconds = time.monotonic() - started
        blowing.judge()
        return blowing.account


@contextmanager
def _storm(database: Database, count: int, number: int) -> Iterator[_Storm]:
    with ExitStack() as stack:
        chance = random.Random(number)
        peers = {name: stack.enter_context(pacs(name, chance)) for name in ("committing", "listing")}
        blowing = _Storm(database, peers, chance)
        take = TakeCommitmentReport(database, {"committing": "COMMITTING"}, lambda: blowing.now)
        port = stack.enter_context(report_listener(take, callers=("COMMITTING", "OTHER")))
        peers["committing"].report_to = port
        blowing.confirm = Confirm(database, _ways(peers), take, lambda: blowing.now)
        blowing.add(count)
        yield blowing


def _ways(peers: dict[str, Pacs]) -> dict[str, ByCommitment | ByReadingBack]:
    return {
        "committing": ByCommitment(partial(request_commitment, peers["committing"].node, TOLD, wait_s=0.2)),
        "listing": ByReadingBack(peers["listing"].find),
    }


@dataclass(slots=True)
class _Storm:
    database: Database
    peers: dict[str, Pacs]
    chance: random.Random
    now: dt.datetime = NOW
    confirm: Callable[[int], None] = lambda number: None
    account: Account = field(default_factory=Account)
    results: list[int] = field(default_factory=list)

    def add(self, count: int) -> None:
        """Results with their documents, each on its way to both destinations."""
        with self.database.session() as session:
            for first in range(0, count, PER_RESULT):
                study = seed.add_study(session, first + 1)
                read = seed.add_read(session, study, ReadState.READ)
                result = seed.add_result(session, read, finding=seed.glioma(study))
                self.results.append(result.id)
                for number in range(first, min(first + PER_RESULT, count)):
                    uid = f"2.25.{10**9 + number}"
                    ds = header(number, StudyInstanceUID=study.study_uid, SOPInstanceUID=uid)
                    ds.SOPClassUID, ds.Modality = Comprehensive3DSRStorage, "SR"
                    document = deliveries.add_document(
                        session,
                        result.id,
                        kind="dicom_sr",
                        variant=str(number),
                        sop_uid=uid,
                        sop_class_uid=Comprehensive3DSRStorage,
                        content=as_file(ds),
                    )
                    deliveries.add_deliveries(session, document, list(self.peers), self.now)

    def blow(self, say: Callable[[str], None]) -> None:
        """Faults while anything waits, for some rounds; then honesty, until all has come to its end."""
        rejected = self.chance.sample(self.results, k=max(1, len(self.results) // 4))
        for phase, rounds in (("faults", 25), ("honest", 400)):
            for number in range(rounds):
                if phase == "honest":
                    for peer in self.peers.values():
                        peer.honest = True
                elif number % 5 == 2 and rejected:
                    self._reject(rejected.pop())
                due = self._round(away=phase == "faults" and number % 7 == 5)
                if due is None:
                    break
                say(f"{phase} {number}: {due} due, {self.now - NOW} on the clock")
        self.account.simulated = self.now - NOW

    def _reject(self, result_id: int) -> None:
        with self.database.session() as session:
            withdrawals.withdraw(session, [result_id], Withdrawal.REJECTED, self.now)

    def _round(self, *, away: bool) -> int | None:
        """Everything that is due, at once; None where nothing is, nor ever will be."""
        self.account.rounds += 1
        with self.database.session() as session:
            sending = deliveries.take_due(session, self.now, 1000)
            asking = confirmations.take_due(session, self.now, 1000)
            taking_back = withdrawals.take_due(session, self.now, 1000)
        jobs = [
            *((self._deliver(away), number) for number in (*sending, *self.chance.sample(sending, len(sending) // 10))),
            *((self.confirm, number) for number in asking),
            *((self._withdraw, number) for number in taking_back),
        ]
        self.chance.shuffle(jobs)
        with ThreadPoolExecutor(WORKERS) as workers:
            list(workers.map(self._work, jobs))
        for peer in self.peers.values():
            peer.finish_reports()
        return self._go_on(len(jobs))

    def _work(self, job: tuple[Callable[[int], None], int]) -> None:
        try:
            job[0](job[1])
        except WorkerDied:
            self.account.deaths += 1

    def _deliver(self, away: bool) -> Deliver:
        senders = {name: partial(self._send, peer.node, away) for name, peer in self.peers.items()}
        return Deliver(
            self.database, senders, lambda: self.now, dict.fromkeys(self.peers, WORKERS + 1), frozenset(self.peers)
        )

    def _send(self, node: Node, away: bool, content: bytes) -> tuple[int, str]:
        honest = self.peers[node.name].honest
        dies = self.chance.random() if not honest else 1.0
        self.account.attempts += 1
        if dies < 0.02:
            raise WorkerDied
        outcome = sender.send(content, replace(node, port=free_port()) if away else node, TOLD)
        if dies < 0.05:
            raise WorkerDied
        return outcome.status, outcome.meaning

    def _withdraw(self, delivery_id: int) -> None:
        ways = {"committing": ByDeletion(self.peers["committing"].delete), "listing": ByNote("113037", "111220")}
        Withdraw(self.database, INSTALLATION, ways, lambda: self.now)(delivery_id)

    def _go_on(self, done: int) -> int | None:
        """Set the clock to when the next thing is due."""
        row = tables.Delivery
        with self.database.session() as session:
            moments = [
                session.scalar(select(func.min(row.next_attempt_at)).where(row.state == DeliveryState.WAITING)),
                session.scalar(select(func.min(row.confirm_at)).where(row.state == DeliveryState.DELIVERED)),
                session.scalar(select(func.min(row.next_attempt_at)).where(row.state == DeliveryState.WITHDRAWAL_OPEN)),
            ]
        coming = [moment for moment in moments if moment is not None]
        if not coming:
            return None
        self.now = max(self.now + dt.timedelta(seconds=1), min(coming))
        return done

    def judge(self) -> None:
        """Hold every delivery against its destination's journal."""
        for peer in self.peers.values():
            self.account.faults += peer.faults
        with self.database.session() as session:
            rows = session.scalars(select(tables.Delivery).order_by(tables.Delivery.id)).all()
            self.account.deliveries = len(rows)
            for row in rows:
                self.account.states[row.state.value] += 1
                self.account.untrue += [
                    f"delivery {row.id} to {row.destination}, {row.state.value}: {words}" for words in self._untrue(row)
                ]

    def _untrue(self, row: tables.Delivery) -> Iterator[str]:
        peer, uid, state = self.peers[row.destination], row.document.sop_uid, row.state
        _, data = split_file(row.document.content)
        sent = hashlib.sha256(data).hexdigest()
        if set(peer.received[uid]) - {sent}:
            yield "other bytes were sent than those first rendered"
        if hashlib.sha256(row.document.content).hexdigest() != row.document.sha256:
            yield "the stored bytes are not those first rendered"
        if state in THERE and not peer.accepted[uid]:
            yield "claimed, and the PACS never said that it took it"
        if state is DeliveryState.CONFIRMED and row.destination == "committing" and uid not in peer.promised:
            yield "confirmed, and the PACS never said that it keeps it"
        if state is DeliveryState.CONFIRMED and row.destination == "listing" and uid not in peer.held:
            yield "confirmed, and the PACS does not list it"
        lost = row.not_kept >= confirmations.MOST_LOST
        if state is DeliveryState.REFUSED and not peer.failed[uid] and not lost:
            yield "refused, and the PACS neither refused nor lost it"
        if row.destination == "committing" and row.not_kept > peer.denied[uid]:
            yield "lost more often than the PACS said"
        if state is DeliveryState.WITHDRAWN and row.destination == "committing" and uid in peer.held:
            yield "withdrawn, and the PACS still has it"
        if state is DeliveryState.WITHDRAWN and row.destination == "listing" and not self._note_taken(row, peer):
            yield "withdrawn, and the PACS never took the rejection note"
        if state is DeliveryState.FILTERED and peer.accepted[uid]:
            yield "not sent, it says, and the PACS took it"
        if state in (DeliveryState.WAITING, DeliveryState.WITHDRAWAL_OPEN) and row.next_attempt_at is not None:
            yield "did not come to an end"

    def _note_taken(self, row: tables.Delivery, peer: Pacs) -> bool:
        with self.database.session() as session:
            notes = session.scalars(select(tables.Delivery).where(tables.Delivery.withdraws == row.id)).all()
            return any(peer.accepted[note.document.sop_uid] for note in notes)
