"""The outer structure of an encoded data set, without decoding values (PS3.5 section 7).

Fast enough for every object that arrives, and stricter than a parser made to read whatever it can: a data set that
ends early is seen here.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, STANDARD_VR

from dicom_listener.transfer_syntaxes import transfer_syntax
from fhir_records.errors import ObjectNotStorable

# A deflated data set may not grow beyond this, …
MAX_INFLATED_BYTES = 2 * 1024**3
# … nor, once it is larger than the second number, to so many times its size: pictures do not, zeros do.
MAX_INFLATION = 100
FREE_INFLATED_BYTES = 256 * 1024**2
# What is taken in and given out at a time, bytes.
_DEFLATED_PIECE, _INFLATED_PIECE = 1 << 16, 1 << 20

PIXEL_DATA = 0x7FE00010
# Pixel Data, and its float and double variants.
PIXEL_TAGS = frozenset({PIXEL_DATA, 0x7FE00008, 0x7FE00009})

_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
VRS = frozenset(vr.value.encode() for vr in STANDARD_VR)
LONG_VRS = frozenset(vr.value.encode() for vr in EXPLICIT_VR_LENGTH_32)  # PS3.5 section 7.1.2
_EXPLICIT, _IMPLICIT, _LENGTH = struct.Struct("<HH2sH"), struct.Struct("<HHL"), struct.Struct("<L")
# No real object nests deeper; a made-up one would end the interpreter.
MAX_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the elements of a data set are encoded."""

    implicit_vr: bool
    little_endian: bool


@dataclass(frozen=True, slots=True)
class Element:
    """Where one element of the outermost level lies."""

    tag: int
    offset: int  # of its tag
    value: int  # of its value
    end: int  # behind its value, delimiter included
    undefined_length: bool


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """The encoding that a transfer syntax implies; private ones are taken for Explicit VR Little Endian."""
    return Encoding(
        implicit_vr=transfer_syntax_uid == ImplicitVRLittleEndian,
        little_endian=transfer_syntax_uid != ExplicitVRBigEndian,
    )


def inflated(data: bytes | memoryview, transfer_syntax_uid: str) -> bytes | memoryview:
    """``data`` as it is, or inflated where the transfer syntax is a deflated one (PS3.5 section A.5).

    Raises:
        ObjectNotStorable: as `inflating`.
    """
    if not transfer_syntax(transfer_syntax_uid).is_deflated:
        return data
    plain = bytearray()
    for piece in inflating(data):
        plain += piece
    return memoryview(plain).toreadonly()


def inflating(data: bytes | memoryview) -> Iterator[bytes]:
    """A deflated data set piece by piece, each of 1 MiB at most.

    Raises:
        ObjectNotStorable: it is broken, ends early, or grows beyond what the limits above allow.
    """
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    left = min(MAX_INFLATED_BYTES, max(FREE_INFLATED_BYTES, len(data) * MAX_INFLATION))
    for start in range(0, len(data), _DEFLATED_PIECE):
        waiting: bytes | memoryview = data[start : start + _DEFLATED_PIECE]
        while len(waiting) and not inflater.eof:
            try:
                piece = inflater.decompress(waiting, _INFLATED_PIECE)
            except zlib.error as error:
                raise ObjectNotStorable("the deflated data set is broken") from error
            waiting = inflater.unconsumed_tail
            left -= len(piece)
            if left < 0:
                raise ObjectNotStorable("the deflated data set is too large")
            yield piece
    if not inflater.eof:
        raise ObjectNotStorable("the data set ends early")


def elements(data: bytes | memoryview, encoding: Encoding) -> Iterator[Element]:
    """The elements of the outermost level, in order.

    Raises:
        ObjectNotStorable: the data set ends early, or is no data set.
    """
    position, last = 0, -1
    size = len(data)
    while position < size:
        element = _element(data, position, encoding, 0)
        if element.tag <= last:
            raise ObjectNotStorable("the data set is not in order")
        last = element.tag
        yield element
        position = element.end


def sought(data: bytes | memoryview, encoding: Encoding, tags: Collection[int]) -> list[Element]:
    """The elements of the outermost level with one of ``tags``, in order.

    All others are stepped over, to the very end, checked as `elements` checks them, and several times as fast.

    Raises:
        ObjectNotStorable: as `elements`.
    """
    if not encoding.little_endian:
        return [element for element in elements(data, encoding) if element.tag in tags]
    found: list[Element] = []
    position, last, size, implicit = 0, -1, len(data), encoding.implicit_vr
    try:
        while position < size:
            if implicit:
                group, number, length = _IMPLICIT.unpack_from(data, position)
                value, known = position + 8, True
            else:
                group, number, vr, length = _EXPLICIT.unpack_from(data, position)
                value, known = position + 8, vr in VRS
                if vr in LONG_VRS:
                    (length,), value = _LENGTH.unpack_from(data, position + 8), position + 12
            tag = group << 16 | number
            if tag <= last:
                raise ObjectNotStorable("the data set is not in order")
            end = value + length
            if not known or length == _UNDEFINED or end > size or group == 0xFFFE:
                with memoryview(data)[position:] as rest:  # let go of also where it fails: the data may be a map
                    slow = next(elements(rest, encoding))  # knows what may be, and names what not
                end = position + slow.end
                if tag in tags:
                    found.append(replace(slow, offset=position, value=position + slow.value, end=end))
            elif tag in tags:
                found.append(Element(tag, position, value, end, False))
            position, last = end, tag
    except struct.error as error:
        raise ObjectNotStorable("the data set ends early") from error
    return found


def parsed(data: bytes | memoryview, encoding: Encoding, wanted: list[Element]) -> Dataset:
    """The ``wanted`` elements, decoded.

    Raises:
        ObjectNotStorable: they cannot be decoded.
    """
    picked = b"".join(bytes(data[element.offset : element.end]) for element in wanted)
    try:
        return read_dataset(io.BytesIO(picked), encoding.implicit_vr, encoding.little_endian)
    except Exception as error:  # boundary: pydicom raises whatever a broken data set brings about
        raise ObjectNotStorable("the data set cannot be decoded") from error


def _element(data: bytes | memoryview, offset: int, encoding: Encoding, depth: int) -> Element:
    """The element at ``offset``."""
    order = "<" if encoding.little_endian else ">"
    try:
        group, number = struct.unpack_from(f"{order}HH", data, offset)
        vr = b"" if encoding.implicit_vr else bytes(data[offset + 4 : offset + 6])
        if encoding.implicit_vr or group == 0xFFFE:
            (length,), value = struct.unpack_from(f"{order}L", data, offset + 4), offset + 8
        elif vr in LONG_VRS:
            (length,), value = struct.unpack_from(f"{order}L", data, offset + 8), offset + 12
        else:
            (length,), value = struct.unpack_from(f"{order}H", data, offset + 6), offset + 8
    except struct.error as error:
        raise ObjectNotStorable("the data set ends early") from error
    if vr and group != 0xFFFE and not (vr.isalpha() and vr.isupper()):
        raise ObjectNotStorable("the data set is not encoded in its transfer syntax")
    if length == _UNDEFINED:
        # PS3.5 section 6.2.2 note 2: UN of undefined length holds a sequence in Implicit VR Little Endian.
        inner = Encoding(implicit_vr=True, little_endian=True) if vr == b"UN" else encoding
        end = _sequence_end(data, value, inner, depth + 1)
    else:
        end = value + length
    if end > len(data):
        raise ObjectNotStorable("the data set ends early")
    return Element(group << 16 | number, offset, value, end, length == _UNDEFINED)


def _sequence_end(data: bytes | memoryview, position: int, encoding: Encoding, depth: int) -> int:
    """Where the items from ``position`` on, and their delimiter, end."""
    if depth > MAX_DEPTH:
        raise ObjectNotStorable("the data set is nested too deeply")
    order = "<" if encoding.little_endian else ">"
    while True:
        if position + 8 > len(data):
            raise ObjectNotStorable("the data set ends early")
        group, number, length = struct.unpack_from(f"{order}HHL", data, position)
        tag = group << 16 | number
        position += 8
        if tag == _SEQUENCE_END:
            return position
        if tag != _ITEM:
            raise ObjectNotStorable("a sequence holds something else than items")
        position = position + length if length != _UNDEFINED else _item_end(data, position, encoding, depth)


def _item_end(data: bytes | memoryview, position: int, encoding: Encoding, depth: int) -> int:
    """Where an item of undefined length ends."""
    order = "<" if encoding.little_endian else ">"
    while True:
        if position + 8 > len(data):
            raise ObjectNotStorable("the data set ends early")
        group, number = struct.unpack_from(f"{order}HH", data, position)
        if group << 16 | number == _ITEM_END:
            return position + 8
        position = _element(data, position, encoding, depth).end
