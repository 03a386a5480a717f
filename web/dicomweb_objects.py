"""Stored objects as DICOMweb delivers them: files, frames as bytes, pictures.

Frames are delivered uncompressed in Explicit VR Little Endian. What is stored like that goes out byte for byte;
anything else is decoded.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.datadict import tag_for_keyword
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from dicom_listener import pixels
from dicom_listener.data_set import PIXEL_TAGS, elements, encoding_of, parsed, sought
from dicom_listener.decoding import number_of_frames
from dicom_listener.received import split_file
from fhir_records.errors import ObjectNotStorable, QueryError
from web.dicomweb_attributes import NATIVE, StoredAs
from web.media_types import GIF, PNG

THUMBNAIL_SIZE = (192, 192)  # largest width and height
JPEG_QUALITY = 90
GIF_MS = 100  # for which each picture of a moving one stands
CHUNK_BYTES = 1 << 20
_NOT_AS_DELIVERED = frozenset({DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian})

# What says how long a frame is.
_SIZE = frozenset(
    tag
    for keyword in (
        "Rows",
        "Columns",
        "SamplesPerPixel",
        "BitsAllocated",
        "NumberOfFrames",
        "PhotometricInterpretation",
    )
    if (tag := tag_for_keyword(keyword)) is not None
)


@dataclass(frozen=True, slots=True)
class NativePixels:
    """Where uncompressed pixels lie in a file, and how they are cut into frames."""

    start: int  # of the value, bytes from the file's start
    length: int  # of the value, bytes
    frame_bits: int
    frames: int
    single_bits: bool  # a pixel is one bit


@dataclass(frozen=True, slots=True)
class Rendering:
    """How a picture is made of a frame (PS3.18 section 8.3.5.1)."""

    window: tuple[float, float] | None = None  # centre and width
    function: str = "LINEAR_EXACT"
    size: tuple[int, int] | None = None  # width and height of the box that it is to fill
    region: tuple[float, float, float, float] | None = None  # left, top, width, height; negative: turned over
    quality: int = JPEG_QUALITY


def frame_bytes(path: Path, instance: StoredAs, frame: int, decoder: pixels.Decoder = pixels) -> bytes:
    """Frame ``frame`` (from 1) as in Explicit VR Little Endian: the stored bytes where they are so, decoded otherwise.

    Raises:
        PixelsNotReadable: there is no such frame, or it cannot be decoded.
    """
    place = native_pixels(path)
    if place is not None and instance.transfer_syntax_uid in NATIVE:
        stored = _stored_frame(path, place, frame)
        if stored is not None:
            return stored
    native = decoder.native_frame(path, frame)
    values = native.pixels
    if native.bits_stored == 1 if place is None else place.single_bits:  # decoded to a byte each
        return np.packbits(values.astype(np.uint8).ravel(), bitorder="little").tobytes()
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def picture(path: Path, frame: int, rendering: Rendering, decoder: pixels.Decoder = pixels) -> Image.Image:
    """Frame ``frame`` (from 1) as a picture.

    Raises:
        PixelsNotReadable: there is no such frame, or it cannot be decoded.
    """
    image = Image.fromarray(decoder.display_frame(path, frame, rendering.window, rendering.function))
    if rendering.region is not None:
        left, top, width, height = rendering.region
        right, bottom = min(image.width, left + abs(width)), min(image.height, top + abs(height))
        if right - left < 1 or bottom - top < 1:
            raise QueryError("The region of viewport lies outside of the image.")
        image = image.crop((round(left), round(top), round(right), round(bottom)))
        if width < 0:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if height < 0:
            image = image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    if rendering.size is not None:
        box = rendering.size
        scale = min(box[0] / image.width, box[1] / image.height)
        new_size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(new_size, Image.Resampling.LANCZOS)
    return image


def written(images: Iterator[Image.Image], kind: str, quality: int = JPEG_QUALITY) -> bytes:
    """The pictures as one file of a media type: JPEG or PNG of the first, GIF of all, moving where they are several."""
    out = io.BytesIO()
    first = next(images)
    if kind == PNG:
        first.save(out, "PNG")
    elif kind == GIF:
        first.save(out, "GIF", save_all=True, append_images=images, duration=GIF_MS, loop=0)
    else:
        first.save(out, "JPEG", quality=quality)
    return out.getvalue()


def file_chunks(path: Path, start: int = 0, length: int | None = None) -> Iterator[bytes]:
    """``length`` bytes of the file from ``start`` on, or all the rest, piece by piece."""
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(CHUNK_BYTES if length is None else min(CHUNK_BYTES, length)):
            if length is not None:
                length -= len(chunk)
            yield chunk


@lru_cache(maxsize=4096)
def native_pixels(path: Path) -> NativePixels | None:
    """Where the pixels lie; of length 0 where they are compressed; None where that is not to be told like that.

    Files of the spool never change, so what was told once is remembered.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _native_pixels(content)
    except (OSError, ValueError, TypeError, ObjectNotStorable):
        return None


def value_place(path: Path, tag: int) -> tuple[int, int] | None:
    """Where the value of an element of the outermost level lies in the file, and how long it is; None: not so.

    Only of files whose bytes are already as they are to be delivered: neither deflated nor big endian.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            meta, data = split_file(content)
            try:
                if str(meta.TransferSyntaxUID) in _NOT_AS_DELIVERED:
                    return None
                found = next(one for one in elements(data, encoding_of(str(meta.TransferSyntaxUID))) if one.tag >= tag)
                if found.tag != tag or found.undefined_length:
                    return None
                return len(content) - len(data) + found.value, found.end - found.value
            finally:
                data.release()
    except (OSError, ValueError, StopIteration, ObjectNotStorable):
        return None


def _native_pixels(content: mmap.mmap) -> NativePixels:
    meta, data = split_file(content)
    try:
        encoding = encoding_of(str(meta.TransferSyntaxUID))
        found = sought(data, encoding, _SIZE | PIXEL_TAGS)
        element = next((one for one in found if one.tag in PIXEL_TAGS), None)
        if element is None:
            raise ValueError("no pixels")
        ds = parsed(data, encoding, [one for one in found if one.tag in _SIZE])
        rows, columns, samples, bits = (
            int(ds[keyword].value) for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")
        )
        frame_bits = rows * columns * samples * bits
        if ds.PhotometricInterpretation == "YBR_FULL_422" and samples == 3:
            frame_bits = frame_bits * 2 // 3  # PS3.3 section C.7.6.3.1.2
        return NativePixels(
            start=len(content) - len(data) + element.value,
            length=0 if element.undefined_length else element.end - element.value,
            frame_bits=frame_bits,
            frames=number_of_frames(ds),
            single_bits=bits == 1,
        )
    except (KeyError, AttributeError) as error:
        raise ValueError("no image") from error
    finally:
        data.release()


def _stored_frame(path: Path, place: NativePixels, frame: int) -> bytes | None:
    """The bytes of a frame of a natively encoded object, read alone; None where they are not all there."""
    # In bits, because frames of single bits may start within a byte (PS3.5 section 8.1.1).
    first, last = (frame - 1) * place.frame_bits, frame * place.frame_bits
    if not 1 <= frame <= place.frames or -(-place.frames * place.frame_bits // 8) > place.length:
        return None
    with path.open("rb") as file:
        file.seek(place.start + first // 8)
        found = file.read(-(-last // 8) - first // 8)
    if len(found) < -(-last // 8) - first // 8:
        return None
    return found if first % 8 == 0 and last % 8 == 0 else _bits(found, first % 8, place.frame_bits)


def _bits(packed: bytes, start: int, count: int) -> bytes:
    """``count`` bits of ``packed`` from bit ``start`` on, packed anew from a byte's lowest bit."""
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), bitorder="little")[start : start + count]
    return np.packbits(bits, bitorder="little").tobytes()
