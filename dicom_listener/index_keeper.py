"""What acceptors tell, written into the index in batches, behind their answers.

Notes wait in memory, in their order, and not without bound: what does not fit is forgotten, for the reconciler finds
every file that has no row. An association's lease is renewed until its end is written, and its end is written only
when nothing that it stored can still be without a row.
"""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog

from dicom_listener.faults import where
from dicom_listener.handover import Ended, Note, Opened, Quarantined, Rejected, Stored
from dicom_listener.hashing import Hasher
from dicom_listener.index import Index
from dicom_listener.reconciler import MARGIN, backlog_since, reconcile
from dicom_listener.settings import ListenerSettings
from dicom_listener.spool import Spool
from dicom_listener.trail import entry_of
from fhir_records import audit
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable
from fhir_records.model import AuditEntry
from fhir_records.store import associations
from fhir_records.store.associations import OpenAssociation

log = structlog.get_logger(__name__)

BATCH_NOTES: Final = 500
# A first note waits for company until none has come for so long, …
QUIET_S: Final = 0.03
# … but no longer than this: objects come in bursts, and a burst is answered sooner when its index does not compete.
BATCH_SECONDS: Final = 0.3
MAX_WAITING: Final = 20_000  # notes; beyond, stored objects are left to the reconciler
MAX_SEEN: Final = 4_000  # notes; beyond, what was seen of objects is forgotten, and their files are read
HEARTBEAT_S: Final = 5.0
RETRY_S: Final = 1.0  # between attempts while the database is away, and at a backlog
RECONCILE_S: Final = 600.0  # between comparisons of the last days that nothing asks for
WHOLE_S: Final = 86_400.0  # between comparisons of all days; the first one is at the start
HASH_QUIET_S: Final = 2.0  # files are hashed when nothing was told for so long
PEACE_S: Final = 0.005  # that a comparison of all days rests after each of its steps


def utc_now() -> dt.datetime:
    """The time now, in UTC."""
    return dt.datetime.now(dt.UTC)


class IndexKeeper:
    """Keeps the index of a spool: a `Handover` for acceptors, and the threads that write what they tell.

    Args:
        settings: for callers and the site's zone.
        database: where the rows go; it may be away.
        spool: where the files are.
        clock: the time now, in UTC: for the days of files. Leases and arrivals go by the database's own.
        max_waiting: notes kept in memory.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        database: Database,
        spool: Spool,
        *,
        clock: Callable[[], dt.datetime] = utc_now,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.index = Index(database, spool, timezone=settings.timezone, callers=settings.callers, clock=clock)
        self._database = database
        self._hasher = Hasher(database, spool, self._at_peace)
        self._max_waiting = max_waiting
        lock = threading.RLock()
        self._changed = threading.Condition(lock)
        # For the writer alone: to wake everybody for each note would cost more than its row.
        self._arrived = threading.Condition(lock)
        # All below are guarded by `_changed`.
        self._waiting: deque[Note] = deque()
        self._owed: list[Ended] = []  # ends that wait until a backlog is indexed
        self._open: dict[OpenAssociation, None] = {}  # whose leases are renewed
        self._told = self._done = 0
        self._lost = 0  # notes for the audit trail that did not fit
        self._backlog = True  # files may lack rows: what an earlier process left, to begin with
        self._asked_for = True  # the reconciler looks because of a backlog, not because it is time
        self._reconciling = False
        self._told_at = time.monotonic()  # when the last note came
        self._whole = False  # the files of all days have been looked at since the start
        self._stopping = False
        self._leases = threading.Lock()  # held by whoever writes leases of associations that are open
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to write; what an earlier process left without rows is looked for at once."""
        for name, work in (
            ("index", self._write),
            ("leases", self._beat),
            ("reconciler", self._reconcile),
            ("hashes", self._hasher.run),
        ):
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, timeout: float = 10.0) -> None:
        """Write what was told, for ``timeout`` seconds at most, and end; the rest is the next start's to find."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            self._arrived.notify_all()
        self._hasher.stop()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.1, deadline - time.monotonic()))

    def tell(self, note: Note) -> None:
        """Take a note. Does not wait for the database and does not raise."""
        with self._changed:
            self._told += 1
            self._told_at = time.monotonic()
            if isinstance(note, Opened):
                self._open[note.association] = None
            if self._is_full(note):
                self._forget(note)
                self._changed.notify_all()
                return
            waiting = len(self._waiting)
            if waiting >= MAX_SEEN and isinstance(note, Stored):
                note = Stored(note.key, note.association_id)
            self._waiting.append(note)
            # In between nobody waits for one note more.
            if waiting == 0 or waiting + 1 == BATCH_NOTES:
                self._arrived.notify_all()

    def look(self) -> None:
        """Have the files looked at soon: notes may have been lost on their way. Does not wait and does not raise."""
        with self._changed:
            self._backlog = True
            self._changed.notify_all()

    def settled(self, timeout: float) -> bool:
        """Wait until everything told so far is in the index, and every file; False: that took too long."""
        deadline = time.monotonic() + timeout
        with self._changed:
            told = self._told
            while self._done < told or self._backlog or self._reconciling or not self._whole:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return False
        return True

    def hashed(self, timeout: float) -> bool:
        """Wait until every file that had a row at the call is hashed; False: that took too long."""
        return self._hasher.done(timeout)

    def _at_peace(self) -> bool:
        with self._changed:
            return not self._waiting and time.monotonic() - self._told_at >= HASH_QUIET_S

    def _is_full(self, note: Note) -> bool:
        # Of the rest there is little, and the audit trail needs it: it may take as much room again.
        return len(self._waiting) >= self._max_waiting * (1 if isinstance(note, Stored) else 2)

    def _forget(self, note: Note) -> None:
        self._done += 1
        if isinstance(note, Stored | Quarantined):
            self._backlog = True
            return
        self._lost += 1
        if isinstance(note, Opened):
            self._open[note.association] = None
        elif isinstance(note, Ended):
            self._open.pop(note.association, None)  # its lease runs out by itself

    # --- writing ------------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        away = False
        while (batch := self._next_batch()) is not None:
            try:
                self._write_batch(batch)
                away = False
            except DatabaseUnavailable:
                if not away:
                    log.error("the database is away; objects are stored and will be indexed later")
                away = True
                if not self._give_back(batch):
                    return
            except Exception as error:  # boundary: the files are safe, and the thread must live as long as the listener
                log.error("notes could not be written", notes=len(batch), error=where(error))
                with self._changed:
                    for note in batch:
                        self._forget(note)
                    self._changed.notify_all()

    def _next_batch(self) -> list[Note] | None:
        """The next notes, after a moment for more of them; None: all is written and it is time to stop."""
        with self._changed:
            while not self._waiting:
                if self._stopping and not self._owed:
                    return None
                if self._stopping:
                    self._waiting.extend(self._owed)
                    self._owed.clear()
                else:
                    self._arrived.wait()
            deadline = time.monotonic() + BATCH_SECONDS
            while len(self._waiting) < BATCH_NOTES and not self._stopping and time.monotonic() < deadline:
                before = self._told
                self._arrived.wait(QUIET_S)
                if self._told == before:
                    break
            return [self._waiting.popleft() for _ in range(min(BATCH_NOTES, len(self._waiting)))]

    def _give_back(self, batch: Sequence[Note]) -> bool:
        """Let notes wait again, and pause; False: it is time to stop."""
        with self._changed:
            self._waiting.extendleft(reversed(batch))
            self._changed.wait_for(lambda: self._stopping, RETRY_S)
            return not self._stopping

    def _write_batch(self, batch: list[Note]) -> None:
        """Write notes; what is written is taken out of ``batch``."""
        # An association's lease before what it sent, and its end behind.
        self._step(batch, (Opened, Rejected), self._begin)
        self._step(batch, (Stored,), self._add_files)
        self._step(batch, (Quarantined,), self._note_quarantined)
        self._step(batch, (Ended,), self._end)

    def _step(self, batch: list[Note], kinds: tuple[type[Any], ...], work: Callable[[Sequence[Any]], int]) -> None:
        notes = [note for note in batch if isinstance(note, kinds)]
        if not notes:
            return
        done = work(notes)
        batch[:] = [note for note in batch if not isinstance(note, kinds)]
        with self._changed:
            self._done += done
            self._changed.notify_all()

    def _begin(self, notes: Sequence[Opened | Rejected]) -> int:
        opened = {note.association: None for note in notes if isinstance(note, Opened)}
        with self._database.session() as session:
            new = associations.renew_leases(session, opened)
            # Once, however often it was told.
            accepted = {note.association.id: note for note in notes if isinstance(note, Opened)}
            fresh: list[Opened | Rejected] = [note for note in notes if isinstance(note, Rejected)]
            fresh += [note for id_, note in accepted.items() if id_ in new]
            audit.record_past(session, map(entry_of, fresh))
        with self._changed:
            self._open |= opened
        return len(notes)

    def _add_files(self, notes: Sequence[Stored]) -> int:
        self.index.add_stored(notes)
        self._hasher.has_rows()
        return len(notes)

    def _note_quarantined(self, notes: Sequence[Quarantined]) -> int:
        for note in notes:
            self.index.quarantined(note.key, note.size, note.reason, note.caller, note.received_at)
        return len(notes)

    def _end(self, notes: Sequence[Ended]) -> int:
        """Write the ends of associations, or let them wait for the reconciler; how many were written."""
        with self._changed:
            if (self._backlog or self._reconciling) and not self._stopping and len(self._owed) < self._max_waiting:
                self._owed.extend(notes)
                return 0
            lost, self._lost = self._lost, 0
        with self._leases, self._database.session() as session:
            audit.record_past(session, map(entry_of, notes))
            associations.end_leases(session, [note.association.id for note in notes])
            if lost:
                audit.record(
                    session, AuditEntry("associations not recorded", "wetread", "failure", detail={"notes": lost})
                )
            with self._changed:
                for note in notes:
                    self._open.pop(note.association, None)
        return len(notes)

    # --- beside the writing -------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        while not self._stops_within(HEARTBEAT_S):
            try:
                # Held until the commit: a lease whose end is written meanwhile must not be made again.
                with self._leases, self._database.session() as session:
                    with self._changed:
                        still_open = list(self._open)
                    associations.renew_leases(session, still_open)
                    associations.drop_expired_leases(session)
            except DatabaseUnavailable:
                log.warning("leases could not be renewed; the database is away")

    def _reconcile(self) -> None:
        """Index what waits: at the start, whenever notes were lost, and now and then."""
        horizon: dt.date | None = None  # from which day on files may lack rows; None: all days
        known, whole_at = False, 0.0
        while self._backlog_to_look_at():
            pause = RETRY_S
            try:
                if not known:
                    horizon, known = backlog_since(self.index), True
                self.index.spool.prepare()  # what nobody is writing any more goes
                began = self.index.today()
                if horizon is not None:
                    horizon = min(horizon, began - MARGIN)  # should the clock have been set back
                done = reconcile(self.index, horizon, younger_too=self._asked_for)
                # Everything before is in the index now, so the next look need not go so far back.
                horizon = began - MARGIN
                if done.indexed:
                    self._hasher.has_rows()
                if done.indexed or done.broken:
                    log.info("indexed what had waited", files=done.indexed, broken=done.broken)
                self._looked(again=False)
                if time.monotonic() >= whole_at and self._look_at_all_days():
                    whole_at = time.monotonic() + WHOLE_S
                continue
            except DatabaseUnavailable:
                pass
            except Exception as error:  # boundary: the thread must live as long as the listener
                log.error("files could not be indexed", error=where(error))
                pause = RETRY_S * 10
            self._looked(again=True)
            if self._stops_within(pause):
                return

    def _look_at_all_days(self) -> bool:
        """Look at the files of every day, in peace: a clock that was wrong files objects under any; whether it was all.

        Raises:
            DatabaseUnavailable: it went away.
        """

        def in_peace() -> bool:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._backlog, PEACE_S)
                return not (self._stopping or self._backlog)

        done = reconcile(self.index, None, go_on=in_peace)
        if done.indexed or done.broken:
            log.warning("objects of other days had no rows", files=done.indexed, broken=done.broken)
        with self._changed:
            self._whole = not self._backlog and not self._stopping
            self._changed.notify_all()
            return self._whole

    def _backlog_to_look_at(self) -> bool:
        """Wait for a backlog, or for the time for a look all the same; False: it is time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._backlog, RECONCILE_S)
            # Cleared first: what is forgotten from now on sets it again.
            self._asked_for, self._backlog, self._reconciling = self._backlog, False, True
            return not self._stopping

    def _looked(self, *, again: bool) -> None:
        with self._changed:
            self._reconciling = False
            self._backlog = self._backlog or again
            if not self._backlog:
                self._waiting.extend(self._owed)
                self._owed.clear()
                self._arrived.notify_all()
            self._changed.notify_all()

    def _stops_within(self, seconds: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._stopping, seconds)
