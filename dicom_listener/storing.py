"""C-STORE: a data set streamed to its file while it is looked at, and the status that answers it."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from dicom_listener.dimse import (
    CANNOT_UNDERSTAND,
    DOES_NOT_MATCH_SOP_CLASS,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    SUCCESS,
    Request,
)
from dicom_listener.examination import Announced, Examination
from dicom_listener.faults import where
from dicom_listener.handover import Ending, Note, Quarantined, Seen, Stored
from dicom_listener.pdu_stream import Over, Source
from dicom_listener.received import Received, file_header
from dicom_listener.spool import Spool
from dicom_listener.writing import Draft
from fhir_records.errors import ObjectNotStorable, OutOfSpace

log = structlog.get_logger(__name__)

# Between two looks at the disk while one object is written, bytes.
_LOOK_BYTES = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose association objects come over."""

    association_id: uuid.UUID
    caller: str  # calling AE title
    called: str
    address: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a C-STORE request is answered."""

    status: int
    comment: str = ""  # without patient data
    note: Note | None = None  # for the index, when the request is answered


_NO_SPACE = Verdict(OUT_OF_RESOURCES, "out of space")
_FAILED = Verdict(PROCESSING_FAILURE, "not stored")


class Store:
    """Where the objects of an acceptor go.

    Args:
        spool: the files.
        max_object_bytes: of one data set.
        clock: the time now, in UTC.
    """

    def __init__(self, spool: Spool, max_object_bytes: int, clock: Callable[[], dt.datetime]) -> None:
        self.spool = spool
        self.max_object_bytes = max_object_bytes
        self.clock = clock


class Storing:
    """One C-STORE on its way.

    Args:
        store: where the object goes.
        request: the C-STORE request.
        transfer_syntax_uid: of its presentation context.
        sender: who sends it.
    """

    def __init__(self, store: Store, request: Request, transfer_syntax_uid: str, sender: Sender) -> None:
        self._store = store
        self._sender = sender
        self._received = Received(
            sop_class_uid=request.sop_class_uid,
            sop_instance_uid=request.sop_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            source=f"dicom:{sender.caller}",
            caller=sender.caller,
            called=sender.called,
            address=sender.address,
            received_at=store.clock(),
        )
        self._examination = Examination(transfer_syntax_uid)
        self._fault = ""  # what is wrong with the data set
        self._draft: Draft | None = None
        self._refusal: Verdict | None = None  # why nothing is kept; the rest is read all the same
        self._size = 0  # of the data set, bytes
        self._look_at = _LOOK_BYTES

    def take(self, fragment: bytes | memoryview) -> None:
        """Take the next part of the data set.

        Raises:
            Over: it is larger than any may be.
        """
        self._size += len(fragment)
        if self._size > self._store.max_object_bytes:
            words = f"a data set of more than {self._store.max_object_bytes} bytes"
            raise Over(Ending.ABORTED, words, Source.USER)
        if self._refusal is None:
            self._write(fragment)
        if not self._fault:
            try:
                self._examination.feed(fragment)
            except ObjectNotStorable as error:
                self._fault = str(error)

    def finish(self) -> Verdict:
        """The data set is whole: keep it, and say how the request is to be answered."""
        if self._draft is None and self._refusal is None:
            self._write(b"")
        if self._draft is None or self._refusal is not None:
            return self._refusal or _FAILED
        draft, self._draft = self._draft, None
        try:
            return self._keep(draft)
        except OutOfSpace as error:
            return self._no_space(error)
        except OSError as error:
            log.error("an object could not be stored", error=where(error))
            return _FAILED
        finally:
            draft.discard()

    def drop(self) -> None:
        """It will not be whole: leave nothing behind."""
        draft, self._draft = self._draft, None
        if draft is not None:
            draft.discard()

    def _write(self, fragment: bytes | memoryview) -> None:
        try:
            if self._draft is None:
                self._draft = self._store.spool.draft()
                self._draft.write(file_header(self._received), fragment)
            else:
                self._draft.write(fragment)
            if self._size >= self._look_at:
                self._store.spool.check_space()
                self._look_at = self._size + _LOOK_BYTES
        except OutOfSpace as error:
            self._refusal = self._no_space(error)
            self.drop()
        except OSError as error:
            log.error("an object could not be written", error=where(error))
            self._refusal = _FAILED
            self.drop()

    def _keep(self, draft: Draft) -> Verdict:
        try:
            if not self._fault:
                self._examination.finish()
        except ObjectNotStorable as error:
            self._fault = str(error)
        if self._fault:
            return self._keep_aside(draft, CANNOT_UNDERSTAND, self._fault)
        received = self._received
        reason = self._examination.mismatch(Announced(received.sop_class_uid, received.sop_instance_uid))
        if reason:
            return self._keep_aside(draft, DOES_NOT_MATCH_SOP_CLASS, reason)
        size = draft.size
        key = self._store.spool.keep(draft, received.received_at)
        return Verdict(SUCCESS, note=Stored(key, self._sender.association_id, self._seen(size)))

    def _seen(self, size: int) -> Seen | None:
        header, received = self._examination.header, self._received
        if not header:
            return None
        syntax, caller = received.transfer_syntax_uid, received.caller
        return Seen(size, syntax, caller, received.received_at, header, self._examination.pixels)

    def _keep_aside(self, draft: Draft, status: int, reason: str) -> Verdict:
        received, size = self._received, draft.size
        facts = {
            "reason": reason,
            "caller": received.caller,
            "address": received.address,
            "source": received.source,
            "transfer_syntax_uid": received.transfer_syntax_uid,
        }
        key = self._store.spool.keep_aside(draft, received.received_at, facts)
        log.warning("an object was put into quarantine", reason=reason, caller=received.caller, bytes=size)
        return Verdict(status, reason, Quarantined(key, size, reason, received.caller, received.received_at))

    def _no_space(self, error: OutOfSpace) -> Verdict:
        log.error("the disk of the spool is too full to take objects", reason=str(error))
        return _NO_SPACE
