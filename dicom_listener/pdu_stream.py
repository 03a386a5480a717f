"""PDUs off a connection (PS3.8 section 9.3): large reads into one buffer, and a bound on everything a peer may do.

A PDU is handed out as a view of the buffer and is good until the next one is asked for. Time is counted while waiting
for the peer alone, never while our own disk is slow.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from dicom_listener.handover import Ending

# PDU types (PS3.8 section 9.3.1).
A_ASSOCIATE_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA_TF, A_RELEASE_RQ, A_RELEASE_RP, A_ABORT = range(1, 8)
RELEASE_RESPONSE: Final = struct.pack(">BxL4x", A_RELEASE_RP, 4)
PDU_HEAD: Final = 6

# 128 presentation contexts with every transfer syntax of the standard need less.
MAX_ASSOCIATE_BYTES: Final = 1 << 20
# Beyond one PDU, so that the short one before it (the command) and the long one (the data set) come with one read.
_READ_AHEAD: Final = 8192
# Seconds that one read waits, at most, before the limits are looked at.
_TICK_S: Final = 1.0
# Seconds that a peer is given to close the connection after its last PDU, so that it gets ours.
LINGER_S: Final = 5.0
_LINGER_BYTES: Final = 1 << 20


class Source(Enum):
    """Who aborts, and why (PS3.8 table 9-26): source, reason."""

    USER = (0, 0)
    NOT_SPECIFIED = (2, 0)
    UNRECOGNIZED_PDU = (2, 1)
    UNEXPECTED_PDU = (2, 2)
    INVALID_PARAMETER = (2, 6)


class Over(Exception):
    """The association, or the connection before it, cannot go on."""

    def __init__(self, ending: Ending, words: str, abort: Source | None = None) -> None:
        """Say how it ended, why (without patient data), and with which A-ABORT the peer is told; None: it is not."""
        super().__init__(words)
        self.ending = ending
        self.words = words
        self.abort = abort


class Phase(Enum):
    """What the peer is waited for with."""

    REQUEST = auto()  # A-ASSOCIATE-RQ, whole, within ARTIM
    IDLE = auto()  # the next message, if any
    MESSAGE = auto()  # the rest of a message


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer may take."""

    max_pdu: int  # bytes, of a P-DATA-TF PDU without its header
    artim_s: float
    message_s: float  # over which a message must come with at least …
    min_bytes_per_second: int
    idle_s: float


class PduStream:
    """The PDUs of one connection.

    Args:
        connection: blocking, plain or TLS.
        limits: for the peer.
        aborting: whether to go on no longer; it may be exchanged.
    """

    def __init__(self, connection: socket.socket, limits: Limits, aborting: Callable[[], bool]) -> None:
        self.aborting = aborting
        self._connection = connection
        self._limits = limits
        self._is_tls = isinstance(connection, ssl.SSLSocket)
        is_tcp = connection.family in (socket.AF_INET, socket.AF_INET6)
        self._is_tcp = is_tcp and hasattr(socket, "TCP_QUICKACK")  # Linux
        self._buffer = memoryview(bytearray(PDU_HEAD + limits.max_pdu + _READ_AHEAD))
        self._start = self._end = 0  # of what was read and not handed out
        self._phase = Phase.REQUEST
        self._waited = 0.0  # seconds, in this phase
        self._got = 0  # bytes, in this phase
        self.received_bytes = 0
        tick = max(0.02, min(_TICK_S, limits.artim_s, limits.message_s, limits.idle_s))
        if self._is_tls:
            connection.settimeout(tick)
        else:
            # Blocking for Python, bounded by the kernel: a time-out of Python's costs another system call a read.
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(tick))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(limits.message_s))

    def enter(self, phase: Phase) -> None:
        """Go on with the limits of another phase."""
        self._phase = phase
        self._waited = 0.0
        self._got = 0

    def next_pdu(self) -> tuple[int, memoryview]:
        """The type of the next PDU, and what stands behind its header.

        Raises:
            Over: there is none: the peer is gone, too slow, or breaks the protocol.
        """
        if self.aborting():
            raise Over(Ending.ABORTED, "the listener stops", Source.USER)
        self._need(PDU_HEAD)
        kind = self._buffer[self._start]
        length = int.from_bytes(self._buffer[self._start + 2 : self._start + PDU_HEAD], "big")
        self._check(kind, length)
        self._need(PDU_HEAD + length)
        body = self._start + PDU_HEAD
        self._start = body + length
        return kind, self._buffer[body : self._start]

    def send(self, pdus: bytes) -> None:
        """Send whole PDUs.

        Raises:
            Over: the peer is gone, or takes nothing.
        """
        try:
            if self._is_tls:
                tick = self._connection.gettimeout()
                self._connection.settimeout(self._limits.message_s)
                self._connection.sendall(pdus)
                self._connection.settimeout(tick)
            else:
                self._connection.sendall(pdus)
        except (BlockingIOError, TimeoutError) as error:
            raise Over(Ending.ABORTED, "the peer takes no answers") from error
        except (OSError, ValueError) as error:
            raise Over(Ending.LOST, "the connection broke") from error

    def abort(self, source: Source) -> None:
        """Send A-ABORT, where that is still possible."""
        with suppress(Over):
            self.send(struct.pack(">BxL2xBB", A_ABORT, 4, *source.value))

    def linger(self, seconds: float = LINGER_S) -> None:
        """Wait for the peer to close the connection, so that what was sent last reaches it (PS3.8 Sta13)."""
        deadline = time.monotonic() + min(seconds, self._limits.artim_s)
        left = _LINGER_BYTES
        with suppress(OSError, ValueError):
            while left > 0 and time.monotonic() < deadline and not self.aborting():
                try:
                    got = self._connection.recv_into(self._buffer)
                except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
                    continue
                if not got:
                    return
                left -= got

    def _need(self, size: int) -> None:
        """Have at least ``size`` bytes that were not handed out."""
        while (have := self._end - self._start) < size:
            if have == 0:
                self._start = self._end = 0
            elif self._phase is Phase.IDLE:
                self.enter(Phase.MESSAGE)
            if self._start + size > len(self._buffer):
                self._make_room(size)
            # Of a PDU whose length is known the rest is waited for in the kernel; else whatever has come is welcome.
            self._read(size - have if have >= PDU_HEAD else 0)

    def _make_room(self, size: int) -> None:
        rest = bytes(self._buffer[self._start : self._end])
        if size > len(self._buffer):
            self._buffer = memoryview(bytearray(size))
        self._buffer[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def _read(self, exactly: int) -> None:
        view = self._buffer[self._end : self._end + exactly] if exactly else self._buffer[self._end :]
        began = time.monotonic()
        try:
            if self._is_tcp:
                # A sender with Nagle's algorithm (DCMTK's default) holds the end of each message until what came before
                # is acknowledged, which would be 40 ms late; the kernel forgets the wish, so it is renewed.
                self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            if exactly and not self._is_tls:
                got = self._connection.recv_into(view, exactly, socket.MSG_WAITALL)
            else:
                got = self._connection.recv_into(view)
        except (BlockingIOError, TimeoutError, ssl.SSLWantReadError):
            got = -1
        except (OSError, ValueError) as error:
            raise Over(Ending.LOST, "the connection broke") from error
        if got == 0:
            raise Over(Ending.LOST, "the peer closed the connection")
        if got > 0:
            self._end += got
            self._got += got
            self.received_bytes += got
        self._waited += time.monotonic() - began
        self._judge(got)

    def _judge(self, got: int) -> None:
        """See that the peer is not too slow."""
        limits, phase = self._limits, self._phase
        if phase is Phase.MESSAGE:
            if self._waited >= limits.message_s:
                if self._got < limits.min_bytes_per_second * self._waited:
                    raise Over(Ending.ABORTED, "the peer sends too slowly", Source.NOT_SPECIFIED)
                self.enter(phase)
        elif phase is Phase.IDLE:
            if got < 0 and self._waited >= limits.idle_s:
                raise Over(Ending.ABORTED, f"silent for {limits.idle_s:g} seconds", Source.USER)
        elif self._waited >= limits.artim_s:
            raise Over(Ending.ABORTED, f"no A-ASSOCIATE-RQ within {limits.artim_s:g} seconds")
        if got < 0 and self.aborting():
            raise Over(Ending.ABORTED, "the listener stops", Source.USER)

    def _check(self, kind: int, length: int) -> None:
        """See that a PDU is one, and no longer than it may be, before it is read.

        What comes before an association is answered as service user, what breaks one as service provider (PS3.8 table
        9-10, actions AA-1 and AA-8).
        """
        if not A_ASSOCIATE_RQ <= kind <= A_ABORT:
            raise self._breach(f"PDU of unknown type {kind}", Source.UNRECOGNIZED_PDU)
        if kind == P_DATA_TF:
            longest, shortest = self._limits.max_pdu, PDU_HEAD
        elif kind in (A_ASSOCIATE_RQ, A_ASSOCIATE_AC):
            longest, shortest = MAX_ASSOCIATE_BYTES, 0
        else:
            longest, shortest = 4, 4
        if self._phase is Phase.REQUEST and kind not in (A_ASSOCIATE_RQ, A_ABORT):
            raise self._breach("something else than A-ASSOCIATE-RQ came first", Source.UNEXPECTED_PDU)
        if self._phase is not Phase.REQUEST and kind in (A_ASSOCIATE_RQ, A_ASSOCIATE_AC, A_ASSOCIATE_RJ):
            raise self._breach("unexpected PDU", Source.UNEXPECTED_PDU)
        if not shortest <= length <= longest:
            words = f"PDU of type {kind} with {length} bytes; allowed are {shortest} to {longest}"
            raise self._breach(words, Source.INVALID_PARAMETER)

    def _breach(self, words: str, source: Source) -> Over:
        return Over(Ending.ABORTED, words, Source.USER if self._phase is Phase.REQUEST else source)


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return struct.pack("@ll", whole, int((seconds - whole) * 1e6))
