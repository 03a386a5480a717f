"""A real listener talked to over the loopback interface, well and badly, and looked at afterwards."""

from __future__ import annotations

import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz import messages, seeds
from tests.fuzz.mutations import mutated
from tests.fuzz.victim import ARTIM_S, MESSAGE_S, SILENCE_S

HOST = "127.0.0.1"
# A connection that nobody talks over any more is closed by the listener after this, whatever came over it before.
CASE_S = ARTIM_S + MESSAGE_S + SILENCE_S + 15.0
# Threads and files that come and go by themselves (a timer, a folder held open); a leak is one for each case.
SLACK = 4
REPOSITORY = Path(__file__).resolve().parents[2]


class Fault(AssertionError):
    """The listener died, hung, leaked, or wrote where it must not."""


@dataclass
class Victim:
    """A listener that is being talked to."""

    process: subprocess.Popen[str]
    port: int
    tls_port: int  # 0: none
    folder: Path  # holds its spool, its log, and nothing else
    answers: int = field(default=0)  # PDUs that it sent, to tell that something was said at all

    def check_alive(self) -> None:
        """Raises Fault where its process is gone."""
        if self.process.poll() is not None:
            raise Fault(f"the listener died with {self.process.returncode}: {self.log()[-2000:]}")

    def log(self) -> str:
        """What it logged."""
        return (self.folder / "listener.log").read_text(errors="replace")

    def open_files(self) -> int:
        """File descriptors that it has open."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def threads(self) -> int:
        """Threads that it has."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/task").iterdir())

    def memory(self) -> int:
        """Bytes of its own memory."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        kilobytes = [int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_")]
        return sum(kilobytes) * 1024


@contextmanager
def victim(folder: Path, *tls: Path) -> Iterator[Victim]:
    """A listener of its own, with everything that it writes under ``folder``.

    Args:
        folder: empty.
        tls: its certificate, key, authorities and list of revoked certificates, where it is to speak TLS, too.
    """
    log = (folder / "listener.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz.victim", str(folder / "spool"), *map(str, tls)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.strip():
            process.wait(10)
            raise Fault("the listener did not start: " + (folder / "listener.log").read_text()[-2000:])
        yield Victim(process, *map(int, line.split()), folder)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


def converse(there: Victim, pdus: Sequence[bytes], rng: random.Random) -> float:
    """Send what a peer sends, read what comes, hang up in one way or another; the seconds that it took.

    Raises:
        Fault: the listener does not close a connection over which nobody talks.
    """
    began = time.monotonic()
    with socket.create_connection((HOST, there.port), timeout=CASE_S) as connection, suppress(OSError):
        for part in pdus:
            for start in range(0, len(part), size := rng.choice((1 << 20, 1 << 20, 4096, 700))):
                connection.sendall(part[start : start + size])
        manner = rng.choice(("wait", "half", "half", "close", "close", "close", "reset"))
        if manner == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif manner == "close":
            _read_for(connection, 0.02, there)
        else:
            if manner == "half":
                connection.shutdown(socket.SHUT_WR)
            if not _read_for(connection, CASE_S, there):
                raise Fault(f"a connection stayed open for {CASE_S:g} s: {manner}")
    return time.monotonic() - began


def _read_for(connection: socket.socket, seconds: float, there: Victim) -> bool:
    """Read until the peer closes; False where it does not in time."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([connection], [], [], left)[0]:
            got = connection.recv(65536)
            if not got:
                return True
            there.answers += 1
    return False


def plainly(there: Victim) -> socket.socket:
    """A connection without TLS."""
    return socket.create_connection((HOST, there.port), timeout=10)


def echo(there: Victim, connect: Callable[[Victim], socket.socket] = plainly) -> None:
    """C-ECHO over an association of its own, over what ``connect`` makes.

    Raises:
        Fault: it is not answered as it must be.
    """
    there.check_alive()
    try:
        with connect(there) as connection:
            connection.sendall(messages.associate_rq())
            kind, _ = _pdu(connection)
            if kind != 0x02:
                raise Fault(f"a good association was answered with PDU type {kind}")
            connection.sendall(messages.echo())
            kind, content = _pdu(connection)
            if kind != 0x04 or b"\x00\x00\x00\x09\x02\x00\x00\x00\x00\x00" not in content:
                raise Fault(f"C-ECHO was answered with PDU type {kind}: {content.hex()}")
            connection.sendall(messages.release_rq())
            if _pdu(connection)[0] != 0x06:
                raise Fault("A-RELEASE was not answered")
    except OSError as error:
        there.check_alive()
        raise Fault(f"C-ECHO could not be done: {error}") from error


def _pdu(connection: socket.socket) -> tuple[int, bytes]:
    head = _exactly(connection, 6)
    return head[0], _exactly(connection, int.from_bytes(head[2:], "big"))


def _exactly(connection: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        more = connection.recv(size - len(got))
        if not more:
            raise Fault("the connection was closed where an answer was due")
        got += more
    return got


def broken(pdus: Sequence[bytes], others: Sequence[Sequence[bytes]], rng: random.Random) -> list[bytes]:
    """A conversation with something wrong in it: in a PDU, in their order, or in the bytes as a whole."""
    made = list(pdus)
    strangers = [pdu for other in others for pdu in other]
    match rng.choice(("pdu", "pdu", "pdu", "order", "stream", "fragments", "noise")):
        case "pdu":  # behind a good A-ASSOCIATE-RQ more often than in it
            at = (
                rng.randrange(len(made)) if rng.random() < 0.3 else len(made) - 1 - rng.randrange(max(1, len(made) - 1))
            )
            made[at] = mutated(made[at], strangers, rng)
        case "order":
            for _ in range(rng.randint(1, 3)):
                at = rng.randrange(len(made) + 1)
                made.insert(at, rng.choice(strangers))
                if rng.random() < 0.5:
                    made.pop(rng.randrange(len(made)))
        case "stream":
            made = [mutated(b"".join(made), strangers, rng)]
        case "fragments":
            made = [made[0], *(_reframed(pdu, rng) for pdu in made[1:])]
        case _:
            made = [*made[:1], rng.randbytes(rng.choice((1, 5, 6, 100, 5000)))]
    return made


def _reframed(pdu: bytes, rng: random.Random) -> bytes:
    """A P-DATA-TF whose PDVs have other contexts, control bits or lengths; the PDU around them fits."""
    if pdu[:1] != b"\x04" or len(pdu) < 13:
        return pdu
    content = bytearray(pdu[6:])
    match rng.choice(("context", "control", "length", "empty", "many")):
        case "context":
            content[4] = rng.choice((0, 1, 2, 3, 5, 7, 255))
        case "control":
            content[5] = rng.choice((0, 1, 2, 3, 4, 0x82, 255))
        case "length":
            struct.pack_into(">L", content, 0, rng.choice((0, 1, 2, 3, len(content) - 5, len(content), 0xFFFFFFFF)))
        case "empty":
            content = bytearray(messages.pdv(content[4], rng.choice((0, 1, 2, 3)), b""))
        case _:
            content = content * rng.randint(2, 5)
    return messages.data_tf(bytes(content))


def check_folder(there: Victim) -> None:
    """Raises Fault where the listener wrote outside its spool, or under a name that it did not choose."""
    stray = [path.name for path in there.folder.iterdir() if path.name not in {"spool", "listener.log"}]
    if stray:
        raise Fault(f"written outside the spool: {stray}")
    for path in (there.folder / "spool").rglob("*"):
        if not set(path.name) <= set("0123456789abcdefghijklmnopqrstuvwxyz-."):
            raise Fault(f"a name in the spool that a peer may have chosen: {path.name!r}")
    escaped = Path("/tmp/escaped")
    if escaped.exists():
        raise Fault("a path in a UID was followed")


@dataclass(frozen=True)
class Rest:
    """What a listener uses while nobody talks to it."""

    open_files: int
    threads: int
    memory: int  # bytes


def _uses_more(now: Rest, than: Rest) -> bool:
    return now.open_files > than.open_files + SLACK or now.threads > than.threads + SLACK


def at_rest(there: Victim, than: Rest | None = None, wait_s: float = 30.0) -> Rest:
    """What it uses now; where ``than`` is given, once it uses no more than that, or when ``wait_s`` is over."""
    deadline = time.monotonic() + wait_s
    while True:
        there.check_alive()
        now = Rest(there.open_files(), there.threads(), there.memory())
        if than is None or not _uses_more(now, than):
            return now
        if time.monotonic() > deadline:
            return now
        time.sleep(0.2)


@dataclass
class Storm:
    """Many broken conversations at once."""

    there: Victim
    seed: int
    cases: int = 0
    slowest_s: float = 0.0
    faults: list[str] = field(default_factory=list)

    def run(self, *, cases: int = 0, seconds: float = 0.0, workers: int = 8) -> None:
        """Talk until so many cases are over, or so much time; see between them that C-ECHO is answered."""
        deadline = time.monotonic() + seconds if seconds else float("inf")
        lock = threading.Lock()
        good = [*seeds.conversations().values(), *([pdus] for pdus in seeds.corpus("conversation").values())]

        def work(number: int) -> None:
            rng = random.Random(f"{self.seed}/{number}")
            while time.monotonic() < deadline and not self.faults:
                with lock:
                    if cases and self.cases >= cases:
                        return
                    self.cases += 1
                case = broken(rng.choice(good), good, rng)
                try:
                    took = converse(self.there, case, rng)
                    if rng.random() < 0.02:
                        echo(self.there)
                except (Fault, OSError) as error:
                    self.faults.append(f"{error}; the peer had sent {b''.join(case)[:4000].hex()}")
                    return
                self.slowest_s = max(self.slowest_s, took)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def check_rest(there: Victim, before: Rest, *, memory_growth: int = 64 << 20) -> Rest:
    """What the listener uses after a storm.

    Raises:
        Fault: it keeps more files, threads or memory than before.
    """
    after = at_rest(there, before)
    if _uses_more(after, before):
        raise Fault(f"the listener leaks: {before} before, {after} after")
    if after.memory > before.memory + memory_growth:
        raise Fault(f"the listener grew: {before} before, {after} after")
    return after


def warmed(there: Victim) -> Rest:
    """What the listener uses once it has seen every kind of conversation, well-formed."""
    rng = random.Random(0)
    for pdus in seeds.conversations().values():
        converse(there, pdus, rng)
    echo(there)
    time.sleep(1)
    return at_rest(there)
