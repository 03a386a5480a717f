"""Power is lost while objects are stored: in every state that the disk may be in, nothing acknowledged is missing.

The long run is ``python -m tests.chaos.power --states 300``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fhir_records.database import Database
from tests.chaos.power import survive
from tests.chaos.recorded_listener import record
from tests.chaos.syscalls import may_record

STATES = 25

pytestmark = pytest.mark.skipif(not may_record(), reason="SKIPPED LOUDLY: system calls are recorded by strace")


@pytest.mark.parametrize("killed", [False, True], ids=["in peace", "with processes killed"])
def test_power_lost_at_any_moment_loses_and_tears_nothing(database: Database, tmp_path: Path, killed: bool) -> None:
    """After a restart acknowledged objects are there bit for bit and known; others are whole, aside, or not there."""
    recording = record(tmp_path, database.url, seed=5, studies=2, killed=killed)
    account = survive(recording, database, states=STATES, seed=5)
    print("\n".join(account.lines()))
    assert account.faults == []
    assert account.different > STATES // 3
    assert account.acknowledged > STATES
    assert account.half_written > 0
