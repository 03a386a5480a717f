"""Small disks for tests: file systems of their own that can be filled, and that go with the test, however it ends."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

# Waits until whoever started it is gone, killed or not, for the pipe is closed then; unmounts, and ends.
_KEEPER = 'read -r _; umount --lazy "$0"'


@dataclass
class SmallDisk:
    """A file system of its own that can be filled."""

    mount: Path
    size: int  # bytes

    def fill(self, leave: int) -> None:
        """Take all the space but ``leave`` bytes."""
        free = shutil.disk_usage(self.mount).free - leave
        with suppress(OSError), (self.mount / "filler").open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, max(free, 1))

    def empty(self) -> None:
        """Give it back."""
        (self.mount / "filler").unlink(missing_ok=True)


def may_mount() -> bool:
    """Whether small disks can be had: who may, is root, and not in a container without the right."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    # In a mount namespace of its own, which leaves nothing.
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "t", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


@contextmanager
def small_disk(mount: Path, size: int) -> Iterator[SmallDisk]:
    """A disk of so many bytes at ``mount``, an empty folder. Needs root.

    A private mount namespace would be neater, and would hide the disk from every other process of the test.
    """
    # In a session of its own: an interrupt from the keyboard, or a kill of the test's group, is not for it.
    keeper = subprocess.Popen(
        ["sh", "-c", _KEEPER, str(mount)], stdin=subprocess.PIPE, start_new_session=True, stderr=subprocess.DEVNULL
    )
    assert keeper.stdin is not None
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)], check=True)
        yield SmallDisk(mount, size)
    finally:
        keeper.stdin.close()
        keeper.wait(30)
