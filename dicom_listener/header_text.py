"""Some attributes of an encoded data set as text, without a parse of the whole: what every arriving object pays for.

Headers in plain ASCII with one value an attribute, which is nearly all, are read here byte by byte. Anything else, and
anything odd, is left to pydicom and `characters.settle`; a test holds both ways to the same answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from dicom_listener.characters import CharacterSet, decoded, settle
from dicom_listener.data_set import PIXEL_TAGS, Element, Encoding, parsed, sought
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
_SOUGHT: Final = frozenset(_NAMES) | PIXEL_TAGS

_CHARACTER_SET: Final = 0x00080005
# One value of printable ASCII; and as IS has it (PS3.5 table 6.2-1).
_PLAIN = re.compile(rb"[ -\[\]-~]*\Z")
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
    plain = _plain_values(data, encoding, found) if encoding.little_endian else None
    if plain is not None:
        return HeaderText(plain, (), pixels)
    ds = _parsed(data, encoding, [element for element in found if element.tag not in PIXEL_TAGS])
    settle(ds)
    return HeaderText({keyword: _text(ds, keyword) for keyword in KEYWORDS}, _models(ds), pixels)


def _plain_values(data: bytes | memoryview, encoding: Encoding, found: list[Element]) -> dict[str, str] | None:
    """The values, where all are plain; None: pydicom must look."""
    values: dict[str, str] = {}
    for element in found:
        if element.tag in PIXEL_TAGS:
            continue
        vr, keyword = _DICTIONARY[element.tag], _NAMES[element.tag]
        if not encoding.implicit_vr and bytes(data[element.offset + 4 : element.offset + 6]) != vr:
            return None
        value = bytes(data[element.value : element.end])
        if keyword == "SpecificCharacterSet":
            continue  # says nothing of ASCII, but for its own bytes
        if vr == b"SQ":
            return None
        if vr == b"US":
            if len(value) != 2:
                return None
            values[keyword] = str(int.from_bytes(value, "little"))
            continue
        value = value.rstrip(b"\0 ")
        if not (_INTEGER if vr == b"IS" else _PLAIN).match(value):
            return None
        values[keyword] = value.decode("ascii").strip()
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
