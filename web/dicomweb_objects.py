"""Stored objects as DICOMweb delivers them: attributes as JSON, frames as bytes, pictures.

Frames are always delivered uncompressed in Explicit VR Little Endian. What is stored like that goes out byte for byte;
anything else is decoded, and the attributes say what comes out, not what is stored.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filewriter import correct_ambiguous_vr
from pydicom.pixels.utils import get_expected_length
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_listener import pixels
from dicom_listener.transfer_syntaxes import transfer_syntax
from fhir_records.errors import PixelsNotReadable
from fhir_records.model import Instance

# Binary values longer than this are left out of JSON, but for the LUTs, without which a viewer shows wrong colours.
INLINE_BYTES = 4096
LUT_GROUP = 0x0028
THUMBNAIL_SIZE = (192, 192)  # largest width and height
JPEG_QUALITY = 90
CHUNK_BYTES = 1 << 20

PIXEL_TAGS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_NATIVE = frozenset({ExplicitVRLittleEndian, ImplicitVRLittleEndian})
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})

# Whatever else is asked for, these are needed to say the others right: character set, VRs, and what decoding changes.
_ALWAYS = tuple(
    int(Tag(keyword))
    for keyword in ("SpecificCharacterSet", "SamplesPerPixel", "PhotometricInterpretation", "PixelRepresentation")
)

# What says how long a frame is.
_SIZE = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames", "PhotometricInterpretation")

Json = dict[str, Any]


def attributes(path: Path, instance: Instance, address: str, tags: Collection[int] | None = None) -> Json:
    """The attributes of an instance in the DICOM JSON model (PS3.18 annex F), as its frames are delivered.

    ``tags``: only these; None: all, with a `BulkDataURI` below ``address`` for the pixels.

    Raises:
        PixelsNotReadable: the file cannot be parsed.
    """
    ds = _header(path, instance, tags)
    _leave_out_long(ds)
    _as_delivered(ds, instance)
    try:
        correct_ambiguous_vr(ds, True)
        found: Json = ds.to_json_dict(suppress_invalid_tags=True)
    except Exception as error:  # boundary: pydicom raises whatever a broken value brings about
        raise PixelsNotReadable("The object's attributes cannot be written as JSON.") from error
    if tags is not None:
        return {tag: element for tag, element in found.items() if int(tag, 16) in tags}
    if instance.rows:
        found["7FE00010"] = {"vr": "OW", "BulkDataURI": f"{address}/bulkdata/7FE00010"}
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


def frame_bytes(path: Path, instance: Instance, frame: int, decoder: pixels.Decoder = pixels) -> bytes:
    """Frame ``frame`` (from 1) as in Explicit VR Little Endian: the stored bytes where they are so, decoded otherwise.

    Raises:
        PixelsNotReadable: there is no such frame, or it cannot be decoded.
    """
    if instance.transfer_syntax_uid in _NATIVE:
        stored = _stored_frame(path, frame)
        if stored is not None:
            return stored
    values = decoder.native_frame(path, frame).pixels
    if pixels.read_header(path).get("BitsAllocated") == 1:  # decoded to a byte each
        return np.packbits(values.astype(np.uint8).ravel(), bitorder="little").tobytes()
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def picture(
    path: Path,
    frame: int,
    *,
    png: bool,
    window: tuple[float, float] | None = None,
    size: tuple[int, int] | None = None,
    decoder: pixels.Decoder = pixels,
) -> bytes:
    """Frame ``frame`` (from 1) as a PNG or JPEG, within ``size`` (width, height) where one is given.

    Raises:
        PixelsNotReadable: there is no such frame, or it cannot be decoded.
    """
    image = Image.fromarray(decoder.display_frame(path, frame, window))
    if size is not None:
        scale = min(size[0] / image.width, size[1] / image.height)
        new_size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(new_size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    if png:
        image.save(out, "PNG")
    else:
        image.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def file_chunks(path: Path) -> Iterator[bytes]:
    """The file's bytes, piece by piece."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _header(path: Path, instance: Instance, tags: Collection[int] | None) -> Dataset:
    if tags is None or transfer_syntax(instance.transfer_syntax_uid).is_deflated:
        return pixels.read_header(path)
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=[*tags, *_ALWAYS])
    except Exception as error:  # boundary: pydicom raises whatever a broken file brings about
        raise PixelsNotReadable("The file is not a readable DICOM file.") from error


def _as_delivered(ds: Dataset, instance: Instance) -> None:
    """Make ``ds`` say what `frame_bytes` gives and what JSON carries."""
    if "SpecificCharacterSet" in ds:
        ds.SpecificCharacterSet = "ISO_IR 192"  # JSON is UTF-8
    if instance.transfer_syntax_uid in _NATIVE:
        return
    # Decoding gives colour by pixel, as RGB. Palettes and grey stay as they are.
    if int(ds.get("SamplesPerPixel") or 1) == 3:
        ds.PhotometricInterpretation = "RGB"
        ds.PlanarConfiguration = 0


def _stored_frame(path: Path, frame: int) -> bytes | None:
    """The bytes of a frame of a natively encoded object, read alone; None where they are not to be had like that."""
    try:
        with path.open("rb") as file:
            ds = dcmread(
                file,
                stop_before_pixels=True,
                specific_tags=list(_SIZE),
            )
            start, length = _pixel_value(file, explicit=ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian)
            frames = pixels.number_of_frames(ds)
            if not 1 <= frame <= frames or length < get_expected_length(ds):
                return None
            # In bits, because frames of single bits may start within a byte (PS3.5 section 8.1.1).
            size = 8 * get_expected_length(ds) // frames if ds.BitsAllocated > 1 else ds.Rows * ds.Columns
            first, last = (frame - 1) * size, frame * size
            file.seek(start + first // 8)
            found = file.read(-(-last // 8) - first // 8)
    except Exception:  # boundary: whatever is wrong, the decoder looks again and says it better
        return None
    if len(found) < -(-last // 8) - first // 8:
        return None
    return found if first % 8 == 0 and last % 8 == 0 else _bits(found, first % 8, size)


def _bits(packed: bytes, start: int, count: int) -> bytes:
    """``count`` bits of ``packed`` from bit ``start`` on, packed anew from a byte's lowest bit."""
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")[start : start + count]
    return np.packbits(bits, bitorder="little").tobytes()


def _pixel_value(file: BinaryIO, *, explicit: bool) -> tuple[int, int]:
    """Where the pixels' value starts and how long it is; ``file`` stands before their element (PS3.5 section 7.1)."""
    head = file.read(12 if explicit else 8)
    tag = int.from_bytes(head[0:2], "little") << 16 | int.from_bytes(head[2:4], "little")
    length = int.from_bytes(head[-4:], "little")
    if tag not in PIXEL_TAGS or length == 0xFFFFFFFF:
        raise ValueError("no native pixels here")
    return file.tell(), length


def _leave_out_long(ds: Dataset) -> None:
    """Take long binary values out of ``ds`` and its sequences, and values that cannot be parsed."""
    for tag in list(ds.keys()):
        try:
            element = ds[tag]
        except Exception:  # boundary: pydicom raises whatever a broken value brings about
            del ds[tag]
            continue
        if element.VR == "SQ":
            for item in element.value:
                _leave_out_long(item)
        elif element.VR in _BINARY and tag.group != LUT_GROUP and len(element.value or b"") > INLINE_BYTES:
            del ds[tag]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tag_of(name: str) -> int:
    """The tag that ``name``, a keyword or eight hexadecimal digits, stands for.

    Raises:
        ValueError: it is neither.
    """
    if re.fullmatch(r"[0-9a-fA-F]{8}", name):
        return int(name, 16)
    return int(Tag(name))
