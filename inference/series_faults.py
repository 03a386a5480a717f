"""What is wrong with a series, in sentences that limit the answer, or in a refusal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from inference.answers import Refused
from inference.stack import missing_numbers, missing_slices, several_in_one_place
from inference.suitability import ImageFacts


def series_faults(images: Sequence[ImageFacts], total: int, lost: int, repeated: int) -> Iterator[str]:
    """Sentences about the series.

    Args:
        images: those of the series.
        total: images and frames of the study that were looked for.
        lost: of these, how many could not be decoded.
        repeated: images that were left out, because they repeat another.
    """
    if lost:
        yield f"{lost} of {total} images could not be decoded."
    if repeated:
        repeat, were = ("image repeats", "was") if repeated == 1 else ("images repeat", "were")
        yield f"{repeated} {repeat} another of the series and {were} not counted."
    positions = [p for image in images for p in (image.frame_positions or (image.position,)) if p is not None]
    complete = len(positions) == sum(image.number_of_frames for image in images)
    missing = missing_slices(positions) if complete else missing_numbers([image.instance_number for image in images])
    if missing:
        yield (
            "One slice seems to be missing from the series."
            if missing == 1
            else f"About {missing} slices seem to be missing from the series."
        )
    if complete and several_in_one_place(positions):
        yield "The series has several images of one place (echoes, phases or repetitions); all of them were read."


def nothing_decoded() -> Refused:
    """The refusal of a study without an image that can be decoded."""
    return Refused("no-readable-images", "Not read, because none of its images could be decoded.")
