"""The outer structure of a data set seen while it streams by, in pieces of any size (PS3.5 section 7).

What `data_set.elements` sees in a whole data set, this sees without holding one: what it keeps between two pieces is
the beginning of one element's header and the few short values that are asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from dicom_listener.data_set import LONG_VRS, MAX_DEPTH, PIXEL_TAGS, VRS, Element, Encoding
from fhir_records.errors import ObjectNotStorable

# Longer values than this are of no attribute that is asked for.
MAX_VALUE_BYTES: Final = 1024

# An element's VR (b"" in Implicit VR), the element as it is encoded, and where in that its value begins. A bare tuple,
# for every object that arrives makes some thirty.
Kept = tuple[bytes, bytes, int]
# Whether the length that follows a VR has 32 bits (PS3.5 section 7.1.2).
_IS_LONG: Final = {vr: vr in LONG_VRS for vr in VRS}

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_NOTHING: Final[Kept] = (b"", b"", 0)
_EARLY: Final = "the data set ends early"


class _Layout:
    """How element headers are encoded."""

    def __init__(self, encoding: Encoding) -> None:
        order = "<" if encoding.little_endian else ">"
        self.is_implicit = encoding.implicit_vr
        self.implicit = struct.Struct(f"{order}HHL")
        self.explicit = struct.Struct(f"{order}HH2sH")
        self.length = struct.Struct(f"{order}L")


_IMPLICIT_LITTLE: Final = _Layout(Encoding(implicit_vr=True, little_endian=True))


@dataclass(slots=True)
class _Frame:
    """A sequence, or an item, of undefined length, that is open."""

    layout: _Layout
    is_item: bool


class Walker:
    """Steps through a data set that comes in pieces.

    Args:
        encoding: of its elements.
        wanted: tags of the outermost level whose elements are kept, up to `MAX_VALUE_BYTES` long.
    """

    def __init__(self, encoding: Encoding, wanted: Collection[int]) -> None:
        self.kept: dict[int, Kept] = {}
        self.pixels: Element | None = None  # the first of them
        self.missed = False  # a wanted element was too long, or of undefined length
        self._layout = _Layout(encoding)
        self._wanted = frozenset(wanted)
        self._interesting = self._wanted | PIXEL_TAGS
        self._last = -1  # tag
        self._at = 0  # in the data set: where the next piece, or the rest of the last one, begins
        self._skip = 0  # bytes of a value that are still to come
        self._rest = b""  # the beginning of an element
        self._frames: list[_Frame] = []

    def content(self, tag: int) -> bytes:
        """The value of an element that was kept; b"" where none was."""
        _, encoded, start = self.kept.get(tag, _NOTHING)
        return encoded[start:]

    def feed(self, piece: bytes | memoryview) -> None:
        """Take the next piece.

        Raises:
            ObjectNotStorable: it is no data set.
        """
        size = len(piece)
        if self._skip >= size:
            self._skip -= size
            self._at += size
            return
        if self._skip:
            piece = piece[self._skip :]
            self._at += self._skip
            self._skip = 0
        elif self._rest:
            piece = self._rest + bytes(piece)
            self._rest = b""
        self._walk(piece)

    def finish(self) -> None:
        """See that the data set ends here.

        Raises:
            ObjectNotStorable: it does not.
        """
        if self._skip or self._rest or self._frames:
            raise ObjectNotStorable(_EARLY)

    def _walk(self, piece: bytes | memoryview) -> None:
        position, size = 0, len(piece)
        while position < size:
            before = position
            position = self._nested(piece, position) if self._frames else self._outermost(piece, position)
            if position == before:
                # Nothing more can be told without the next piece.
                self._rest = bytes(piece[position:])
                break
        if position > size:
            self._skip = position - size
        self._at += min(position, size)

    def _outermost(self, piece: bytes | memoryview, position: int) -> int:
        """Step over elements of the outermost level; where the first one lies that is not stepped over."""
        layout, wanted, last, size = self._layout, self._wanted, self._last, len(piece)
        interesting = self._interesting
        implicit, unpack_implicit = layout.is_implicit, layout.implicit.unpack_from
        unpack_explicit, unpack_length = layout.explicit.unpack_from, layout.length.unpack_from
        kept, is_long_of, vr = self.kept, _IS_LONG.get, b""
        try:
            while position < size:
                if implicit:
                    group, number, length = unpack_implicit(piece, position)
                    value = position + 8
                else:
                    group, number, vr, length = unpack_explicit(piece, position)
                    value = position + 8
                    is_long = is_long_of(vr)
                    if is_long:
                        (length,), value = unpack_length(piece, position + 8), position + 12
                    elif is_long is None:
                        length, vr = self._odd(piece, position, group, vr, length)
                tag = group << 16 | number
                if tag <= last:
                    raise ObjectNotStorable("the data set is not in order")
                end = value + length
                if tag in wanted and length <= MAX_VALUE_BYTES:
                    if end > size:
                        return position
                    kept[tag] = (vr, bytes(piece[position:end]), value - position)
                elif tag in interesting:
                    self._meet(tag, position, value, end, undefined=length == _UNDEFINED)
                self._last = last = tag
                if length == _UNDEFINED:
                    # PS3.5 section 6.2.2 note 2: UN of undefined length holds a sequence in Implicit VR Little Endian.
                    self._frames.append(_Frame(_IMPLICIT_LITTLE if vr == b"UN" else layout, is_item=False))
                    return value
                position = end
        except struct.error:
            pass  # the rest of this header comes with the next piece
        return position

    def _meet(self, tag: int, position: int, value: int, end: int, *, undefined: bool) -> None:
        """Take note of pixels, and of an element that was wanted and is too long to be kept."""
        if tag in self._wanted:
            self.missed = True
        elif self.pixels is None:
            self.pixels = Element(tag, self._at + position, self._at + value, self._at + end, undefined)

    def _odd(self, piece: bytes | memoryview, position: int, group: int, vr: bytes, length: int) -> tuple[int, bytes]:
        """The length, and the VR, of an element whose VR is none of the standard's."""
        if group == 0xFFFE:
            return self._layout.length.unpack_from(piece, position + 4)[0], b""
        if not (vr.isalpha() and vr.isupper()):
            raise ObjectNotStorable("the data set is not encoded in its transfer syntax")
        return length, vr

    def _nested(self, piece: bytes | memoryview, position: int) -> int:
        """One step within a sequence or an item of undefined length; ``position`` where more bytes are needed."""
        frame = self._frames[-1]
        layout = frame.layout
        try:
            group, number, length = layout.implicit.unpack_from(piece, position)
            tag, value = group << 16 | number, position + 8
            if not frame.is_item:
                return self._in_sequence(frame, tag, length, value)
            if tag == _ITEM_END:
                self._frames.pop()
                return value
            vr = b""
            if not layout.is_implicit and group != 0xFFFE:
                _, _, vr, length = layout.explicit.unpack_from(piece, position)
                if vr in LONG_VRS:
                    (length,), value = layout.length.unpack_from(piece, position + 8), position + 12
                elif not (vr.isalpha() and vr.isupper()):
                    raise ObjectNotStorable("the data set is not encoded in its transfer syntax")
        except struct.error:
            return position
        if length != _UNDEFINED:
            return int(value + length)
        self._open(_Frame(_IMPLICIT_LITTLE if vr == b"UN" else layout, is_item=False))
        return value

    def _in_sequence(self, frame: _Frame, tag: int, length: int, value: int) -> int:
        if tag == _SEQUENCE_END:
            self._frames.pop()
            return value
        if tag != _ITEM:
            raise ObjectNotStorable("a sequence holds something else than items")
        if length != _UNDEFINED:
            return value + length
        self._open(_Frame(frame.layout, is_item=True))
        return value

    def _open(self, frame: _Frame) -> None:
        # A sequence and its item are two frames, and one level.
        if len(self._frames) >= 2 * MAX_DEPTH:
            raise ObjectNotStorable("the data set is nested too deeply")
        self._frames.append(frame)
