"""The addresses of host names, looked up in the background and kept, so that a slow name server holds nobody up."""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# What was looked up is used without a question for so long, …
FRESH_S = 60.0
# … and where it does not have the address that was asked about, only for so long: hosts move.
SETTLED_S = 5.0
# Where the name server is away, what it said last holds for so long.
KEPT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a host name now."""

    addresses: frozenset[Address]
    settled: bool  # asked a moment ago, and answered
    answered: bool  # answered within the last hour


@dataclass(slots=True)
class _Entry:
    addresses: frozenset[Address] = frozenset()
    asked_at: float = float("-inf")
    answered_at: float = float("-inf")
    running: threading.Event | None = field(default=None)  # set when the look-up that is on its way ends


def parse_address(text: str) -> Address | None:
    """An address without its zone; an IPv4 address that came over an IPv6 socket as what it is; None: it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def look_up(name: str) -> frozenset[Address]:
    """The addresses of a name, as the operating system finds them.

    Raises:
        OSError: they cannot be found now.
    """
    found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    return frozenset(address for entry in found if (address := parse_address(str(entry[4][0]))) is not None)


class HostNames:
    """The names that the configuration holds. Safe from any thread; made in the process that uses it.

    Args:
        look_up: finds the addresses of a name; raises OSError where it cannot.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        look_up: Callable[[str], frozenset[Address]] = look_up,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_up = look_up
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}

    def known(self, name: str, address: Address) -> Known:
        """What is known of ``name`` without waiting; it is looked up in the background where that is not enough."""
        with self._lock:
            entry = self._entries.setdefault(name, _Entry())
            if self._wants_asking(entry, address):
                self._ask(name, entry)
            return self._of(entry)

    def has(self, name: str, address: Address, patience_s: float) -> Known:
        """What is known of ``name``, waiting up to ``patience_s`` where it does not have ``address`` yet."""
        with self._lock:
            entry = self._entries.setdefault(name, _Entry())
            if self._wants_asking(entry, address):
                self._ask(name, entry)
            running = entry.running
            if address in self._of(entry).addresses or running is None:
                return self._of(entry)
        running.wait(patience_s)
        with self._lock:
            return self._of(entry)

    def _wants_asking(self, entry: _Entry, address: Address) -> bool:
        age = self._clock() - entry.asked_at
        return entry.running is None and age > (FRESH_S if address in entry.addresses else SETTLED_S)

    def _of(self, entry: _Entry) -> Known:
        now = self._clock()
        answered = now - entry.answered_at <= KEPT_S
        settled = entry.running is None and entry.answered_at >= entry.asked_at and now - entry.asked_at <= SETTLED_S
        return Known(entry.addresses if answered else frozenset(), settled, answered)

    def _ask(self, name: str, entry: _Entry) -> None:
        entry.running = threading.Event()
        entry.asked_at = self._clock()
        threading.Thread(target=self._run, args=(name, entry, entry.running), name="host-names", daemon=True).start()

    def _run(self, name: str, entry: _Entry, done: threading.Event) -> None:
        try:
            addresses = self._look_up(name)
        except (OSError, UnicodeError):  # a name that no name server can hold is a UnicodeError
            addresses = None
        with self._lock:
            if addresses is not None:
                entry.addresses, entry.answered_at = addresses, self._clock()
            entry.running = None
        done.set()
        if addresses is None:
            log.warning("the host of a caller has no address now", host=name)
