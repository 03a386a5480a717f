"""A disk that says no: over its quota, full when it is synchronised, broken. Nothing is acknowledged that is not there.

The kernel's answers are changed on their way by strace, so every call may fail, also those that rarely do.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from dicom_listener.spool import Spool
from fhir_records.database import Database
from tests.chaos.senders import by_pynetdicom
from tests.chaos.stand import REPOSITORY
from tests.chaos.studies import Ledger, Studies
from tests.chaos.syscalls import Recorder, may_record
from tests.chaos.verdict import data_sha256
from tests.peers import PEER_TIMEOUT_S, free_port, listens, wait_until

pytestmark = pytest.mark.skipif(not may_record(), reason="SKIPPED LOUDLY: faults are injected by strace")

FULL = {0x0000, 0xA700}
BROKEN = {0x0000, 0x0110}


@pytest.mark.parametrize(
    ("fault", "statuses"),
    [
        ("writev:error=EDQUOT:when=3+4", FULL),  # over the quota while it is written
        ("writev:error=ENOSPC:when=3+4", FULL),
        ("fdatasync:error=EDQUOT:when=2+3", FULL),  # delayed allocation: over the quota only now
        ("fdatasync:error=ENOSPC:when=2+3", FULL),
        ("rename:error=EDQUOT:when=2+3", FULL),  # no room for the name
        ("fsync:error=ENOSPC:when=8+3", FULL),
        ("writev:error=EIO:when=3+4", BROKEN),
        ("fdatasync:error=EIO:when=2+3", BROKEN),
        ("fsync:error=EIO:when=8+3", BROKEN),
        ("rename:error=EROFS:when=2+3", BROKEN),  # the kernel has made it read-only
    ],
)
def test_what_the_disk_refuses_is_not_acknowledged(
    database: Database, tmp_path: Path, fault: str, statuses: set[int]
) -> None:
    """The association goes on, each object has its answer, success is the truth, and nothing half-written is left."""
    ledger = Ledger()
    made = Studies(tmp_path / "sent", ledger, 7).study(images=14)
    spool = Spool(tmp_path / "spool")
    port = free_port()
    command = [sys.executable, "-m", "tests.integration.listener_processes", database.url, str(spool.root)]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    recorder = Recorder(
        [*command, str(port), "1"], tmp_path / "calls", tmp_path / "log", env=env, inject=[fault], data=False
    )
    try:
        wait_until(lambda: listens(port), what="the listener")
        answers = by_pynetdicom(made, port, "QUOTA")
        assert len(answers) == len(made), "an association did not survive the disk's no"
        assert set(answers.values()) == statuses
        assert not list(spool.root.rglob("*.part"))
        kept = _kept(spool)
        assert kept >= {one.sha256 for one in made if answers[one.sop_uid] == 0}
        # Sent again until all is there, which it is in the end.
        for _ in range(20):
            left = [one for one in made if answers[one.sop_uid] != 0]
            answers |= by_pynetdicom(left, port, "QUOTA") if left else {}
        assert set(answers.values()) == {0}
        assert _kept(spool) == {one.sha256 for one in made}
    finally:
        os.kill(recorder.program, signal.SIGTERM)
        recorder.process.wait(PEER_TIMEOUT_S)


def _kept(spool: Spool) -> set[str]:
    return {data_sha256(spool.path(key)) for key in spool.object_keys()}
