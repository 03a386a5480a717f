"""The TLS port of a real listener, met badly: no hello, a broken one, half of one, slowly, by the wrong people."""

from __future__ import annotations

import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dicom_listener.settings import ClientTls
from dicom_listener.tls import client_context
from tests.certificates import Authority, Issued, authority
from tests.fuzz import messages, seeds, wire
from tests.fuzz.mutations import mutated
from tests.fuzz.victim import ARTIM_S
from tests.fuzz.wire import CASE_S, HOST, Fault, Victim, broken

# A right handshake waits for no wrong one; the machine may be slow.
HANDSHAKE_S = 10.0
# Handshakes are bounded from their first byte to their last.
_OPEN_S = ARTIM_S + CASE_S


@dataclass(frozen=True)
class People:
    """Who meets the listener, and what it knows of them."""

    ours: Authority
    server: Issued
    scanner: Issued  # may come in
    strangers: tuple[Issued | None, ...]  # may not: none, another authority's, an ended and a revoked certificate
    crl: Path

    @property
    def files(self) -> tuple[Path, Path, Path, Path]:
        """What the listener is told."""
        return self.server.certificate, self.server.key, self.ours.certificate, self.crl

    def context(self, who: Issued | None) -> ssl.SSLContext:
        """A client's side."""
        return client_context(ClientTls(self.ours.certificate, *((who.certificate, who.key) if who else ())))


def people(folder: Path) -> People:
    """Certificates of all kinds, their files in ``folder``."""
    ours, theirs = authority(folder / "ours"), authority(folder / "theirs", "theirs")
    revoked = ours.issue("revoked")
    strangers = (None, theirs.issue("stranger"), ours.issue("ended", days=-1), revoked)
    return People(ours, ours.issue("server"), ours.issue("scanner"), strangers, ours.revoke(revoked))


class Shaking:
    """A client's side of a handshake whose bytes can be looked at, and changed, on their way."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=HOST)

    def flight(self, heard: bytes) -> bytes:
        """What is said when this was heard; b"" where there is nothing more to say."""
        self._in.write(heard)
        with suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._out.read()


def hello(context: ssl.SSLContext) -> bytes:
    """A ClientHello in its record."""
    return Shaking(context).flight(b"")


def record(kind: int, content: bytes, version: int = 0x0303) -> bytes:
    """A TLSPlaintext (RFC 8446 section 5.1)."""
    return struct.pack(">BHH", kind, version, len(content)) + content


def openings(context: ssl.SSLContext, rng: random.Random) -> list[bytes]:
    """First words that are no hello, or a strange one."""
    good = hello(context)
    return [
        messages.associate_rq(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + bytes(32),  # SSL 2.0
        rng.randbytes(rng.choice((1, 5, 300, 20_000))),
        bytes(70_000),
        good[: rng.randrange(1, len(good))],
        good + good,
        good + rng.randbytes(500),
        record(21, b"\x02\x28"),  # an alert first
        record(20, b"\x01") * 200,  # ChangeCipherSpec, again and again
        record(22, b"") * 300,  # empty records
        record(23, bytes(100)),  # application data first
        record(22, b"\x01\xff\xff\xff" + bytes(16_000)) * 8,  # a hello of 16 MiB
        b"".join(record(22, good[5:][at : at + 1]) for at in range(len(good) - 5)),  # in records of one byte
        record(22, good[5:], 0x0300),
        struct.pack(">BHH", 22, 0x0303, 0xFFFF) + bytes(65_535),  # a record that is too long
        mutated(good, [good], rng),
        mutated(good, [good], rng),
        mutated(good, [good], rng),
    ]


@dataclass
class TlsStorm:
    """Many wrong handshakes at once."""

    there: Victim
    people: People
    seed: int
    cases: int = 0
    slowest_echo_s: float = 0.0
    faults: list[str] = field(default_factory=list)

    def run(self, *, cases: int = 0, seconds: float = 0.0, workers: int = 12) -> None:
        """Go on until so many cases are over, or so much time; a known scanner is let in between them, soon."""
        deadline = time.monotonic() + seconds if seconds else float("inf")
        lock = threading.Lock()

        def work(number: int) -> None:
            rng = random.Random(f"{self.seed}/{number}")
            while time.monotonic() < deadline and not self.faults:
                with lock:
                    if cases and self.cases >= cases:
                        return
                    self.cases += 1
                way = rng.choice(_WAYS)
                try:
                    way(self, rng)
                    if rng.random() < 0.05:
                        self.echo()
                except (Fault, OSError) as error:
                    self.faults.append(f"{way.__name__}: {error!r}")
                    return

        threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def echo(self) -> None:
        """C-ECHO of the known scanner.

        Raises:
            Fault: it is not let in, or not soon.
        """
        began = time.monotonic()
        wire.echo(self.there, self.secured)
        took = time.monotonic() - began
        self.slowest_echo_s = max(self.slowest_echo_s, took)
        if took > HANDSHAKE_S:
            raise Fault(f"a right handshake and a C-ECHO took {took:.1f} s")

    def secured(self, there: Victim) -> ssl.SSLSocket:
        """A connection of the known scanner."""
        connection = socket.create_connection((HOST, there.tls_port), timeout=HANDSHAKE_S)
        return self.people.context(self.people.scanner).wrap_socket(connection, server_hostname=HOST)

    # --- the ways -----------------------------------------------------------------------------------------------------

    def no_hello(self, rng: random.Random) -> None:
        """First words that are none of TLS's."""
        with self._connected() as connection:
            said = rng.choice(openings(self.people.context(None), rng))
            with suppress(OSError):
                connection.sendall(said)
            self._leave(connection, rng)

    def wrong_people(self, rng: random.Random) -> None:
        """A whole handshake of somebody who may not come in: no word of DICOM is answered."""
        who = rng.choice(self.people.strangers)
        heard = b""
        with self._connected() as connection, suppress(OSError):
            context = self.people.context(who)
            if rng.random() < 0.5:
                context.maximum_version = ssl.TLSVersion.TLSv1_2
            with context.wrap_socket(connection, server_hostname=HOST) as secured:
                secured.sendall(messages.associate_rq())
                heard = secured.recv(6)
        if heard:
            raise Fault(f"a stranger was answered with {heard!r}")

    def broken_flight(self, rng: random.Random) -> None:
        """A handshake of the known scanner, one flight of which is changed, cut or said twice on its way."""
        context = self.people.context(self.people.scanner)
        if rng.random() < 0.5:
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        shaking, at = Shaking(context), rng.randrange(3)
        heard = b""
        with self._connected() as connection, suppress(OSError):
            for number in range(4):
                said = shaking.flight(heard)
                if number == at:
                    said = rng.choice((mutated(said or b"x", [said], rng), said[: len(said) // 2], said * 2))
                connection.sendall(said)
                if number < at:
                    heard = connection.recv(65_536)
            self._leave(connection, rng)

    def slowly(self, rng: random.Random) -> None:
        """A good hello, a byte at a time: it is not waited for without end."""
        with self._connected() as connection:
            connection.settimeout(0.1)
            deadline = time.monotonic() + _OPEN_S
            for byte in hello(self.people.context(self.people.scanner)):
                try:
                    connection.sendall(bytes([byte]))
                    if not connection.recv(1):
                        return
                except TimeoutError:
                    pass
                except OSError:
                    return
                if time.monotonic() > deadline:
                    raise Fault(f"a handshake went on for {_OPEN_S:g} s")

    def silent(self, rng: random.Random) -> None:
        """A connection, and not a word."""
        with self._connected() as connection:
            self._leave(connection, rng)

    def bad_dicom(self, rng: random.Random) -> None:
        """The known scanner, let in, breaks DICOM's protocol, or TLS's in the middle of it."""
        good = [*seeds.conversations().values()]
        with suppress(OSError), self.secured(self.there) as secured:
            for pdu in broken(rng.choice(good), good, rng):
                secured.sendall(pdu)
            if rng.random() < 0.5:
                # Below TLS: what follows can belong to no record.
                socket.socket.send(secured, rng.randbytes(200))
            self._leave(secured, rng)

    def _connected(self) -> socket.socket:
        return socket.create_connection((HOST, self.there.tls_port), timeout=CASE_S)

    def _leave(self, connection: socket.socket, rng: random.Random) -> None:
        """Hang up in one way or another.

        Raises:
            Fault: the listener does not close a connection over which nobody talks.
        """
        match rng.choice(("close", "close", "reset", "half", "wait")):
            case "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            case "close":
                time.sleep(0.02)
            case manner:
                if manner == "half":
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_WR)
                self._until_closed(connection)

    def _until_closed(self, connection: socket.socket) -> None:
        deadline = time.monotonic() + _OPEN_S
        connection.settimeout(1.0)
        while time.monotonic() < deadline:
            try:
                if not connection.recv(65_536):
                    return
            except TimeoutError:
                continue
            except OSError:
                return
        raise Fault(f"a connection stayed open for {_OPEN_S:g} s")


_WAYS: tuple[Callable[[TlsStorm, random.Random], None], ...] = (
    *(TlsStorm.no_hello,) * 4,
    *(TlsStorm.broken_flight,) * 4,
    *(TlsStorm.wrong_people,) * 3,
    *(TlsStorm.bad_dicom,) * 2,
    TlsStorm.slowly,
    TlsStorm.silent,
)
