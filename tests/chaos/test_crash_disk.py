"""The model of a disk that loses power: what it must keep, what it may lose, and careless writers that it finds out."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.crash_disk import Manner, Tree, crashed, live
from tests.chaos.disk_history import History, Unmodelled
from tests.chaos.syscalls import Call, Recorder, may_record, parse
from tests.peers import PEER_TIMEOUT_S

pytestmark = pytest.mark.skipif(not may_record(), reason="SKIPPED LOUDLY: system calls are recorded by strace")

_BYTES = b"object " * 2000
_PREPARE = """
import os, sys
os.chdir("/")
root, content = sys.argv[1], b"object " * 2000
def sync(path):
    fd = os.open(path, os.O_RDONLY); os.fsync(fd); os.close(fd)
def write(path):
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.write(fd, content[:5000]); os.write(fd, content[5000:])
    return fd
def answer():
    os.write(1, b"done")
"""
_CAREFUL = "fd = write(root + '/a'); os.fdatasync(fd); os.rename(root + '/a', root + '/b'); sync(root); answer()"


def recorded(folder: Path, program: str) -> tuple[History, list[Call], int]:
    """What a program did to a folder, and the moment when it gave its answer."""
    root = folder.resolve() / "root"
    root.mkdir()
    command = [sys.executable, "-I", "-S", "-c", _PREPARE + program, str(root)]
    recorder = Recorder(command, folder / "calls", folder / "output")
    recorder.process.wait(PEER_TIMEOUT_S)
    calls = recorder.calls()
    answers = [call.enter for call in calls if call.name == "write" and call.arguments[0].startswith("1<")]
    return History(str(root), calls), calls, answers[0] if answers else calls[-1].leave + 1


def states(history: History, at: int, count: int = 200) -> Iterator[Tree]:
    """So many states after a loss of power at this moment."""
    for seed in range(count):
        chance = random.Random(seed)
        yield crashed(history.root, at, Manner.by_chance(chance), chance)


def test_what_was_synchronised_is_there_in_every_state(tmp_path: Path) -> None:
    """File synchronised, named, its folder synchronised: whatever the disk had not written yet, it is there whole."""
    history, calls, answered = recorded(tmp_path, _CAREFUL)
    assert all(tree["b"] == _BYTES for tree in states(history, answered))
    assert live(history.root, answered) == {"b": _BYTES}
    assert calls[-1].leave >= answered


def test_before_the_answer_anything_may_be_but_never_a_torn_name(tmp_path: Path) -> None:
    """At every earlier moment the final name is there whole, or not there; half-written bytes have the first one."""
    history, _, answered = recorded(tmp_path, _CAREFUL)
    met = set()
    for moment in [*history.moments, answered - 1]:
        for tree in states(history, moment, 60):
            assert tree.get("b", _BYTES) == _BYTES
            met.add((tree.get("a", b"gone"), "b" in tree))
    assert (b"gone", False) in met
    assert (b"gone", True) in met
    assert (_BYTES, False) in met
    assert any(content not in (b"gone", b"", _BYTES) for content, _ in met)


@pytest.mark.parametrize(
    ("program", "lost", "torn"),
    [
        ("write(root + '/b'); answer()", True, True),
        ("write(root + '/a'); os.rename(root + '/a', root + '/b'); sync(root); answer()", False, True),
        ("fd = write(root + '/a'); os.fsync(fd); os.rename(root + '/a', root + '/b'); answer()", True, False),
        (
            "os.mkdir(root + '/f'); fd = write(root + '/f/b'); os.fsync(fd); sync(root + '/f'); answer()",
            True,
            False,
        ),
        ("fd = write(root + '/b'); os.fsync(fd); sync(root); os.pwrite(fd, b'other', 9000); answer()", False, True),
        ("fd = write(root + '/b'); os.fsync(fd); sync(root); os.ftruncate(fd, 10); answer()", False, True),
    ],
)
def test_careless_writers_are_found_out(tmp_path: Path, program: str, lost: bool, torn: bool) -> None:
    """Without one of the syncs there are states without the file, or with other bytes in it."""
    history, _, answered = recorded(tmp_path, program)
    found = [tree.get("b", tree.get("f/b")) for tree in states(history, answered)]
    assert (None in found) is lost
    assert any(content not in (None, _BYTES) for content in found) is torn


@pytest.mark.parametrize(
    "program",
    [
        "fd = os.open(root + '/b', os.O_CREAT | os.O_WRONLY | os.O_DSYNC); os.write(fd, content); sync(root); answer()",
        "fd = write(root + '/b'); os.sync(); answer()",
        "fd = write(root + '/a'); os.fsync(fd); os.link(root + '/a', root + '/b'); sync(root); answer()",
        "fd = os.open(root, os.O_TMPFILE | os.O_WRONLY); os.write(fd, content); os.fsync(fd);"
        "os.link(f'/proc/self/fd/{fd}', root + '/b', src_dir_fd=0, follow_symlinks=True); sync(root); answer()",
        "fd = os.open(root + '/b', os.O_CREAT | os.O_WRONLY | os.O_APPEND); os.write(fd, content[:9]);"
        "os.lseek(fd, 0, 0); os.write(fd, content[9:]); os.fsync(fd); sync(root); answer()",
        "fd = os.open(root + '/b', os.O_CREAT | os.O_WRONLY); os.pwrite(fd, content[9:], 9); os.write(fd, content[:9]);"
        "os.fsync(fd); sync(root); os.unlink(root + '/b') if 0 else None; answer()",
        "os.mkdir(root + '/f'); sync(root); fd = write(root + '/f/a'); os.fsync(fd);"
        "os.rename(root + '/f/a', root + '/b'); sync(root); answer()",
    ],
)
def test_other_careful_ways_are_understood(tmp_path: Path, program: str) -> None:
    """O_DSYNC, sync, links, nameless files, appending, writing in places: what these make durable is there."""
    history, _, answered = recorded(tmp_path, program)
    assert all(tree["b"] == _BYTES for tree in states(history, answered))


@pytest.mark.parametrize(
    "program",
    [
        "import mmap; fd = write(root + '/b'); mmap.mmap(os.open(root + '/b', os.O_RDWR), 0)",
        "fd = write(root + '/b'); os.posix_fallocate(fd, 0, 10); os.truncate(root + '/b', 3)",
        "os.symlink('a', root + '/b')",
        "fd = write(root + '/b'); os.copy_file_range(os.open(root + '/b', os.O_RDONLY), fd, 10)",
        "os.mkdir(root + '/f'); os.rename(root + '/f', root + '/../f')",
    ],
)
def test_what_the_model_does_not_know_it_refuses(tmp_path: Path, program: str) -> None:
    """Maps, links by name and the like have no place in the model: a recording with them is not judged."""
    with pytest.raises(Unmodelled):
        recorded(tmp_path, program)


def test_a_recording_of_several_threads_is_put_in_order() -> None:
    """Calls that others interrupt in the record keep their beginning, their end, and whether they are known to end."""
    lines = [
        '7 openat(AT_FDCWD<\\x2f>, "\\x2f\\x61", O_WRONLY|O_CREAT, 0666 <unfinished ...>',
        '8 rename("\\x2f\\x62", "\\x2f\\x63") = 0',
        "7 <... openat resumed>) = 5<\\x2f\\x61>",
        "8 fsync(6<\\x2f>) = -1 EIO (Input/output error)",
        '7 writev(5<\\x2f\\x61>(deleted), [{iov_base="\\x61,", iov_len=2}], 1 <unfinished ...>'.replace(',"', '"'),
        "7 +++ killed by SIGKILL +++",
        "8 --- SIGCHLD {} ---",
    ]
    found = [(call.name, call.enter, call.leave, call.result) for call in parse(lines)]
    assert found == [("rename", 2, 3, "0"), ("openat", 0, 5, "5"), ("writev", 8, 11, "?")]
