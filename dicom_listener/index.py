"""What arrived: rows for the files of the spool, made soon after receipt, or later from the files alone.

A file is in the index, or waits for it: what could not be indexed because the database was away is indexed by
`reconcile`, which looks at the files themselves, so nothing depends on a process's memory.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import structlog
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from dicom_listener import index_batch
from dicom_listener.data_set import encoding_of
from dicom_listener.description import Origin, describe, describe_header
from dicom_listener.faults import where
from dicom_listener.filed import opened
from dicom_listener.handover import Stored
from dicom_listener.header_text import picked_text
from dicom_listener.index_batch import Filing, Indexing, rounds
from dicom_listener.settings import Caller
from dicom_listener.spool import Spool
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable, ObjectNotStorable
from fhir_records.identities import log_id
from fhir_records.store import arrivals

log = structlog.get_logger(__name__)

# Processes that index parts of one new study meet on a unique key; each time one of them gets further.
_ATTEMPTS = 8
# Trouble of a living database is met so often before it is laid to what is being written.
_DATABASE_ATTEMPTS = 3


class Index:
    """Writes the index of a spool.

    Args:
        database: where the rows go.
        spool: where the files are.
        timezone: of times in objects that name none.
        callers: for the issuer of patient identifiers that name none, and for whose numbers are believed.
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
        callers = tuple(callers)
        self._timezone = timezone
        self._issuers = {caller.ae_title: caller.issuer for caller in callers if caller.issuer}
        self._believed = frozenset(caller.ae_title for caller in callers if caller.expected_numbers)
        self._clock = clock

    def add_all(self, filings: Sequence[Filing]) -> Sequence[Indexing]:
        """Index stored objects, as few transactions as can be; what became of each. Copies of known ones are removed.

        Raises:
            DatabaseUnavailable: some were not written; again, those that were are known.
        """
        outcomes: dict[str, Indexing] = {}
        for batch in rounds(filings):
            for filing, outcome in zip(batch, self._write(batch), strict=True):
                outcomes[filing.arrival.file_key] = outcome
                self._follow_up(filing, outcome)
        return [outcomes[filing.arrival.file_key] for filing in filings]

    def read_file(self, key: str, association_id: uuid.UUID | None = None) -> Filing:
        """What the index has to know of a file of the spool.

        Raises:
            ObjectNotStorable: it cannot be indexed.
            FileNotFoundError: it is gone.
        """
        with opened(self.spool.path(key)) as file:
            issuer = self._issuers.get(file.received.caller, "")
            arrival = describe(file.data_set, file.received, self._timezone, issuer, file_key=key, size=file.size)
            return Filing(arrival, association_id)

    def add_stored(self, notes: Sequence[Stored]) -> Sequence[Indexing]:
        """As `add_files`, for files that acceptors told of: what they saw is not read again."""
        return self._add({note.key: note.association_id for note in notes}, {note.key: note for note in notes})

    def add_files(self, keys: Sequence[tuple[str, uuid.UUID | None]]) -> Sequence[Indexing]:
        """Index files of the spool that have no row, each with the association that sent it, where that is known.

        A file that cannot be indexed stays where it is, and is shown with the reason among what is in quarantine.

        Raises:
            DatabaseUnavailable: some were not written; again, those that were are known.
            OSError: a file is there and cannot be read.
        """
        return self._add(dict(keys), {})

    def _add(self, keys: Mapping[str, uuid.UUID | None], told: Mapping[str, Stored]) -> Sequence[Indexing]:
        outcomes: dict[str, Indexing] = {}
        filings = []
        for key, association_id in keys.items():
            try:
                note = told.get(key)
                filings.append((note and self._told(note)) or self.read_file(key, association_id))
            except FileNotFoundError:
                outcomes[key] = Indexing.GONE
            except ObjectNotStorable as error:
                outcomes[key] = self._unindexable(key, str(error))
        for filing, outcome in zip(filings, self.add_all(filings), strict=True):
            outcomes[filing.arrival.file_key] = outcome
        return [outcomes[key] for key in keys]

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

    def _told(self, note: Stored) -> Filing | None:
        """What the index has to know of an object, where its acceptor saw it all."""
        seen = note.seen
        if seen is None:
            return None
        syntax, caller = seen.transfer_syntax_uid, seen.caller
        origin = Origin(syntax, f"dicom:{caller}", caller, seen.received_at, note.key, seen.size)
        header = picked_text(seen.header, encoding_of(syntax), seen.pixels)
        arrival = describe_header(header, origin, self._timezone, self._issuers.get(caller, ""))
        return Filing(arrival, note.association_id)

    def _write(self, batch: Sequence[Filing]) -> Sequence[Indexing]:
        """Write a batch; should one of it stand in the way, the others are written all the same."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._write_once(batch)
            except IntegrityError as error:
                if attempt == _ATTEMPTS or (len(batch) > 1 and attempt > 1):
                    return self._parted(batch, error)
            except DatabaseUnavailable as error:
                # A dead lock goes away; what the database takes for its own limit stays, and is the object's fault.
                self.database.ping()
                if attempt >= _DATABASE_ATTEMPTS:
                    return self._parted(batch, error)
            except OSError:
                raise
            except Exception as error:  # boundary: one object must not keep the others out of the index
                return self._parted(batch, error)
        raise AssertionError  # every way out of the last attempt returns or raises

    def _write_once(self, batch: Sequence[Filing]) -> Sequence[Indexing]:
        with self.database.session() as session:
            # The files are the truth: rows that a power cut takes back are made again from them.
            session.execute(text("SET LOCAL synchronous_commit TO off"))
            return index_batch.write(session, self.spool, batch, self._believed)

    def _parted(self, batch: Sequence[Filing], error: Exception) -> Sequence[Indexing]:
        if len(batch) > 1:
            half = len(batch) // 2
            return [*self._write(batch[:half]), *self._write(batch[half:])]
        cause = error.__cause__ if isinstance(error, DatabaseUnavailable) and error.__cause__ else error
        log.error("an object could not be indexed", sop=log_id(batch[0].sop_uid), error=where(cause))
        return [self._unindexable(batch[0].arrival.file_key, f"it could not be indexed ({type(cause).__name__})")]

    def _unindexable(self, key: str, reason: str) -> Indexing:
        path = self.spool.path(key)
        try:
            status = path.stat()
        except FileNotFoundError:
            return Indexing.GONE
        log.error("a file of the spool cannot be indexed", file=key, reason=reason)
        received_at = dt.datetime.fromtimestamp(status.st_mtime, dt.UTC)
        self.quarantined(key, status.st_size, reason, _caller_of(path), received_at)
        return Indexing.UNINDEXABLE

    def _follow_up(self, filing: Filing, outcome: Indexing) -> None:
        if outcome is Indexing.SAME:
            self.spool.remove(filing.arrival.file_key)
        if outcome in (Indexing.VERSION, Indexing.CONFLICT):
            log.warning("another object under a known UID", sop=log_id(filing.sop_uid), standing=outcome)


def _caller_of(path: Path) -> str:
    """Who sent a file, as far as it can be told."""
    try:
        with opened(path) as file:
            return file.received.caller
    except (ObjectNotStorable, OSError):
        return ""
