"""Where a frame lies in the patient, read from its header. No library for objects is loaded: models need this, too."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from fhir_records.model import ImageRef


@dataclass(frozen=True, slots=True)
class FrameGeometry:
    """One frame of a source image, and its place."""

    image: ImageRef
    rows: int
    columns: int
    frame_of_reference_uid: str
    position: tuple[float, ...]  # of the first pixel's centre: x, y, z in mm
    orientation: tuple[float, ...]  # of the rows and of the columns: six direction cosines
    spacing: tuple[float, ...]  # between rows, between columns, in mm
    thickness: float | None  # in mm

    @property
    def along(self) -> float:
        """Place along the normal of the frame, in mm: what frames of one stack are ordered by."""
        row, column = np.array(self.orientation[:3]), np.array(self.orientation[3:])
        return float(np.cross(row, column) @ np.array(self.position))


def geometry_of(header: Dataset, image: ImageRef) -> FrameGeometry | None:
    """The place of this frame of `header`'s image; None where the header does not say it whole.

    Single-frame images say it in the Image Plane module, enhanced ones in functional groups (PS3.3 sections C.7.6.2,
    C.7.6.16.2.1, .3 and .4).
    """
    groups = _groups(header, image.frame)
    position = _numbers(_from(groups, header, "PlanePositionSequence", "ImagePositionPatient"), 3)
    orientation = _numbers(_from(groups, header, "PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    spacing = _numbers(_from(groups, header, "PixelMeasuresSequence", "PixelSpacing"), 2)
    thickness = _numbers(_from(groups, header, "PixelMeasuresSequence", "SliceThickness"), 1)
    reference, rows, columns = header.get("FrameOfReferenceUID"), header.get("Rows"), header.get("Columns")
    if not (position and orientation and spacing and reference and rows and columns) or min(spacing) <= 0:
        return None
    return FrameGeometry(
        image=image,
        rows=int(rows),
        columns=int(columns),
        frame_of_reference_uid=str(reference),
        position=position,
        orientation=orientation,
        spacing=spacing,
        thickness=thickness[0] if thickness and thickness[0] > 0 else None,
    )


def pixel_aspect(header: Dataset, frame: int | None) -> float:
    """Height of a pixel over its width: of Pixel Spacing, of Imager Pixel Spacing, of Pixel Aspect Ratio, else 1."""
    groups = _groups(header, frame)
    for value in (
        _from(groups, header, "PixelMeasuresSequence", "PixelSpacing"),
        header.get("ImagerPixelSpacing"),
        header.get("PixelAspectRatio"),
    ):
        spacing = _numbers(value, 2)
        if spacing and min(spacing) > 0 and 0.01 <= spacing[0] / spacing[1] <= 100:
            return spacing[0] / spacing[1]
    return 1.0


def _groups(header: Dataset, frame: int | None) -> tuple[Dataset, ...]:
    groups = []
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or ()
    if frame is not None and 0 < frame <= len(per_frame):
        groups.append(per_frame[frame - 1])
    groups.extend(header.get("SharedFunctionalGroupsSequence") or ())
    return tuple(groups)


def _from(groups: Sequence[Dataset], header: Dataset, sequence: str, keyword: str) -> Any:
    for group in groups:
        for item in group.get(sequence) or ():
            if item.get(keyword) is not None:
                return item.get(keyword)
    return header.get(keyword)


def _numbers(value: Any, count: int) -> tuple[float, ...] | None:
    values = [value] if count == 1 else value
    try:
        numbers = tuple(float(one) for one in values)
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(np.isfinite(numbers)) else None


def same_plane(frames: Sequence[FrameGeometry]) -> tuple[FrameGeometry, ...]:
    """Those frames that can share one object with the first: its series, matrix, spacing, orientation and reference."""
    first = frames[0]

    def shared(frame: FrameGeometry) -> tuple[object, ...]:
        series, reference = frame.image.series_uid, frame.frame_of_reference_uid
        return series, frame.rows, frame.columns, reference, frame.orientation, frame.spacing, frame.thickness

    return tuple(frame for frame in frames if shared(frame) == shared(first))


def slice_distance(frames: Sequence[FrameGeometry]) -> float:
    """The distance of neighbouring frames of a stack, in mm; of a single one its thickness, or 1 mm."""
    places = sorted({frame.along for frame in frames})
    gaps = [after - before for before, after in itertools.pairwise(places)]
    return float(np.median(gaps)) if gaps else frames[0].thickness or 1.0
