"""A network shown a volume window by window, and its answers put together again.

The windows' places, their weights and the padding of small volumes are those of MONAI's SlidingWindowInferer, and so
are the results; done in numpy because the process that serves a model must not load torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt

from fhir_records.errors import ModelFailed
from inference.segmentation_contract import WindowSettings

Floats = npt.NDArray[np.float32]
Run = Callable[[Floats], Floats]
"""Inputs of shape (windows, 1, *size) → logits of shape (windows, channels, *size)."""

_SIGMA = 0.125  # of the window's side: the width of the Gaussian that blends
_LEAST_WEIGHT = 1e-3


def over_windows(volume: Floats, settings: WindowSettings, batch_size: int, run: Run) -> Floats:
    """The network's logits over the whole volume, float32 of shape (channels, *volume.shape).

    A network of slices has windows of two sides, and is shown every slice of the volume's third axis.

    Raises ModelFailed where the network gives something of another shape.
    """
    size = (*settings.size, 1)[:3]
    padded, inside = _padded(volume, size)
    weights = _weights(size, settings.blend)
    summed: Floats | None = None
    counted = np.zeros(padded.shape, np.float32)
    places = _places(padded.shape, size, settings.overlap)
    flat = len(settings.size) < 3
    while batch := list(islice(places, batch_size)):
        inputs = np.stack([padded[place] for place in batch])[:, None]
        logits = run(inputs[..., 0] if flat else inputs)
        expected = (len(batch), *(inputs.shape[2:-1] if flat else inputs.shape[2:]))
        if (logits.shape[0], *logits.shape[2:]) != expected:
            raise ModelFailed(f"The network gave an answer of shape {logits.shape} to windows of {settings.size}.")
        if summed is None:
            summed = np.zeros((logits.shape[1], *padded.shape), np.float32)
        for place, answer in zip(batch, logits[..., None] if flat else logits, strict=True):
            summed[(slice(None), *place)] += answer * weights
            counted[place] += weights
    if summed is None:
        raise ModelFailed("The series has no voxel to show to the network.")
    summed /= counted
    return summed[(slice(None), *inside)]


def _padded(volume: Floats, size: Sequence[int]) -> tuple[Floats, tuple[slice, ...]]:
    """The volume, no smaller than a window, and where in it the volume itself is."""
    lacking = [max(side - have, 0) for side, have in zip(size, volume.shape, strict=True)]
    before = [lack // 2 for lack in lacking]
    inside = tuple(slice(start, start + have) for start, have in zip(before, volume.shape, strict=True))
    if not any(lacking):
        return volume, inside
    return np.pad(volume, [(start, lack - start) for start, lack in zip(before, lacking, strict=True)]), inside


def _places(shape: Sequence[int], size: Sequence[int], overlap: float) -> Iterator[tuple[slice, ...]]:
    """Where the windows lie; the last along each axis is moved back to end with the volume."""
    starts = []
    for have, side in zip(shape, size, strict=True):
        step = side if side == have else max(1, int(side * (1 - overlap)))
        count = max(0, math.ceil((have - side) / step)) + 1
        starts.append([min(number * step, have - side) for number in range(count)])
    for corner in itertools.product(*starts):
        yield tuple(slice(start, start + side) for start, side in zip(corner, size, strict=True))


def _weights(size: Sequence[int], blend: str) -> Floats:
    weights = np.ones((1, 1, 1), np.float32)
    if blend == "gaussian":
        for axis, side in enumerate(size):
            away = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
            bell = np.exp(-(away**2) / np.float32(2 * (_SIGMA * side) ** 2))
            weights = weights * bell.reshape([-1 if one == axis else 1 for one in range(3)])
    result: Floats = np.broadcast_to(np.maximum(weights, max(float(weights.min()), _LEAST_WEIGHT)), tuple(size))
    return result
