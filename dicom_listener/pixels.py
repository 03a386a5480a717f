"""The one decoder: from a stored object's bytes to arrays, for web, inference and renderings.

Every function decodes the one frame that it is asked for. What goes wrong is a `PixelsNotReadable` that names the
transfer syntax or the attribute, never a value of the patient's.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.utils import pixel_array
from pydicom.tag import Tag
from pydicom.uid import AllTransferSyntaxes, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dicom_listener.codestream import frame_size
from dicom_listener.data_set import inflated
from dicom_listener.lookup import (
    LUMINANCE,
    Array,
    as_rgb8,
    frame_attributes,
    is_colour,
    modality_range,
    modality_values,
    presented,
    windowed,
)
from dicom_listener.received import split_file
from fhir_records.errors import ObjectNotStorable, PixelsNotReadable

# One frame may not be larger: a header of a few bytes can promise terabytes. The largest detectors give 40 million.
MAX_FRAME_PIXELS = 100_000_000

# PS3.5 section A.4.13: each frame deflated. pydicom 3.0 does not know it.
DEFLATED_IMAGE_FRAME = "1.2.840.10008.1.2.8.1"

_REQUIRED = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation", "SamplesPerPixel")

# Image Pixel module, LUTs, windows, functional groups, padding.
_DISPLAY_TAGS = [
    int(Tag(keyword))
    for keyword in (
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "PlanarConfiguration",
        "NumberOfFrames",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "PixelRepresentation",
        "PixelPaddingValue",
        "RescaleIntercept",
        "RescaleSlope",
        "ModalityLUTSequence",
        "WindowCenter",
        "WindowWidth",
        "VOILUTFunction",
        "VOILUTSequence",
        "RedPaletteColorLookupTableDescriptor",
        "GreenPaletteColorLookupTableDescriptor",
        "BluePaletteColorLookupTableDescriptor",
        "AlphaPaletteColorLookupTableDescriptor",
        "RedPaletteColorLookupTableData",
        "GreenPaletteColorLookupTableData",
        "BluePaletteColorLookupTableData",
        "AlphaPaletteColorLookupTableData",
        "SegmentedRedPaletteColorLookupTableData",
        "SegmentedGreenPaletteColorLookupTableData",
        "SegmentedBluePaletteColorLookupTableData",
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
    )
]


@dataclass(frozen=True, slots=True)
class NativeFrame:
    """One decoded frame as it would stand uncompressed, little endian, colour by pixel."""

    pixels: Array  # (rows, columns[, samples]) in the stored type
    photometric_interpretation: str  # of these pixels: RGB where the object says YBR
    bits_allocated: int
    bits_stored: int
    high_bit: int
    pixel_representation: int  # 0 unsigned, 1 two's complement
    samples_per_pixel: int
    planar_configuration: int


def read_header(path: str | Path) -> Dataset:
    """The data set of the file at ``path`` without its pixels.

    Raises:
        PixelsNotReadable: the file is no DICOM file, or its data set cannot be parsed.
    """
    with _opened(path) as (file, meta):
        try:
            ds = dcmread(file, stop_before_pixels=True)
        except Exception as error:  # boundary: pydicom raises whatever a broken file brings about
            raise PixelsNotReadable("The file is not a readable DICOM file.") from error
        ds.file_meta = meta
        return ds


def number_of_frames(ds: Dataset) -> int:
    """How many frames ``ds`` has, at least 1."""
    try:
        return max(1, int(ds.get("NumberOfFrames") or 1))
    except (TypeError, ValueError):
        return 1


def native_frame(path: str | Path, frame: int = 1, *, max_pixels: int = MAX_FRAME_PIXELS) -> NativeFrame:
    """Frame ``frame`` (from 1) decoded, before any look-up table.

    Raises:
        PixelsNotReadable: the frame cannot be decoded, or is larger than ``max_pixels``.
    """
    ds, pixels = _decoded(path, frame, max_pixels)
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    bits_allocated = pixels.dtype.itemsize * 8
    bits_stored = min(int(ds.get("BitsStored") or bits_allocated), bits_allocated)
    return NativeFrame(
        pixels=pixels,
        photometric_interpretation="RGB" if samples == 3 else str(ds.PhotometricInterpretation),
        bits_allocated=bits_allocated,
        bits_stored=bits_stored,
        high_bit=bits_stored - 1,
        pixel_representation=int(pixels.dtype.kind == "i"),
        samples_per_pixel=samples,
        planar_configuration=0,
    )


def grey_frame(path: str | Path, frame: int = 1, *, max_pixels: int = MAX_FRAME_PIXELS) -> npt.NDArray[np.float32]:
    """Frame ``frame`` (from 1) as float32 (rows, columns), after the modality LUT, brighter meaning more.

    MONOCHROME1 is turned over within the range that its bits can hold; colour becomes luminance.

    Raises:
        PixelsNotReadable: the frame cannot be decoded, or is larger than ``max_pixels``.
    """
    ds, pixels = _decoded(path, frame, max_pixels)
    with _naming(ds, "look-up tables"):
        if is_colour(ds, pixels):
            return cast(npt.NDArray[np.float32], as_rgb8(ds, pixels).astype(np.float32) @ LUMINANCE)
        values = modality_values(pixels, attributes := frame_attributes(ds, frame))
        if ds.PhotometricInterpretation == "MONOCHROME1":
            low, high = modality_range(pixels, attributes, values)
            values = low + high - values
        return values.astype(np.float32)


def display_frame(
    path: str | Path,
    frame: int = 1,
    window: tuple[float, float] | None = None,
    *,
    max_pixels: int = MAX_FRAME_PIXELS,
) -> npt.NDArray[np.uint8]:
    """Frame ``frame`` (from 1) as it is meant to be seen: uint8 (rows, columns), or (rows, columns, 3) for colour.

    ``window`` is (centre, width) in modality units and goes before the object's own window or VOI LUT (of the frame's
    functional groups, where there are such: PS3.3 section C.7.6.16.2.10); with neither, the frame's own range is shown.

    Raises:
        PixelsNotReadable: the frame cannot be decoded, or is larger than ``max_pixels``.
    """
    ds, pixels = _decoded(path, frame, max_pixels)
    with _naming(ds, "look-up tables"):
        if is_colour(ds, pixels):
            return as_rgb8(ds, pixels)
        attributes = frame_attributes(ds, frame)
        values = modality_values(pixels, attributes)
        if window is not None:
            shown = windowed(values, window[0], window[1], "LINEAR_EXACT")
        else:
            shown = presented(pixels, values, attributes)
        if ds.PhotometricInterpretation == "MONOCHROME1":
            shown = 1.0 - shown
        return np.rint(shown * 255).astype(np.uint8)


# Reading


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[BinaryIO, FileMetaDataset]]:
    """The file at ``path``, seekable, and its own file meta information; a deflated one is inflated in memory."""
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - the error of opening is caught apart; `with file` closes it
    except OSError as error:
        raise PixelsNotReadable("The file cannot be opened.") from error
    with file:
        try:
            meta = read_file_meta_info(path)
        except Exception as error:  # boundary: pydicom raises whatever a broken file brings about
            raise PixelsNotReadable("The file is not a readable DICOM file.") from error
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            yield _inflated(file.read()), meta
        else:
            yield file, meta


def _inflated(content: bytes) -> BinaryIO:
    """A deflated file as if it had been stored in Explicit VR Little Endian (PS3.5 section A.5)."""
    try:
        _, data_set = split_file(content)
        plain = inflated(data_set, DeflatedExplicitVRLittleEndian)
    except ObjectNotStorable as error:
        raise PixelsNotReadable(f"The deflated object is broken: {error}.") from error
    syntax = ExplicitVRLittleEndian.encode().ljust(20, b"\0")
    element = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(syntax)) + syntax
    group_length = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<L", len(element))
    return io.BytesIO(bytes(128) + b"DICM" + group_length + element + plain)


@contextmanager
def _naming(ds: Dataset, what: str) -> Iterator[None]:
    """Any failure inside becomes a `PixelsNotReadable` that names ``what`` and the transfer syntax."""
    try:
        yield
    except PixelsNotReadable:
        raise
    except MemoryError as error:
        raise PixelsNotReadable("There is not enough memory to decode the frame.") from error
    except Exception as error:  # boundary: decoders raise whatever a broken object brings about
        detail = " ".join(str(error).split())[:200]
        raise PixelsNotReadable(f"The {what} in transfer syntax {_syntax_name(ds)}: {detail}") from error


def _syntax_name(ds: Dataset) -> str:
    uid = getattr(ds, "file_meta", {}).get("TransferSyntaxUID")
    return str(getattr(uid, "name", None) or "unknown")


def _decoded(path: str | Path, frame: int, max_pixels: int) -> tuple[Dataset, Array]:
    """The attributes that display needs, and frame ``frame`` in native byte order."""
    with _opened(path) as (file, meta):
        ds = _attributes(file, meta)
        _check(ds, frame, max_pixels)
        _check_codestream(file, ds, frame)
        with _naming(ds, "pixels"):
            if meta.TransferSyntaxUID == DEFLATED_IMAGE_FRAME:
                pixels = _deflated_frame(file, frame)
            else:
                file.seek(0)
                pixels = pixel_array(file, index=frame - 1)
    return ds, pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _attributes(file: BinaryIO, meta: FileMetaDataset) -> Dataset:
    file.seek(0)
    try:
        ds = dcmread(file, stop_before_pixels=True, specific_tags=_DISPLAY_TAGS)
    except Exception as error:  # boundary: pydicom raises whatever a broken file brings about
        raise PixelsNotReadable("The data set cannot be parsed.") from error
    ds.file_meta = meta
    return ds


def _check(ds: Dataset, frame: int, max_pixels: int) -> None:
    if not ds.file_meta.get("TransferSyntaxUID"):
        raise PixelsNotReadable("TransferSyntaxUID is missing.")
    missing = [keyword for keyword in _REQUIRED if ds.get(keyword) in (None, "")]
    if missing:
        raise PixelsNotReadable(f"The object has no image: {', '.join(missing)} missing.")
    frames = number_of_frames(ds)
    if not 1 <= frame <= frames:
        raise PixelsNotReadable(f"Frame {frame} was asked for; the object has {frames}.")
    if ds.Rows * ds.Columns > max_pixels:
        raise PixelsNotReadable(f"A frame of {ds.Rows} x {ds.Columns} pixels is larger than the limit of {max_pixels}.")


def _check_codestream(file: BinaryIO, ds: Dataset, frame: int) -> None:
    """See that a compressed frame promises no other size than the header. ``file`` stands before the pixel data."""
    if ds.file_meta.TransferSyntaxUID not in AllTransferSyntaxes or not ds.file_meta.TransferSyntaxUID.is_encapsulated:
        return
    file.seek(12, io.SEEK_CUR)  # (7FE0,0010) OB, reserved, undefined length
    try:
        encoded = get_frame(file, frame - 1, number_of_frames=number_of_frames(ds))
    except Exception:  # boundary: what cannot be found here, the decoder looks for and names
        return
    size = frame_size(encoded)
    if size is not None and size != (ds.Rows, ds.Columns):
        raise PixelsNotReadable(
            f"The codestream has {size[0]} x {size[1]} pixels, the header {ds.Rows} x {ds.Columns}."
        )


def _deflated_frame(file: BinaryIO, frame: int) -> Array:
    """A frame of the transfer syntax Deflated Image Frame Compression (PS3.5 section A.4.13)."""
    file.seek(0)
    ds = dcmread(file)
    if ds.SamplesPerPixel != 1 or ds.BitsAllocated not in (1, 8, 16, 32):
        raise ValueError(f"{ds.SamplesPerPixel} samples of {ds.BitsAllocated} bits are not supported")
    pixels = int(ds.Rows) * int(ds.Columns)
    length = (pixels * int(ds.BitsAllocated) + 7) // 8
    encoded = get_frame(ds.PixelData, frame - 1, number_of_frames=number_of_frames(ds))
    raw = zlib.decompressobj(-zlib.MAX_WBITS).decompress(encoded, length)
    if len(raw) < length:
        raise ValueError("the frame is shorter than Rows and Columns say")
    if ds.BitsAllocated == 1:
        values = np.unpackbits(np.frombuffer(raw, np.uint8), count=pixels, bitorder="little")
    else:
        kind = "i" if ds.get("PixelRepresentation") else "u"
        values = np.frombuffer(raw, f"<{kind}{ds.BitsAllocated // 8}")
    return values.reshape(ds.Rows, ds.Columns)
