"""Rejections told one by one until they are a flood, and then by their number: a scan of ports must fill no disk."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from dicom_listener.handover import Handover, Note, Rejected
from dicom_listener.shared_counts import address_key

log = structlog.get_logger(__name__)

# Of one address for one reason, so many in so many seconds are told singly; of all together, so many kinds are kept.
SINGLY = 10
WINDOW_S = 60.0
KINDS = 1000


@dataclass(slots=True)
class _Kind:
    last: Rejected
    since: float
    told: int = 0
    untold: int = 0


class Tally:
    """A handover that passes on every note but the rejections of a flood, which it counts and sums up.

    Args:
        handover: where notes go.
        clock: seconds that never go back.
        window_s: after so many seconds what was counted is told.
    """

    def __init__(
        self, handover: Handover, *, clock: Callable[[], float] = time.monotonic, window_s: float = WINDOW_S
    ) -> None:
        self._handover = handover
        self._clock = clock
        self._window_s = window_s
        self._lock = threading.Lock()
        self._kinds: dict[tuple[int, str], _Kind] = {}
        self._timer: threading.Timer | None = None

    def tell(self, note: Note) -> None:
        """Pass a note on, or count it."""
        if not isinstance(note, Rejected) or self._told_singly(note):
            self._handover.tell(note)

    def flush(self, *, everything: bool = True) -> None:
        """Tell what was counted: all of it, or what has been waiting for as long as it may."""
        now = self._clock()
        with self._lock:
            due = {k: v for k, v in self._kinds.items() if everything or now - v.since >= self._window_s}
            for key in due:
                del self._kinds[key]
            self._timer = None
            self._wake()
        for kind in due.values():
            if kind.untold:
                last = kind.last
                log.warning("turned away", reason=last.reason, address=last.address, times=kind.untold)
                times = f" ({kind.untold} times)" if kind.untold > 1 else ""
                self._handover.tell(replace(last, reason=last.reason + times))

    def _told_singly(self, note: Rejected) -> bool:
        with self._lock:
            key = (address_key(note.address), note.reason)
            if key not in self._kinds and len(self._kinds) >= KINDS:
                # So many addresses are an attack of many, and told as such.
                key = (0, note.reason)
            kind = self._kinds.setdefault(key, _Kind(note, self._clock()))
            kind.last = note
            if kind.told < SINGLY:
                kind.told += 1
                singly = True
            else:
                kind.untold += 1
                singly = False
            self._wake()
        if singly:
            log.warning("turned away", reason=note.reason, caller=note.caller, called=note.called, address=note.address)
        return singly

    def _wake(self) -> None:
        """See that what is counted is told in time; the lock is held."""
        if self._timer is None and self._kinds:
            self._timer = threading.Timer(self._window_s, self.flush, kwargs={"everything": False})
            self._timer.daemon = True
            self._timer.start()
