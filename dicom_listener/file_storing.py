"""An object that comes as a file (PS3.10), in pieces: streamed to its place in the spool while it is looked at.

What C-STORE does with a data set, this does with a file. Its own file meta information is read, and ours is written
instead, which says how the object came.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dicom_listener.data_set import MAX_INFLATED_BYTES
from dicom_listener.examination import Announced, Examination
from dicom_listener.received import MAX_META_BYTES, SOP_CLASS, SOP_INSTANCE, SYNTAX, Received, file_header, raw_meta
from dicom_listener.spool import Spool
from dicom_listener.writing import Draft
from fhir_records.errors import ObjectNotStorable, ObjectTooLarge

# Between two looks at the disk while one object is written, bytes.
_LOOK_BYTES: Final = 32 * 2**20
_META_START: Final = 144  # bytes up to the end of the group length


class Fault(StrEnum):
    """What is wrong with an object."""

    NOT_STORABLE = "not storable"  # no data set with the UIDs that storage needs, or cut off
    MISMATCH = "mismatch"  # not the object that its file meta information names
    TOO_LARGE = "too large"


@dataclass(frozen=True, slots=True)
class Offered:
    """An object's UIDs; "" where it does not say one."""

    sop_class_uid: str
    sop_uid: str
    study_uid: str
    series_uid: str


@dataclass(frozen=True, slots=True)
class Way:
    """How an object comes."""

    source: str  # the door and who came through it, "stow:NAME"
    received_at: dt.datetime
    address: str = ""  # of the sender, where it is known


class FileStoring:
    """One file on its way into the spool. Whoever made it keeps it, keeps it aside or drops it.

    Args:
        spool: where it goes.
        way: how it comes.
        max_inflated_bytes: to which a deflated object may grow.
    """

    def __init__(self, spool: Spool, way: Way, max_inflated_bytes: int = MAX_INFLATED_BYTES) -> None:
        self.size = 0  # bytes so far
        self._spool = spool
        self._max_inflated_bytes = max_inflated_bytes
        self._head: bytearray | None = bytearray()  # until the file meta information is whole
        self._received = Received("", "", "", way.source, "", "", way.address, way.received_at)
        self._examination: Examination | None = None
        self._fault: tuple[Fault, str] | None = None
        self._draft: Draft | None = None
        self._look_at = _LOOK_BYTES

    def take(self, piece: bytes | memoryview) -> None:
        """Take the next piece.

        Raises:
            OutOfSpace: the disk is below the watermark, or full; it can only be dropped.
        """
        self.size += len(piece)
        if self._head is None:
            self._go_on(piece)
            return
        self._head += piece
        if self._is_head_whole(self._head):
            self._begin(self._head)

    def finish(self) -> tuple[Fault, str] | None:
        """The file is over: what is wrong with it, and why in words without patient data; None: nothing.

        Raises:
            OutOfSpace: as `take`.
        """
        if self._head is not None:
            self._begin(self._head)
        if self._examination is not None and self._fault is None:
            try:
                self._examination.finish()
            except ObjectNotStorable as error:
                self._fault = _fault(error)
            else:
                told = Announced(self._received.sop_class_uid, self._received.sop_instance_uid)
                if reason := self._examination.mismatch(told):
                    self._fault = Fault.MISMATCH, reason
        return self._fault

    @property
    def offered(self) -> Offered | None:
        """What it says that it is, as far as it came; None: it is no DICOM file."""
        if self._examination is None:
            return None
        uids = self._examination.uids
        return Offered(
            sop_class_uid=uids["SOPClassUID"] or self._received.sop_class_uid,
            sop_uid=uids["SOPInstanceUID"] or self._received.sop_instance_uid,
            study_uid=uids["StudyInstanceUID"],
            series_uid=uids["SeriesInstanceUID"],
        )

    def keep(self) -> str:
        """Make it an object of the spool, durably; its key. Any thread may do so.

        Raises:
            OutOfSpace: the disk became full; nothing is kept.
        """
        return self._spool.keep(self._taken_draft(), self._received.received_at)

    def keep_aside(self, reason: str) -> tuple[str, int]:
        """Put it into quarantine, durably; its key, and how many bytes it has there.

        Raises:
            OutOfSpace: the disk became full; nothing is kept.
        """
        draft, received = self._taken_draft(), self._received
        facts = {
            "reason": reason,
            "caller": received.caller,
            "address": received.address,
            "source": received.source,
            "transfer_syntax_uid": received.transfer_syntax_uid,
        }
        size = draft.size
        return self._spool.keep_aside(draft, received.received_at, facts), size

    def drop(self) -> None:
        """Leave nothing behind, where it was not kept."""
        draft, self._draft = self._draft, None
        if draft is not None:
            draft.discard()

    @staticmethod
    def _is_head_whole(head: bytearray) -> bool:
        if len(head) < _META_START:
            return False
        length = int.from_bytes(head[_META_START - 4 : _META_START], "little")
        return head[128:132] != b"DICM" or length > MAX_META_BYTES or len(head) >= _META_START + length

    def _begin(self, head: bytearray) -> None:
        """The file meta information is whole, or will never be."""
        self._head = None
        self._draft = self._spool.draft()
        try:
            meta, end = raw_meta(head)
        except ObjectNotStorable as error:
            self._fault = _fault(error)
            self._go_on(head)
            return
        received = self._received = Received(
            sop_class_uid=_text(meta, SOP_CLASS),
            sop_instance_uid=_text(meta, SOP_INSTANCE),
            transfer_syntax_uid=_text(meta, SYNTAX),
            source=self._received.source,
            caller="",
            called="",
            address=self._received.address,
            received_at=self._received.received_at,
        )
        self._examination = Examination(received.transfer_syntax_uid, self._max_inflated_bytes)
        self._draft.write(file_header(received))
        self._go_on(memoryview(head)[end:])

    def _go_on(self, piece: bytes | bytearray | memoryview) -> None:
        if self._draft is None:
            return  # there was no space for it
        self._draft.write(piece)
        if self._draft.size >= self._look_at:
            self._spool.check_space()
            self._look_at = self._draft.size + _LOOK_BYTES
        if self._examination is not None and self._fault is None:
            try:
                self._examination.feed(memoryview(piece))
            except ObjectNotStorable as error:
                self._fault = _fault(error)

    def _taken_draft(self) -> Draft:
        draft, self._draft = self._draft, None
        if draft is None:
            raise AssertionError("it was kept, or dropped, before")
        return draft


def _text(meta: Mapping[int, bytes], tag: int) -> str:
    return meta.get(tag, b"").decode("ascii", "replace").strip()


def _fault(error: ObjectNotStorable) -> tuple[Fault, str]:
    return Fault.TOO_LARGE if isinstance(error, ObjectTooLarge) else Fault.NOT_STORABLE, str(error)
