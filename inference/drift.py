"""What a model was shown, in a few numbers a read: enough to see later that scanners or patients have changed.

Histograms alone are kept, no picture and no identity: of the brightness of what the network took, and of how far the
images lie from those of training. Their bins are fixed, so that reads, weeks and training can be compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fhir_records.errors import BundleError
from inference.backends import Backend, Outputs

REFERENCE_FILE = "drift.json"

Floats = npt.NDArray[np.float32]

# Standard deviations from the picture's mean: the network takes pictures of zero mean and unit variance.
_INTENSITY_EDGES = np.array([-1.5, -1.2, -0.9, -0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6, 0.9, 1.2, 1.6, 2.0, 2.5])
# `contract.Familiarity`: squared distances that are 1 on average over the training images.
_DISTANCE_EDGES = np.array([0.4, 0.55, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5, 1.8, 2.3, 3.0, 5.0, 10.0])


@dataclass(frozen=True, slots=True)
class InputFigures:
    """The inputs of one read."""

    images: int  # that the network was shown
    intensity: tuple[float, ...]  # shares of pixels in the 16 bins of brightness; they add up to 1
    distances: tuple[float, ...]  # shares of images in the 15 bins of distance; empty where the model cannot tell


@dataclass(frozen=True, slots=True)
class Reference:
    """The same of the training images."""

    intensity: tuple[float, ...]
    distances: tuple[float, ...]  # empty where training knew no distances


class Tally:
    """A backend that counts what passes through it on the way to another."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._images = 0
        self._intensity = np.zeros(len(_INTENSITY_EDGES) + 1)
        self._distances = np.zeros(len(_DISTANCE_EDGES) + 1)

    def run(self, inputs: Floats) -> Outputs:
        """The other's outputs for inputs of shape (images, 1, size, size)."""
        outputs = self._backend.run(inputs)
        self._images += len(inputs)
        self._intensity += _counts(_thinned(inputs), _INTENSITY_EDGES)
        if outputs.distances is not None:
            self._distances += _counts(outputs.distances, _DISTANCE_EDGES)
        return outputs

    def figures(self) -> InputFigures | None:
        """What has been counted; None where nothing came."""
        if not self._images:
            return None
        return InputFigures(self._images, _shares(self._intensity), _shares(self._distances))


def reference(squares: Floats, distances: npt.ArrayLike | None) -> dict[str, Any]:
    """What training stores as `drift.json`.

    `squares` has shape (images, size, size), standardised as the network takes them; `distances` has shape (images,).
    """
    counted = np.zeros(len(_DISTANCE_EDGES) + 1)
    if distances is not None:
        counted += _counts(np.asarray(distances), _DISTANCE_EDGES)
    return {
        "images": len(squares),
        "intensity": _shares(_counts(_thinned(squares), _INTENSITY_EDGES)),
        "distances": _shares(counted),
    }


def load_reference(bundle: Path) -> Reference | None:
    """What the bundle says of its training images; None where it says nothing. Raises BundleError for nonsense."""
    path = bundle / REFERENCE_FILE
    if not path.exists():
        return None
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        intensity, distances = (tuple(float(share) for share in document[key]) for key in ("intensity", "distances"))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{REFERENCE_FILE} cannot be read: {error}") from error
    for name, shares, bins, may_lack in (
        ("intensity", intensity, len(_INTENSITY_EDGES) + 1, False),
        ("distances", distances, len(_DISTANCE_EDGES) + 1, True),
    ):
        whole = len(shares) == bins and min(shares) >= 0 and abs(sum(shares) - 1) < 1e-3
        if not whole and not (may_lack and not shares):
            raise BundleError(f"{REFERENCE_FILE}: {name} must be {bins} shares that add up to 1.")
    return Reference(intensity, distances)


def figures_from_json(values: Mapping[str, Any] | None) -> InputFigures | None:
    """The figures from their JSON values. Raises KeyError, TypeError or ValueError for anything else."""
    if values is None:
        return None
    intensity, distances = (tuple(float(share) for share in values[key]) for key in ("intensity", "distances"))
    return InputFigures(int(values["images"]), intensity, distances)


def _counts(values: npt.NDArray[Any], edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """How many values lie below the first edge, between two, above the last."""
    cumulative = [np.count_nonzero(values < edge) for edge in edges]
    result: npt.NDArray[np.float64] = np.diff([0, *cumulative, values.size]).astype(np.float64)
    return result


def _thinned(squares: Floats) -> Floats:
    """Every fourth pixel of every fourth row: as telling, in a sixteenth of the time."""
    return squares[..., ::4, ::4]


def _shares(counts: npt.NDArray[np.float64]) -> tuple[float, ...]:
    total = counts.sum()
    return tuple(round(float(count), 6) for count in counts / total) if total else ()
