"""The attributes of stored objects as DICOMweb delivers them, in the DICOM JSON model (PS3.18 annex F).

They describe what comes out: frames are decoded, and colour is then RGB by pixel. Parsing a whole header costs time and
memory as the sender chose it, so a server does all of this in `dicomweb_child`.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr, dcmwrite
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_listener import pixels
from dicom_listener.characters import settle
from dicom_listener.data_set import Element, Encoding, encoding_of, parsed
from dicom_listener.decoding import MAX_INFLATED_BYTES, MAX_INFLATED_HEADER_BYTES, opened
from dicom_listener.received import SYNTAX, raw_meta
from dicom_listener.transfer_syntaxes import transfer_syntax
from fhir_records.errors import NotFound, ObjectNotStorable, PixelsNotReadable
from web.dicomweb_header import BINARY, CONTEXT, Header, goes_elsewhere, header_of
from web.dicomweb_json import Json, as_json

PLACE = re.compile(r"[0-9A-F]{8}(/[1-9][0-9]{0,5}/[0-9A-F]{8}){0,8}")
PIXEL_DATA = "7FE00010"
_CHARACTER_SET, _SAMPLES = "00080005", "00280002"
# Decoding gives colour by pixel, as RGB. Palettes and grey stay as they are.
_RGB = {"00280004": {"vr": "CS", "Value": ["RGB"]}, "00280006": {"vr": "US", "Value": [0]}}

NATIVE = frozenset({ExplicitVRLittleEndian, ImplicitVRLittleEndian})
_LOOKED_AT = BINARY | {"SQ", None}  # None: of Implicit VR, to be looked up
_WORD_BYTES = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}


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
    found = _read(path, address, tags)
    if instance.transfer_syntax_uid not in NATIVE and found.get(_SAMPLES, {}).get("Value") == [3]:
        found |= _RGB
    if _CHARACTER_SET in found:
        found[_CHARACTER_SET] = {"vr": "CS", "Value": ["ISO_IR 192"]}  # JSON is UTF-8
    if tags is not None:
        return {tag: element for tag, element in sorted(found.items()) if int(tag, 16) in tags}
    if instance.rows:
        found[PIXEL_DATA] = {"vr": "OW", "BulkDataURI": f"{address}/bulkdata/{PIXEL_DATA}"}
    found["00081190"] = {"vr": "UR", "Value": [address]}
    found["00083002"] = {"vr": "UI", "Value": [str(ExplicitVRLittleEndian)]}
    return dict(sorted(found.items()))


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
    tag = int(name, 16) if re.fullmatch(r"[0-9a-fA-F]{8}", name) else tag_for_keyword(name)
    if tag is None:
        raise ValueError("neither a keyword nor a tag")
    return tag


def _read(path: Path, address: str, tags: Collection[int] | None) -> Json:
    """The header, read from its bytes as far as that goes, and by pydicom for the rest."""
    wanted = None if tags is None else {*tags, *CONTEXT}
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            meta, start = raw_meta(content)
            with memoryview(content)[start:] as data:
                syntax = meta[SYNTAX].decode("ascii", "replace")
                header = None
                if not transfer_syntax(syntax).is_deflated:
                    header = header_of(data, encoding_of(syntax), address, wanted)
                if header is not None:
                    return header.found | (_looked_at(data, header, encoding_of(syntax), address) if header.odd else {})
    except (OSError, ValueError, ObjectNotStorable):
        pass  # pydicom reads more, and says what is wrong
    return _as_json(_header(path, wanted), address)


def _looked_at(data: memoryview, header: Header, encoding: Encoding, address: str) -> Json:
    """What pydicom makes of the elements that the bytes alone do not tell."""
    asked = {tag for tag, _, _ in header.odd}
    picked = sorted({*header.odd, *header.context})
    try:
        ds = parsed(data, encoding, [Element(tag, start, start, end, False) for tag, start, end in picked])
        settle(ds)
    except ObjectNotStorable as error:
        raise PixelsNotReadable("The object's attributes cannot be parsed.") from error
    return {tag: element for tag, element in _as_json(ds, address).items() if int(tag, 16) in asked}


def _header(path: Path, tags: Collection[int] | None) -> Dataset:
    if tags is None:
        return pixels.read_header(path)
    with opened(path, MAX_INFLATED_HEADER_BYTES) as (file, _):
        try:
            ds = dcmread(file, stop_before_pixels=True, specific_tags=list(tags))
            settle(ds)
        except Exception as error:  # boundary: pydicom raises whatever a broken file brings about
            raise PixelsNotReadable("The file is not a readable DICOM file.") from error
    return ds


def _as_json(ds: Dataset, address: str) -> Json:
    """``ds`` in the DICOM JSON model, with addresses where long values were.

    Raises:
        PixelsNotReadable: it cannot be written like that.
    """
    long = _take_out_long(ds, "")
    try:
        if ds.original_encoding[0] is not False:  # in Explicit VR nothing is ambiguous
            correct_ambiguous_vr(ds, True)
        found = as_json(ds)
    except Exception as error:  # boundary: pydicom raises whatever a broken value brings about
        raise PixelsNotReadable("The object's attributes cannot be written as JSON.") from error
    _put_addresses(found, long, address)
    return found


def _decoded_colour(ds: Dataset, instance: StoredAs) -> None:
    if instance.transfer_syntax_uid not in NATIVE and int(ds.get("SamplesPerPixel") or 1) == 3:
        ds.PhotometricInterpretation = "RGB"
        ds.PlanarConfiguration = 0


def _take_out_long(ds: Dataset, above: str) -> dict[str, str]:
    """Take long binary values out of ``ds`` and its sequences, and values that cannot be parsed; VRs by place."""
    taken: dict[str, str] = {}
    for tag in list(ds.keys()):
        try:
            raw = ds.get_item(tag)
            if isinstance(raw, RawDataElement) and (raw.VR not in _LOOKED_AT or _is_short(raw)):
                continue  # neither long nor a sequence; it is converted once, when it is written
            element = ds[tag]
        except Exception:  # boundary: pydicom raises whatever a broken value brings about
            del ds[tag]
            continue
        place = f"{above}{int(tag):08X}"
        if element.VR == "SQ":
            for number, item in enumerate(element.value, 1):
                taken |= _take_out_long(item, f"{place}/{number}/")
        elif element.VR in BINARY and goes_elsewhere(int(tag), len(element.value or b"")):
            del ds[tag]
            taken[place] = element.VR
    return taken


def _is_short(raw: RawDataElement) -> bool:
    return raw.VR in BINARY and isinstance(raw.value, bytes) and not goes_elsewhere(int(raw.tag), len(raw.value))


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
