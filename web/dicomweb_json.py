"""Data sets in the DICOM JSON model (PS3.18 annex F), quickly.

pydicom writes this model too, an element at a time, by way of its own types. Most values of a header are plain text or
numbers, whose bytes say all there is to say; those are written from the bytes, and only the others by pydicom. A test
holds the two to the same result, but that a value which pydicom refuses does not hide the sequence around it. A viewer
asks for the headers of whole series, so this decides how long it waits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

Json = dict[str, Any]

# VRs of several values parted by backslashes, and of one (PS3.5 table 6.2-1).
_TEXTS: Final = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UC", "UI"})
_TEXT: Final = frozenset({"LT", "ST", "UR", "UT"})
_NUMBERS: Final[Mapping[str, tuple[str, int]]] = MappingProxyType(
    {"FD": ("d", 8), "FL": ("f", 4), "SL": ("i", 4), "SS": ("h", 2), "UL": ("I", 4), "US": ("H", 2)}
)
_DECIMALS: Final[Mapping[str, Callable[[str], float]]] = MappingProxyType({"DS": float, "IS": int})


def as_json(ds: Dataset) -> Json:
    """``ds`` by tag in the DICOM JSON model; values that cannot be parsed are left out."""
    found: Json = {}
    for tag in sorted(ds.keys()):
        try:
            raw, element = ds.get_item(tag), None
            if isinstance(raw, RawDataElement) and raw.VR is not None and isinstance(raw.value, bytes):
                element = element_of(raw.VR, raw.value, "<" if raw.is_little_endian else ">")
            found[f"{int(tag):08X}"] = element or _from_value(ds[tag])
        except Exception:  # boundary: pydicom raises whatever a broken value brings about # noqa: S112
            continue
    return found


def _from_value(element: DataElement) -> Json:
    if element.VR != "SQ":
        written: Json = element.to_json_dict(None, 0)
        return written
    items = [as_json(item) for item in element.value]
    return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}


def element_of(vr: str, value: bytes, order: str) -> Json | None:
    """The element of this VR, where the bytes of its value say it all; else None.

    Args:
        vr: its representation; none of bytes, and no sequence.
        value: as it is encoded.
        order: "<" little endian, ">" big endian.
    """
    if vr in _NUMBERS:
        return _numbers(vr, value, order)
    if not value.isascii() or b"\x1b" in value:  # another character set, perhaps
        return None
    text = value.decode("ascii").rstrip(" \0")
    if not text:
        return {"vr": vr} if vr == "PN" or vr in _TEXTS or vr in _TEXT or vr in _DECIMALS else None
    values = _values(vr, text) if text.isprintable() else None
    return None if values is None else {"vr": vr, "Value": values}


def _values(vr: str, text: str) -> list[Any] | None:
    if vr in _TEXT:
        return [text]
    if vr == "PN":
        return None if "=" in text or "\\" in text else [{"Alphabetic": text}]
    parts = text.split("\\")
    if vr in _DECIMALS:
        # One that is empty among others is null (PS3.18 section F.2.5).
        return [_DECIMALS[vr](part) if part.strip() else None for part in parts]
    if vr == "UI" and not all(parts):
        return None
    if vr not in _TEXTS or any(part != part.strip() for part in parts):  # pydicom knows which spaces count
        return None
    return list(parts)


def _numbers(vr: str, value: bytes, order: str) -> Json | None:
    kind, size = _NUMBERS[vr]
    if not value or len(value) % size:
        return {"vr": vr} if not value else None
    return {"vr": vr, "Value": list(struct.unpack(f"{order}{len(value) // size}{kind}", value))}
