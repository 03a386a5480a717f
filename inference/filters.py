"""Optional filters of the preprocessing: numpy alone, for the process that serves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float2D = npt.NDArray[np.float32]  # shape (rows, columns), 0 to 1

FILTERS = ("gaussian", "median", "bilateral")
_SIGMA_PLACE = 1.5  # pixels
_SIGMA_GREY = 0.1  # of the range


def apply_filter(name: str, square: Float2D) -> Float2D:
    """One of `FILTERS`: Gaussian and median over 3×3 pixels, bilateral over 5×5 (Tomasi and Manduchi, ICCV 1998)."""
    if name == "gaussian":
        kernel = np.array([1, 2, 1], dtype=np.float32) / 4
        across = sum(weight * part for weight, part in zip(kernel, _shifted(square, 0, 1), strict=True))
        return np.asarray(
            sum(weight * part for weight, part in zip(kernel, _shifted(np.asarray(across), 1, 0), strict=True)),
            dtype=np.float32,
        )
    if name == "median":
        return np.median(np.stack(_shifted(square, 1, 1)), axis=0).astype(np.float32)
    places = [(row, column) for row in range(-2, 3) for column in range(-2, 3)]
    weights, total = np.zeros_like(square), np.zeros_like(square)
    for (row, column), part in zip(places, _shifted(square, 2, 2), strict=True):
        near = np.exp(-(row**2 + column**2) / (2 * _SIGMA_PLACE**2))
        weight = near * np.exp(-((part - square) ** 2) / (2 * _SIGMA_GREY**2))
        weights += weight
        total += weight * part
    return (total / weights).astype(np.float32)


def _shifted(square: Float2D, rows: int, columns: int) -> list[Float2D]:
    """The picture moved by every step up to `rows` and `columns`, its edge repeated."""
    height, width = square.shape
    padded = np.pad(square, ((rows, rows), (columns, columns)), mode="edge")
    return [
        padded[row : row + height, column : column + width]
        for row in range(2 * rows + 1)
        for column in range(2 * columns + 1)
    ]
