"""Text in the pixels of a picture: where it is.

A small network, which `inference.training.burnt_in` trains, says of each cell of a frame how likely it lies in text;
the frame is looked at in several sizes and brightnesses. It reads no characters and knows no language. What it finds
and what it misses, measured, is in docs/learning.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from inference.backends.onnx import OnnxBackend

NETWORK = Path(__file__).with_name("burnt_in.onnx")
CELL = 4  # pixels a side of what the network says one number about
THRESHOLD = 1.25  # logit, from which on two cells side by side are text
_EDGE = 0.12  # of the shorter side: so near to the edge of a frame text is more likely than in its middle, where bones
_EDGE_BONUS = 1.5  # and vessels look like it; added to the logit
_COARSEST = 80  # pixels of the shorter side: smaller versions of a frame are not looked at
_TILE = 1024  # pixels a side: larger frames are looked at in parts
_AROUND = 36  # pixels that the network sees around a cell
_LEAST = 16  # pixels a side that the network is given
_SHOWN = (0.1, 99.95)  # percentiles of the grey values that become black and white
_SAME_WINDOW = 0.85  # share of the whole range from which on the percentiles show nothing else

Grey = npt.NDArray[np.float32]  # shape (rows, columns)
Cell = TypeVar("Cell", np.bool_, np.float32)
Levels = npt.NDArray[np.uint8]  # shape (rows, columns)


@dataclass(frozen=True, slots=True)
class TextBox:
    """A rectangle in a frame in which text is. Pixels; right and bottom are one past the last."""

    left: int
    top: int
    right: int
    bottom: int
    score: float  # the highest logit in it


def find_text(image: Grey, threshold: float = THRESHOLD) -> tuple[TextBox, ...]:
    """Where text of two letters or more is in a frame, most certain first; nothing where none is found.

    Of drawn text of 4 letters or more in type of 9 pixels or more 99.9 % is found, of 2 or 3 letters 89 %; of clean
    slices of heads 1.1 % are taken for text, of one sagittal series 14 % (docs/learning.md).

    Args:
        image: shape (rows, columns), any range; brighter or darker text alike. Values that are no numbers count as 0.
        threshold: logit; a lower one finds more.
    """
    found: list[TextBox] = []
    for scale, logits in _looks(image):
        text = logits > threshold
        if not _pairs(text).any():
            continue
        numbered, _ = ndimage.label(text, structure=np.ones((3, 3)))
        for number, place in enumerate(ndimage.find_objects(numbered), start=1):
            inside = numbered[place] == number
            if _pairs(inside).any():
                found.append(_box(place, float(logits[place][inside].max()), scale, image.shape))
    return tuple(sorted(found, key=lambda box: -box.score))


def score_of(image: Grey) -> float:
    """The lowest threshold at which `find_text` finds nothing in the frame."""
    return max(float(_pairs(logits).max(initial=-np.inf)) for _, logits in _looks(image))


def levels_of(image: Grey) -> tuple[Levels, ...]:
    """The frame as 0 to 255: its whole range, and its percentiles where they show something else."""
    image = np.nan_to_num(image, posinf=0.0, neginf=0.0)
    low, high = float(image.min()), float(image.max())
    windows = [(low, high)]
    inner = tuple(float(value) for value in np.percentile(image, _SHOWN))
    if inner[1] - inner[0] < _SAME_WINDOW * (high - low):
        windows.append((inner[0], inner[1]))
    return tuple(_windowed(image, *window) for window in windows)


def _windowed(image: Grey, low: float, high: float) -> Levels:
    levels = np.clip((image - low) / max(high - low, 1e-6), 0.0, 1.0)
    result: Levels = np.rint(levels * 255).astype(np.uint8)
    return result


def _looks(image: Grey) -> Iterator[tuple[int, Grey]]:
    """How many times smaller the frame was made, and the logits, shape (cells down, cells across)."""
    for levels in levels_of(image):
        scale = 1
        while scale == 1 or min(levels.shape) // scale >= _COARSEST:
            smaller = levels if scale == 1 else np.asarray(Image.fromarray(levels).reduce(scale))
            yield scale, _raised_at_edges(_logits(smaller))
            scale *= 2


def _logits(levels: Levels) -> Grey:
    """The network's word on each cell of a picture; in tiles, which see as far around as the whole would."""
    rows, columns = (max(_LEAST, -(-side // CELL) * CELL) for side in levels.shape)
    padded = np.pad(levels, ((0, rows - levels.shape[0]), (0, columns - levels.shape[1])), mode="edge")
    cells = np.empty((rows // CELL, columns // CELL), dtype=np.float32)
    for top in range(0, rows, _TILE):
        for left in range(0, columns, _TILE):
            first = max(0, top - _AROUND), max(0, left - _AROUND)
            part = padded[first[0] : top + _TILE + _AROUND, first[1] : left + _TILE + _AROUND]
            said = _network().run(part.astype(np.float32)[None, None] / np.float32(255)).logits[0, 0]
            row, column = (top - first[0]) // CELL, (left - first[1]) // CELL
            place = cells[top // CELL : (top + _TILE) // CELL, left // CELL : (left + _TILE) // CELL]
            place[:] = said[row : row + place.shape[0], column : column + place.shape[1]]
    return cells


def _raised_at_edges(logits: Grey) -> Grey:
    edge = max(1, round(_EDGE * min(logits.shape)))
    raised = logits + np.float32(_EDGE_BONUS)
    raised[edge:-edge, edge:-edge] = logits[edge:-edge, edge:-edge]
    return raised


@cache
def _network() -> OnnxBackend:
    return OnnxBackend(NETWORK)


def _pairs(cells: npt.NDArray[Cell]) -> npt.NDArray[Cell]:
    """Of each two neighbours, across or down, the lesser: one cell alone is no text. Flat."""
    across, down = np.minimum(cells[:, :-1], cells[:, 1:]), np.minimum(cells[:-1], cells[1:])
    lesser: npt.NDArray[Cell] = np.concatenate([across.ravel(), down.ravel()])
    return lesser


def _box(place: tuple[slice, ...], score: float, scale: int, shape: tuple[int, ...]) -> TextBox:
    down, across = place
    side = CELL * scale
    bottom, right = min(shape[0], down.stop * side), min(shape[1], across.stop * side)
    return TextBox(across.start * side, down.start * side, right, bottom, score)
