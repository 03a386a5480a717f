"""What goes wrong, one at a time, at random moments; each leaves everything to recover by itself."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from tests.chaos.processes import is_alive
from tests.chaos.stand import Stand, start_database

# Seconds that the listener's clock is set back to: an hour (a wrong time zone), ten days (a dead battery).
_SET_BACK = (3600, 864_000)


class Monkey:
    """Does harm to a stand, and counts what it did."""

    def __init__(self, stand: Stand, seed: int) -> None:
        self._stand = stand
        self._random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self._kinds: dict[Callable[[], None], int] = {
            self.kill_listener_process: 12,
            self.kill_listener_parent: 2,
            self.kill_whole_listener: 2,
            self.kill_sweeper: 3,
            self.terminate_listener: 1,
            self.freeze_listener_process: 1,
            self.kill_database: 2,
            self.stop_database: 2,
        }
        if stand.disk is not None:
            self._kinds[self.fill_disk] = 3
        if stand.clock is not None:
            self._kinds[self.set_clock_back] = 2

    @property
    def kills(self) -> int:
        """How many processes were killed with SIGKILL."""
        return sum(count for name, count in self.done.items() if "killed" in name)

    def strike(self) -> None:
        """One fault, by chance."""
        (fault,) = self._random.choices(list(self._kinds), weights=list(self._kinds.values()))
        fault()

    def every(self) -> None:
        """Each kind of fault once, in random order, so that no run leaves one out."""
        kinds = list(self._kinds)
        self._random.shuffle(kinds)
        for fault in kinds:
            fault()
            self.pause()

    def pause(self) -> None:
        """Let it run for a moment, often too short to recover; now and then until objects are taken again."""
        time.sleep(self._random.choice((0.1, 0.3, 0.6, 1.2, 2.5)))
        if self._random.random() < 0.4:
            self._stand.wait_listening()

    def kill_listener_process(self) -> None:
        """SIGKILL to a child of the listener, or to the one process that it is."""
        pids = self._stand.listen.pids
        if len(pids) <= 1:
            self.kill_listener_parent()
            return
        self._stand.listen.signal(self._random.choice(pids[1:]), signal.SIGKILL)
        self.done["listener: a child process killed"] += 1

    def kill_listener_parent(self) -> None:
        """SIGKILL to the listener's first process; a supervisor starts it again."""
        pids = self._stand.listen.pids
        if pids:
            self._stand.listen.signal(pids[0], signal.SIGKILL)
            self.done["listener: first process killed"] += 1

    def kill_whole_listener(self) -> None:
        """SIGKILL to all its processes in random order, as when memory runs out or power fails."""
        pids = self._stand.listen.pids
        self._random.shuffle(pids)
        for pid in pids:
            self._stand.listen.signal(pid, signal.SIGKILL)
            self.done["listener: killed with all its processes"] += 1

    def terminate_listener(self) -> None:
        """SIGTERM, as for a new version."""
        pids = self._stand.listen.pids
        if pids:
            self._stand.listen.signal(pids[0], signal.SIGTERM)
            self.done["listener: ended and started again"] += 1

    def freeze_listener_process(self) -> None:
        """A process stands still for a while, as on a machine that swaps."""
        pids = self._stand.listen.pids
        if not pids:
            return
        pid = self._random.choice(pids)
        self._stand.listen.signal(pid, signal.SIGSTOP)
        time.sleep(self._random.uniform(0.5, 3))
        self._stand.listen.signal(pid, signal.SIGCONT)
        self.done["listener: a process frozen"] += 1

    def kill_sweeper(self) -> None:
        """SIGKILL to a process that judges studies."""
        sweeper = self._random.choice(self._stand.sweepers)
        for pid in sweeper.pids[:1]:
            sweeper.signal(pid, signal.SIGKILL)
            self.done["sweeper: killed"] += 1

    def kill_database(self) -> None:
        """SIGKILL to PostgreSQL's first process; it recovers when it is started."""
        pid_file = self._stand.folder / "database" / "postgres" / "data" / "postmaster.pid"
        with suppress(OSError, IndexError):
            pid = int(pid_file.read_text().splitlines()[0])
            os.kill(pid, signal.SIGKILL)
            while is_alive(pid):
                time.sleep(0.02)
            self.done["database: killed"] += 1
        time.sleep(self._random.uniform(0, 2))
        start_database(self._stand.server)

    def stop_database(self) -> None:
        """PostgreSQL is shut down, is away for a while, and comes back."""
        self._stand.server.stop(even_if_used=True)
        time.sleep(self._random.uniform(0.5, 4))
        start_database(self._stand.server)
        self.done["database: stopped and started"] += 1

    def fill_disk(self) -> None:
        """The spool's disk is full, or nearly so, and is emptied again."""
        disk = self._stand.disk
        assert disk is not None
        disk.fill(leave=self._random.choice((0, 1_000, 50_000, 1_000_000)))
        time.sleep(self._random.uniform(0.5, 2.5))
        if self._random.random() < 0.5:
            self.kill_listener_process()
            time.sleep(self._random.uniform(0.5, 2.5))
        disk.empty()
        self.done["disk: filled and emptied"] += 1

    def set_clock_back(self) -> None:
        """The listener's clock is wrong for a while, and perhaps processes die meanwhile; then it is right again."""
        clock = self._stand.clock
        assert clock is not None
        clock.set_back(self._random.choice(_SET_BACK))
        time.sleep(self._random.uniform(1.5, 3))
        if self._random.random() < 0.7:
            self.kill_whole_listener()
            # Set right before or after the next listener looks what the last one left.
            time.sleep(self._random.choice((0, 0.5, 3)))
        clock.set_back(0)
        self.done["clock: set back and set right"] += 1
