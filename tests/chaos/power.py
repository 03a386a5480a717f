"""Loss of power: ``python -m tests.chaos.power --states 300``; exit status 1 where anything was lost or torn.

A listener is recorded while it stores (`syscalls`), its files are put into states that a loss of power at some moment
may leave (`crash_disk`), and in each state the index is started as a listener starts it. What had been answered with
success before the moment must be there bit for bit and be indexed; what had not must be whole or not be indexed.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from sqlalchemy import create_engine, select, text

from deploy.embedded_postgres import EmbeddedPostgres
from dicom_listener.hashing import Hashing
from dicom_listener.index import Index
from dicom_listener.index_keeper import IndexKeeper
from dicom_listener.received import split_file
from dicom_listener.settings import ListenerSettings
from dicom_listener.spool import Spool
from fhir_records import tables
from fhir_records.database import Database
from fhir_records.errors import ObjectNotStorable
from fhir_records.migrations import migrate
from tests.chaos.crash_disk import Manner, Tree, crashed, live
from tests.chaos.disk_history import History
from tests.chaos.recorded_listener import Recording, record
from tests.chaos.studies import Made

_SETTLE_S = 60.0
# What the index writes, and all that hangs on it.
_FORGET = "TRUNCATE study, patient, quarantined_object, association_lease, association_study, audit_event CASCADE"


@dataclass
class Account:
    """What was tried, and what came of it."""

    seed: int
    calls: int = 0  # recorded system calls
    changes: int = 0  # of files and names among them
    answers: int = 0  # recorded C-STORE responses
    states: int = 0  # losses of power
    different: int = 0  # states of the files that were not met before
    acknowledged: int = 0  # objects that had to be there, over all states
    unanswered: Counter[str] = field(default_factory=Counter)  # what became of the others, over all states
    half_written: int = 0  # nameless files that were found and dealt with, over all states
    faults: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """It, for people."""
        return [
            f"seed {self.seed}: {self.calls} system calls, {self.changes} changes of files and names, "
            f"{self.answers} answers recorded",
            f"  {self.states:6d}  losses of power, {self.different} different states of the files",
            f"  {self.acknowledged:6d}  times an object had been answered for and had to be there",
            *(f"  {count:6d}  times an object without an answer was {what}" for what, count in self.unanswered.items()),
            f"  {self.half_written:6d}  half-written files found and dealt with",
            *(f"  WRONG: {fault}" for fault in self.faults[:50]),
            f"  {len(self.faults)} faults",
        ]


def survive(
    recording: Recording,
    database: Database,
    *,
    states: int,
    seed: int,
    say: Callable[[str], None] = lambda line: None,
) -> Account:
    """Lose power so many times at moments of a recording, and look at what the start after it makes of the files.

    Args:
        recording: of a listener.
        database: migrated; what the index holds is thrown away.
        states: how many losses.
        seed: of the moments, and of what the disk had written.
        say: told what is wrong.
    """
    disk = History(str(recording.root), recording.calls)
    account = Account(seed, len(recording.calls), disk.changes, len(recording.answers))
    met: set[str] = set()
    # Before each change, each sync and each answer; and when all was over.
    moments = [*disk.moments, *(heard for heard, _, _ in recording.answers), recording.calls[-1].leave + 1]
    for number in range(states):
        chance = random.Random(f"{seed} {number}")
        at, manner = chance.choice(moments) + chance.choice((0, 0, 1)), Manner.by_chance(chance)
        tree = crashed(disk.root, at, manner, chance)
        met.add(_hash(tree))
        known = [key for heard, key in recording.notes if heard < at]
        indexed = known[: chance.choice((0, len(known), chance.randrange(len(known) + 1)))]
        found = _Loss(recording, database, at).faults(live(disk.root, at), tree, indexed, account)
        for fault in found:
            account.faults.append(f"state {number} ({manner}, at {at}): {fault}")
            say(account.faults[-1])
        account.states += 1
    account.different = len(met)
    return account


def _hash(tree: Tree) -> str:
    digest = hashlib.sha256()
    for path, content in sorted(tree.items()):
        digest.update(f"{path}\0".encode() + (b"/" if content is None else hashlib.sha256(content).digest()))
    return digest.hexdigest()


def _lay_out(root: Path, tree: Tree) -> None:
    """Put files and folders there, and nothing else."""
    for old in root.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    for path, content in tree.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            (root / path).mkdir(exist_ok=True)
        else:
            (root / path).write_bytes(content)


class _Loss:
    """One loss of power, and the start after it."""

    def __init__(self, recording: Recording, database: Database, at: int) -> None:
        self._recording = recording
        self._database = database
        self._at = at
        self._spool = Spool(recording.spool)

    def faults(self, live: Tree, tree: Tree, indexed: list[str], account: Account) -> list[str]:
        """What is wrong after it; ``indexed``: the files that the index had read."""
        with self._database.session() as session:
            session.execute(text(_FORGET))
        _lay_out(self._recording.root, live)
        self._read(indexed)
        _lay_out(self._recording.root, tree)
        account.half_written += sum(path.endswith(".part") for path in tree)
        self._spool.prepare()
        keeper = IndexKeeper(ListenerSettings(), self._database, self._spool, clock=self._recording.clock)
        keeper.start()
        try:
            if not keeper.settled(_SETTLE_S):
                return ["the index did not come to rest"]
        finally:
            keeper.stop()
        Hashing(self._database, self._spool).catch_up()
        return [*self._objects(account), *self._files(), *self._aside()]

    def _read(self, keys: list[str]) -> None:
        index = Index(self._database, self._spool, clock=self._recording.clock)
        index.add_files([(key, None) for key in keys if self._spool.path(key).is_file()])
        Hashing(self._database, self._spool).catch_up()

    def _objects(self, account: Account) -> Iterator[str]:
        """What was answered with success is there and known; what was not is so, too, or nowhere."""
        rows: dict[str, list[tables.Instance]] = {}
        with self._database.session() as session:
            for row in session.scalars(select(tables.Instance)):
                rows.setdefault(row.sop_uid, []).append(row)
        answered = {sop_uid for heard, sop_uid, status in self._recording.answers if heard < self._at and status == 0}
        for made in self._recording.made.values():
            found = rows.pop(made.sop_uid, [])
            whole = [row for row in found if self._holds(row, made)]
            if made.sop_uid in answered:
                account.acknowledged += 1
                if len(found) != 1 or len(whole) != 1:
                    yield f"{made.path.name} was acknowledged; {len(found)} rows, {len(whole)} with its bytes"
            else:
                account.unanswered["whole" if whole else "not there"] += 1
                if len(whole) != len([row for row in found if row.missing_since is None]):
                    yield f"{made.path.name} was not answered, and is indexed torn"
        for sop_uid in rows:
            yield f"an object is indexed that nobody sent: {sop_uid}"

    def _holds(self, row: tables.Instance, made: Made) -> bool:
        """Whether a row's file is that object, bit for bit, and the row tells the truth about it."""
        try:
            content = self._spool.path(row.file_key).read_bytes()
            data_set = split_file(content)[1]
        except (FileNotFoundError, ObjectNotStorable):
            return False
        return (
            hashlib.sha256(data_set).hexdigest() == made.sha256
            and (row.sha256, row.size) == (hashlib.sha256(content).hexdigest(), len(content))
            and row.missing_since is None
        )

    def _files(self) -> Iterator[str]:
        """Every file is known, or explained; nothing half-written is left."""
        with self._database.session() as session:
            known = set(session.scalars(select(tables.Instance.file_key)))
            explained = {row.file_key: row.reason for row in session.scalars(select(tables.QuarantinedObject))}
        for key in self._spool.object_keys():
            if key not in known and not explained.get(key):
                yield f"a file has neither row nor explanation: {key}"
        for key in self._spool.quarantined_keys():
            if not explained.get(key):
                yield f"quarantined bytes are not shown: {key}"
            if not self._spool.quarantine_facts(key).get("reason"):
                yield f"quarantined bytes have lost their reason: {key}"
        for path in self._spool.root.rglob("*.part"):
            yield f"a half-written file is left: {path.name}"

    def _aside(self) -> Iterator[str]:
        """What was answered with a refusal of the object is kept."""
        kept = set()
        for key in self._spool.quarantined_keys():
            content = self._spool.path(key).read_bytes()
            try:
                kept.add(hashlib.sha256(split_file(content)[1]).hexdigest())
            except ObjectNotStorable:
                yield f"quarantined bytes are torn: {key}"
        for heard, sop_uid, status in self._recording.answers:
            made = self._recording.made[sop_uid]
            if heard < self._at and status & 0xF000 == 0xC000 and made.sha256 not in kept:
                yield f"{made.path.name} was refused, and its bytes are lost"


def _hurry(server: EmbeddedPostgres) -> None:
    """This database is thrown away: it need not survive anything."""
    engine = create_engine(server.administrator_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("ALTER SYSTEM SET fsync = off")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    engine.dispose()


def main() -> int:
    """Read the command line, record, lose power, print the account."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.power", description=__doc__)
    parser.add_argument("--states", type=int, default=300, help="losses of power in each recording")
    parser.add_argument("--recordings", type=int, default=2, help="every second one of a listener that is killed, too")
    parser.add_argument("--seed", type=int)
    told = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    seed = random.SystemRandom().randrange(1 << 31) if told.seed is None else told.seed
    faults = 0
    with tempfile.TemporaryDirectory(prefix="power-") as folder:
        server = EmbeddedPostgres(Path(folder) / "database")
        server.start()
        try:
            _hurry(server)
            database = Database(server.url)
            migrate(database)
            for number in range(told.recordings):
                place = Path(folder) / f"recording{number}"
                recording = record(place, server.url, seed=seed + number, killed=bool(number % 2))
                account = survive(recording, database, states=told.states, seed=seed + number, say=print)
                print("\n".join(account.lines()), flush=True)
                faults += len(account.faults)
            database.close()
        finally:
            server.stop(even_if_used=True)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
