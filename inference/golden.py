"""Inputs that need no data: the same pictures on every machine, for comparing two ways to run a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from inference.preprocess import standardise

GOLDEN_FILE = "golden.json"
_COUNT = 6


def golden_inputs(size: int) -> npt.NDArray[np.float32]:
    """Discs with waves and a spot in them, standardised; shape (6, 1, size, size)."""
    row, column = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    pictures = []
    for number in range(_COUNT):
        disc = row**2 / 0.8 + column**2 / (0.5 + 0.08 * number) < 0.9
        waves = 0.4 + 0.15 * np.cos((5 + 2 * number) * row) * np.sin((11 - number) * column + number)
        spot = (row - 0.1 * number + 0.2) ** 2 + (column + 0.12 * number - 0.3) ** 2 < 0.02 * (number + 1)
        pictures.append(standardise((disc * (waves + 0.4 * spot)).astype(np.float32)))
    return np.stack(pictures)[:, None]


def golden_record(logits: npt.NDArray[np.float32]) -> dict[str, Any]:
    """What training stores of the network's logits on `golden_inputs`, shape (6, classes)."""
    return {"logits": [[round(float(value), 6) for value in row] for row in logits]}
