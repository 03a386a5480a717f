"""The attributes of stored objects as DICOMweb delivers them, in the DICOM JSON model (PS3.18 annex F).

They describe what comes out: frames are decoded, and colour is then RGB by pixel. Parsing a whole header costs time and
memory as the sender chose it, so a server does all of this in `dicomweb_child`.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr, dcmwrite
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_listener import pixels
from dicom_listener.decoding import MAX_INFLATED_BYTES, MAX_INFLATED_HEADER_BYTES, opened
from fhir_records.errors import NotFound, PixelsNotReadable
from web.dicomweb_json import Json, as_json

# Binary values longer than this are delivered at an address of their own, but for the LUTs, without which a viewer
# shows wrong colours.
INLINE_BYTES = 4096
LUT_GROUP = 0x0028
PLACE = re.compile(r"[0-9A-F]{8}(/[1-9][0-9]{0,5}/[0-9A-F]{8}){0,8}")
PIXEL_DATA = "7FE00010"

NATIVE = frozenset({ExplicitVRLittleEndian, ImplicitVRLittleEndian})
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_LOOKED_AT = _BINARY | {"SQ", None}  # None: of Implicit VR, to be looked up
_WORD_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}

# Whatever else is asked for, these are needed to say the others right: character set, VRs, and what decoding changes.
_ALWAYS = tuple(
    int(Tag(keyword))
    for keyword in ("SpecificCharacterSet", "SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation")
)


class StoredAs(Protocol):
    """What has to be known of an instance beside its file."""

    @property
    def transfer_syntax_uid(self) -> str:
        """In which it is stored."""

    @property
    def rows(self) -> int | None:
        """Of an image; None: it is none."""


def attributes(path: Path, instance: StoredAs, address: str, tags: Collection[int] | None = None) -> Json:
    """The attributes of an instance in the DICOM JSON model, as its frames are delivered.

    ``tags``: only these; None: all. Long binary values and the pixels are a `BulkDataURI` below ``address``.

    Raises:
        PixelsNotReadable: the file cannot be parsed.
    """
    ds = _header(path, tags)
    long = _take_out_long(ds, "")
    _as_delivered(ds, instance)
    try:
        if ds.original_encoding[0] is not False:  # in Explicit VR nothing is ambiguous
            correct_ambiguous_vr(ds, True)
        found = as_json(ds)
    except Exception as error:  # boundary: pydicom raises whatever a broken value brings about
        raise PixelsNotReadable("The object's attributes cannot be written as JSON.") from error
    if tags is not None:
        found = {tag: element for tag, element in found.items() if int(tag, 16) in tags}
        long = {place: vr for place, vr in long.items() if int(place[:8], 16) in tags}
    _put_addresses(found, long, address)
    if tags is not None:
        return found
    if instance.rows:
        found[PIXEL_DATA] = {"vr": "OW", "BulkDataURI": f"{address}/bulkdata/{PIXEL_DATA}"}
    return found | {
        "00081190": {"vr": "UR", "Value": [address]},
        "00083002": {"vr": "UI", "Value": [str(ExplicitVRLittleEndian)]},
    }


def as_text(found: Json) -> str:
    """``found`` as JSON text; numbers that JSON does not know (not a number, infinite) become null."""
    try:
        return json.dumps(found, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(found), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def bulk_value(path: Path, place: str) -> bytes:
    """The value at ``place``, tags in sequences with their items' numbers between ("54000100/1/54001010").

    Raises:
        NotFound: there is no binary value.
        PixelsNotReadable: the file cannot be parsed.
    """
    steps = place.split("/")
    with opened(path, MAX_INFLATED_BYTES) as (file, meta):
        try:
            ds = dcmread(file, specific_tags=[int(steps[0], 16)])
            for tag, number in zip(steps[0:-1:2], steps[1:-1:2], strict=True):
                ds = ds[int(tag, 16)].value[int(number) - 1]
            element = ds[int(steps[-1], 16)]
            value, vr = element.value, element.VR
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise NotFound("There is no such value in the object.") from error
        except Exception as error:  # boundary: pydicom raises whatever a broken file brings about
            raise PixelsNotReadable("The object's value cannot be read.") from error
    if not isinstance(value, bytes):
        raise NotFound("There is no such binary value in the object.")
    width = _WORD_BYTES.get(vr, 1)
    if width > 1 and meta.TransferSyntaxUID == ExplicitVRBigEndian and len(value) % width == 0:
        return np.frombuffer(value, f">u{width}").astype(f"<u{width}").tobytes()
    return value


def explicit_head(path: Path, instance: StoredAs) -> bytes:
    """The object as a file in Explicit VR Little Endian (PS3.10), up to where its decoded pixels go.

    Raises:
        PixelsNotReadable: the file cannot be parsed.
    """
    with opened(path, MAX_INFLATED_BYTES) as (file, meta):
        try:
            ds = dcmread(file, stop_before_pixels=bool(instance.rows))
            ds.file_meta = meta
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
                if keyword in ds:
                    del ds[keyword]
            _decoded_colour(ds, instance)
            out = io.BytesIO()
            dcmwrite(out, ds, implicit_vr=False, little_endian=True, enforce_file_format=False)
        except Exception as error:  # boundary: pydicom raises whatever a broken file brings about
            raise PixelsNotReadable("The object cannot be written in Explicit VR Little Endian.") from error
    return out.getvalue()


def tag_of(name: str) -> int:
    """The tag that ``name``, a keyword or eight hexadecimal digits, stands for.

    Raises:
        ValueError: it is neither.
    """
    if re.fullmatch(r"[0-9a-fA-F]{8}", name):
        return int(name, 16)
    return int(Tag(name))


def _header(path: Path, tags: Collection[int] | None) -> Dataset:
    if tags is None:
        return pixels.read_header(path)
    with opened(path, MAX_INFLATED_HEADER_BYTES) as (file, _):
        try:
            return dcmread(file, stop_before_pixels=True, specific_tags=[*tags, *_ALWAYS])
        except Exception as error:  # boundary: pydicom raises whatever a broken file brings about
            raise PixelsNotReadable("The file is not a readable DICOM file.") from error


def _as_delivered(ds: Dataset, instance: StoredAs) -> None:
    """Make ``ds`` say what the delivered frames are and what JSON carries."""
    if "SpecificCharacterSet" in ds:
        ds.SpecificCharacterSet = "ISO_IR 192"  # JSON is UTF-8
    _decoded_colour(ds, instance)


def _decoded_colour(ds: Dataset, instance: StoredAs) -> None:
    """Decoding gives colour by pixel, as RGB. Palettes and grey stay as they are."""
    if instance.transfer_syntax_uid not in NATIVE and int(ds.get("SamplesPerPixel") or 1) == 3:
        ds.PhotometricInterpretation = "RGB"
        ds.PlanarConfiguration = 0


def _take_out_long(ds: Dataset, above: str) -> dict[str, str]:
    """Take long binary values out of ``ds`` and its sequences, and values that cannot be parsed; VRs by place."""
    taken: dict[str, str] = {}
    for tag in list(ds.keys()):
        raw = ds.get_item(tag)
        if isinstance(raw, RawDataElement) and (raw.VR not in _LOOKED_AT or _is_short(raw)):
            continue  # neither long nor a sequence; it is converted once, when it is written
        try:
            element = ds[tag]
        except Exception:  # boundary: pydicom raises whatever a broken value brings about
            del ds[tag]
            continue
        place = f"{above}{int(tag):08X}"
        if element.VR == "SQ":
            for number, item in enumerate(element.value, 1):
                taken |= _take_out_long(item, f"{place}/{number}/")
        elif element.VR in _BINARY and tag.group != LUT_GROUP and len(element.value or b"") > INLINE_BYTES:
            del ds[tag]
            taken[place] = element.VR
    return taken


def _is_short(raw: RawDataElement) -> bool:
    return raw.VR in _BINARY and isinstance(raw.value, bytes) and len(raw.value) <= INLINE_BYTES


def _put_addresses(found: Json, long: dict[str, str], address: str) -> None:
    """Put an address where each long value was; what nests deeper than an address can say stays left out."""
    for place, vr in long.items():
        if not PLACE.fullmatch(place):
            continue
        *above, tag = place.split("/")
        level = found
        for sequence, number in zip(above[0::2], above[1::2], strict=True):
            level = level[sequence]["Value"][int(number) - 1]
        level[tag] = {"vr": vr, "BulkDataURI": f"{address}/bulkdata/{place}"}
        ordered = sorted(level.items())
        level.clear()
        level.update(ordered)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
