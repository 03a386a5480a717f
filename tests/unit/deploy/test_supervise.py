"""The supervisor with real processes: small scripts as roles, real signals."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.supervise import Pace, RoleSpec, Supervisor
from fhir_records.errors import SettingsError

SERVES = "import time\nwhile True: time.sleep(0.05)"
# A role is only sure to ignore SIGTERM, or to note it, from the moment at which it has written its file.
STUBBORN = "import signal,sys,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nopen(sys.argv[1],'w').close()\n" + (
    "while True: time.sleep(0.05)"
)
TELLS_ITS_END = """
import signal, sys, time
def end(*_):
    with open(sys.argv[1], "a") as file: file.write(sys.argv[2] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open(sys.argv[1] + "." + sys.argv[2], "w").close()
while True: time.sleep(0.05)
"""


def role(name: str, script: str, *arguments: object, grace_s: float = 5) -> RoleSpec:
    """A role that runs a Python script."""
    return RoleSpec(name, (sys.executable, "-S", "-c", script, *map(str, arguments)), grace_s=grace_s)


def alive(pid: int) -> bool:
    """Whether a process runs, not counting the dead that nobody has reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def eventually(condition: Callable[[], object], seconds: float = 60) -> bool:
    """Whether `condition` comes true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture
def story() -> Iterator[Callable[..., int]]:
    """Runs a supervisor here, while a thread tells the story; what the thread asserts fails the test."""

    def run(supervisor: Supervisor, tell: Callable[[], None]) -> int:
        faults: list[BaseException] = []

        def thread() -> None:
            try:
                tell()
            except Exception as error:
                faults.append(error)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        teller = threading.Thread(target=thread)
        teller.start()
        status = supervisor.run()
        teller.join()
        if faults:
            raise faults[0]
        return status

    yield run


def test_role_that_dies_is_started_again(story: Callable[..., int]) -> None:
    """A killed role comes back as a new process, and the other roles are left alone."""
    supervisor = Supervisor([role("a", SERVES), role("b", SERVES)], pace=Pace((0.05,)), tick=0.02)

    def tell() -> None:
        assert eventually(lambda: all(s.pid for s in supervisor.status().values()))
        before = supervisor.status()
        os.kill(before["a"].pid or 0, signal.SIGKILL)
        assert eventually(lambda: supervisor.status()["a"].pid not in (None, before["a"].pid))
        assert supervisor.status()["a"].restarts == 1
        assert supervisor.status()["b"] == before["b"]

    assert story(supervisor, tell) == 0
    assert [s.pid for s in supervisor.status().values()] == [None, None]


def test_pauses_grow_while_a_role_keeps_dying(tmp_path: Path, story: Callable[..., int]) -> None:
    """A role that cannot run is tried for ever, with pauses that grow to the longest one."""
    times = tmp_path / "times"
    script = "import sys,time\nopen(sys.argv[1],'a').write(f'{time.monotonic()}\\n')\nsys.exit(3)"
    supervisor = Supervisor([role("a", script, times)], pace=Pace((0.1, 0.3, 0.6)), tick=0.02)
    story(supervisor, lambda: eventually(lambda: times.exists() and len(times.read_text().splitlines()) >= 5))
    moments = [float(line) for line in times.read_text().splitlines()]
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert all(gap >= pause for gap, pause in zip(gaps, (0.1, 0.3, 0.6, 0.6), strict=False))
    assert gaps[0] < gaps[2]


def test_pause_is_short_again_after_a_steady_time(story: Callable[..., int]) -> None:
    """Deaths in a row are forgotten when the role had run for the steady time."""
    script = "import time; time.sleep(0.3)"
    supervisor = Supervisor([role("a", script)], pace=Pace((0.05, 30), steady_s=0.2), tick=0.02)

    def tell() -> None:
        assert eventually(lambda: supervisor.status()["a"].restarts >= 3, 20)
        assert supervisor.status()["a"].deaths_in_a_row == 1

    story(supervisor, tell)


def test_program_that_does_not_exist_does_not_end_the_others(story: Callable[..., int]) -> None:
    """A role whose program is missing is tried again while the others run."""
    missing = RoleSpec("missing", ("/nowhere/wetread",))
    supervisor = Supervisor([missing, role("a", SERVES)], pace=Pace((0.05,)), tick=0.02)

    def tell() -> None:
        assert eventually(lambda: supervisor.status()["missing"].restarts >= 3)
        assert alive(supervisor.status()["a"].pid or 0)

    story(supervisor, tell)


def test_roles_stop_in_reverse_order_between_before_and_after(tmp_path: Path, story: Callable[..., int]) -> None:
    """`before` comes first, roles end one after the other in reverse order, `after` comes last."""
    diary = tmp_path / "diary"

    def note(word: str) -> None:
        with diary.open("a") as file:
            file.write(word + "\n")

    names = ["worker", "listener", "web"]
    supervisor = Supervisor(
        [role(name, TELLS_ITS_END, diary, name) for name in names],
        before=lambda: note("before"),
        after=lambda: note("after"),
        tick=0.02,
    )
    story(supervisor, lambda: eventually(lambda: all(Path(f"{diary}.{name}").exists() for name in names)))
    assert diary.read_text().split() == ["before", "web", "listener", "worker", "after"]


def test_role_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path, story: Callable[..., int]) -> None:
    """A role that does not end in its grace is killed, not waited for."""
    ready = tmp_path / "ready"
    supervisor = Supervisor([role("a", STUBBORN, ready, grace_s=0.5)], tick=0.02)
    pids: list[int] = []

    def tell() -> None:
        assert eventually(ready.exists)
        pids.append(supervisor.status()["a"].pid or 0)

    began = time.monotonic()
    story(supervisor, tell)
    assert time.monotonic() - began >= 0.5
    assert not alive(pids[0])


def test_second_signal_does_not_wait_for_the_grace(tmp_path: Path, story: Callable[..., int]) -> None:
    """Who asks twice gets a stop at once."""
    ready = tmp_path / "ready"
    supervisor = Supervisor([role("a", STUBBORN, ready, grace_s=60)], tick=0.02)

    def tell() -> None:
        assert eventually(ready.exists)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)

    began = time.monotonic()
    story(supervisor, tell)
    assert time.monotonic() - began < 30


def test_what_a_dead_role_left_behind_is_killed(tmp_path: Path, story: Callable[..., int]) -> None:
    """A role's own children do not outlive it."""
    child = tmp_path / "child"
    script = f"import subprocess,sys,time\np=subprocess.Popen([sys.executable,'-S','-c',{SERVES!r}])\n" + (
        "open(sys.argv[1],'a').write(f'{p.pid}\\n')\ntime.sleep(60)"
    )
    supervisor = Supervisor([role("a", script, child)], pace=Pace((0.05,)), tick=0.02)

    def tell() -> None:
        assert eventually(lambda: child.exists() and child.read_text())
        first = int(child.read_text().split()[0])
        assert alive(first)
        os.kill(supervisor.status()["a"].pid or 0, signal.SIGKILL)
        assert eventually(lambda: not alive(first))

    story(supervisor, tell)


def test_invalid_configuration_changes_nothing(story: Callable[..., int]) -> None:
    """SIGHUP with a configuration that is refused leaves every process as it is."""
    asked = threading.Event()

    def refuse() -> list[RoleSpec]:
        asked.set()
        raise SettingsError("dicom.port is not a number")

    supervisor = Supervisor([role("a", SERVES)], on_reload=refuse, tick=0.02)

    def tell() -> None:
        assert eventually(lambda: supervisor.status()["a"].pid)
        before = supervisor.status()
        os.kill(os.getpid(), signal.SIGHUP)
        assert asked.wait(60)
        time.sleep(0.2)
        assert supervisor.status() == before

    story(supervisor, tell)


def test_new_configuration_restarts_the_roles_one_by_one(tmp_path: Path, story: Callable[..., int]) -> None:
    """SIGHUP replaces each role in turn, starts a new one, and ends one that is no longer there."""
    diary = tmp_path / "diary"
    first = [role("a", TELLS_ITS_END, diary, "old-a"), role("b", TELLS_ITS_END, diary, "old-b"), role("gone", SERVES)]
    second = [role("b", TELLS_ITS_END, diary, "new-b"), role("a", TELLS_ITS_END, diary, "new-a"), role("c", SERVES)]
    supervisor = Supervisor(first, on_reload=lambda: second, tick=0.02)

    def tell() -> None:
        assert eventually(lambda: all(Path(f"{diary}.old-{name}").exists() for name in "ab"))
        gone = supervisor.status()["gone"].pid or 0
        os.kill(os.getpid(), signal.SIGHUP)
        assert eventually(lambda: all(Path(f"{diary}.new-{name}").exists() for name in "ab"))
        assert eventually(lambda: not alive(gone))
        assert eventually(lambda: "c" in supervisor.status() and supervisor.status()["c"].pid)
        assert set(supervisor.status()) == {"a", "b", "c"}

    story(supervisor, tell)
    assert diary.read_text().split() == ["old-b", "old-a", "new-a", "new-b"]


def test_every_second_goes_on_after_an_error(story: Callable[..., int]) -> None:
    """The task of every second is called again though it failed, and the roles do not notice."""
    calls: list[float] = []

    def fail() -> None:
        calls.append(time.monotonic())
        raise RuntimeError("the database is away")

    supervisor = Supervisor([role("a", SERVES)], every_second=fail, tick=0.02)
    story(supervisor, lambda: eventually(lambda: len(calls) >= 2))
    assert len(calls) >= 2
    assert supervisor.status()["a"].restarts == 0


def test_stop_is_heard_while_before_runs(story: Callable[..., int]) -> None:
    """SIGTERM during a long recovery of the database ends the wait, starts no role, and still runs `after`."""
    waiting, done = threading.Event(), []

    def recover() -> None:
        waiting.set()
        for _ in range(3000):  # as the database's start waits: a signal just before one long sleep would not end it
            time.sleep(0.02)

    supervisor = Supervisor([role("a", SERVES)], before=recover, after=lambda: done.append(True), tick=0.02)
    began = time.monotonic()
    assert story(supervisor, lambda: waiting.wait(60) and None) == 0
    assert time.monotonic() - began < 40
    assert done == [True]
    assert supervisor.status()["a"].pid is None


def test_error_of_before_is_raised_after_after() -> None:
    """Where the database cannot be started, nothing else is, and the error comes out."""
    done: list[bool] = []

    def fail() -> None:
        raise SettingsError("no database")

    with pytest.raises(SettingsError, match="no database"):
        Supervisor([role("a", SERVES)], before=fail, after=lambda: done.append(True)).run()
    assert done == [True]


def test_killed_supervisor_takes_its_roles_down(tmp_path: Path) -> None:
    """`kill -9` of the supervisor sends its roles SIGTERM, and they end cleanly."""
    diary = tmp_path / "diary"
    main = (
        "import sys\nfrom deploy.supervise import RoleSpec, Supervisor\n"
        f"roles = [RoleSpec(n, (sys.executable, '-S', '-c', {TELLS_ITS_END!r}, {str(diary)!r}, n)) for n in 'ab']\n"
        "Supervisor(roles).run()"
    )
    with subprocess.Popen([sys.executable, "-c", main], cwd=Path(__file__).parents[3]) as supervisor:
        assert eventually(lambda: all(Path(f"{diary}.{name}").exists() for name in "ab"))
        supervisor.kill()
    assert eventually(lambda: diary.exists() and sorted(diary.read_text().split()) == ["a", "b"])


def test_two_roles_of_one_name_are_refused() -> None:
    """A name stands for one role."""
    with pytest.raises(SettingsError, match="same name"):
        Supervisor([role("a", SERVES), role("a", SERVES)])
