"""x."""
from __future__ import annotations

import numpy as np
import numpy.typing as npt

CELL = 4  # pixels a side of what the network says one number about
_SHOWN = (0.1, 99.95)  # percentiles of the grey values that become black and white


def levels_of(image: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint8], ...]:
    low, high = float(image.min()), float(image.max())
    return (np.rint((image - low) / max(high - low, 1e-6) * 255).astype(np.uint8),)
