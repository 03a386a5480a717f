"""A wall clock of a process's own, that can be set while it runs: a small preloaded library, `clock.c`."""

from __future__ import annotations

import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_suffix(".c")


def may_set_clock() -> bool:
    """Whether processes can be given a clock of their own: it takes a C compiler."""
    return shutil.which("cc") is not None


@dataclass(frozen=True)
class Clock:
    """What the processes that were given it take for the time."""

    folder: Path

    def make(self) -> None:
        """Build it; it is right at first."""
        self.set_back(0)
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(_SOURCE)]
        subprocess.run(command, check=True)

    def set_back(self, seconds: int) -> None:
        """Let it say a time so long ago, at once; 0: it is right again."""
        self.folder.mkdir(exist_ok=True)
        self._file.touch()
        with self._file.open("r+b") as file:  # in place, for the processes have it mapped
            file.write(struct.pack("=q", -seconds))

    def env(self) -> dict[str, str]:
        """What makes a process keep this clock. Its monotonic clock stays true, as when a machine's clock is set."""
        return {"LD_PRELOAD": str(self._library), "CHAOS_CLOCK": str(self._file)}

    @property
    def _library(self) -> Path:
        return self.folder / "clock.so"

    @property
    def _file(self) -> Path:
        return self.folder / "offset"
