"""What is put to the test: `wetread listen` as it ships, a database, processes that judge studies, and a small disk."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.embedded_postgres import EmbeddedPostgres
from dicom_listener.spool import Spool
from fhir_records.database import Database
from fhir_records.migrations import migrate
from tests.chaos.clock import Clock
from tests.chaos.processes import Kept
from tests.peers import PEER_TIMEOUT_S, free_port, listens, wait_until
from tests.small_disk import SmallDisk, small_disk

REPOSITORY = Path(__file__).resolve().parents[2]
IDLE_S = 2.0
LONGEST_S = 30.0
_CONFIG = """
[dicom]
port = {port}
host = "127.0.0.1"
study_idle_seconds = {idle}
study_max_seconds = {longest}
min_free_mb = 0
"""


@dataclass
class Stand:
    """The processes and places of one run, all under ``folder``."""

    folder: Path
    port: int
    server: EmbeddedPostgres
    database: Database
    spool: Spool
    listen: Kept
    sweepers: list[Kept]
    disk: SmallDisk | None  # None: the spool lies on an ordinary disk
    clock: Clock | None  # None: the listener has the machine's own

    def wait_listening(self, seconds: float = PEER_TIMEOUT_S) -> None:
        """Wait until associations are accepted."""
        wait_until(lambda: listens(self.port), timeout_s=seconds, what="the listener")

    def log(self) -> str:
        """All that the listener has logged."""
        return self.listen.log.read_text(errors="replace")


@contextmanager
def standing(folder: Path, *, disk_bytes: int = 0, own_clock: bool = False, processes: int = 0) -> Iterator[Stand]:
    """Everything running, and stopped in the end.

    Args:
        folder: empty; a short path, for PostgreSQL's socket may lie under it.
        disk_bytes: size of the disk for the spool; 0: the one that ``folder`` lies on. Needs root.
        own_clock: the listener gets a clock that can be set. Needs a C compiler.
        processes: `[dicom] processes`, 0: as many as it chooses.
    """
    home = folder / "home"
    (home / "spool").mkdir(parents=True)
    held = ExitStack()
    disk = held.enter_context(small_disk(home / "spool", disk_bytes)) if disk_bytes else None
    clock = Clock(folder / "clock") if own_clock else None
    server = EmbeddedPostgres(folder / "database")
    kept: list[Kept] = []
    try:
        server.start()
        database = Database(server.url)
        migrate(database)
        stand = _stand(folder, home, server, database, disk, clock, processes)
        kept += [stand.listen, *stand.sweepers]
        for one in kept:
            one.start()
        stand.wait_listening()
        yield stand
    finally:
        for one in kept:
            one.stop()
        with suppress(NameError):
            database.close()
        server.stop(even_if_used=True)
        held.close()


def _stand(
    folder: Path,
    home: Path,
    server: EmbeddedPostgres,
    database: Database,
    disk: SmallDisk | None,
    clock: Clock | None,
    processes: int,
) -> Stand:
    port = free_port()
    config = _CONFIG.format(port=port, idle=IDLE_S, longest=LONGEST_S)
    (home / "wetread.toml").write_text(config + (f"processes = {processes}\n" if processes else ""))
    env = {name: value for name, value in os.environ.items() if not name.startswith("WETREAD_")}
    env |= {"WETREAD_HOME": str(home), "WETREAD_DATABASE_URL": server.url, "PYTHONPATH": str(REPOSITORY)}
    listen_env = dict(env)
    if clock is not None:
        clock.make()
        listen_env |= clock.env()
    listen = Kept("listen", [sys.executable, "-m", "deploy.cli", "listen"], folder / "listen.log", listen_env)
    command = [sys.executable, "-m", "tests.chaos.sweeper", server.url, str(IDLE_S), str(LONGEST_S)]
    sweepers = [Kept(f"sweeper {n}", command, folder / f"sweeper{n}.log", env) for n in range(2)]
    return Stand(folder, port, server, database, Spool(home / "spool"), listen, sweepers, disk, clock)


def start_database(server: EmbeddedPostgres, seconds: float = PEER_TIMEOUT_S) -> None:
    """Start the database again after it was killed."""
    end = time.monotonic() + seconds
    while True:
        try:
            server.start()
            return
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)
