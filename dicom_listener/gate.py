"""What the acceptor asks before it lets anybody in. `admission` answers; tests may answer otherwise."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why an association is not accepted: A-ASSOCIATE-RJ as PS3.8 section 9.3.4 has it, and words for the trail."""

    result: int  # 1 permanent, 2 transient
    source: int  # 1 service user, 2 service provider (ACSE), 3 service provider (presentation)
    reason: int
    words: str  # without patient data


@dataclass(frozen=True, slots=True)
class Admitted:
    """A place among the associations that may be open at once; it is given back with `Gate.left`."""

    address: str
    place: int  # where the count is kept
    reports_only: bool = False  # it is no caller: it may report storage commitment, and send nothing


class NothingSaid(ConnectionError):
    """A connection that its peer closed before a byte came over it, as those do who look whether a port is open."""


class Gate(Protocol):
    """Who may come in, and how many. Safe from any thread; one for each process, all counting together."""

    def connected(self, address: str) -> str:
        """A connection was made: "" where it may go on, else why it is closed at once, without a word to the peer."""
        ...

    def secured(self, connection: socket.socket, *, tls: bool) -> socket.socket:
        """The connection to talk over: itself, or TLS over it on the TLS port, the handshake done.

        Raises:
            NothingSaid: the peer was gone before the handshake began.
            ConnectionError: the handshake failed, with the reason in words. Either way the connection is closed.
        """
        ...

    def requested(
        self, calling: str, called: str, address: str, connection: socket.socket | None = None
    ) -> Admitted | Rejection:
        """An A-ASSOCIATE-RQ came over ``connection``, as `secured` returned it: a place, or why there is none."""
        ...

    def left(self, admitted: Admitted) -> None:
        """The association is over; its place is free. Once for each `Admitted`."""
        ...

    def disconnected(self, address: str) -> None:
        """A connection that might go on is over, whatever came over it. Once for each that `connected` let on."""
        ...
