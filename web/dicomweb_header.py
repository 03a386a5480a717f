"""A stored object's header in the DICOM JSON model (PS3.18 annex F), straight from its bytes.

Most elements say all there is to say in the bytes of their values; these are written without a parse of the data set.
What is left, such as other character sets, representations that depend on other elements, and what breaks a rule, is
handed back for pydicom. A viewer asks for the headers of whole series, so this decides how long it waits; a test holds
both ways to the same answer.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from pydicom.datadict import dictionary_VR, private_dictionary_VR
from pydicom.tag import Tag
from pydicom.valuerep import STANDARD_VR

from dicom_listener.data_set import LONG_VRS, PIXEL_TAGS, Encoding, elements
from fhir_records.errors import ObjectNotStorable
from web.dicomweb_json import Json, element_of

# Binary values longer than this are delivered at an address of their own, but for the LUTs, without which a viewer
# shows wrong colours. The longest LUT has 65,536 entries of two bytes (PS3.3 section C.11.1.1).
_INLINE_BYTES, _INLINE_LUT_BYTES = 4096, 1 << 18
BINARY: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})

# Whatever else is asked for, these are needed to say the others right: character set, VRs, and what decoding changes.
CONTEXT: Final = tuple(
    int(Tag(keyword))
    for keyword in ("SpecificCharacterSet", "SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation")
)

# Sequences in sequences; pydicom looks at what is deeper, and at sequences of more items.
_MAX_DEPTH, _MAX_ITEMS = 8, 999_999
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED: Final = 0xFFFFFFFF
_EXPLICIT, _IMPLICIT, _LENGTH = struct.Struct("<HH2sH"), struct.Struct("<HHL"), struct.Struct("<L")
_VRS: Final[Mapping[bytes, str]] = MappingProxyType({vr.value.encode(): vr.value for vr in STANDARD_VR})
# Bytes; as far as an unknown representation is looked up.
_LONGEST_KNOWN: Final = 0xFFFF


class _Odd(Exception):
    """An element that pydicom has to look at."""


@dataclass(slots=True)
class Header:
    """What was read of a header."""

    found: Json = field(default_factory=dict)  # by tag
    odd: list[tuple[int, int, int]] = field(default_factory=list)  # tag, begin and end of what pydicom has to look at
    context: list[tuple[int, int, int]] = field(default_factory=list)  # likewise, of what it needs for that


def header_of(
    data: bytes | memoryview, encoding: Encoding, address: str, tags: Collection[int] | None = None
) -> Header | None:
    """The elements before the pixels; None where the data set is not to be read like this.

    Args:
        data: the data set.
        encoding: of its elements.
        address: below which long binary values are delivered.
        tags: only these of the outermost level; None: all.
    """
    if not encoding.little_endian:
        return None
    try:
        return _Walk(data, encoding, address).header(tags)
    except (struct.error, ObjectNotStorable):
        return None


def goes_elsewhere(tag: int, length: int) -> bool:
    """Whether a binary value of ``length`` bytes is delivered at an address of its own."""
    return length > (_INLINE_LUT_BYTES if tag >> 16 == 0x0028 else _INLINE_BYTES)


class _Walk:
    """Steps through a data set.

    All positions are of the data set; an end of -1 is that of a value of undefined length.
    """

    def __init__(self, data: bytes | memoryview, encoding: Encoding, address: str) -> None:
        self._data = data
        self._encoding = encoding
        self._implicit = encoding.implicit_vr
        self._address = address
        self._size = len(data)

    def header(self, tags: Collection[int] | None) -> Header:
        """The outermost level.

        Raises:
            ObjectNotStorable: it is no data set; so says struct.error.
        """
        header, position, last = Header(), 0, -1
        creators: dict[int, str | None] = {}
        while position < self._size:
            tag, vr, value, end = self._start(position)
            if tag in PIXEL_TAGS:
                break
            if tag <= last or end > self._size:
                raise ObjectNotStorable("the data set is not in order")
            last = tag
            wanted = tags is None or tag in tags
            is_creator = tag & 0x10000 and 0x10 <= tag & 0xFFFF <= 0xFF
            try:
                if not (wanted or is_creator):
                    raise _Odd
                key = f"{tag:08X}"
                after, element = self._element(key, tag, vr, value, end, creators, 0)
                if wanted:
                    header.found[key] = element
            except _Odd:
                after = end if end >= 0 else position + next(elements(self._data[position:], self._encoding)).end
                if wanted:
                    header.odd.append((tag, position, after))
            if is_creator or tag in CONTEXT:
                header.context.append((tag, position, after))
            position = after
        return header

    def _start(self, position: int) -> tuple[int, str, int, int]:
        """Tag, VR ("" where it is not to be told), begin and end of the value."""
        if self._implicit:
            group, number, length = _IMPLICIT.unpack_from(self._data, position)
            tag, value = group << 16 | number, position + 8
            vr = _implicit_vr(tag)
        else:
            group, number, raw, length = _EXPLICIT.unpack_from(self._data, position)
            tag, value = group << 16 | number, position + 8
            vr = _VRS.get(raw, "")
            if raw in LONG_VRS:
                (length,), value = _LENGTH.unpack_from(self._data, position + 8), position + 12
                if raw == b"UN" and length < _LONGEST_KNOWN and not group & 1:
                    # A sender that did not know the attribute (PS3.5 section 6.2.2 note 1).
                    vr = _implicit_vr(tag) or vr
        return tag, vr, value, -1 if length == _UNDEFINED else value + length

    def _element(
        self, place: str, tag: int, vr: str, value: int, end: int, creators: dict[int, str | None], depth: int
    ) -> tuple[int, Json]:
        """The end of an element, and the element; ``creators``: the private ones of its level by tag, so far.

        Raises:
            _Odd: pydicom has to look at it.
        """
        if vr == "SQ":
            return self._sequence(place, value, end, depth + 1)
        if vr == "UN" and tag & 0x10000:
            vr = self._private_vr(tag, creators)
        if end < 0 or not vr:
            raise _Odd
        if vr in BINARY:
            if goes_elsewhere(tag, end - value):
                return end, {"vr": vr, "BulkDataURI": f"{self._address}/bulkdata/{place}"}
            inline = b64encode(self._data[value:end]).decode("ascii")
            return end, {"vr": vr, "InlineBinary": inline} if inline else {"vr": vr}
        try:
            element = element_of(vr, bytes(self._data[value:end]), "<")
        except ValueError:  # no number
            element = None
        if tag & 0x10000 and 0x10 <= tag & 0xFFFF <= 0xFF:
            values = [None] if element is None else element.get("Value", [""])
            creators[tag] = values[0] if len(values) == 1 and isinstance(values[0], str) else None
        if element is None:
            raise _Odd
        return end, element

    def _private_vr(self, tag: int, creators: dict[int, str | None]) -> str:
        """The VR of a private element that does not say it itself."""
        if 0x10 <= tag & 0xFFFF <= 0xFF:
            return "LO"  # a private creator (PS3.5 section 7.8.1)
        creator = creators.get(tag & 0xFFFF0000 | (tag & 0xFF00) >> 8, "")
        return "" if creator is None else _private_dictionary_vr(tag, creator)

    def _sequence(self, place: str, position: int, end: int, depth: int) -> tuple[int, Json]:
        if depth > _MAX_DEPTH:
            raise _Odd
        items: list[Json] = []
        while position != end:
            group, number, length = _IMPLICIT.unpack_from(self._data, position)
            tag, position = group << 16 | number, position + 8
            if tag == _SEQUENCE_END and end < 0:
                break
            if tag != _ITEM or len(items) == _MAX_ITEMS:
                raise _Odd
            stop = -1 if length == _UNDEFINED else position + length
            if stop > (self._size if end < 0 else end):
                raise _Odd
            position, item = self._item(f"{place}/{len(items) + 1}/", position, stop, depth)
            items.append(item)
        return position, {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}

    def _item(self, above: str, position: int, end: int, depth: int) -> tuple[int, Json]:
        item: Json = {}
        last, creators = -1, dict[int, str | None]()
        while position != end:
            if end < 0 and self._data[position : position + 4] == b"\xfe\xff\x0d\xe0":
                return position + 8, item
            tag, vr, value, stop = self._start(position)
            if tag <= last or stop > (self._size if end < 0 else end):
                raise _Odd
            last = tag
            key = f"{tag:08X}"
            position, item[key] = self._element(above + key, tag, vr, value, stop, creators, depth)
        return position, item


@lru_cache(maxsize=8192)
def _implicit_vr(tag: int) -> str:
    """The VR of a tag by the dictionary, UN of a private one; "" where it does not say one (PS3.5 section 7.1.3)."""
    if tag & 0x10000:
        return "UN"
    if not tag & 0xFFFF:
        return "UL"  # group length
    try:
        return _single(dictionary_VR(tag))
    except KeyError:
        return ""


@lru_cache(maxsize=8192)
def _private_dictionary_vr(tag: int, creator: str) -> str:
    """Likewise of a private element; UN where the dictionary does not know it, or its creator."""
    if not creator or not tag & 0xFF00:
        return "UN"
    try:
        return _single(private_dictionary_VR(tag, creator))
    except KeyError:
        return "UN"


def _single(vr: str) -> str:
    """``vr``; "" where it is one of several, or of a sequence that is not encoded as one."""
    return vr if len(vr) == 2 and vr not in ("UN", "NONE") else ""
