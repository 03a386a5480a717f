"""Small disks leave nothing mounted, whatever becomes of the test that has one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers import wait_until
from tests.small_disk import may_mount, small_disk

pytestmark = pytest.mark.skipif(not may_mount(), reason="SKIPPED LOUDLY: no right to mount a small disk")

_REPOSITORY = Path(__file__).resolve().parents[2]
_HOLDER = """
import signal, sys, time
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may have it ignored
from tests.small_disk import small_disk
with small_disk(Path(sys.argv[1]), 1 << 20):
    print("mounted", flush=True)
    time.sleep(600)
"""


def test_a_disk_is_small_and_goes(tmp_path: Path) -> None:
    """It holds so much and no more, and is gone afterwards."""
    with small_disk(tmp_path, 1 << 20) as disk:
        assert os.path.ismount(tmp_path)
        disk.fill(leave=8192)
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "more").write_bytes(bytes(100_000))
        disk.empty()
        (tmp_path / "more").write_bytes(bytes(100_000))
    assert not os.path.ismount(tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_killed_test_leaves_no_disk(tmp_path: Path, signum: signal.Signals) -> None:
    """Killed with its whole process group, a test has its disk unmounted all the same."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=_REPOSITORY,
        start_new_session=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"mounted\n"
    assert os.path.ismount(tmp_path)
    os.killpg(holder.pid, signum)
    holder.wait(30)
    wait_until(lambda: not os.path.ismount(tmp_path), what="the end of the disk")
