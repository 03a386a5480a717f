"""Whether there are people enough to train from: before a day is spent on it, and in words that say how many lack."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fhir_records.errors import TrainingError
from inference.training.data import ImageSet, Split

# One half of the calibration people fits what the other half measures.
_LEAST_OF_PART = {"train": 1, "calibration": 2, "validation": 1}


def check_people(images: ImageSet, groups: npt.NDArray[np.int64], least: int) -> None:
    """See that each class has `least` people: groups, shape (images,), which are look-alikes where nobody is named.

    Raises TrainingError that says how many more of which class are needed.
    """
    found = _people(images, groups)
    lacking = [f"{least - count} more of {name} (there are {count})" for name, count in found.items() if count < least]
    if lacking:
        raise TrainingError(
            f"Too few people to train from: {least} different ones of each class are needed. "
            f"Needed still: {'; '.join(lacking)}."
        )


def check_parts(images: ImageSet, split: Split) -> None:
    """See that each part of the split has people of each class. Raises TrainingError that names what lacks."""
    for part, least in _LEAST_OF_PART.items():
        inside = split.part(part)
        found = _people(images, split.clusters, inside)
        few = [f"{count} of {name}" for name, count in found.items() if count < least]
        if few:
            raise TrainingError(
                f"With every person on one side of the split, too few people are in its {part} part: {', '.join(few)}; "
                f"{least} are needed. More people are needed of these classes."
            )


def _people(
    images: ImageSet, groups: npt.NDArray[np.int64], part: npt.NDArray[np.int64] | None = None
) -> dict[str, int]:
    labels, whose = (images.labels, groups) if part is None else (images.labels[part], groups[part])
    return {name: len(np.unique(whose[labels == number])) for number, name in enumerate(images.classes)}
