"""The programs that receive, started fresh with empty storage: ours as it ships, pynetdicom's, Orthanc, DCMTK's."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from deploy.embedded_postgres import EmbeddedPostgres
from fhir_records import tables
from fhir_records.database import Database
from fhir_records.migrations import migrate
from tests.chaos.processes import descendants
from tests.peers import HOST, Peer, free_port, listens, need, orthanc_server

REPOSITORY = Path(__file__).resolve().parents[2]
_CONFIG = """
[dicom]
ae_title = "BENCH"
host = "{host}"
port = {port}
min_free_mb = 0
max_associations_per_caller = 200
"""
# What a test may not keep: the index, and what was asked for because of it.
_INDEX = (
    "study, instance, revision, revision_instance, association_lease, association_study, quarantined_object, "
    "procrastinate_jobs, procrastinate_events, patient, patient_identifier"
)


@dataclass
class Receiver:
    """A running program that takes objects in."""

    name: str
    port: int
    called: str  # its AE title
    stored: Callable[[], int]  # how many objects it has
    pid: int
    indexed: Callable[[], int] | None = None  # where the index follows behind the answer: how many it knows


Start = Callable[[Path], AbstractContextManager[Receiver]]


@contextmanager
def dcmtk(folder: Path) -> Iterator[Receiver]:
    """DCMTK's `storescp`, a process for each association; neither synchronised nor indexed."""
    out = _fresh(folder)
    port = free_port()
    options = ["--fork", "--accept-all", "--bit-preserving", "--aetitle", "BENCH", "--output-directory", str(out)]
    with _running([need("storescp"), *options, str(port)], port, folder) as pid:
        yield Receiver("DCMTK storescp", port, "BENCH", lambda: _files(out), pid)


@contextmanager
def pynetdicom(folder: Path) -> Iterator[Receiver]:
    """The `storescp` of pynetdicom `storescp`; neither synchronised nor indexed."""
    out = _fresh(folder)
    port = free_port()
    command = [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-aet", "BENCH", "-od", str(out), "-q"]
    with _running(command, port, folder) as pid:
        yield Receiver("pynetdicom storescp", port, "BENCH", lambda: _files(out), pid)


@contextmanager
def orthanc(folder: Path) -> Iterator[Receiver]:
    """Orthanc as it comes: files synchronised, SQLite index written before the answer."""
    home = _fresh(folder)
    with orthanc_server(home, ae_title="BENCH", stable_age_s=600, extra={"DicomThreadsCount": 4}) as peer:
        assert peer.peer.process is not None
        yield Receiver(
            "Orthanc",
            peer.dicom_port,
            "BENCH",
            lambda: int(peer.json("statistics")["CountInstances"]),
            peer.peer.process.pid,
        )


class Ours:
    """`wetread listen` with a database of its own that outlives it: files synchronised, the index behind the answer."""

    def __init__(self, folder: Path, processes: int = 0) -> None:
        self._folder = folder
        self._processes = processes
        self.server = EmbeddedPostgres(folder / "database")
        self.server.start()
        self.database = Database(self.server.url)
        migrate(self.database)

    def close(self) -> None:
        """Stop the database."""
        self.database.close()
        self.server.stop(even_if_used=True)

    def empty(self) -> None:
        """Forget every object."""
        with self.database.session() as session:
            session.connection().exec_driver_sql(f"TRUNCATE {_INDEX} CASCADE")

    def indexed(self) -> int:
        """How many objects the index knows."""
        with self.database.session() as session:
            return session.scalar(select(func.count()).select_from(tables.Instance)) or 0

    @contextmanager
    def __call__(self, folder: Path) -> Iterator[Receiver]:
        """Run it with an empty spool, and the index as it is."""
        home = _fresh(folder)
        port = free_port()
        text = _CONFIG.format(port=port, host=HOST)
        text += f"processes = {self._processes}\n" if self._processes else ""
        (home / "wetread.toml").write_text(text)
        env = {name: value for name, value in os.environ.items() if not name.startswith("WETREAD_")}
        env |= {"WETREAD_HOME": str(home), "WETREAD_DATABASE_URL": self.server.url, "PYTHONPATH": str(REPOSITORY)}
        before = self.indexed()
        command = [sys.executable, "-m", "deploy.cli", "listen"]
        with _running(command, port, folder, env) as pid:
            spool = home / "spool" / "objects"
            yield Receiver(
                "Wetread", port, "BENCH", lambda: _files(spool), pid, indexed=lambda: self.indexed() - before
            )


@contextmanager
def places() -> Iterator[Path]:
    """A temporary folder on the disk that programs' data usually lie on."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        yield _apart(Path(folder))


def pids(receiver: Receiver) -> Sequence[int]:
    """The program's processes."""
    return [receiver.pid, *descendants(receiver.pid)]


@contextmanager
def _running(command: list[str], port: int, folder: Path, env: dict[str, str] | None = None) -> Iterator[int]:
    peer = Peer(command, folder.with_suffix(".log"), lambda: listens(port), env=env)
    peer.start()
    assert peer.process is not None
    time.sleep(0.5)  # what it does at its start is not measured
    try:
        yield peer.process.pid
    finally:
        peer.stop()


def _fresh(folder: Path) -> Path:
    """A new folder inside this one.

    Nothing is removed before the end: for minutes ext4 steps over the inodes of removed files, one by one, for each
    file that it makes beside them (`recently_deleted`), and whoever comes next would pay for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix="run-", dir=_apart(folder)))
    subprocess.run(["sync"], check=True)  # what an earlier program left unwritten is not this one's to wait for
    return fresh


def _apart(folder: Path) -> Path:
    """Let ext4 place the folders in this one far from each other, as it does at the top of a disk (chattr(1), +T)."""
    subprocess.run(["chattr", "+T", str(folder)], check=False, capture_output=True)
    return folder


def _files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))
