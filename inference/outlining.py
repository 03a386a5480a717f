"""A series read by a model that outlines what it sees, inside the model's process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pydicom

from fhir_records.errors import PixelsNotReadable
from inference.answers import Alternative, Classified, Refused
from inference.backends import Backend
from inference.contract import Contract
from inference.outlines import found_in, on_slices
from inference.segmentation_contract import SegmentationSettings
from inference.series_faults import nothing_decoded, series_faults
from inference.slices import Frame, clean
from inference.stack_geometry import Stack, image_of, stacked
from inference.suitability import Chosen
from inference.volume import Grid, grid_of, scaled
from inference.windows import over_windows

Floats = npt.NDArray[np.float32]

_DECODERS = 2  # threads
_KEY_IMAGES = 3
_UNCALIBRATED = (
    "The probability is the network's own, over the voxels that it outlined or nearly did; it was not calibrated on "
    "patients."
)


@dataclass(frozen=True, slots=True)
class Series:
    """The series that was chosen to be read."""

    chosen: Chosen
    frames: Sequence[Frame]
    headers: Mapping[str, pydicom.Dataset]  # by path
    total: int  # images and frames of the study that were looked for
    unreadable: int  # of these, how many could not be opened


def outline_series(
    contract: Contract, settings: SegmentationSettings, backend: Backend, series: Series
) -> Classified | Refused:
    """The answer, with what was outlined on the images' own pixels; a refusal where they make no volume.

    Memory holds the series at the voxels that the network takes, and as much for each channel of its output. Raises
    ModelFailed where the network's answer cannot be used, MemoryError where the series does not fit the process.
    """
    stack = stacked(series.frames, series.headers)
    if isinstance(stack, Refused):
        return stack
    grid = grid_of(stack, settings.volume)
    planes = _planes(stack, grid)
    kept = [place for place, plane in enumerate(planes) if plane is not None]
    if not kept:
        return nothing_decoded()
    undecodable = len(planes) - len(kept)
    if undecodable:
        stack = stack.only(kept)
        grid = grid_of(stack, settings.volume)
    volume = scaled(grid.volume([plane for plane in planes if plane is not None]), settings.volume)
    del planes
    logits = over_windows(volume, settings.window, contract.batch_size, lambda inputs: backend.run(inputs).logits)
    del volume
    found = found_in(logits, settings, contract.temperature, grid.voxel_mm3)
    del logits
    drawn = on_slices(found, settings, grid, stack)
    faults = series_faults(series.chosen.images, series.total, series.unreadable + undecodable, stack.repeated)
    present = bool(drawn.areas.any())
    yes, no = contract.classes
    answer, other = (yes, no) if present else (no, yes)
    # What was found on the grid may have no pixel on any slice: then it is not there.
    probability = found.probability if present else 1 - min(0.5, found.probability)
    return Classified(
        label=answer.label,
        wording=answer.wording,
        code=answer.code,
        presence=answer.presence,
        probability=probability,
        site=answer.site,
        key_images=tuple(image_of(stack.frames[place]) for place in key_slices(drawn.areas)),
        limits=(*series.chosen.limits, *faults, *_limits(settings, stack)),
        alternatives=(Alternative(answer.label, probability), Alternative(other.label, 1 - probability)),
        images_read=len(stack.frames),
        series_uid=series.chosen.series_uid,
        outlines=drawn.outlines,
    )


def _planes(stack: Stack, grid: Grid) -> list[Floats | None]:
    """Every slice at the grid's rows and columns; None for one that cannot be decoded."""

    def plane(frame: Frame) -> Floats | None:
        try:
            grey = frame.picture.grey(frame.number)
        except PixelsNotReadable as error:
            if isinstance(error.__cause__, MemoryError):  # the image is not broken: this process reached its limit
                raise error.__cause__ from error
            return None
        return grid.plane(clean(grey)) if grey.shape == (stack.rows, stack.columns) else None

    with ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode") as pool:
        return list(pool.map(plane, stack.frames))


def key_slices(areas: npt.NDArray[np.int64]) -> tuple[int, ...]:
    """The slices that tell most, first the one with most of the segments on it; three of the whole where none has any.

    `areas` are voxels, shape (slices,).
    """
    count = len(areas)
    if not areas.any():
        return tuple(dict.fromkeys([count // 2, count // 4, (3 * count) // 4]))[:_KEY_IMAGES]
    apart = max(1, int(np.count_nonzero(areas)) // 4)  # neighbours show the same
    keys: list[int] = []
    for place in np.argsort(-areas, kind="stable").tolist():
        if areas[place] and all(abs(place - key) >= apart for key in keys):
            keys.append(place)
    return tuple(keys[:_KEY_IMAGES])


def _limits(settings: SegmentationSettings, stack: Stack) -> Iterator[str]:
    least = {segment.min_volume_ml for segment in settings.segments if segment.answers and segment.min_volume_ml > 0}
    if least:
        yield f"Connected parts of less than {min(least):g} mL were not counted."
    if not stack.is_even:
        yield (
            f"The slices are not evenly spaced: each counts as {stack.distance:.3g} mm thick in the volumes, and what "
            "lies in gaps between them is left out."
        )
    yield _UNCALIBRATED
