"""A storm: senders send, faults strike, then it is calm, and everything is looked at."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fhir_records.errors import DatabaseUnavailable
from tests.chaos import verdict
from tests.chaos.clock import may_set_clock
from tests.chaos.faults import Monkey
from tests.chaos.processes import pss_mib
from tests.chaos.proxy import CuttingProxy
from tests.chaos.senders import Sender, Ward
from tests.chaos.stand import Stand, standing, start_database
from tests.chaos.studies import Ledger, Studies
from tests.small_disk import may_mount

_DISK_BYTES = 1 << 30


@dataclass
class Account:
    """What a storm was, and what came of it."""

    seed: int
    seconds: float = 0.0
    did: dict[str, int] = field(default_factory=dict)  # kind of fault → how often
    kills: int = 0
    cuts: int = 0  # connections cut in the middle
    made: int = 0  # objects
    acknowledged: int = 0
    refused: int = 0
    answers_missing: int = 0  # C-STOREs that had no answer, or one that asks to come again
    resent: int = 0
    studies: int = 0
    parts: int = 0  # half-written files found when it was over
    memory_mib: tuple[float, float] = (0.0, 0.0)  # of the listener's processes, at the start and in the end
    skipped: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # what must not be

    def lines(self) -> list[str]:
        """It, for people."""
        did = [f"  {count:6d}  {name}" for name, count in sorted(self.did.items())]
        return [
            f"seed {self.seed}, {self.seconds:.0f} s",
            *did,
            f"  {self.kills:6d}  kills (SIGKILL) in all",
            f"  {self.cuts:6d}  connections cut in the middle",
            f"  {self.made:6d}  objects of {self.studies} studies made; {self.acknowledged} acknowledged, "
            f"{self.refused} refused and kept, {self.answers_missing} tries without a final answer, "
            f"{self.resent} sent again after success",
            f"  {self.parts:6d}  half-written files found and dealt with",
            f"  memory of the listener: {self.memory_mib[0]:.0f} MiB at the start, {self.memory_mib[1]:.0f} in the end",
            *(f"  skipped: {reason}" for reason in self.skipped),
            *(f"  WRONG: {fault}" for fault in self.faults[:50]),
            f"  {len(self.faults)} faults",
        ]


def storm(
    seconds: float,
    *,
    seed: int | None = None,
    least_kills: int = 0,
    folder: Path | None = None,
    processes: int = 0,
    say: Callable[[str], None] = lambda line: None,
) -> Account:
    """Let it blow for ``seconds``, each kind of fault once at least; then judge.

    Args:
        seconds: for the storm alone; start, calm and judgement come on top.
        seed: of what is by chance; None: another each time. The moments are the machine's, so no two runs are the same.
        least_kills: it is not over before.
        folder: where everything goes, and stays; None: a temporary one.
        processes: acceptor processes, 0: as many as it chooses.
        say: told what happens.
    """
    if seed is None:
        seed = random.SystemRandom().randrange(1 << 31)
    account = Account(seed)
    if not may_mount():
        account.skipped.append("a full disk: small disks need root")
    if not may_set_clock():
        account.skipped.append("a clock set back: there is no C compiler")
    with tempfile.TemporaryDirectory(prefix="chaos-") as temporary:
        place = folder or Path(temporary)
        with standing(
            place,
            disk_bytes=_DISK_BYTES if may_mount() else 0,
            own_clock=may_set_clock(),
            processes=processes,
        ) as stand:
            _blow(stand, account, seconds, least_kills, say)
    return account


def _blow(stand: Stand, account: Account, seconds: float, least_kills: int, say: Callable[[str], None]) -> None:
    chance = random.Random(account.seed)
    storming = threading.Event()
    storming.set()

    def budget() -> int | None:
        return chance.choice((None, chance.randrange(400), chance.randrange(2_000_000))) if storming.is_set() else None

    ledger = Ledger()
    proxy = CuttingProxy(stand.port, budget, account.seed)
    senders = [
        Sender("CT1", "storescu", stand.port),
        Sender("CT2", "storescu", proxy.port),
        Sender("MR1", "pynetdicom", stand.port),
        Sender("MR2", "pynetdicom", proxy.port),
    ]
    ward = Ward(senders, Studies(stand.folder / "sent", ledger, account.seed), ledger, account.seed)
    monkey = Monkey(stand, account.seed)
    before = pss_mib(stand.listen.pids)
    began = time.monotonic()
    ward.start()
    _strike(monkey, began + seconds, least_kills, say)
    storming.clear()
    say(f"calm after {time.monotonic() - began:.0f} s")
    _recover(stand)
    if not ward.finish(120):
        account.faults.append("the senders could not get rid of everything within 120 s of calm")
    say("all answered")
    _settle(stand, ledger, account)
    account.memory_mib = (before, pss_mib(stand.listen.pids))
    account.parts = _orphans(stand)
    proxy.stop()
    account.seconds = time.monotonic() - began
    account.did, account.kills, account.cuts = dict(monkey.done), monkey.kills, proxy.cuts
    account.made, account.acknowledged = len(ledger.made), len(ledger.acknowledged)
    account.refused, account.resent = len(ledger.refused), ledger.resent
    account.answers_missing = ledger.attempts - ledger.resent - len(ledger.acknowledged) - len(ledger.refused)
    account.studies = len({made.study_uid for made in ledger.made.values()})
    account.faults += verdict.faults(stand, ledger)


def _strike(monkey: Monkey, end: float, least_kills: int, say: Callable[[str], None]) -> None:
    monkey.every()
    while time.monotonic() < end or monkey.kills < least_kills:
        if time.monotonic() < end:
            monkey.strike()
        else:
            monkey.kill_listener_process()
        monkey.pause()
        say(", ".join(f"{name} {count}" for name, count in sorted(monkey.done.items())))


def _recover(stand: Stand) -> None:
    if stand.disk is not None:
        stand.disk.empty()
    if stand.clock is not None:
        stand.clock.set_back(0)
    start_database(stand.server)
    stand.wait_listening()


def _settle(stand: Stand, ledger: Ledger, account: Account) -> None:
    """Wait until the index knows all, without any help."""
    end = time.monotonic() + 240
    while time.monotonic() < end:
        try:
            if verdict.settled(stand, ledger):
                return
        except DatabaseUnavailable:
            pass
        time.sleep(0.5)
    account.faults.append("the index did not come to rest within 90 s of calm")


def _orphans(stand: Stand) -> int:
    """Half-written files that nobody holds are removed at the next start; how many there were."""
    found = len(verdict.half_written(stand.spool.root))
    stand.listen.stop()
    stand.listen.start()
    stand.wait_listening()
    return found
