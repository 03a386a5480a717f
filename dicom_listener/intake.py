"""The door for objects that come whole, by another way than C-STORE: looked at, stored durably, indexed."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import structlog

from dicom_listener.description import Described
from dicom_listener.faults import where
from dicom_listener.index import Index
from dicom_listener.index_batch import Indexing
from dicom_listener.received import Bytes, Received, file_header, split_file
from dicom_listener.spool import Spool, StoredFile
from fhir_records.errors import DatabaseUnavailable, ObjectNotStorable, OutOfSpace
from fhir_records.identities import log_id

log = structlog.get_logger(__name__)

# How long the database counts as away after it was found so.
AWAY_S = 2.0


class Outcome(StrEnum):
    """What became of an object that came."""

    STORED = "stored"  # safe, and in the index
    WAITING = "waiting"  # safe; the index follows when the database answers
    NOT_STORABLE = "not storable"  # no data set with the UIDs that storage needs, or cut off; in quarantine
    MISMATCH = "mismatch"  # not the object that was announced; in quarantine
    NO_SPACE = "no space"  # nothing was written


@dataclass(frozen=True, slots=True)
class Taken:
    """The outcome, why, and where the bytes are."""

    outcome: Outcome
    reason: str = ""  # without patient data
    key: str = ""
    indexing: Indexing | None = None


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

    def take(self, data: bytes | memoryview, received: Received) -> Taken:
        """Store one object: its data set as it came, and how. The outcome says whether it is safe."""
        try:
            self.spool.check_space(len(data))
            try:
                described = self.index.describe(data, received)
            except ObjectNotStorable as error:
                return self._quarantine(data, received, Outcome.NOT_STORABLE, str(error))
            if reason := _mismatch(described, received):
                return self._quarantine(data, received, Outcome.MISMATCH, reason)
            file = self.spool.store([file_header(received), data], received.received_at)
        except OutOfSpace as error:
            log.error("the disk of the spool is too full to take objects", reason=str(error))
            return Taken(Outcome.NO_SPACE, "out of space")
        return self._index(described, file)

    def take_file(self, content: Bytes, source: str) -> Indexing:
        """Store one object that came as a file (PS3.10) by another door, and index it.

        Args:
            content: the file.
            source: the door, "orthanc:NAME".

        Raises:
            ObjectNotStorable: it is no object that can be stored; the bytes are in quarantine.
            OutOfSpace: nothing was written.
            DatabaseUnavailable: it is safe but not in the index yet.
        """
        taken = self.take_object(content, source)
        if taken.outcome is Outcome.NO_SPACE:
            raise OutOfSpace
        if taken.outcome is Outcome.WAITING:
            raise DatabaseUnavailable
        if taken.indexing is None:
            raise ObjectNotStorable(f"The object cannot be stored: {taken.reason}.")
        return taken.indexing

    def take_object(self, content: Bytes, source: str, address: str = "") -> Taken:
        """As `take_file`, for a door that answers with an outcome.

        Args:
            content: the file.
            source: the door and who came through it, "stow:NAME".
            address: of the sender, where it is known.
        """
        now = self.clock()
        try:
            meta, data = split_file(content)
        except ObjectNotStorable as error:
            received = Received("", "", "", source, "", "", address, now)
            try:
                return self._quarantine(memoryview(content), received, Outcome.NOT_STORABLE, str(error))
            except OutOfSpace:
                return Taken(Outcome.NO_SPACE, "out of space")
        received = Received(
            sop_class_uid=str(meta.get("MediaStorageSOPClassUID") or ""),
            sop_instance_uid=str(meta.get("MediaStorageSOPInstanceUID") or ""),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            source=source,
            caller="",
            called="",
            address=address,
            received_at=now,
        )
        return self.take(data, received)

    def _index(self, described: Described, file: StoredFile) -> Taken:
        if time.monotonic() < self._away_until:
            return self._waiting(file)
        try:
            indexing = self.index.add(described, file)
        except DatabaseUnavailable:
            self._away_until = time.monotonic() + AWAY_S
            log.error("the database is away; objects are stored and will be indexed later")
            return self._waiting(file)
        except OSError as error:  # the bytes are safe, whatever keeps them from being compared with others
            sop = log_id(described.arrival.sop_uid)
            log.error("an object could not be indexed", sop=sop, error=where(error))
            return self._waiting(file)
        return Taken(Outcome.STORED, key=file.key, indexing=indexing)

    def _waiting(self, file: StoredFile) -> Taken:
        self.backlog.set()
        return Taken(Outcome.WAITING, key=file.key)

    def _quarantine(self, data: bytes | memoryview, received: Received, outcome: Outcome, reason: str) -> Taken:
        """Keep bytes that are no storable object. What cannot even be kept is refused all the same."""
        facts = {
            "reason": reason,
            "caller": received.caller,
            "address": received.address,
            "source": received.source,
            "transfer_syntax_uid": received.transfer_syntax_uid,
        }
        file = self.spool.quarantine([data], received.received_at, facts)
        log.warning("an object was put into quarantine", reason=reason, caller=received.caller, bytes=len(data))
        try:
            self.index.quarantined(file.key, file.size, reason, received.caller, received.received_at)
        except DatabaseUnavailable:
            self.backlog.set()
        return Taken(outcome, reason, file.key)


def _mismatch(described: Described, received: Received) -> str:
    """Which UID of the data set is not the one that was announced (PS3.4 section B.2.3)."""
    if received.sop_instance_uid and described.arrival.sop_uid != received.sop_instance_uid:
        return "SOPInstanceUID differs from the request's"
    if received.sop_class_uid and described.arrival.sop_class_uid != received.sop_class_uid:
        return "SOPClassUID differs from the request's"
    return ""
