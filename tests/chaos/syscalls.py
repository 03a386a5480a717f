"""What a program does to files and says over sockets: its system calls, recorded by strace, in the order of time."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# What can change files or names, make them durable, or say something. Also what the model of a disk does not know:
# it must hear of that, to refuse it.
TRACED = (
    "open,openat,openat2,creat,write,writev,pwrite64,pwritev,pwritev2,lseek,ftruncate,truncate,fallocate,"
    "rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,rmdir,symlink,symlinkat,"
    "fsync,fdatasync,sync,syncfs,sync_file_range,sendto,sendmsg,sendmmsg,"
    "mmap,copy_file_range,sendfile,splice,vmsplice,io_uring_setup"
)
UNKNOWN = "?"

_LINE = re.compile(r"^(\d+) +(.*)$", re.DOTALL)
_CALL = re.compile(r"^(\w+)\((.*)$", re.DOTALL)
_RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)$", re.DOTALL)
_RESULT = re.compile(r"^(.*)\)\s+= (\S+)(.*)$", re.DOTALL)
_UNFINISHED = " <unfinished ...>"
_TOKEN = re.compile(r'"[^"]*"|[\[\]{},]')
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


@dataclass(frozen=True, slots=True)
class Call:
    """One system call that succeeded, or may have: its process was killed meanwhile."""

    enter: int  # place in the order of all beginnings and ends
    leave: int  # likewise
    thread: int
    name: str
    arguments: tuple[str, ...]  # as strace writes them, strings in hexadecimal
    result: str  # UNKNOWN where it was under way when its process died
    result_path: str  # of a descriptor that it returned; ""

    @property
    def value(self) -> int:
        """What it returned."""
        return int(self.result.partition("<")[0], 0)


class Recorder:
    """A program under strace.

    Args:
        command: what to run.
        trace: the file that the calls go to.
        output: the file for what it prints.
        env: its environment; None: ours.
        inject: faults, as strace has them, such as "fsync:signal=SIGKILL:when=7" or "writev:error=EDQUOT:when=3+5".
        data: whether what is written and said is recorded, too.
    """

    def __init__(
        self,
        command: Sequence[str],
        trace: Path,
        output: Path,
        *,
        env: Mapping[str, str] | None = None,
        inject: Sequence[str] = (),
        data: bool = True,
    ) -> None:
        options = ["-f", "-y", "-xx", "-v", "-s", str(1 << 27 if data else 0), "--seccomp-bpf", "-o", str(trace)]
        for fault in inject:
            options += ["-e", f"inject={fault}"]
        self._trace = trace
        with output.open("wb") as written:
            self.process = subprocess.Popen(
                ["strace", *options, "-e", f"trace={TRACED}", *command], env=env, stdout=written, stderr=written
            )

    @property
    def program(self) -> int:
        """The pid of the recorded program itself."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0])

    def calls(self) -> list[Call]:
        """What it did, when it has ended."""
        with self._trace.open() as lines:
            return list(parse(lines))


def may_record() -> bool:
    """Whether system calls can be recorded here: strace is there, and the system lets it."""
    if shutil.which("strace") is None:
        return False
    done = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-e", "trace=fsync", "true"], capture_output=True, check=False
    )
    return done.returncode == 0


def parse(lines: Iterator[str] | Sequence[str]) -> Iterator[Call]:
    """The calls that succeeded, by their ends; then those that never ended.

    Raises:
        ValueError: a line is not strace's, or holds a string that was cut off.
    """
    begun: dict[int, tuple[int, str, str]] = {}
    number = 0
    for number, line in enumerate(lines):
        found = _LINE.match(line.rstrip("\n"))
        if found is None:
            raise ValueError(f"line {number + 1} of the recording is no line of strace -f")
        thread, text = int(found[1]), found[2]
        if text.startswith("---"):
            continue
        if text.startswith("+++"):
            if thread in begun:
                yield _cut_off(begun.pop(thread), number, thread)
            continue
        if resumed := _RESUMED.match(text):
            enter, name, rest = begun.pop(thread)
            rest += resumed[2]
        elif call := _CALL.match(text):
            enter, name, rest = 2 * number, call[1], call[2]
        else:
            raise ValueError(f"line {number + 1} of the recording is not understood: {text[:80]}")
        if rest.endswith(_UNFINISHED):
            begun[thread] = (enter, name, rest.removesuffix(_UNFINISHED))
            continue
        done = _RESULT.match(rest)
        if done is None:
            raise ValueError(f"line {number + 1} of the recording has no result: {rest[-80:]}")
        result, path = done[2].partition("<")[0], path_of(done[2])[0]
        if result == UNKNOWN or result.isdigit() or result.startswith("0x"):
            yield Call(enter, 2 * number + 1, thread, name, _split(done[1]), result, path)
    for thread, rest_of in begun.items():
        yield _cut_off(rest_of, number, thread)


def _cut_off(begun: tuple[int, str, str], number: int, thread: int) -> Call:
    enter, name, rest = begun
    return Call(enter, 2 * number + 1, thread, name, _split(rest), UNKNOWN, "")


def text_of(argument: str) -> bytes:
    """All bytes of the strings in an argument.

    Raises:
        ValueError: one was cut off.
    """
    parts = []
    for found in _STRING.finditer(argument):
        if found[2]:
            raise ValueError("the recording cut a string off")
        parts.append(bytes.fromhex(found[1].replace("\\x", "")))
    return b"".join(parts)


def path_of(argument: str) -> tuple[str, bool]:
    """The path of a descriptor, as strace found it, and whether its name was deleted; "" where it has none."""
    found = re.match(r"^[^<]*<((?:\\x[0-9a-f]{2})*)>(\(deleted\))?$", argument)
    if found is None:
        return "", False
    return bytes.fromhex(found[1].replace("\\x", "")).decode("utf-8", "surrogateescape"), bool(found[2])


def _split(arguments: str) -> tuple[str, ...]:
    """At the commas that stand in no bracket and no string."""
    parts, depth, start = [], 0, 0
    for token in _TOKEN.finditer(arguments):
        character = token[0]
        if character in ("[", "{"):
            depth += 1
        elif character in ("]", "}"):
            depth -= 1
        elif character == "," and not depth:
            parts.append(arguments[start : token.start()].strip())
            start = token.end()
    parts.append(arguments[start:].strip())
    return tuple(parts)
