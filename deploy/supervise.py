"""`wetread serve` on one machine: keeps the role processes running, and ends them in order.

A role that dies is started again, at once at first and then with growing pauses. SIGTERM and SIGINT end everything,
SIGHUP brings a new configuration in, role by role. The supervisor holds no state that matters: killed at any moment,
it takes its roles down with it, and the next one starts from what is on disk.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType, MappingProxyType

import structlog

from fhir_records.errors import SettingsError

log = structlog.get_logger(__name__)

_PR_SET_PDEATHSIG = 1  # prctl(2)
_ALARM_AFTER = 5  # deaths in a row from which on a role counts as one that cannot run
_PULSE_JOIN_S = 5.0


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """A process that is to run."""

    name: str
    argv: tuple[str, ...]  # the program's path or name, and its arguments
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # added to the supervisor's own
    grace_s: float = 30  # how long it may take to end after SIGTERM


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast dead roles are started again."""

    pauses_s: tuple[float, ...] = (1, 2, 4, 8, 16, 30)  # after the first death in a row, the second …; the last repeats
    steady_s: float = 60  # a role that ran for so long starts at the first pause again


@dataclass(frozen=True, slots=True)
class RoleStatus:
    """What a role does at this moment."""

    pid: int | None  # None: it does not run
    restarts: int  # how often it was started again since the supervisor started
    deaths_in_a_row: int  # without having run for `Pace.steady_s` in between


class _StopRequested(Exception):
    """SIGTERM or SIGINT came while `before` ran."""


class _Role:
    """One role's process: started, watched, ended."""

    def __init__(self, spec: RoleSpec, pace: Pace) -> None:
        self.spec = spec
        self.restarts = 0
        self.deaths_in_a_row = 0
        self._pace = pace
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0  # monotonic
        self._start_at = 0.0  # monotonic; when to start next
        self._kill_at: float | None = None  # monotonic; set: it was asked to end

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def watch(self, now: float) -> None:
        """Start it when it is due, and take note where it died."""
        if self._process is None:
            if now >= self._start_at:
                self._start(now)
        elif _ended(self._process):
            self._died(now, self._process.returncode)

    def end(self, now: float, *, at_once: bool = False) -> bool:
        """Bring it to its end, by and by: call until True. SIGTERM first, SIGKILL after the grace or `at_once`."""
        if self._process is None or _ended(self._process):
            self._process, self._kill_at, self._start_at = None, None, 0.0
            return True
        if self._kill_at is None:
            self._kill_at = now + self.spec.grace_s
            log.info("stopping role", role=self.spec.name, pid=self._process.pid)
            self._process.send_signal(signal.SIGTERM)
        if at_once or now >= self._kill_at:
            log.warning("role did not stop in time and is killed", role=self.spec.name, pid=self._process.pid)
            _kill_group(self._process)
        return False

    def _start(self, now: float) -> None:
        self._started_at = now
        try:
            self._process = subprocess.Popen(
                self.spec.argv,
                env={**os.environ, **self.spec.env},
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the supervisor, which ends the roles in their order
                preexec_fn=follow_parent(),  # noqa: PLW1509 - it takes no lock; the function says why it is needed
            )
        except (OSError, subprocess.SubprocessError) as error:
            log.error("role cannot be started", role=self.spec.name, program=self.spec.argv[0], error=str(error))
            self._died(now, None)
            return
        log.info("role started", role=self.spec.name, pid=self._process.pid)

    def _died(self, now: float, status: int | None) -> None:
        self._process, self._kill_at = None, None
        steady = now - self._started_at >= self._pace.steady_s
        self.deaths_in_a_row = 1 if steady else self.deaths_in_a_row + 1
        self.restarts += 1
        pause = self._pace.pauses_s[min(self.deaths_in_a_row, len(self._pace.pauses_s)) - 1]
        self._start_at = now + pause
        say = log.error if self.deaths_in_a_row >= _ALARM_AFTER else log.warning
        say(
            "role died and is started again",
            role=self.spec.name,
            status=status,
            deaths_in_a_row=self.deaths_in_a_row,
            pause_s=pause,
        )


class Supervisor:
    """Runs roles until SIGTERM or SIGINT. Use it from the main thread, which alone receives signals."""

    def __init__(
        self,
        roles: Sequence[RoleSpec],
        *,
        on_reload: Callable[[], Sequence[RoleSpec]] | None = None,
        before: Callable[[], object] | None = None,
        after: Callable[[], object] | None = None,
        every_second: Callable[[], object] | None = None,
        pace: Pace | None = None,
        tick: float = 0.2,
    ) -> None:
        """Prepare to run `roles`: they are started in the order given and stopped in the reverse one.

        Args:
            roles: what to run.
            on_reload: asked at SIGHUP for the roles to run from now on; where it raises SettingsError, nothing changes.
            before: runs before the first role starts, for example to start the database.
            after: runs when the last role has ended, also where `before` failed.
            every_second: called once a second, one call at a time, in a thread of its own, so that a slow one delays
                neither restarts nor a stop; its errors are logged.
            pace: how fast dead roles are started again.
            tick: seconds between two looks at the roles.
        """
        _check(roles)
        self._pace = pace or Pace()
        self._roles = {spec.name: _Role(spec, self._pace) for spec in roles}
        self._order = [spec.name for spec in roles]
        self._on_reload = on_reload
        self._before = before
        self._after = after
        self._every_second = every_second
        self._tick = tick
        self._rolling: deque[RoleSpec] = deque()  # roles that wait for their restart with this specification
        self._leaving: list[_Role] = []  # roles that a new configuration no longer has
        self._stop_signals = 0
        self._reload_wanted = False
        self._starting = True

    def run(self) -> int:
        """Supervise until SIGTERM or SIGINT; a second one does not wait for any role's grace. Returns 0.

        Whatever `before` raises is raised, after `after` has run.
        """
        handlers = {signum: signal.signal(signum, self._on_signal) for signum in _SIGNALS}
        ended = threading.Event()
        pulse = threading.Thread(target=self._beat, args=(ended,), name="every-second", daemon=True)
        try:
            with suppress(_StopRequested):
                if self._before:
                    self._before()
                self._starting = False
            if not self._stop_signals:
                pulse.start()
                self._supervise()
        finally:
            self._starting = False
            self._stop_roles()
            ended.set()
            if pulse.ident is not None:
                pulse.join(_PULSE_JOIN_S)
            try:
                if self._after:
                    self._after()
            finally:
                for signum, handler in handlers.items():
                    signal.signal(signum, handler)
        return 0

    def status(self) -> dict[str, RoleStatus]:
        """What each role does now, by name."""
        return {
            name: RoleStatus(role.pid, role.restarts, role.deaths_in_a_row) for name, role in list(self._roles.items())
        }

    def _on_signal(self, signum: int, _frame: FrameType | None) -> None:
        if signum == signal.SIGHUP:
            self._reload_wanted = True
            return
        self._stop_signals += 1
        if self._starting and self._stop_signals == 1:
            raise _StopRequested

    def _supervise(self) -> None:
        while not self._stop_signals:
            now = time.monotonic()
            if self._reload_wanted:
                self._reload_wanted = False
                self._reload()
            self._roll(now)
            changing = self._rolling[0].name if self._rolling else None
            for name, role in self._roles.items():
                if name != changing:
                    role.watch(now)
            time.sleep(self._tick)

    def _reload(self) -> None:
        if self._on_reload is None:
            log.warning("SIGHUP ignored: there is no configuration to read again")
            return
        try:
            specs = self._on_reload()
            _check(specs)
        except SettingsError as error:
            log.error("the new configuration is not valid and changes nothing", error=str(error))
            return
        except Exception:  # boundary: a fault in reading the new configuration must not end what runs with the old one
            log.exception("the new configuration could not be read and changes nothing")
            return
        names = {spec.name for spec in specs}
        log.info("configuration read again; restarting the roles", roles=sorted(names))
        self._leaving += [self._roles.pop(name) for name in list(self._roles) if name not in names]
        self._order = [spec.name for spec in specs]
        self._rolling = deque(specs)

    def _roll(self, now: float) -> None:
        """Go on with a reload: one role at a time, so that the others serve meanwhile."""
        self._leaving = [role for role in self._leaving if not role.end(now)]
        if not self._rolling:
            return
        spec = self._rolling[0]
        role = self._roles.setdefault(spec.name, _Role(spec, self._pace))
        if role.end(now):
            role.spec = spec
            role.watch(now)
            self._rolling.popleft()

    def _stop_roles(self) -> None:
        known = [self._roles[name] for name in reversed(self._order) if name in self._roles]
        for role in [*self._leaving, *known]:
            while not role.end(time.monotonic(), at_once=self._stop_signals > 1):
                time.sleep(min(self._tick, 0.05))
        log.info("all roles have ended")

    def _beat(self, ended: threading.Event) -> None:
        while self._every_second and not ended.wait(1.0):
            try:
                self._every_second()
            except Exception:  # boundary: what is done on the side, once a second, must not end the supervision
                log.exception("the task of every second failed")


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _check(roles: Sequence[RoleSpec]) -> None:
    names = [spec.name for spec in roles]
    if len(set(names)) != len(names):
        raise SettingsError(f"two roles have the same name: {', '.join(names)}")


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process is over; what it had started and left behind is killed before it is reaped."""
    if process.returncode is not None:
        return True
    if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        return False
    _kill_group(process)  # while the dead leader is not reaped, its process group's number is nobody else's
    process.wait()
    return True


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def follow_parent() -> Callable[[], None] | None:
    """What a role's process does before its program: ask the kernel for SIGTERM when the supervisor dies.

    `kill -9` leaves the supervisor no time to stop its roles, and roles that nobody watches would hold the ports and
    the jobs that the next supervisor's roles need. The library is loaded here, because between fork and exec nothing
    that may wait for another thread's lock is safe. The kernel takes the forking *thread's* end for the parent's: only
    the main thread may start roles.
    """
    try:
        prctl = ctypes.CDLL(None).prctl
    except AttributeError:  # no Linux
        return None
    parent = os.getpid()

    def follow() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the supervisor's own handler would swallow it until exec
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel had been asked
            os._exit(1)

    return follow
