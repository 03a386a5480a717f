"""Counts that several processes keep together: places that are taken, connections that are open, connections of late.

Memory that is shared by fork, without a lock that a killed process could hold for ever. Each process writes to a
part of its own and reads the others'; whoever supervises them empties the part of one that died, so a killed process
leaks nothing. Two that ask at the same time may both be told that the limit is passed, never both that it is not.
"""

from __future__ import annotations

import hashlib
import ipaddress
import mmap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_WORD = 8  # bytes
# What is kept of an address, in words: key, open connections, minute, connections in it, connections in the one before.
_KEY, _OPEN, _MINUTE, _NOW, _BEFORE = range(5)
_FIELDS = 5
# Addresses that a process keeps in mind, and how many places each of them may lie in.
_ADDRESSES = 1024
_PROBES = 8
_MINUTE_S = 60.0


def address_key(address: str) -> int:
    """A number for what counts as one caller: an IPv4 address, or the /64 network that an IPv6 address is of."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        told = address.encode("utf-8", "replace")
    else:
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        # A single host has a /64 to choose its addresses from.
        told = parsed.packed[:8] if parsed.version == 6 else parsed.packed
    return int.from_bytes(hashlib.blake2b(told, digest_size=_WORD).digest()) | 1  # 0 is an empty place


@dataclass(frozen=True, slots=True)
class Taken:
    """Places that are taken, in all processes."""

    of_address: int
    of_all: int


@dataclass(frozen=True, slots=True)
class Connections:
    """Connections, in all processes."""

    lately: float  # made by one address within the last minute
    of_address: int  # of that address, open now
    of_all: int  # open now


class SharedCounts:
    """The memory of all processes; made before they are forked.

    Args:
        processes: how many write; they are numbered from 0.
        places: associations that one of them can hold.
    """

    def __init__(self, processes: int, places: int) -> None:
        self._words = places + 1 + _ADDRESSES * _FIELDS
        self._places = places
        self._processes = processes
        self._memory = memoryview(mmap.mmap(-1, processes * self._words * _WORD)).cast("Q")

    def of(self, process: int, *, clock: Callable[[], float] = time.monotonic) -> Counts:
        """What process number ``process`` counts with; called in that process, once.

        Raises:
            ValueError: there is no such number.
        """
        if not 0 <= process < self._processes:
            raise ValueError(f"process {process}; they are numbered from 0 to {self._processes - 1}")
        parts = [self._memory[number * self._words : (number + 1) * self._words] for number in range(self._processes)]
        return Counts(parts, process, self._places, clock)

    def clear(self, process: int) -> None:
        """Forget what a process counted that is dead."""
        start = process * self._words
        self._memory[start : start + self._words] = memoryview(bytes(self._words * _WORD)).cast("Q")


class Counts:
    """The counts as one process sees and changes them. Safe from any thread.

    Args:
        parts: a view on the part of each process.
        own: which of them is this process's.
        places: associations that a part can hold.
        clock: seconds that never go back, the same for all processes.
    """

    def __init__(self, parts: list[memoryview], own: int, places: int, clock: Callable[[], float]) -> None:
        self._parts = parts
        self._own = parts[own]
        self._places = places
        self._clock = clock
        self._lock = threading.Lock()

    def take(self, key: int) -> tuple[int, Taken]:
        """Take a place for an address; which, or -1 where there is none, and how many are taken with it."""
        with self._lock:
            free = next((place for place in range(self._places) if not self._own[place]), -1)
            if free >= 0:
                self._own[free] = key
        # Taken first and counted then, so that two processes cannot both find the last place free.
        return free, self.taken(key)

    def give_back(self, place: int) -> None:
        """Free a place."""
        self._own[place] = 0

    def taken(self, key: int) -> Taken:
        """The places that are taken."""
        taken = [word for part in self._parts for word in part[: self._places].tolist() if word]
        return Taken(taken.count(key), len(taken))

    def opened(self, key: int) -> Connections:
        """A connection was made by an address; the connections there are, with it."""
        now = self._clock() / _MINUTE_S
        with self._lock:
            self._own[self._places] += 1
            entry = self._made(key, int(now))
            if entry is not None:
                entry[_OPEN] += 1
                entry[_NOW] += 1
        found = [entry for part in self._parts if (entry := _find(self._table(part), key)) is not None]
        return Connections(
            lately=sum(_lately(entry, now) for entry in found),
            of_address=sum(entry[_OPEN] for entry in found),
            of_all=sum(part[self._places] for part in self._parts),
        )

    def closed(self, key: int, *, refused: bool = False) -> None:
        """A connection that was counted by `opened` is over; where it was ``refused``, as if it had not been made."""
        with self._lock:
            self._own[self._places] = max(0, self._own[self._places] - 1)
            entry = _find(self._table(self._own), key)
            if entry is not None and entry[_OPEN]:
                entry[_OPEN] -= 1
                # Else who asks too often would never come in again, not even as often as he may.
                entry[_NOW] -= 1 if refused and entry[_NOW] else 0

    def _table(self, part: memoryview) -> memoryview:
        return part[self._places + 1 :]

    def _made(self, key: int, minute: int) -> memoryview | None:
        """The own entry of an address, brought to ``minute``; None where there is no place for one."""
        table = self._table(self._own)
        entry = _find(table, key)
        if entry is None:
            entry = _replaceable(table, key)
            if entry is None:
                return None
            entry[_OPEN] = entry[_NOW] = entry[_BEFORE] = 0
            entry[_MINUTE] = minute
            entry[_KEY] = key
        elif entry[_MINUTE] != minute:
            entry[_BEFORE] = entry[_NOW] if entry[_MINUTE] == minute - 1 else 0
            entry[_NOW] = 0
            entry[_MINUTE] = minute
        return entry


def _lately(entry: memoryview, now: float) -> float:
    """Connections in this minute and, in part, in the one before: a window that slides. ``now`` is in minutes."""
    minute = int(now)
    if entry[_MINUTE] == minute:
        return entry[_NOW] + entry[_BEFORE] * (1 - (now - minute))
    return entry[_NOW] * (1 - (now - minute)) if entry[_MINUTE] == minute - 1 else 0


def _candidates(table: memoryview, key: int) -> list[memoryview]:
    starts = (((key >> 8) + probe) % _ADDRESSES * _FIELDS for probe in range(_PROBES))
    return [table[start : start + _FIELDS] for start in starts]


def _find(table: memoryview, key: int) -> memoryview | None:
    return next((entry for entry in _candidates(table, key) if entry[_KEY] == key), None)


def _replaceable(table: memoryview, key: int) -> memoryview | None:
    """An empty place for an address, or that of the address without open connections that was quiet for longest."""
    idle = [entry for entry in _candidates(table, key) if not entry[_KEY] or not entry[_OPEN]]
    return min(idle, key=lambda entry: (entry[_KEY] != 0, entry[_MINUTE], entry[_NOW]), default=None)
