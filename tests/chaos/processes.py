"""Processes that are kept running whatever happens to them, and what the kernel knows of their children."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deploy.supervise import follow_parent

_RESTART_S = 0.2


def descendants(pid: int) -> list[int]:
    """The processes below ``pid``, by the parents that the kernel names; zombies are none."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    found, frontier = [], {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier}
        found += sorted(frontier)
    return found


def is_alive(pid: int) -> bool:
    """Whether any thread of the process runs: behind a zombie's first thread others may still hold its sockets."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" or len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False


def pss_mib(pids: Sequence[int]) -> float:
    """Proportional set size of these processes together, MiB."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1])
    return total / 1024


@dataclass
class Kept:
    """A program that is started again whenever it ended, as a supervisor does."""

    name: str
    command: Sequence[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    starts: int = 0
    left_behind: list[int] = field(default_factory=list)  # children that outlived a killed parent for 10 s
    _process: subprocess.Popen[bytes] | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Run it, from now on."""
        self._stop.clear()
        # The kernel's "parent died" signal follows the thread that started the process, so one thread does it all.
        self._thread = threading.Thread(target=self._keep, name=f"keep {self.name}", daemon=True)
        self._thread.start()

    def stop(self, grace_s: float = 40) -> int | None:
        """End it with SIGTERM, and start it no more; its exit status. Killed after ``grace_s``."""
        self._stop.set()
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(grace_s)
            except subprocess.TimeoutExpired:
                process.kill()
        if self._thread is not None:
            self._thread.join(15)
        return process.returncode if process is not None else None

    def kill(self) -> None:
        """Kill it and all below it, and start it no more; returns when all are gone."""
        self._stop.set()
        pids = self.pids
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        while any(is_alive(pid) for pid in pids):
            time.sleep(0.02)
        if self._thread is not None:
            self._thread.join(15)

    @property
    def pids(self) -> list[int]:
        """The process and all below it; none while it is being started again."""
        process = self._process
        if process is None or process.poll() is not None:
            return []
        return [process.pid, *descendants(process.pid)]

    def signal(self, pid: int, signum: signal.Signals) -> None:
        """Send a signal to one of them; where the parent is killed, see whether its children go with it."""
        children = descendants(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signum)
        if signum is signal.SIGKILL and children:
            threading.Thread(target=self._watch_orphans, args=(children,), daemon=True).start()

    def _watch_orphans(self, children: Sequence[int]) -> None:
        end = time.monotonic() + 10
        while time.monotonic() < end and any(is_alive(pid) for pid in children):
            time.sleep(0.1)
        self.left_behind += [pid for pid in children if is_alive(pid)]

    def _keep(self) -> None:
        while not self._stop.is_set():
            with self.log.open("ab") as output:
                self._process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=self.env,
                    start_new_session=True,
                    preexec_fn=follow_parent(),  # noqa: PLW1509 - it takes no lock
                )
            self.starts += 1
            self._process.wait()
            self._stop.wait(_RESTART_S)
