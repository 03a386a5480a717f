"""The door for objects that come as files, by another way than C-STORE: looked at, stored durably, indexed."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Sequence

import structlog

from dicom_listener.faults import where
from dicom_listener.file_storing import FileStoring, Way
from dicom_listener.index import Index
from dicom_listener.index_batch import Indexing
from dicom_listener.received import Bytes
from dicom_listener.spool import Spool
from fhir_records.errors import DatabaseUnavailable, ObjectNotStorable

log = structlog.get_logger(__name__)

# How long the database counts as away after it was found so.
AWAY_S = 2.0


class Intake:
    """Takes objects into the spool and its index.

    Args:
        spool: where the files go.
        index: of that spool.
        clock: the time now, in UTC.
    """

    def __init__(self, spool: Spool, index: Index, *, clock: Callable[[], dt.datetime]) -> None:
        self.spool = spool
        self.index = index
        self.clock = clock
        # Set while files wait for the index; whoever reconciles clears it.
        self.backlog = threading.Event()
        # Until when the database counts as away, so that not every object waits for a connection that will not come.
        self._away_until = 0.0  # seconds of a clock that nobody sets

    def take_file(self, content: Bytes, source: str) -> Indexing:
        """Store one object that came as a file (PS3.10), and index it.

        Args:
            content: the file.
            source: the door, "orthanc:NAME".

        Raises:
            ObjectNotStorable: it is no object that can be stored; the bytes are in quarantine.
            OutOfSpace: nothing was written.
            DatabaseUnavailable: it is safe but not in the index yet.
        """
        self.spool.check_space(len(content))
        storing = FileStoring(self.spool, Way(source, self.clock()))
        try:
            storing.take(memoryview(content))
            fault = storing.finish()
            if fault is not None:
                self.keep_aside(storing, source, fault[1])
                raise ObjectNotStorable(f"The object cannot be stored: {fault[1]}.")
            (indexing,) = self.index_files([storing.keep()])
        finally:
            storing.drop()
        if indexing is None:
            raise DatabaseUnavailable
        if indexing is Indexing.UNINDEXABLE:
            raise ObjectNotStorable
        return indexing

    def keep_aside(self, storing: FileStoring, source: str, reason: str) -> None:
        """Put what cannot be stored into quarantine, and write that down.

        Raises:
            OutOfSpace: it could not be kept.
        """
        key, size = storing.keep_aside(reason)
        log.warning("an object was put into quarantine", reason=reason, source=source.partition(":")[0], bytes=size)
        try:
            self.index.quarantined(key, size, reason, "", self.clock())
        except DatabaseUnavailable:
            self.backlog.set()

    def index_files(self, keys: Sequence[str]) -> Sequence[Indexing | None]:
        """Index files of the spool, in as few transactions as can be; None of what waits for the database."""
        if time.monotonic() >= self._away_until:
            try:
                return self.index.add_files([(key, None) for key in keys])
            except DatabaseUnavailable:
                self._away_until = time.monotonic() + AWAY_S
                log.error("the database is away; objects are stored and will be indexed later")
            except OSError as error:  # the bytes are safe, whatever keeps them from being looked at
                log.error("objects could not be indexed", objects=len(keys), error=where(error))
        self.backlog.set()
        return [None] * len(keys)
