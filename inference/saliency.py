"""Class activation maps in the geometry of the frames that they belong to.

The network sees a square that was cut from the frame, padded and resized; its map has a few cells a side. Here the crop
and the padding are undone, so that whoever draws a map needs the frame alone. What lies outside the head was blanked
before the network looked, so nothing in it can speak for anything; where a cell reaches beyond the head, that part of
it is coarseness and not evidence, and is left out. `raw_map` shows the cells as they are, for those who check the
network.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.answers import ActivationMap, KeyImage
from inference.preprocess import Head, PreprocessSettings

Floats = npt.NDArray[np.float32]
LONGEST = 64  # cells of the longer side of a map in an answer; more would say more than the network does


@dataclass(frozen=True, slots=True)
class Crop:
    """Where the network's square lies in its frame, in pixels; it may reach beyond the frame."""

    top: int
    left: int
    side: int
    rows: int  # of the frame
    columns: int


def crop_of(head: Head, settings: PreprocessSettings) -> Crop:
    """The square that `preprocess.cut` makes around what it found: with a margin around a head, without elsewhere."""
    height, width = head.bottom - head.top, head.right - head.left
    margin = settings.margin if settings.crop == "head" else 0.0
    side = round(max(height, width) * (1 + 2 * margin))
    rows, columns = head.mask.shape
    return Crop(head.top - (side - height) // 2, head.left - (side - width) // 2, side, rows, columns)


def evidence(maps: Floats, answer: int, absent: int) -> Floats:
    """Where a slice's maps, shape (classes, rows, columns), speak for the answer; 0 where they do not.

    For a finding: its map less that of "nothing there", whose mean is the log-odds that the study's answer is drawn
    from. For "nothing there": its map less the mean of the findings'.
    """
    others = np.delete(maps, absent, axis=0).mean(axis=0) if answer == absent else maps[absent]
    result: Floats = np.maximum(maps[answer] - others, 0).astype(np.float32)
    return result


def activation_map(cells: Floats, head: Head, settings: PreprocessSettings) -> Floats:
    """A slice's evidence, shape (rows, columns) of cells, as float32 over the frame that the head was found in.

    0 outside the head, which the network was not shown.
    """
    result: Floats = raw_map(cells, crop_of(head, settings)) * head.mask
    return result


def raw_map(cells: Floats, crop: Crop, shape: tuple[int, int] | None = None) -> Floats:
    """A map of the network's square, shape (rows, columns) of cells, as float32 over the whole frame.

    `shape` is the result's (rows, columns), by default the frame's own; a smaller one covers the same frame. Between
    the cells' centres it is bilinear; outside the square it is 0.
    """
    rows, columns = shape or (crop.rows, crop.columns)
    down = _weights(rows, crop.rows, crop.top, crop.side, cells.shape[0])
    across = _weights(columns, crop.columns, crop.left, crop.side, cells.shape[1])
    result: Floats = (down @ cells @ across.T).astype(np.float32)
    return result


def _weights(count: int, extent: int, start: int, side: int, cells: int) -> npt.NDArray[np.float64]:
    """What each of `count` places along a frame of `extent` pixels takes from each cell; shape (count, cells)."""
    place = ((np.arange(count) + 0.5) * extent / count - start) / side  # 0 to 1 within the square
    centre = np.clip(place * cells - 0.5, 0, cells - 1)
    near = np.maximum(0.0, 1.0 - np.abs(centre[:, None] - np.arange(cells)[None, :]))
    inside = (place >= 0) & (place <= 1)
    weights: npt.NDArray[np.float64] = near * inside[:, None]
    return weights


def energy_inside(values: Floats, mask: npt.NDArray[np.bool_]) -> float:
    """Share of a map's sum that lies on the mask, both of one shape; 1 where the map is empty."""
    total = float(values.sum())
    return 1.0 if total <= 0 else float(values[mask].sum()) / total


def packed(cells: Floats, head: Head, settings: PreprocessSettings, image: KeyImage, label: str) -> ActivationMap:
    """A slice's evidence as it goes into an answer."""
    crop = crop_of(head, settings)
    scale = min(1.0, LONGEST / max(crop.rows, crop.columns))
    shape = max(1, round(crop.rows * scale)), max(1, round(crop.columns * scale))
    rows, columns = (
        ((np.arange(count) + 0.5) * extent / count).astype(int)
        for count, extent in zip(shape, head.mask.shape, strict=True)
    )
    small = raw_map(cells, crop, shape) * head.mask[np.ix_(rows, columns)]
    peak = float(small.max(initial=0.0))
    levels = np.rint(small / peak * 255).astype(np.uint8) if peak > 0 else np.zeros(shape, np.uint8)
    return ActivationMap(image, label, *shape, round(peak, 4), base64.b64encode(levels.tobytes()).decode())


def unpacked(found: ActivationMap) -> Floats:
    """The map's values, shape (rows, columns). Raises ValueError where the bytes do not fit the shape."""
    levels = np.frombuffer(base64.b64decode(found.values, validate=True), np.uint8)
    return levels.reshape(found.rows, found.columns).astype(np.float32) * np.float32(found.peak / 255)
