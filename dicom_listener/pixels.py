"""The one decoder: from a stored object's bytes to arrays, for web, inference and renderings.

Every function decodes the one frame that it is asked for. What goes wrong is a `PixelsNotReadable` that names the
transfer syntax or the attribute, never a value of the patient's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_listener.characters import settle
from dicom_listener.decoding import (
    MAX_FRAME_PIXELS,
    MAX_INFLATED_HEADER_BYTES,
    decoded,
    naming,
    number_of_frames,
    opened,
)
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
from fhir_records.errors import PixelsNotReadable

__all__ = [
    "MAX_FRAME_PIXELS",
    "Decoder",
    "NativeFrame",
    "display_frame",
    "grey_frame",
    "native_frame",
    "number_of_frames",
    "read_header",
]

# Values that are looked at together where a frame is large: more need more memory, fewer more time.
_BLOCK_PIXELS = 1 << 20


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


class Decoder(Protocol):
    """What decodes frames: this module, or a `bounded.BoundedDecoder`."""

    def native_frame(self, path: str | Path, frame: int = 1) -> NativeFrame:
        """As `native_frame`."""

    def display_frame(
        self,
        path: str | Path,
        frame: int = 1,
        window: tuple[float, float] | None = None,
        function: str = "LINEAR_EXACT",
    ) -> npt.NDArray[np.uint8]:
        """As `display_frame`."""


def read_header(path: str | Path) -> Dataset:
    """The data set of the file at ``path`` without its pixels.

    Raises:
        PixelsNotReadable: the file is no DICOM file, or its data set cannot be parsed.
    """
    with opened(path, MAX_INFLATED_HEADER_BYTES) as (file, meta):
        try:
            ds = dcmread(file, stop_before_pixels=True)
            settle(ds)
        except Exception as error:  # boundary: pydicom raises whatever a broken file brings about
            raise PixelsNotReadable("The file is not a readable DICOM file.") from error
        ds.file_meta = meta
        return ds


def native_frame(path: str | Path, frame: int = 1, *, max_pixels: int = MAX_FRAME_PIXELS) -> NativeFrame:
    """Frame ``frame`` (from 1) decoded, before any look-up table.

    Raises:
        PixelsNotReadable: the frame cannot be decoded, or is larger than ``max_pixels``.
    """
    ds, pixels = decoded(path, frame, max_pixels)
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
    ds, pixels = decoded(path, frame, max_pixels)
    with naming(ds, "look-up tables"):
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
    function: str = "LINEAR_EXACT",
    *,
    max_pixels: int = MAX_FRAME_PIXELS,
) -> npt.NDArray[np.uint8]:
    """Frame ``frame`` (from 1) as it is meant to be seen: uint8 (rows, columns), or (rows, columns, 3) for colour.

    ``window`` is (centre, width) in modality units, of a VOI LUT ``function`` (PS3.3 section C.11.2.1.3: LINEAR,
    LINEAR_EXACT or SIGMOID), and goes before the object's own window or VOI LUT (of the frame's
    functional groups, where there are such: PS3.3 section C.7.6.16.2.10); with neither, the frame's own range is shown.

    Raises:
        PixelsNotReadable: the frame cannot be decoded, or is larger than ``max_pixels``.
    """
    ds, pixels = decoded(path, frame, max_pixels)
    with naming(ds, "look-up tables"):
        if is_colour(ds, pixels):
            return as_rgb8(ds, pixels)
        attributes, inverted = frame_attributes(ds, frame), ds.PhotometricInterpretation == "MONOCHROME1"
        if pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
            return _shown(pixels, attributes, window, function, inverted)
        return _looked_up(pixels, attributes, window, function, inverted)


def _shown(
    pixels: Array, attributes: Dataset, window: tuple[float, float] | None, function: str, inverted: bool
) -> npt.NDArray[np.uint8]:
    """Stored values as brightness, of any shape."""
    values = modality_values(pixels, attributes)
    if window is not None:
        shown = windowed(values, window[0], window[1], function)
    else:
        shown = presented(pixels, values, attributes)
    return np.rint((1.0 - shown if inverted else shown) * 255).astype(np.uint8)


def _looked_up(
    pixels: Array, attributes: Dataset, window: tuple[float, float] | None, function: str, inverted: bool
) -> npt.NDArray[np.uint8]:
    """As `_shown`, each value that occurs computed once: a large frame would need many times its size otherwise."""
    unsigned = np.ascontiguousarray(pixels).view(f"u{pixels.dtype.itemsize}").ravel()
    blocks = [unsigned[start : start + _BLOCK_PIXELS] for start in range(0, unsigned.size, _BLOCK_PIXELS)]
    occurs = np.zeros(1 << 8 * pixels.dtype.itemsize, dtype=bool)
    for block in blocks:
        occurs[block] = True
    present = np.flatnonzero(occurs).astype(unsigned.dtype)
    table = np.zeros(occurs.size, dtype=np.uint8)
    table[present] = _shown(present.view(pixels.dtype), attributes, window, function, inverted)
    shown = np.empty(unsigned.size, dtype=np.uint8)
    for number, block in enumerate(blocks):
        shown[number * _BLOCK_PIXELS :][: block.size] = table[block]
    return shown.reshape(pixels.shape)
