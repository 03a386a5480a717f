"""What arrived: rows for the files of the spool, made at receipt, or later from the files alone.

A file is in the index, or waits for it: what could not be indexed because the database was away is indexed by
`reconcile`, which looks at the files themselves, so nothing depends on a process's memory.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from dicom_listener.description import Described, describe
from dicom_listener.faults import where
from dicom_listener.received import Received, read_received
from dicom_listener.sameness import Sameness, compare
from dicom_listener.settings import Caller
from dicom_listener.spool import Spool, StoredFile
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable, ObjectNotStorable
from fhir_records.identities import UUID_UID_ROOT, log_id
from fhir_records.model import InstanceKind, Standing
from fhir_records.store import arrivals, associations
from fhir_records.store.associations import OpenAssociation

log = structlog.get_logger(__name__)

# Two associations that send parts of one new study meet on a unique key; each time one of them gets further.
_ATTEMPTS = 8
# How much further back than necessary a reconciler looks: clocks of several listeners differ.
MARGIN = dt.timedelta(days=2)
_CHUNK = 200


class Indexing(StrEnum):
    """What became of an object in the index."""

    NEW = "new"
    SAME = "same"  # known already; the copy is not kept
    VERSION = "version"
    CONFLICT = "conflict"
    KNOWN = "known"  # this very file is in the index now


_STANDINGS = {
    Indexing.NEW: Standing.CURRENT,
    Indexing.VERSION: Standing.VERSION,
    Indexing.CONFLICT: Standing.CONFLICT,
}


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a comparison of files and rows came to."""

    looked_at: int = 0  # files
    indexed: int = 0  # files that had no row
    broken: int = 0  # files without a row that cannot be indexed
    missing: int = 0  # rows whose file is gone


class Index:
    """Writes the index of a spool.

    Args:
        database: where the rows go.
        spool: where the files are.
        timezone: of times in objects that name none.
        callers: for the issuer of patient identifiers that name none.
        clock: the time now, in UTC.
    """

    def __init__(
        self,
        database: Database,
        spool: Spool,
        *,
        timezone: dt.tzinfo = dt.UTC,
        callers: Iterable[Caller] = (),
        clock: Callable[[], dt.datetime],
    ) -> None:
        self.database = database
        self.spool = spool
        self._timezone = timezone
        self._issuers = {caller.ae_title: caller.issuer for caller in callers if caller.issuer}
        self._clock = clock

    def describe(self, data: bytes | memoryview, received: Received) -> Described:
        """What the index has to know of an object.

        Raises:
            ObjectNotStorable: it is no data set with the UIDs that storage needs, or ends early.
        """
        return describe(data, received, self._timezone, self._issuers.get(received.caller, ""))

    def add(self, described: Described, file: StoredFile, association: OpenAssociation | None = None) -> Indexing:
        """Index a stored object, and note that ``association`` sent it; a copy of a known object is removed again.

        Raises:
            DatabaseUnavailable: nothing was written; the file waits for `reconcile`.
        """
        for attempt in itertools.count(1):
            try:
                with self.database.session() as session:
                    outcome = self._add(session, described, file, association)
                break
            except IntegrityError:
                if attempt == _ATTEMPTS:
                    raise
        if outcome is Indexing.SAME:
            self.spool.remove(file.key)
        if outcome in (Indexing.VERSION, Indexing.CONFLICT):
            log.warning("another object under a known UID", sop=log_id(described.arrival.sop_uid), standing=outcome)
        return outcome

    def index_file(self, key: str) -> Indexing:
        """Index a file of the spool that has no row.

        Raises:
            ObjectNotStorable: it cannot be indexed.
            DatabaseUnavailable: nothing was written.
            FileNotFoundError: it is gone.
        """
        path = self.spool.path(key)
        received, data = read_received(path)
        return self.add(self.describe(data, received), self.spool.facts(key))

    def quarantined(self, key: str, size: int, reason: str, caller: str, received_at: dt.datetime) -> None:
        """Write down that bytes lie in quarantine.

        Raises:
            DatabaseUnavailable: nothing was written; `reconcile` does it later.
        """
        with self.database.session() as session:
            arrivals.record_quarantine(
                session, file_key=key, reason=reason, caller=caller, size=size, received_at=received_at
            )

    def today(self) -> dt.date:
        """The day (UTC) under which objects are stored now."""
        return self._clock().astimezone(dt.UTC).date()

    def backlog_since(self) -> dt.date | None:
        """The day from which on files may lack rows: `MARGIN` before the newest indexed receipt; None: all days.

        Raises:
            DatabaseUnavailable: it cannot be told now.
        """
        with self.database.session() as session:
            newest = arrivals.newest_receipt(session)
        return newest.astimezone(dt.UTC).date() - MARGIN if newest else None

    def reconcile(
        self, since: dt.date | None = None, progress: Callable[[Reconciled], None] | None = None
    ) -> Reconciled:
        """Compare files and rows of the days from ``since`` on (None: all): what has no row is indexed.

        Raises:
            DatabaseUnavailable: the database went away; what was done stays.
        """
        done = Reconciled()
        keys = self.spool.object_keys(since)
        while chunk := list(itertools.islice(keys, _CHUNK)):
            with self.database.session() as session:
                known = arrivals.known_keys(session, chunk)
            results = [self._reconcile_file(key) for key in chunk if key not in known]
            done = Reconciled(
                looked_at=done.looked_at + len(chunk),
                indexed=done.indexed + results.count(True),
                broken=done.broken + results.count(False),
            )
            if progress is not None:
                progress(done)
        self._reconcile_quarantine(since)
        missing = self._missing_files(since)
        if missing:
            log.error("files of the index are missing from the spool", files=missing)
        return Reconciled(done.looked_at, done.indexed, done.broken, missing)

    def reindex_all(self, progress: Callable[[Reconciled], None] | None = None) -> Reconciled:
        """Rebuild whatever the index lacks from all files. Studies with images that no revision holds are open again.

        Raises:
            DatabaseUnavailable: the database went away; what was done stays.
        """
        return self.reconcile(None, progress)

    def _add(
        self, session: Session, described: Described, file: StoredFile, association: OpenAssociation | None
    ) -> Indexing:
        now = self._clock()
        sop_uid = described.arrival.sop_uid
        twins = arrivals.twins(session, sop_uid)
        if any(twin.file_key == file.key for twin in twins):
            return Indexing.KNOWN
        own = sop_uid.startswith(f"{UUID_UID_ROOT}.") and arrivals.is_own(session, sop_uid)
        arrival = described.stored_as(file.key, file.sha256, file.size, own=own)
        outcome = self._outcome(session, arrival, twins)
        if outcome in _STANDINGS:
            arrivals.record_arrival(session, arrival, _STANDINGS[outcome], now)
        if association is not None and arrival.kind is not InstanceKind.OWN:
            associations.note_study(session, association.id, arrival.study_uid, now)
        return outcome

    def _outcome(self, session: Session, arrival: arrivals.Arrival, twins: Iterable[arrivals.Twin]) -> Indexing:
        """What the object is to those known under its UID."""
        outcome = Indexing.NEW
        path = self.spool.path(arrival.file_key)
        for twin in twins:
            try:
                sameness = compare(path, self.spool.path(twin.file_key), arrival.pixels_sha256, twin.pixels_sha256)
            except FileNotFoundError:
                if _told_the_same(arrival, twin):
                    arrivals.replace_file(session, twin.id, arrival)
                    log.warning("a lost file came again", sop=log_id(arrival.sop_uid))
                    return Indexing.KNOWN
                sameness = Sameness.PIXELS_DIFFER
            if sameness is Sameness.SAME:
                return Indexing.SAME
            if twin.standing is Standing.CURRENT:
                outcome = Indexing.CONFLICT if sameness is Sameness.PIXELS_DIFFER else Indexing.VERSION
        return outcome

    def _reconcile_file(self, key: str) -> bool | None:
        """Whether a file could be indexed; None: it is gone meanwhile."""
        try:
            self.index_file(key)
        except FileNotFoundError:
            return None
        except ObjectNotStorable as error:
            log.error("a file of the spool cannot be indexed", file=key, reason=str(error))
            return False
        except DatabaseUnavailable:
            raise
        except Exception as error:  # boundary: one file must not keep the others out of the index
            log.error("a file of the spool could not be indexed", file=key, error=where(error))
            return False
        return True

    def _reconcile_quarantine(self, since: dt.date | None) -> None:
        for key in self.spool.quarantined_keys(since):
            facts = self.spool.quarantine_facts(key)
            size = self.spool.path(key).stat().st_size
            received_at = dt.datetime.fromisoformat(facts.get("received_at") or self._clock().isoformat())
            self.quarantined(key, size, facts.get("reason", "unknown"), facts.get("caller", ""), received_at)

    def _missing_files(self, since: dt.date | None) -> int:
        start = dt.datetime.combine(since, dt.time(), dt.UTC) if since else None
        with self.database.session() as session:
            keys = arrivals.keys_since(session, start)
        return sum(not self.spool.path(key).is_file() for key in keys)


def _told_the_same(arrival: arrivals.Arrival, twin: arrivals.Twin) -> bool:
    """Whether the index's hashes speak for one object, where its file cannot be looked at any more."""
    return (arrival.pixels_sha256, arrival.demographics_sha256) == (twin.pixels_sha256, twin.demographics_sha256)
