"""Some attributes of an encoded data set as text, without a parse of the whole: what every arriving object pays for.

Headers in plain ASCII with one value an attribute, which is nearly all, are read here byte by byte. Anything else, and
anything odd, is left to pydicom and `characters.settle`; a test holds both ways to the same answers.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicom_listener.characters import CharacterSet, decoded, settle
from dicom_listener.data_set import LONG_VRS, PIXEL_TAGS, Element, Encoding, parsed, sought
from fhir_records.errors import ObjectNotStorable

EQUIPMENT: Final = "ContributingEquipmentSequence"
_MODEL: Final = "ManufacturerModelName"
# Everything that the index asks for; `HeaderText.values` has an entry for each.
KEYWORDS: Final = (
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "Modality",
    "Manufacturer", "StationName", _MODEL, "DeviceSerialNumber", "StudyDescription", "SeriesDescription",
    "TimezoneOffsetFromUTC", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber",
    "InstanceNumber", "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated",
)  # fmt: skip
_NAMES: Final[Mapping[int, str]] = MappingProxyType(
    {tag: keyword for keyword in (*KEYWORDS, EQUIPMENT) if (tag := tag_for_keyword(keyword)) is not None}
)
_DICTIONARY: Final[Mapping[int, bytes]] = MappingProxyType({tag: dictionary_VR(tag).encode() for tag in _NAMES})
_ABSENT: Final[Mapping[str, str]] = MappingProxyType(dict.fromkeys(KEYWORDS, ""))
# The tags of what `header_text` looks at, but for the pixels.
TAGS: Final = frozenset(_NAMES)
_SOUGHT: Final = TAGS | PIXEL_TAGS

_CHARACTER_SET: Final = 0x00080005
# Printable ASCII but for the backslash, which parts several values; and one value as IS has it (PS3.5 table 6.2-1).
_PLAIN: Final = bytes(sorted({*range(0x20, 0x7F)} - {0x5C}))
_PART: Final = b"\x1f"  # between values while they are looked at together
_EXPLICIT, _IMPLICIT = struct.Struct("<HH2sH"), struct.Struct("<HHL")
_INTEGER = re.compile(rb" *[+-]?[0-9]{1,12} *\Z|\Z")
# PostgreSQL's text cannot hold NUL.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class HeaderText:
    """The attributes of `KEYWORDS`, each one line of text, "" where absent, and where the pixels lie."""

    values: Mapping[str, str]
    models: tuple[str, ...]  # Manufacturer's Model Name of the contributing equipment
    pixels: Element | None

    def __getitem__(self, keyword: str) -> str:
        return self.values.get(keyword, "")


def header_text(data: bytes | memoryview, encoding: Encoding) -> HeaderText:
    """Read the outermost level of a data set, to its very end.

    Raises:
        ObjectNotStorable: it is no data set, or ends early.
    """
    found = sought(data, encoding, _SOUGHT)
    pixels = next((element for element in found if element.tag in PIXEL_TAGS), None)
    picked = [bytes(data[element.offset : element.end]) for element in found if element.tag not in PIXEL_TAGS]
    return picked_text(b"".join(picked), encoding, pixels)


def picked_text(picked: bytes, encoding: Encoding, pixels: Element | None) -> HeaderText:
    """Read a data set that has nothing but elements of `TAGS`.

    Args:
        picked: the elements, in order, as they are encoded.
        encoding: of the elements.
        pixels: where the pixels lie in the data set that they were taken from.

    Raises:
        ObjectNotStorable: it is no data set, or ends early.
    """
    plain = _plain_values(picked, encoding.implicit_vr) if encoding.little_endian else None
    if plain is not None:
        return HeaderText(plain, (), pixels)
    ds = _parsed(picked, encoding, sought(picked, encoding, TAGS))
    settle(ds)
    return HeaderText({keyword: _text(ds, keyword) for keyword in KEYWORDS}, _models(ds), pixels)


def _plain_values(picked: bytes, implicit: bool) -> dict[str, str] | None:
    """The values, where all are plain; None: pydicom must look."""
    values, names, texts = dict(_ABSENT), list[str](), list[bytes]()
    position, size = 0, len(picked)
    try:
        while position < size:
            if implicit:
                group, number, length = _IMPLICIT.unpack_from(picked, position)
                tag = group << 16 | number
                vr = _DICTIONARY[tag]
            else:
                group, number, vr, length = _EXPLICIT.unpack_from(picked, position)
                tag = group << 16 | number
                if vr != _DICTIONARY[tag] or vr in LONG_VRS:
                    return None
            start, position = position + 8, position + 8 + length
            value = picked[start:position]
            if vr == b"US":
                if length != 2:
                    return None
                values[_NAMES[tag]] = str(int.from_bytes(value, "little"))
            elif vr == b"SQ" or (vr == b"IS" and not _INTEGER.match(value.rstrip(b"\0 "))):
                return None
            elif tag != _CHARACTER_SET:  # it says nothing of ASCII, but for its own bytes
                names.append(_NAMES[tag])
                texts.append(value.rstrip(b"\0 "))
    except (struct.error, KeyError):
        return None
    # Together, for one by one they cost several times as much.
    joined = _PART.join(texts)
    if position != size or joined.translate(None, _PLAIN) != _PART * (len(texts) - 1):
        return None
    values.update(zip(names, map(str.strip, joined.decode("ascii").split(_PART.decode())), strict=False))
    return values


def _models(ds: Dataset) -> tuple[str, ...]:
    try:
        return tuple(_text(item, _MODEL) for item in ds.get(EQUIPMENT) or [])
    except Exception:  # boundary: pydicom decodes only now, and raises whatever a broken value brings about
        return ()


def _text(ds: Dataset, keyword: str) -> str:
    """A value as one line of text; several values as DICOM joins them, and one of a wrong VR as its bytes say."""
    try:
        value = ds.get(keyword)
    except Exception:  # boundary: pydicom decodes only now, and raises whatever a broken value brings about
        value = _bytes_as_text(ds, keyword)
    if value is None:
        return ""
    if isinstance(value, bytes):  # of a VR that holds no text
        value = decoded(value, CharacterSet())
    joined = "\\".join(map(str, value)) if isinstance(value, list | tuple | MultiValue) else str(value)
    # Bytes that are no text in the object's character set come out as surrogates, which no database takes.
    return _CONTROL.sub(" ", joined.encode("utf-8", "replace").decode()).strip()


def _bytes_as_text(ds: Dataset, keyword: str) -> str:
    raw = ds.get_item(keyword)
    value = raw.value if raw is not None else None
    return decoded(value, CharacterSet()) if isinstance(value, bytes) else ""


def _parsed(data: bytes | memoryview, encoding: Encoding, found: list[Element]) -> Dataset:
    """The elements, decoded; without their character set where that makes no sense.

    Raises:
        ObjectNotStorable: they cannot be decoded.
    """
    try:
        return parsed(data, encoding, found)
    except ObjectNotStorable:
        return parsed(data, encoding, [element for element in found if element.tag != _CHARACTER_SET])
