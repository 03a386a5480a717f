"""A stored image opened once for reading: some of its attributes, and its pixels without a second parse.

`pixels` parses the data set for every frame that it decodes, which for a header of some thousand elements costs more
than decoding. Here the data set's outer structure is walked once; where the pixels are stored natively in one sample
a pixel, they are then read straight from their place in the file. Everything else goes to `pixels`.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_listener.characters import settle
from dicom_listener.data_set import PIXEL_DATA, PIXEL_TAGS, encoding_of, parsed, sought
from dicom_listener.lookup import frame_attributes, modality_range, modality_values
from dicom_listener.pixels import MAX_FRAME_PIXELS, grey_frame, number_of_frames, read_header
from dicom_listener.received import split_file
from fhir_records.errors import ObjectNotStorable, PixelsNotReadable

_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)
_DECODING = (
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "HighBit", "PixelRepresentation", "PixelPaddingValue", "RescaleIntercept", "RescaleSlope", "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NativePixels:
    """Where the frames of an object lie in its file, and how their values are meant."""

    offset: int  # of the first, bytes from the file's start
    dtype: str  # numpy's word for the stored type
    rows: int
    columns: int
    frames: int
    unused: int  # high bits of each value that are no part of it
    source: Dataset  # modality LUT or rescale, in functional groups where there are such
    inverted: bool  # MONOCHROME1

    def grey(self, path: str, frame: int) -> npt.NDArray[np.float32]:
        """As `pixels.grey_frame`. Raises PixelsNotReadable."""
        if not 1 <= frame <= self.frames:
            raise PixelsNotReadable(f"Frame {frame} was asked for; the object has {self.frames}.")
        attributes = frame_attributes(self.source, frame)
        count = self.rows * self.columns
        try:
            place = self.offset + (frame - 1) * count * np.dtype(self.dtype).itemsize
            stored = np.fromfile(path, self.dtype, count, offset=place)
            stored = stored.reshape(self.rows, self.columns).astype(stored.dtype.newbyteorder("="), copy=False)
        except (OSError, ValueError) as error:
            raise PixelsNotReadable("The pixels are fewer than Rows and Columns say.") from error
        if self.unused:  # an overlay may lie there (PS3.5 section 8.1.1); shifting up and down keeps the sign
            stored = (stored << self.unused) >> self.unused
        if not self.inverted and "ModalityLUTSequence" not in attributes:
            slope, intercept = attributes.get("RescaleSlope"), attributes.get("RescaleIntercept")
            if slope is None or intercept is None:
                return stored.astype(np.float32)
            return (stored.astype(np.float64) * float(slope) + float(intercept)).astype(np.float32)
        values = modality_values(stored, attributes)
        if self.inverted:
            low, high = modality_range(stored, attributes, values)
            values = low + high - values
        return values.astype(np.float32)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """The way to one object's pixels."""

    path: str
    native: NativePixels | None  # None: compressed, colour, or odd

    def grey(self, frame: int = 1) -> npt.NDArray[np.float32]:
        """Frame `frame` (from 1) as `pixels.grey_frame` gives it. Raises PixelsNotReadable."""
        return grey_frame(self.path, frame) if self.native is None else self.native.grey(self.path, frame)


def open_stored(path: str | Path, keywords: Collection[str]) -> tuple[Dataset, StoredImage]:
    """Those attributes of the object at `path` that `keywords` name, perhaps others too, and the way to its pixels.

    Raises:
        PixelsNotReadable: the file is no DICOM file, or its data set cannot be parsed.
    """
    try:
        with Path(path).open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # a multi-frame object may hold gigabytes
    except OSError as error:
        raise PixelsNotReadable("The file cannot be opened.") from error
    except ValueError as error:  # mmap's word for an empty file
        raise PixelsNotReadable("The file is not a readable DICOM file.") from error
    tags = PIXEL_TAGS.union(tag for keyword in (*keywords, *_DECODING) if (tag := tag_for_keyword(keyword)) is not None)
    try:
        meta, data = split_file(cast(bytes, content))
        syntax = str(meta.TransferSyntaxUID)
        if syntax not in _NATIVE:
            raise ObjectNotStorable("the pixels are compressed")
        wanted = sought(data, encoding_of(syntax), tags)
        header = parsed(data, encoding_of(syntax), [item for item in wanted if item.tag not in PIXEL_TAGS])
        settle(header)
    except (ObjectNotStorable, AttributeError):  # compressed, deflated, cut short, or no DICOM: that is for pydicom
        return read_header(path), StoredImage(str(path), None)
    pixels = [item for item in wanted if item.tag == PIXEL_DATA]
    native = _native(header, syntax, len(content) - len(data) + pixels[0].value) if len(pixels) == 1 else None
    return header, StoredImage(str(path), native)


def _native(header: Dataset, syntax: str, offset: int) -> NativePixels | None:
    """How to read the pixels without a decoder; None where that takes more than this."""
    try:
        rows, columns, bits = int(header.Rows), int(header.Columns), int(header.BitsAllocated)
        stored, frames = int(header.get("BitsStored") or bits), number_of_frames(header)
        simple = (
            header.SamplesPerPixel == 1
            and header.PhotometricInterpretation in ("MONOCHROME1", "MONOCHROME2")
            and bits in (8, 16)
            and 0 < stored <= bits
            and int(header.get("HighBit", stored - 1)) == stored - 1
            and 0 < rows * columns <= MAX_FRAME_PIXELS
        )
        if not simple or (bits == 8 and syntax != ExplicitVRLittleEndian):  # bytes may lie swapped in words
            return None
        order = ">" if syntax == ExplicitVRBigEndian else "<"
        kind = "i" if header.get("PixelRepresentation") else "u"
        return NativePixels(
            offset=offset,
            dtype=f"{order}{kind}{bits // 8}",
            rows=rows,
            columns=columns,
            frames=frames,
            unused=bits - stored,
            source=frame_attributes(header, 1) if frames == 1 else header,
            inverted=header.PhotometricInterpretation == "MONOCHROME1",
        )
    except (AttributeError, TypeError, ValueError):
        return None
