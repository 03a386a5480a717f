"""What runs a network: one small interface, one file for each engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a network says of a batch."""

    logits: npt.NDArray[np.float32]  # shape (images, classes)
    distances: npt.NDArray[np.float32] | None  # shape (images,): how strange each is; None where the model cannot tell
    maps: npt.NDArray[np.float32] | None = None  # shape (images, classes, rows, columns): class activation maps

    @classmethod
    def named(cls, results: Mapping[str, Any]) -> Outputs:
        """From a graph's outputs by name; a graph that names none of ours has its logits first."""
        logits = results["logits"] if "logits" in results else next(iter(results.values()))
        return cls(np.asarray(logits), results.get("distance"), results.get("maps"))


class Backend(Protocol):
    """A loaded network."""

    def run(self, inputs: npt.NDArray[np.float32]) -> Outputs:
        """The outputs for inputs of shape (images, 1, size, size)."""
        ...
