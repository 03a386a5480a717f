"""One fsync for all who wait for one: who comes while a sync runs shares the next."""

from __future__ import annotations

import threading
from collections.abc import Callable


class GroupSync:
    """Makes a sync that many threads need at once happen once.

    Args:
        sync: makes durable whatever was done before it was called.
    """

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._changed = threading.Condition(threading.Lock())
        self._begun = 0  # syncs begun
        self._done = 0  # syncs ended
        self._failed: dict[int, OSError] = {}  # by the number of the sync
        self._waiting: dict[int, int] = {}  # how many wait for the sync of this number

    def wait(self) -> None:
        """Return when a sync that began after this call has ended.

        Raises:
            OSError: that sync failed: nothing may be taken for durable.
        """
        with self._changed:
            # One that runs already may have begun before the caller's work was done.
            mine = self._begun + 1
            self._waiting[mine] = self._waiting.get(mine, 0) + 1
            while self._done < mine:
                if self._begun == self._done:
                    self._lead()
                else:
                    self._changed.wait()
            error = self._failed.get(mine)
            self._waiting[mine] -= 1
            if not self._waiting[mine]:
                del self._waiting[mine]
                self._failed.pop(mine, None)
        if error is not None:
            raise OSError(error.errno, error.strerror) from error

    def _lead(self) -> None:
        """Sync for all who wait; the lock is held before and after, not meanwhile."""
        self._begun += 1
        self._changed.release()
        error: OSError | None = None
        try:
            self._sync()
        except OSError as caught:
            error = caught
        finally:
            self._changed.acquire()
            if error is not None:
                self._failed[self._begun] = error
            self._done = self._begun
            self._changed.notify_all()
