"""What runs a network: one small interface, one file for each engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a network says of a batch."""

    logits: npt.NDArray[np.float32]  # shape (images, classes)
    distances: npt.NDArray[np.float32] | None  # shape (images,): how strange each is; None where the model cannot tell


class Backend(Protocol):
    """A loaded network."""

    def run(self, inputs: npt.NDArray[np.float32]) -> Outputs:
        """The outputs for inputs of shape (images, 1, size, size)."""
        ...
