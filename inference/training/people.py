"""Whether there are people enough to train from: before a day is spent on it, and in words that say how many lack."""

from __future__ import annotations

import numpy as np

from fhir_records.errors import TrainingError
from inference.training.data import PARTS, ImageSet, Split


def check_people(images: ImageSet, split: Split, least: int) -> None:
    """See that each class has `least` people (groups, where nobody is named), and each part of the split each class.

    Raises TrainingError that names what lacks.
    """
    found = {
        name: len(set(split.clusters[images.labels == number].tolist())) for number, name in enumerate(images.classes)
    }
    lacking = [f"{least - count} more of {name} (there are {count})" for name, count in found.items() if count < least]
    if lacking:
        raise TrainingError(
            f"Too few people to train from: {least} different ones of each class are needed. "
            f"Needed still: {'; '.join(lacking)}."
        )
    for part in PARTS:
        labels = set(np.unique(images.labels[split.part(part)]).tolist())
        without = [name for number, name in enumerate(images.classes) if number not in labels]
        if without:
            raise TrainingError(
                f"With every person on one side of the split, its {part} part has no image of {', '.join(without)}: "
                "more people are needed of these classes, or other ones than those who also have another class."
            )
