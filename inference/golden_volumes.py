"""Golden cases of models that outline: windows that need no data, and what the network said of them, in blocks.

As `golden` for pictures. Every voxel's answer is compared when a model is registered; what is kept of it for later are
the mean probabilities of blocks, a few numbers instead of millions.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fhir_records.errors import BundleError
from inference.backends import Backend
from inference.golden import GOLDEN_FILE, REGISTERED_TOLERANCE
from inference.segmentation_contract import SegmentationSettings

_CASES = 2
_BLOCKS = 4  # along each axis
_TRAINED_TOLERANCE = 1e-2  # of a block's mean probability, between this machine and the one that trained

Floats = npt.NDArray[np.float32]


def golden_windows(settings: SegmentationSettings) -> Floats:
    """Waves with a ball in them, with the intensities that the network takes; shape (2, 1, *window)."""
    axes = np.meshgrid(*(np.linspace(-1, 1, side) for side in settings.window.size), indexing="ij")
    pictures = []
    for number in range(_CASES):
        waves = np.prod([np.cos((4 + 2 * number + place) * axis + place) for place, axis in enumerate(axes)], axis=0)
        ball = sum((axis - 0.15 * (number + place)) ** 2 for place, axis in enumerate(axes)) < 0.15 * (number + 1)
        pictures.append(0.35 + 0.2 * waves + 0.45 * ball)
    shown = np.stack(pictures)[:, None].astype(np.float32)
    if settings.volume.intensity in ("range", "percentile"):
        least, most = settings.volume.output
        return shown * np.float32(most - least) + np.float32(least)
    result: Floats = ((shown - shown.mean()) / shown.std()).astype(np.float32)
    return result


def probabilities(logits: Floats, settings: SegmentationSettings) -> npt.NDArray[np.float64]:
    """Of each channel, shape as the logits: (windows, channels, *window)."""
    wide = logits.astype(np.float64)
    if settings.activation == "sigmoid":
        each: npt.NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(wide, -500, 500)))
        return each
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    shares: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def differences(settings: SegmentationSettings, logits: Floats, others: Floats) -> dict[str, float]:
    """By segment, how far apart two back ends' probabilities are at most over all voxels."""
    apart = np.abs(probabilities(logits, settings) - probabilities(others, settings))
    return {item.label: round(float(apart[:, item.channel].max()), 9) for item in settings.segments}


def block_means(logits: Floats, settings: SegmentationSettings) -> list[Any]:
    """Mean probabilities of blocks, nested lists of shape (windows, channels, 4, 4[, 4])."""
    means = probabilities(logits, settings)
    for axis in range(2, means.ndim):
        parts = np.array_split(means, _BLOCKS, axis=axis)
        means = np.concatenate([part.mean(axis=axis, keepdims=True) for part in parts], axis=axis)
    nested: list[Any] = np.round(means, 6).tolist()
    return nested


def golden_logits(backend: Backend, settings: SegmentationSettings) -> Floats:
    """A back end's logits on the golden windows, given one by one."""
    return np.concatenate([backend.run(window[None]).logits for window in golden_windows(settings)])


def trained_difference(bundle: Path, means: list[Any]) -> float | None:
    """How far these block means are from those that training stored (`blocks`); None where the bundle stores none.

    Raises BundleError where they are too far.
    """
    path = bundle / GOLDEN_FILE
    if not path.exists():
        return None
    try:
        stored = np.array(json.loads(path.read_text(encoding="utf-8"))["blocks"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{GOLDEN_FILE} holds no blocks: {error}") from error
    found = np.array(means)
    difference = float(np.abs(stored - found).max()) if stored.shape == found.shape else float("inf")
    if not difference <= _TRAINED_TOLERANCE:
        raise BundleError(
            "The weights give other answers than when they were trained: the mean probability of a block differs by "
            f"{difference:.3g}; {_TRAINED_TOLERANCE:g} is allowed."
        )
    return difference


def verified(folder: Path, settings: SegmentationSettings, backend: Backend) -> dict[str, Any]:
    """Run the golden cases on a registered model. Raises BundleError where it answers otherwise than it did."""
    means = block_means(golden_logits(backend, settings), settings)
    record = json.loads((folder / "registered.json").read_text(encoding="utf-8"))
    apart = np.abs(np.array(record["export"]["blocks"]) - np.array(means))
    by_segment = {item.label: round(float(apart[:, item.channel].max()), 9) for item in settings.segments}
    if not max(by_segment.values()) <= REGISTERED_TOLERANCE:
        raise BundleError(
            f"A golden case is answered otherwise than at registration: a probability differs by "
            f"{max(by_segment.values()):.3g}; {REGISTERED_TOLERANCE:g} is allowed."
        )
    return {"cases": len(means), "since_registration": by_segment, "since_training": trained_difference(folder, means)}
