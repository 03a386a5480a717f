"""What is looked at in an object while it streams to its file: that it is whole, and the one that was announced."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from dicom_listener.data_set import (
    FREE_INFLATED_BYTES,
    MAX_INFLATED_BYTES,
    MAX_INFLATION,
    Element,
    encoding_of,
)
from dicom_listener.description import TOO_SHORT, is_uid, least_pixel_bytes
from dicom_listener.header_text import TAGS
from dicom_listener.transfer_syntaxes import transfer_syntax
from dicom_listener.walking import Kept, Walker
from fhir_records.errors import ObjectNotStorable, ObjectTooLarge

_UIDS: Final = {
    0x00080016: "SOPClassUID",
    0x00080018: "SOPInstanceUID",
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
}
# Of pixels, whose length they tell (PS3.3 section C.7.6.3).
_NUMBERS: Final = {
    0x00280002: "SamplesPerPixel",
    0x00280010: "Rows",
    0x00280011: "Columns",
    0x00280100: "BitsAllocated",
}
_TEXTS: Final = {0x00280004: "PhotometricInterpretation", 0x00280008: "NumberOfFrames"}
_PIECE: Final = 1 << 20  # bytes inflated at a time


@dataclass(frozen=True, slots=True)
class Announced:
    """What a C-STORE request says of its data set (PS3.4 section B.2.3); "" where it says nothing."""

    sop_class_uid: str
    sop_instance_uid: str


class Examination:
    """Looks at a data set that comes in pieces.

    Args:
        transfer_syntax_uid: of the data set.
        max_inflated_bytes: to which a deflated one may grow.
    """

    def __init__(self, transfer_syntax_uid: str, max_inflated_bytes: int = MAX_INFLATED_BYTES) -> None:
        encoding = encoding_of(transfer_syntax_uid)
        self._little_endian = encoding.little_endian
        self._walker = Walker(encoding, TAGS)
        self._uids: dict[int, str] = {}
        is_deflated = transfer_syntax(transfer_syntax_uid).is_deflated
        self._inflater = _Inflater(max_inflated_bytes) if is_deflated else None

    def feed(self, piece: bytes | memoryview) -> None:
        """Take the next piece.

        Raises:
            ObjectNotStorable: it is no data set; nothing more need be fed.
        """
        if self._inflater is None:
            self._walker.feed(piece)
            return
        for plain in self._inflater.inflate(piece):
            self._walker.feed(plain)

    def finish(self) -> None:
        """See that the data set is whole, and has what storage needs.

        Raises:
            ObjectNotStorable: it is not, or has not; the message says what is wrong.
        """
        if self._inflater is not None:
            self._inflater.finish()
        self._walker.finish()
        for tag, name in _UIDS.items():
            uid = self._uids[tag] = self._text(tag)
            if not is_uid(uid):
                raise ObjectNotStorable(f"{name} is missing or not a UID")
        pixels = self._walker.pixels
        if pixels is not None and not pixels.undefined_length:
            kept = self._walker.kept
            raw = tuple([kept.get(tag) for tag in (*_TEXTS, *_NUMBERS)])
            least = _least_pixel_bytes(raw, pixels.tag, self._little_endian)
            if pixels.end - pixels.value < least:
                raise ObjectNotStorable(TOO_SHORT)

    @property
    def uids(self) -> dict[str, str]:
        """The UIDs that storage needs, by keyword, "" where one did not come so far."""
        return {name: self._text(tag) for tag, name in _UIDS.items()}

    @property
    def header(self) -> bytes:
        """After `finish`: the elements that the index asks for, as they are encoded; b"" where one is too long."""
        walker = self._walker
        return b"" if walker.missed else b"".join([encoded for _, encoded, _ in walker.kept.values()])

    @property
    def pixels(self) -> Element | None:
        """Where the pixels lie, in a deflated data set once it is inflated."""
        return self._walker.pixels

    def mismatch(self, announced: Announced) -> str:
        """Which UID of the data set, after `finish`, is not the one that was announced; "" where all are."""
        for tag, uid in ((0x00080018, announced.sop_instance_uid), (0x00080016, announced.sop_class_uid)):
            if uid and self._uids[tag] != uid:
                return f"{_UIDS[tag]} differs from the request's"
        return ""

    def _text(self, tag: int) -> str:
        return _as_text(self._walker.content(tag))


def _as_text(value: bytes) -> str:
    return value.rstrip(b"\0 ").decode("ascii", "replace").strip()


def _text(kept: Kept | None) -> str:
    return _as_text(kept[1][kept[2] :]) if kept else ""


def _number(kept: Kept | None, little_endian: bool) -> str:
    vr, encoded, start = kept or (b"", b"", 0)
    # Whatever else it may be is left to whoever decodes the whole header.
    if vr not in (b"", b"US") or len(encoded) - start != 2:
        return ""
    return str(int.from_bytes(encoded[start:], "little" if little_endian else "big"))


# Images of a series have the same, one after another.
@lru_cache(256)
def _least_pixel_bytes(raw: tuple[Kept | None, ...], pixels: int, little_endian: bool) -> int:
    """How long native pixels must be by the values of `_TEXTS` and `_NUMBERS`."""
    values = {name: _text(value) for name, value in zip(_TEXTS.values(), raw, strict=False)}
    numbers = zip(_NUMBERS.values(), raw[len(_TEXTS) :], strict=True)
    values |= {name: _number(value, little_endian) for name, value in numbers}
    return least_pixel_bytes(values, pixels)


class _Inflater:
    """A deflated data set (PS3.5 section A.5) inflated as it comes, within the limits of `data_set`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._taken = self._given = 0

    def inflate(self, piece: bytes | memoryview) -> Iterator[bytes]:
        """What comes out of the next piece, 1 MiB at a time."""
        self._taken += len(piece)
        most = min(self._most, max(FREE_INFLATED_BYTES, self._taken * MAX_INFLATION))
        waiting: bytes | memoryview = piece
        while len(waiting) and not self._inflater.eof:
            try:
                plain = self._inflater.decompress(waiting, _PIECE)
            except zlib.error as error:
                raise ObjectNotStorable("the deflated data set is broken") from error
            waiting = self._inflater.unconsumed_tail
            self._given += len(plain)
            if self._given > most:
                raise ObjectTooLarge("the deflated data set is too large")
            yield plain

    def finish(self) -> None:
        """See that it ended."""
        if not self._inflater.eof:
            raise ObjectNotStorable("the data set ends early")
