"""The objects of a store request on their way into the spool and its index.

Each is streamed to its file, and made durable while the next one comes, so that all that are ready at once share a
sync. Their rows are written in batches, as those of C-STORE are.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import structlog
from starlette.exceptions import HTTPException

from dicom_listener.faults import where
from dicom_listener.file_storing import Fault, FileStoring, Offered, Way
from dicom_listener.index import Index
from dicom_listener.index_batch import Indexing
from dicom_listener.intake import Intake
from dicom_listener.spool import Spool
from fhir_records.database import Database
from fhir_records.errors import OutOfSpace
from web.media_types import DICOM
from web.settings import WebSettings
from web.store_answer import Failed, Failure, Kept, StoreResult

log = structlog.get_logger(__name__)

BATCH_OBJECTS = 100
BATCH_SECONDS = 1.0  # after which an object's row is written, though no others came
MAX_INFLATED_BYTES = 512 * 1024**2  # of a deflated object, which is inflated in memory

_FAILURES = {
    Fault.NOT_STORABLE: Failure.CANNOT_UNDERSTAND,
    Fault.MISMATCH: Failure.MISMATCH,
    Fault.TOO_LARGE: Failure.TOO_LARGE,
}


class StoreDoor:
    """Where the objects go.

    Args:
        settings: limits, and where the spool is.
        database: the record.
    """

    def __init__(self, settings: WebSettings, database: Database) -> None:
        self.settings = settings
        self.database = database
        self.spool = Spool(settings.spool_root, min_free_bytes=settings.min_free_bytes)
        self.syncing = ThreadPoolExecutor(8, "store sync")
        self.indexing = ThreadPoolExecutor(4, "store index")

    def intake(self) -> Intake:
        """The door itself; one for a request, for it remembers that the database was away."""
        index = Index(self.database, self.spool, timezone=self.settings.timezone, clock=_now)
        return Intake(self.spool, index, clock=_now)


@dataclass(frozen=True, slots=True)
class _Ready:
    """An object that is becoming durable."""

    offered: Offered
    key: Future[str]


class Arrivals:
    """What becomes of the objects of one request; used by one thread at a time.

    Args:
        door: where they go.
        source: who sends them, "stow:NAME".
        address: from where.
        study_uid: to which all of them must belong; "": to any.
    """

    def __init__(self, door: StoreDoor, source: str, address: str, study_uid: str) -> None:
        self.result = StoreResult()
        self.settings = door.settings
        self.study_uid = study_uid
        self._door = door
        self._intake = door.intake()
        self._source = source
        self._address = address
        self._count = 0
        self._ready: list[_Ready] = []
        self._oldest = 0.0  # when the first of these was ready, seconds of a clock that nobody sets
        self._written: Future[None] | None = None  # the batch before

    def begin(self, kind: str) -> ObjectSink:
        """The sink of the next part, of this media type.

        Raises:
            HTTPException: 413, there are more than are taken.
        """
        most = self.settings.store_max_objects
        if self._count >= most:
            raise HTTPException(413, f"At most {most} objects are taken in a request; the first {most} are dealt with.")
        self._count += 1
        if kind not in ("", DICOM):
            return ObjectSink(self, None)
        way = Way(self._source, self._intake.clock(), self._address)
        return ObjectSink(self, FileStoring(self._intake.spool, way, MAX_INFLATED_BYTES))

    def keep(self, storing: FileStoring, offered: Offered) -> None:
        """Make an object durable, behind the caller's back, and index it with the next ones."""
        if not self._ready:
            self._oldest = time.monotonic()
        self._ready.append(_Ready(offered, self._door.syncing.submit(storing.keep)))
        if len(self._ready) >= BATCH_OBJECTS or time.monotonic() - self._oldest > BATCH_SECONDS:
            self._write()

    def keep_aside(self, storing: FileStoring, fault: Fault, reason: str) -> None:
        """Put what cannot be stored into quarantine, and remember why."""
        offered = storing.offered
        try:
            self._intake.keep_aside(storing, self._source, reason)
            self.fail(_FAILURES[fault], offered)
        except OutOfSpace:
            self.fail(Failure.NO_SPACE, offered)

    def fail(self, failure: Failure, offered: Offered | None = None) -> None:
        """Remember why an object was not stored."""
        self.result.failed.append(Failed(failure, offered))

    def finish(self) -> None:
        """See that everything that came is durable and in the index, or waits for it."""
        self._write()
        self._wait()

    def _write(self) -> None:
        """Write the rows of what is ready while more comes; no more than one batch is on its way at a time."""
        self._wait()
        if self._ready:
            ready, self._ready = self._ready, []
            self._written = self._door.indexing.submit(self._index, ready)

    def _wait(self) -> None:
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def _index(self, ready: list[_Ready]) -> None:
        keys: dict[str, Offered] = {}
        for one in ready:
            try:
                keys[one.key.result()] = one.offered
            except OutOfSpace:
                self.fail(Failure.NO_SPACE, one.offered)
            except Exception as error:  # boundary: one object must not end the others of its request
                log.error("an object could not be stored", error=where(error))
                self.fail(Failure.PROCESSING, one.offered)
        for offered, indexing in zip(keys.values(), self._intake.index_files(list(keys)), strict=True):
            if indexing is Indexing.UNINDEXABLE:
                self.fail(Failure.CANNOT_UNDERSTAND, offered)
            else:
                self.result.kept.append(Kept(offered, indexing is Indexing.CONFLICT))


class ObjectSink:
    """One part of the body.

    Args:
        arrivals: of its request.
        storing: the object; None: the part is none.
    """

    def __init__(self, arrivals: Arrivals, storing: FileStoring | None) -> None:
        self._arrivals = arrivals
        self._storing = storing
        self._failure = Failure.NOT_DICOM if storing is None else None

    def write(self, data: memoryview) -> None:
        """Take the next piece."""
        if self._storing is None or self._failure is not None:
            return
        if self._storing.size + len(data) > self._arrivals.settings.store_max_object_bytes:
            self._give_up(Failure.TOO_LARGE)
            return
        self._trying(lambda storing: storing.take(data))

    def finish(self) -> None:
        """The part is whole: keep it, or say why not."""
        self._trying(self._finish)
        if self._failure is not None:
            self._arrivals.fail(self._failure, self._storing.offered if self._storing else None)

    def drop(self) -> None:
        """It will never be whole: leave nothing behind."""
        if self._storing is not None:
            self._storing.drop()

    def _finish(self, storing: FileStoring) -> None:
        fault = storing.finish()
        offered, study_uid = storing.offered, self._arrivals.study_uid
        if study_uid and offered is not None and offered.study_uid != study_uid:
            self._give_up(Failure.OTHER_STUDY)
        elif fault is not None and fault[0] is Fault.TOO_LARGE:
            self._give_up(Failure.TOO_LARGE)
        elif fault is not None or offered is None:
            self._arrivals.keep_aside(storing, *(fault or (Fault.NOT_STORABLE, "not a DICOM file")))
        else:
            self._arrivals.keep(storing, offered)

    def _trying(self, act: Callable[[FileStoring], None]) -> None:
        if self._storing is None or self._failure is not None:
            return
        try:
            act(self._storing)
        except OutOfSpace as error:
            log.error("the disk of the spool is too full to take objects", reason=str(error))
            self._give_up(Failure.NO_SPACE)
        except Exception as error:  # boundary: one object must not end the others of its request
            log.error("an object could not be stored", error=where(error))
            self._give_up(Failure.PROCESSING)

    def _give_up(self, failure: Failure) -> None:
        self._failure = failure
        self.drop()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
