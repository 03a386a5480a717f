"""The files of the index hashed, behind its rows and when it has nothing else to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy import text

from dicom_listener.digests import digests_of
from dicom_listener.faults import where
from dicom_listener.spool import Spool
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable, ObjectNotStorable
from fhir_records.store import digests
from fhir_records.store.digests import Digests, Unhashed

log = structlog.get_logger(__name__)

_PAGE: Final = 100  # files whose hashes are written together
# Files that have waited for so long are hashed without peace; so often looks are taken for those of other doors.
OVERDUE_S: Final = 60.0
_LOOK_S: Final = 0.5  # between looks whether there is peace
_RETRY_S: Final = 1.0  # after a pass that was not finished


class Hashing:
    """Hashes files whose instances have no hashes.

    Args:
        database: of the index.
        spool: where the files are.
    """

    def __init__(self, database: Database, spool: Spool) -> None:
        self._database = database
        self._spool = spool
        self._broken: set[Unhashed] = set()  # told of, and not tried again

    def catch_up(self, go_on: Callable[[], bool] = lambda: True) -> bool:
        """Hash all that was not hashed yet; False: ``go_on``, asked before each file, said that it is enough.

        Raises:
            DatabaseUnavailable: it went away; what was written stays.
        """
        after, more = 0, True
        while more:
            with self._database.session() as session:
                page = digests.without_digests(session, after, _PAGE)
            if not page:
                return True
            found = dict[Unhashed, Digests]()
            for one in page:
                more = go_on()
                if not more:
                    break
                if one not in self._broken and (hashed := self._hashed(one)) is not None:
                    found[one] = hashed
            with self._database.session() as session:
                # What a power cut takes back is hashed again.
                session.execute(text("SET LOCAL synchronous_commit TO off"))
                digests.record_digests(session, found)
            after = page[-1].id
        return False

    def _hashed(self, one: Unhashed) -> Digests | None:
        try:
            return digests_of(self._spool.path(one.file_key))
        except FileNotFoundError:
            return None  # the reconciler says so
        except (ObjectNotStorable, OSError) as error:
            self._broken.add(one)
            log.error("a file of the index cannot be read any more", file=one.file_key, error=where(error))
            return None


class Hasher:
    """Hashes files when there is peace: the work of a thread.

    Args:
        database: of the index.
        spool: where the files are.
        at_peace: whether there is nothing else to do.
    """

    def __init__(self, database: Database, spool: Spool, at_peace: Callable[[], bool]) -> None:
        self._hashing = Hashing(database, spool)
        self._at_peace = at_peace
        self._changed = threading.Condition()
        # All below are guarded by `_changed`.
        self._rows = 0  # batches of rows whose files are to be hashed
        self._hashed = -1  # how many of these batches were
        self._hashed_at = time.monotonic()  # when all were
        self._stopping = False

    def has_rows(self) -> None:
        """There are new rows, whose files are to be hashed."""
        with self._changed:
            self._rows += 1
            self._changed.notify_all()

    def done(self, timeout: float) -> bool:
        """Wait until every file that had a row at the call is hashed; False: that took too long."""
        with self._changed:
            rows = self._rows
            return self._changed.wait_for(lambda: self._hashed >= rows, timeout)

    def stop(self) -> None:
        """Let `run` return; what is not hashed is left to the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def run(self) -> None:
        """Hash, until `stop`."""
        while self._time_to_hash():
            with self._changed:
                rows = self._rows
            began, done = time.monotonic(), False
            try:
                done = self._hashing.catch_up(self._may_go_on)
            except DatabaseUnavailable:
                pass
            except Exception as error:  # boundary: the thread must live as long as the listener
                log.error("files could not be hashed", error=where(error))
            with self._changed:
                if done:
                    self._hashed, self._hashed_at = rows, began
                    self._changed.notify_all()
                else:
                    self._changed.wait_for(lambda: self._stopping, _RETRY_S)

    def _time_to_hash(self) -> bool:
        """Wait for work, and for peace; False: it is time to stop."""
        with self._changed:
            while not self._stopping:
                overdue = self._hashed_at + OVERDUE_S - time.monotonic()
                if overdue <= 0 or (self._hashed < self._rows and self._at_peace()):
                    return True
                self._changed.wait(overdue if self._hashed == self._rows else min(overdue, _LOOK_S))
            return False

    def _may_go_on(self) -> bool:
        with self._changed:
            overdue = time.monotonic() >= self._hashed_at + OVERDUE_S
            return not self._stopping and (overdue or self._at_peace())
