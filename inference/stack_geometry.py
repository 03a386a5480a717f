"""Whether the frames of a series make a volume, and where its voxels lie in the patient.

Stricter than what a Segmentation may be made on (`fhir_records.renderings.frame_place.same_plane`), and by the same
reading of the header: what is outlined here can be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pydicom

from fhir_records.errors import PixelsNotReadable
from fhir_records.model import ImageRef
from fhir_records.renderings.frame_place import FrameGeometry, geometry_of, same_plane, slice_distance
from inference.answers import KeyImage, Refused
from inference.slices import Frame

_SAME = 0.05  # of the usual distance: nearer ones lie in one place
_UNEVEN = 0.1  # of the usual distance: what the slices' distances may differ without a word

Places = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stack:
    """Frames one over another, in the order of their places in the patient."""

    frames: tuple[Frame, ...]
    places: Places  # mm along the normal of the slices, rising
    rows: int
    columns: int
    spacing: tuple[float, float]  # mm between rows, between columns
    directions: npt.NDArray[np.float64]  # shape (3, 3): along the rows, down the columns, over the slices; in x, y, z
    distance: float  # mm of neighbouring slices, the usual one
    repeated: int  # frames left out, because another shows the very same picture in the same place

    def only(self, kept: Sequence[int]) -> Stack:
        """The stack of these of its frames, by their number from 0."""
        return replace(self, frames=tuple(self.frames[place] for place in kept), places=self.places[list(kept)])

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel, as thick as the slices are apart."""
        return self.spacing[0] * self.spacing[1] * self.distance

    @property
    def is_even(self) -> bool:
        """Whether all slices are about as far apart."""
        gaps = np.diff(self.places)
        return not gaps.size or bool(np.abs(gaps - self.distance).max() <= _UNEVEN * self.distance)


def image_of(frame: Frame) -> KeyImage:
    """A reference to the frame."""
    image = frame.image
    return KeyImage(image.series_uid, image.sop_uid, image.sop_class_uid, None if image.single_frame else frame.number)


def stacked(frames: Sequence[Frame], headers: Mapping[str, pydicom.Dataset]) -> Stack | Refused:
    """The volume that the frames make, or why they make none. `headers` are by the path of the frame's image.

    Raises MemoryError where a frame does not fit the process's limit.
    """
    placed = [(frame, geometry_of(headers[frame.image.path], ImageRef(*image_of(frame)))) for frame in frames]
    known = [(frame, geometry) for frame, geometry in placed if geometry is not None]
    if len(known) < len(placed):
        return _refused("not all of its images say where they lie in the patient")
    first = known[0][1]
    if len(same_plane([geometry for _, geometry in known])) < len(known):
        return _refused("its images do not lie in one stack of equal slices")
    if len(known) == 1 and first.thickness is None:
        return _refused("its one image does not say how thick its slice is")
    known.sort(key=lambda item: item[1].along)
    once, repeated = _each_place_once(known)
    if once is None:
        return _refused("several of its images lie in one place, and differ")
    if _slanted([geometry for _, geometry in once]):
        return _refused("its images lie askew over one another, as with a tilted gantry")
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    return Stack(
        frames=tuple(frame for frame, _ in once),
        places=np.array([geometry.along for _, geometry in once]),
        rows=first.rows,
        columns=first.columns,
        spacing=(first.spacing[0], first.spacing[1]),
        directions=np.stack([row, column, np.cross(row, column)]),
        distance=slice_distance([geometry for _, geometry in once]),
        repeated=repeated,
    )


_Placed = list[tuple[Frame, FrameGeometry]]


def _each_place_once(placed: _Placed) -> tuple[_Placed | None, int]:
    """The frames without those that repeat another, and how many do; None where two of one place differ."""
    gaps = [after[1].along - before[1].along for before, after in pairwise(placed)]
    apart = [gap for gap in gaps if gap > 1e-3]
    near = _SAME * float(np.median(apart)) if apart else 1e-3
    once = placed[:1]
    for frame, geometry in placed[1:]:
        if geometry.along - once[-1][1].along > near:
            once.append((frame, geometry))
        elif not _same_picture(frame, once[-1][0]):
            return None, 0
    return once, len(placed) - len(once)


def _same_picture(one: Frame, other: Frame) -> bool:
    try:
        return bool(np.array_equal(one.picture.grey(one.number), other.picture.grey(other.number)))
    except PixelsNotReadable as error:
        if isinstance(error.__cause__, MemoryError):
            raise error.__cause__ from error
        return False


def _slanted(geometries: Sequence[FrameGeometry]) -> bool:
    """Whether a slice lies more than a pixel beside the first, seen along the normal."""
    first = geometries[0]
    row, column = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    away = np.array([geometry.position for geometry in geometries]) - np.array(first.position)
    return bool((np.abs(away @ row) > first.spacing[1]).any() or (np.abs(away @ column) > first.spacing[0]).any())


def _refused(because: str) -> Refused:
    return Refused("geometry", f"Not read, because {because}.")
