"""Many deliveries, a clock of its own, and everything that can happen meanwhile; then the PACS is honest.

The jobs are the product's own, over a real network and a real database. Workers die, sleep through their lease, have
clocks that are off and do the same job twice; people reject, sign, pause and resume; the database goes away. At the end
every delivery is judged by what the PACS wrote into its journal: nothing is claimed that it did not say.
"""

from __future__ import annotations

import datetime as dt
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from sqlalchemy import func, select, text

from dicom_listener import sender
from dicom_listener.commitment import request_commitment
from dicom_listener.settings import Node, SenderSettings
from fhir_records import tables
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable
from fhir_records.model import DeliveryState
from fhir_records.store import confirmations, deliveries, destinations, withdrawals
from tests.delivery_storm.account import Account
from tests.delivery_storm.judge import Judge
from tests.delivery_storm.pacs import Pacs, pacs
from tests.delivery_storm.people import People
from tests.integration.liar import report_listener
from tests.integration.signed_results import INSTALLATION, NOW
from tests.peers import free_port
from workflow.confirmation import ByCommitment, ByReadingBack, Confirm, ConfirmWay, TakeCommitmentReport
from workflow.delivery import Deliver
from workflow.withdrawal import ByDeletion, ByHand, ByNote, Way, Withdraw

TOLD = SenderSettings(ae_title="WETREAD")
WORKERS = 3
SLEEPERS = 3  # attempts that sleep through their lease at the same time
FALLBACKS = {"committing": destinations.Fallback("standby", dt.timedelta(minutes=20))}
MOST_SKEW_S = 60  # of a worker's clock
HOUR = dt.timedelta(hours=1)

Job = tuple[Callable[[int], None], int]


class WorkerDied(BaseException):
    """The worker is gone in the middle of an attempt: nothing is written down."""


def storm(
    database: Database,
    count: int,
    number: int,
    *,
    cut: Callable[[], None] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Account:
    """Bring `count` documents to two destinations each, through everything.

    Args:
        database: an empty one.
        count: of documents.
        number: seeds what is chance.
        cut: takes the database away for a moment; by default all connections to it are ended.
        say: told what happens.
    """
    with _storm(database, count, number) as blowing:
        blowing.cut = cut or partial(_end_connections, database)
        started = time.monotonic()
        blowing.blow(say)
        blowing.account.seconds = time.monotonic() - started
        blowing.judge()
        return blowing.account


def _end_connections(database: Database) -> None:
    words = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
    with database.session() as session:
        session.execute(text(f"{words} AND pid <> pg_backend_pid()"))


@contextmanager
def _storm(database: Database, count: int, number: int) -> Iterator[_Storm]:
    with ExitStack() as stack:
        chance = random.Random(number)
        names = ("committing", "listing", "standby")
        peers = {name: stack.enter_context(pacs(name, chance)) for name in names}
        blowing = _Storm(database, peers, chance, People(database, peers, chance))
        take = TakeCommitmentReport(database, {"committing": "COMMITTING"}, lambda: blowing.now)
        port = stack.enter_context(report_listener(take, callers=("COMMITTING", "OTHER")))
        peers["committing"].report_to = port
        blowing.take = take
        blowing.people.add_results(count, NOW)
        yield blowing


@dataclass(slots=True)
class _Storm:
    database: Database
    peers: dict[str, Pacs]
    chance: random.Random
    people: People
    now: dt.datetime = NOW
    take: TakeCommitmentReport | None = None
    cut: Callable[[], None] = lambda: None
    account: Account = field(default_factory=Account)
    honest: bool = False
    away: bool = False  # the destinations, this round
    is_cut: bool = False  # the database, this round
    full_until: dt.datetime = NOW
    sleepers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(SLEEPERS))
    asleep: list[tuple[threading.Event, Future[None]]] = field(default_factory=list)

    def blow(self, say: Callable[[str], None], *, faults: int = 30) -> None:
        """Faults while anything waits, for some rounds; then honesty, until all has come to its end."""
        for phase, rounds in (("faults", faults), ("honest", 500)):
            if phase == "honest":
                self._clear_up()
            for number in range(rounds):
                if phase == "faults":
                    self._trouble(number)
                due = self._round()
                if due is None and phase == "honest":
                    break
                say(f"{phase} {number}: {due or 0} due, {self.now - NOW} on the clock")
        self.account.simulated = self.now - NOW
        self.account.happened += self.people.did

    def _trouble(self, number: int) -> None:
        """What is wrong in this round."""
        self.away, self.is_cut = number % 7 == 5, number % 6 == 4
        if number % 9 == 3:
            self.full_until = self.now + HOUR
        self.peers["committing"].full = self.now < self.full_until
        if number % 5 == 1:
            self.people.pause(self.now)
        elif number % 5 == 3:
            self.people.resume(self.now)
        for bell, _ in self.chance.sample(self.asleep, len(self.asleep) // 2):
            bell.set()

    def _clear_up(self) -> None:
        """Everybody is honest, awake, there and resumed."""
        self.honest, self.away, self.is_cut = True, False, False
        for peer in self.peers.values():
            peer.honest, peer.full = True, False
        for bell, future in self.asleep:
            bell.set()
            future.result(120)
        self.people.resume(self.now)

    def _round(self) -> int | None:
        """Everything that is due, at once; None where nothing is, nor ever will be."""
        self.account.rounds += 1
        jobs = self._due()
        worked = list(jobs) if self.honest else [*jobs, *self.chance.sample(jobs, len(jobs) // 10)]
        if not self.honest:
            worked += [(self._by_a_person(act), 0) for act in self.people.acts(self.now)]
        self.chance.shuffle(worked)
        cutter = threading.Timer(self.chance.uniform(0.05, 0.5), self.cut)
        if self.is_cut:
            self.account.happened["database cut"] += 1
            cutter.start()
        with ThreadPoolExecutor(WORKERS) as workers:
            list(workers.map(self._work, worked))
        if self.is_cut:
            cutter.join()
        for peer in self.peers.values():
            peer.finish_reports()
        self.people.delete_by_hand(self.now)
        if self.honest:
            self.people.try_again(self.now)
        return self._go_on(len(jobs))

    def _due(self) -> list[Job]:
        with self.database.session() as session:
            sending = [
                *deliveries.take_due(session, self.now, 1000),
                *destinations.fall_back(session, FALLBACKS, self.now),
            ]
            asking = confirmations.take_due(session, self.now, 1000)
            taking_back = withdrawals.take_due(session, self.now, 1000)
        return [
            *((self._deliver, number) for number in sending),
            *((self._confirm, number) for number in asking),
            *((self._withdraw, number) for number in taking_back),
        ]

    def _work(self, job: Job) -> None:
        try:
            job[0](job[1])
        except WorkerDied:
            self.account.happened["worker died"] += 1
        except DatabaseUnavailable as error:
            self.account.happened["job lost to the database"] += 1
            if not self.is_cut:
                self.account.untrue.append(f"the database was said to be away: {error.__cause__}")

    def _clock(self) -> Callable[[], dt.datetime]:
        """Of one worker; off, as long as there are faults."""
        skew = 0.0 if self.honest else self.chance.uniform(-MOST_SKEW_S, MOST_SKEW_S)
        return lambda: self.now + dt.timedelta(seconds=skew)

    def _by_a_person(self, act: Callable[[], Sequence[int]]) -> Callable[[int], None]:
        def done(_: int) -> None:
            for delivery_id in act():
                self._withdraw(delivery_id)

        return done

    def _deliver(self, delivery_id: int) -> None:
        sleeps = not self.honest and self.chance.random() < 0.05 and len(self.asleep) < 50
        bell, naps_first = threading.Event(), self.chance.random() < 0.5
        if not sleeps:
            bell.set()
        senders = {
            name: partial(self._send, peer.node, self.away, bell, naps_first) for name, peer in self.peers.items()
        }
        limits = dict.fromkeys(self.peers, WORKERS + SLEEPERS + 1)
        job = Deliver(self.database, senders, self._clock(), limits, frozenset({"committing", "listing"}))
        if not sleeps:
            job(delivery_id)
            self._at_once(delivery_id)
            return
        self.account.happened["slept through its lease"] += 1
        self.asleep.append((bell, self.sleepers.submit(self._work, (job, delivery_id))))

    def _at_once(self, delivery_id: int) -> None:
        """The jobs that an attempt asks for mostly follow it closely; they do nothing where it asked for none."""
        if self.chance.random() < 0.8:
            self._confirm(delivery_id)
        if self.chance.random() < 0.5:
            self._withdraw(delivery_id)

    def _send(self, node: Node, away: bool, bell: threading.Event, naps_first: bool, content: bytes) -> tuple[int, str]:
        dies = self.chance.random() if not self.honest else 1.0
        self.account.attempts += 1
        if dies < 0.02:
            raise WorkerDied
        if naps_first:
            bell.wait(30)
        outcome = sender.send(content, replace(node, port=free_port()) if away else node, TOLD)
        bell.wait(30)
        if dies < 0.05:
            raise WorkerDied
        return outcome.status, outcome.meaning

    def _confirm(self, delivery_id: int) -> None:
        peers = self.peers
        ways: dict[str, ConfirmWay] = {
            "committing": ByCommitment(partial(request_commitment, peers["committing"].node, TOLD, wait_s=0.2)),
            "listing": ByReadingBack(peers["listing"].find),
        }
        assert self.take is not None
        Confirm(self.database, ways, self.take, self._clock())(delivery_id)

    def _withdraw(self, delivery_id: int) -> None:
        ways: Mapping[str, Way] = {
            "committing": ByDeletion(self.peers["committing"].delete),
            "listing": ByNote("113037", "111220"),
            "standby": ByHand(),
        }
        Withdraw(self.database, INSTALLATION, ways, self._clock())(delivery_id)

    def _go_on(self, done: int) -> int | None:
        """Set the clock to when the next thing is due."""
        row = tables.Delivery
        with self.database.session() as session:
            moments = [
                session.scalar(select(func.min(when)).where(row.state == state))
                for state, when in (
                    (DeliveryState.WAITING, row.next_attempt_at),
                    (DeliveryState.DELIVERED, row.confirm_at),
                    (DeliveryState.WITHDRAWAL_OPEN, row.next_attempt_at),
                )
            ]
        coming = [moment for moment in moments if moment is not None]
        if not coming:
            return None
        soonest = min(coming)
        if not self.honest:  # what waits for a paused destination to be resumed is due in a year
            soonest = min(soonest, self.now + HOUR)
        step = 30 if self.honest else self.chance.choice((1, 20, 240, 1200))
        self.now = max(self.now + dt.timedelta(seconds=step), soonest)
        return done

    def judge(self) -> None:
        """Hold every delivery against its destination's journal."""
        Judge(self.database, self.peers).into(self.account)
