"""Headers that were read lately, kept compressed in memory: the next viewer of a series need not wait for them.

What is kept is told by the file alone, and files of the spool never change. It can be thrown away at any time.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

MAX_BYTES = 32 << 20  # of some 10,000 slices
_ENTRY_BYTES = 300  # what an entry needs besides, about


class BytesCache:
    """The values that were asked for last, up to a number of bytes; any thread may ask."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, bytes] = OrderedDict()
        self._size = 0

    def get(self, key: Hashable) -> bytes | None:
        """The value, if it is still here."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Hashable, value: bytes) -> None:
        """Keep a value, and let go of those that nobody asked for the longest. One that is very long is not kept."""
        size = len(value) + _ENTRY_BYTES
        if size > self._max_bytes // 8:
            return
        with self._lock:
            before = self._values.pop(key, None)
            if before is not None:
                self._size -= len(before) + _ENTRY_BYTES
            self._values[key] = value
            self._size += size
            while self._size > self._max_bytes:
                _, gone = self._values.popitem(last=False)
                self._size -= len(gone) + _ENTRY_BYTES
