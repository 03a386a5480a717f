"""One frame of a stored object, decoded: limits looked at first, then the decoder for its transfer syntax.

Nothing is believed that a header or a codestream promises: a few bytes of either can ask for terabytes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import get_frame
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import as_pixel_options, pixel_array
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from dicom_listener.codestream import Promise, promise_of
from dicom_listener.lookup import Array
from dicom_listener.received import split_file
from dicom_listener.transfer_syntaxes import Way, transfer_syntax
from fhir_records.errors import ObjectNotStorable, PixelsNotReadable

# One frame may not be larger. The largest detectors give 40 million pixels of 2 bytes.
MAX_FRAME_PIXELS = 100_000_000
MAX_FRAME_BYTES = 512 * 1024**2
# A deflated data set is inflated no further than this, to be decoded or for its header alone.
MAX_INFLATED_BYTES = 512 * 1024**2
MAX_INFLATED_HEADER_BYTES = 64 * 1024**2

_REQUIRED = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation", "SamplesPerPixel")

# PS3.3 section C.7.6.24 and C.7.6.25: what may hold the pixels.
_PIXEL_KEYWORDS = {
    (0x7FE0, 0x0008): "FloatPixelData",
    (0x7FE0, 0x0009): "DoubleFloatPixelData",
    (0x7FE0, 0x0010): "PixelData",
}

# Image Pixel module, LUTs, windows, functional groups, padding, offset tables.
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
        "HighBit",
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
        "ExtendedOffsetTable",
        "ExtendedOffsetTableLengths",
    )
]


def number_of_frames(ds: Dataset) -> int:
    """How many frames ``ds`` has, at least 1."""
    try:
        return max(1, int(ds.get("NumberOfFrames") or 1))
    except (TypeError, ValueError):
        return 1


@contextmanager
def opened(path: str | Path, most_inflated: int = MAX_INFLATED_BYTES) -> Iterator[tuple[BinaryIO, FileMetaDataset]]:
    """The file at ``path``, seekable, and its own file meta information.

    Of a deflated one the first ``most_inflated`` bytes, inflated in memory.

    Raises:
        PixelsNotReadable: it cannot be opened, or is no DICOM file.
    """
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - the error of opening is caught apart; `with file` closes it
    except OSError as error:
        raise PixelsNotReadable("The file cannot be opened.") from error
    with file:
        try:
            meta = read_file_meta_info(path)
            syntax = str(meta.get("TransferSyntaxUID") or "")
        except Exception as error:  # boundary: pydicom raises whatever a broken file brings about
            raise PixelsNotReadable("The file is not a readable DICOM file.") from error
        if transfer_syntax(syntax).is_deflated:
            yield _inflated(file.read(), most_inflated), meta
        else:
            yield file, meta


def decoded(path: str | Path, frame: int, max_pixels: int) -> tuple[Dataset, Array]:
    """The attributes that display needs, and frame ``frame`` (from 1) in native byte order.

    The array is (rows, columns) or (rows, columns, 3), in the stored type; colour is RGB.

    Raises:
        PixelsNotReadable: there is no picture in it, it cannot be decoded, or it is larger than ``max_pixels``.
    """
    with opened(path) as (file, meta):
        ds = _attributes(file, meta)
        syntax = transfer_syntax(str(meta.get("TransferSyntaxUID") or ""))
        _check(ds, frame, max_pixels)
        if not syntax.is_decoded:
            raise PixelsNotReadable(syntax.why_not)
        encoded = _encoded(file, ds, frame) if syntax.is_encapsulated else None
        promise = promise_of(encoded) if encoded else None
        _check_promise(ds, promise)
        with naming(ds, "pixels"):
            if syntax.way is Way.DEFLATED_FRAMES:
                pixels = _plain(_unpacked(_needed(encoded), _frame_bytes(ds)), ds)
            elif syntax.way is Way.FRAGMENTS:
                pixels = _plain(_needed(encoded), ds)
            elif syntax.way is Way.GDCM_JPEG and (
                promise is None or promise.precision > 8 or ".4.51" not in syntax.uid
            ):
                pixels = _gdcm_jpeg(_needed(encoded), ds, promise)
            elif syntax.is_encapsulated or syntax.is_deflated:
                file.seek(0)
                pixels = pixel_array(file, index=frame - 1)
            else:
                pixels = _native(file, ds, frame)
    return ds, pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _native(file: BinaryIO, ds: Dataset, frame: int) -> Array:
    """A frame that is not compressed; ``file`` stands before the pixel data.

    As pydicom's `pixel_array` has it, which would parse the data set once more.
    """
    syntax = ds.file_meta.TransferSyntaxUID
    order = "<" if syntax.is_little_endian else ">"
    group, element = struct.unpack(f"{order}HH", file.read(4))
    options = as_pixel_options(ds, transfer_syntax_uid=syntax, pixel_keyword=_PIXEL_KEYWORDS[group, element])
    if syntax.is_implicit_VR:
        file.seek(4, io.SEEK_CUR)  # the length
    else:
        options["pixel_vr"] = file.read(2).decode("ascii")
        file.seek(6, io.SEEK_CUR)  # reserved, and the length
    found: Array = get_decoder(syntax).as_array(file, index=frame - 1, **options)[0]
    return found


def encoded_frame(path: str | Path, frame: int) -> bytes:
    """The compressed bytes of frame ``frame`` (from 1), as they are stored.

    Raises:
        PixelsNotReadable: the frame is not compressed, or is not to be found.
    """
    with opened(path) as (file, meta):
        ds = _attributes(file, meta)
        syntax = transfer_syntax(str(meta.get("TransferSyntaxUID") or ""))
        frames = number_of_frames(ds)
        if not syntax.is_encapsulated or not 1 <= frame <= frames:
            raise PixelsNotReadable(f"The object has no compressed frame {frame}.")
        encoded = _encoded(file, ds, frame)
    if encoded is None:
        raise PixelsNotReadable("The compressed frame is not to be found in the object.")
    return encoded


@contextmanager
def naming(ds: Dataset, what: str) -> Iterator[None]:
    """Any failure inside becomes a `PixelsNotReadable` that names ``what`` and the transfer syntax."""
    try:
        yield
    except PixelsNotReadable:
        raise
    except MemoryError as error:
        raise PixelsNotReadable("There is not enough memory to decode the frame.") from error
    except Exception as error:  # boundary: decoders raise whatever a broken object brings about
        detail = " ".join(str(error).split())[:200]
        name = transfer_syntax(str(ds.file_meta.get("TransferSyntaxUID") or "")).name
        raise PixelsNotReadable(f"The {what} in transfer syntax {name} cannot be decoded: {detail}") from error


def _inflated(content: bytes, most: int) -> BinaryIO:
    """A deflated file as if it had been stored in Explicit VR Little Endian (PS3.5 section A.5)."""
    try:
        _, data_set = split_file(content)
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        plain = inflater.decompress(data_set, most)
    except (ObjectNotStorable, zlib.error) as error:
        raise PixelsNotReadable("The deflated object is broken.") from error
    if inflater.unconsumed_tail and most >= MAX_INFLATED_BYTES:
        raise PixelsNotReadable(f"The deflated object is larger than the limit of {most} bytes.")
    syntax = ExplicitVRLittleEndian.encode().ljust(20, b"\0")
    element = b"\x02\x00\x10\x00UI" + struct.pack("<H", len(syntax)) + syntax
    group_length = b"\x02\x00\x00\x00UL\x04\x00" + struct.pack("<L", len(element))
    return io.BytesIO(bytes(128) + b"DICM" + group_length + element + plain)


def _attributes(file: BinaryIO, meta: FileMetaDataset) -> Dataset:
    """What decoding and display need; ``file`` stands before the pixel data afterwards."""
    file.seek(0)
    try:
        ds = dcmread(file, stop_before_pixels=True, specific_tags=_DISPLAY_TAGS)
        place = file.tell()
        for _ in ds:  # a value is decoded when it is asked for, and asked for all over
            pass
        file.seek(place)
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
    try:
        pixels, size = int(ds.Rows) * int(ds.Columns), _frame_bytes(ds)
    except (TypeError, ValueError) as error:
        raise PixelsNotReadable("Rows, Columns, BitsAllocated or SamplesPerPixel is not a number.") from error
    if pixels > max_pixels:
        raise PixelsNotReadable(f"A frame of {ds.Rows} x {ds.Columns} pixels is larger than the limit of {max_pixels}.")
    if size > MAX_FRAME_BYTES:
        raise PixelsNotReadable(f"A frame of {size} bytes is larger than the limit of {MAX_FRAME_BYTES}.")


def _frame_bytes(ds: Dataset) -> int:
    bits = int(ds.Rows) * int(ds.Columns) * int(ds.SamplesPerPixel) * int(ds.BitsAllocated)
    return (bits + 7) // 8


def _encoded(file: BinaryIO, ds: Dataset, frame: int) -> bytes | None:
    """The compressed bytes of a frame; None where they are not to be found. ``file`` stands before the pixel data."""
    offsets, lengths = ds.get("ExtendedOffsetTable"), ds.get("ExtendedOffsetTableLengths")
    file.seek(12, io.SEEK_CUR)  # (7FE0,0010) OB, reserved, undefined length
    try:
        return get_frame(
            file,
            frame - 1,
            number_of_frames=number_of_frames(ds),
            extended_offsets=(offsets, lengths) if offsets and lengths else None,
        )
    except Exception:  # boundary: what cannot be found here, the decoder looks for and names
        return None


def _needed(encoded: bytes | None) -> bytes:
    if encoded is None:
        raise ValueError("the frame is not there")
    return encoded


def _check_promise(ds: Dataset, promise: Promise | None) -> None:
    """See that a compressed frame promises no other size than the header."""
    if promise is None:
        return
    if (promise.rows, promise.columns) != (ds.Rows, ds.Columns):
        raise PixelsNotReadable(
            f"The codestream has {promise.rows} x {promise.columns} pixels, the header {ds.Rows} x {ds.Columns}."
        )
    if promise.components != ds.SamplesPerPixel:
        raise PixelsNotReadable(
            f"The codestream has {promise.components} samples a pixel, the header {ds.SamplesPerPixel}."
        )


def _unpacked(encoded: bytes, length: int) -> bytes:
    """A frame of the transfer syntax Deflated Image Frame Compression (PS3.5 section A.4.13)."""
    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(encoded, length)


def _plain(raw: bytes, ds: Dataset) -> Array:
    """The values of an uncompressed little endian frame."""
    samples, bits = int(ds.SamplesPerPixel), int(ds.BitsAllocated)
    if (
        samples not in (1, 3)
        or bits not in (1, 8, 16, 32)
        or (samples == 3 and str(ds.PhotometricInterpretation) != "RGB")
    ):
        raise ValueError(f"{samples} samples of {bits} bits in {ds.PhotometricInterpretation} are not supported")
    length = _frame_bytes(ds)
    if len(raw) < length:
        raise ValueError("the frame is shorter than Rows and Columns say")
    count = int(ds.Rows) * int(ds.Columns) * samples
    if bits == 1:
        values: Array = np.unpackbits(np.frombuffer(raw, np.uint8), count=count, bitorder="little")
    else:
        kind = "i" if ds.get("PixelRepresentation") else "u"
        values = np.frombuffer(raw, f"<{kind}{bits // 8}", count)
    if samples == 1:
        return values.reshape(ds.Rows, ds.Columns)
    if ds.get("PlanarConfiguration"):
        return values.reshape(3, ds.Rows, ds.Columns).transpose(1, 2, 0)
    return values.reshape(ds.Rows, ds.Columns, 3)


def _gdcm_jpeg(encoded: bytes, ds: Dataset, promise: Promise | None) -> Array:
    """A grey frame of 8- or 12-bit JPEG, sequential or progressive: GDCM has a decoder, pydicom does not ask it."""
    import gdcm  # 10 MB that hardly any process needs

    bits = int(ds.BitsAllocated)
    if promise is None:
        raise ValueError("the frame is no JPEG")
    if promise.components != 1 or bits not in (8, 16) or promise.precision > bits:
        raise ValueError(
            f"{promise.components} samples of {promise.precision} bits, {bits} allocated, are not supported"
        )
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(encoded)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((promise.columns, promise.rows, 1))
    image.SetDataElement(element)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    uid = str(ds.file_meta.TransferSyntaxUID)
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(uid)))
    image.SetPixelFormat(gdcm.PixelFormat(1, bits, promise.precision, promise.precision - 1, 0))
    text = image.GetBuffer()  # bytes, as text
    if text is None:
        raise ValueError("the JPEG is broken")
    raw = text.encode("utf-8", "surrogateescape")
    values: Array = np.frombuffer(raw, f"<u{bits // 8}", promise.rows * promise.columns)
    if ds.get("PixelRepresentation"):  # two's complement of the stored bits (PS3.5 section 8.1.1)
        unused = bits - int(ds.get("BitsStored") or bits)
        values = (values.view(f"<i{bits // 8}") << unused) >> unused
    return values.reshape(promise.rows, promise.columns)
