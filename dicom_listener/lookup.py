"""From stored values to what is meant by them: modality LUT, VOI LUT, windows, palettes (PS3.3 section C.11)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi

Array = npt.NDArray[Any]

# PS3.3 section C.7.6.3.1.2: the Y of YBR_FULL, of red, green and blue.
LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)

# PS3.3 sections C.11.1 and C.11.2: what turns stored values into modality values and these into brightness.
_TRANSFORMATION = (
    "RescaleIntercept",
    "RescaleSlope",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
)


def is_colour(ds: Dataset, pixels: Array) -> bool:
    """Whether the frame is shown in colour."""
    return pixels.ndim == 3 or ds.PhotometricInterpretation == "PALETTE COLOR"


def as_rgb8(ds: Dataset, pixels: Array) -> npt.NDArray[np.uint8]:
    """A colour frame as uint8 (rows, columns, 3), its palette applied where it has one."""
    if pixels.ndim == 2:
        pixels = apply_color_lut(pixels, ds)[..., :3]
        bits = pixels.dtype.itemsize * 8
    else:
        bits = min(int(ds.get("BitsStored") or 8), pixels.dtype.itemsize * 8)
    if bits > 8:
        pixels = pixels >> (bits - 8)
    return pixels.astype(np.uint8)


def frame_attributes(ds: Dataset, frame: int) -> Dataset:
    """The transformation of one frame: its own functional groups before the shared ones before the object's.

    PS3.3 sections C.7.6.16.2.9 (Pixel Value Transformation) and C.7.6.16.2.10 (Frame VOI LUT).
    """
    attributes = Dataset()
    for keyword in ("BitsStored", "PixelRepresentation", "PixelPaddingValue"):
        if keyword in ds:
            attributes[keyword] = ds[keyword]
    per_frame = ds.get("PerFrameFunctionalGroupsSequence") or []
    groups = [ds]
    groups += list(ds.get("SharedFunctionalGroupsSequence") or [])[:1]
    groups += list(per_frame[frame - 1 : frame])
    for group in groups:
        for source in (
            group,
            *(group.get("PixelValueTransformationSequence") or []),
            *(group.get("FrameVOILUTSequence") or []),
        ):
            for keyword in _TRANSFORMATION:
                if keyword in source and source[keyword].value not in (None, ""):
                    attributes[keyword] = source[keyword]
    return attributes


def modality_values(pixels: Array, attributes: Dataset) -> npt.NDArray[np.float64]:
    """``pixels`` after the modality LUT or rescale (PS3.3 section C.11.1)."""
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float64)
    values: npt.NDArray[np.float64] = apply_modality_lut(pixels, attributes).astype(np.float64)
    return values


def modality_range(pixels: Array, attributes: Dataset, values: Array) -> tuple[float, float]:
    """What the modality LUT can give for the values that the stored bits can hold."""
    if pixels.dtype.kind == "f":
        return float(values.min()), float(values.max())
    bits = min(int(attributes.get("BitsStored") or 16), pixels.dtype.itemsize * 8)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if pixels.dtype.kind == "i" else (0, 2**bits - 1)
    ends = modality_values(np.array([low, high], dtype=pixels.dtype), attributes)
    return float(ends.min()), float(ends.max())


def presented(pixels: Array, values: Array, attributes: Dataset) -> npt.NDArray[np.float64]:
    """``values`` as 0 to 1 after the object's VOI LUT, else its first window, else its range (PS3.3 section C.11.2)."""
    if attributes.get("VOILUTSequence") and pixels.dtype.kind != "f":
        item = attributes.VOILUTSequence[0]
        if "LUTDescriptor" in item and "LUTData" in item:
            top = 2 ** int(item.LUTDescriptor[2]) - 1
            looked_up: npt.NDArray[np.float64] = apply_voi(np.rint(values).astype(np.int64), attributes) / top
            return np.clip(looked_up, 0.0, 1.0)
    centre, width = _first(attributes.get("WindowCenter")), _first(attributes.get("WindowWidth"))
    function = str(attributes.get("VOILUTFunction") or "LINEAR").upper()
    # A width that the standard forbids is met in the wild; such a window says nothing.
    if centre is not None and width is not None and width >= (1 if function == "LINEAR" else 1e-9):
        return windowed(values, centre, width, function)
    return _stretched(pixels, values, attributes)


def _first(value: Any) -> float | None:
    """The first of one or more decimal strings."""
    if value is None or value == "":
        return None
    number = float(value if isinstance(value, str | int | float) else value[0])
    return number if np.isfinite(number) else None


def windowed(values: Array, centre: float, width: float, function: str) -> npt.NDArray[np.float64]:
    """``values`` through a window, as 0 to 1 (PS3.3 sections C.11.2.1.2 and C.11.2.1.3)."""
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -700, 700)))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1.0
    # Width 1 of LINEAR is a threshold.
    scaled: npt.NDArray[np.float64] = np.clip((values - centre) / max(width, 1e-9) + 0.5, 0.0, 1.0)
    return scaled


def _stretched(pixels: Array, values: Array, attributes: Dataset) -> npt.NDArray[np.float64]:
    """``values`` from their least to their greatest as 0 to 1; padding and numbers that are none left out."""
    counted = np.isfinite(values)
    padding = attributes.get("PixelPaddingValue")
    if isinstance(padding, int):
        counted &= pixels != padding
    if not counted.any():
        return np.zeros(values.shape)
    low, high = float(values[counted].min()), float(values[counted].max())
    return np.clip((np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-9), 0.0, 1.0)
