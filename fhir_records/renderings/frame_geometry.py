"""Where a frame lies in the patient: read from its header, and written into objects made on the same frames."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import format_number_as_ds

from fhir_records.model import ImageRef
from fhir_records.renderings import codes
from fhir_records.renderings.image_library import concept


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


def add_functional_groups(
    ds: Dataset, frames: Sequence[FrameGeometry], *, organization_uid: str, derivation: Dataset
) -> None:
    """Frame of Reference, Multi-frame Functional Groups and Multi-frame Dimension (PS3.3 C.7.4.1, C.7.6.16, C.7.6.17).

    `frames` are in the order of the object's own; they share what `same_plane` compares. Each names the source frame
    that it was made from. Frames are indexed by their place in the patient.
    """
    first = frames[0]
    ds.FrameOfReferenceUID = first.frame_of_reference_uid
    ds.PositionReferenceIndicator = ""
    ds.NumberOfFrames = len(frames)
    ds.Rows, ds.Columns = first.rows, first.columns

    organization = Dataset()
    organization.DimensionOrganizationUID = organization_uid
    ds.DimensionOrganizationSequence = [organization]
    ds.DimensionOrganizationType = "3D"
    index = Dataset()
    index.DimensionOrganizationUID = organization_uid
    index.DimensionIndexPointer = 0x00200032  # ImagePositionPatient
    index.FunctionalGroupPointer = 0x00209113  # PlanePositionSequence
    index.DimensionDescriptionLabel = "Image Position Patient"
    ds.DimensionIndexSequence = [index]

    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [_ds(value) for value in first.spacing]
    measures.SliceThickness = _ds(first.thickness or slice_distance(frames))
    orientation.ImageOrientationPatient = [_ds(value) for value in first.orientation]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    ds.SharedFunctionalGroupsSequence = [shared]

    places = {place: number for number, place in enumerate(sorted({frame.along for frame in frames}), start=1)}
    ds.PerFrameFunctionalGroupsSequence = [_per_frame(frame, places[frame.along], derivation) for frame in frames]


def slice_distance(frames: Sequence[FrameGeometry]) -> float:
    """The distance of neighbouring frames of a stack, in mm; of a single one its thickness, or 1 mm."""
    places = sorted({frame.along for frame in frames})
    gaps = [after - before for before, after in itertools.pairwise(places)]
    return float(np.median(gaps)) if gaps else frames[0].thickness or 1.0


def _per_frame(frame: FrameGeometry, place: int, derivation: Dataset) -> Dataset:
    content, position, source, derived, group = (Dataset() for _ in range(5))
    content.DimensionIndexValues = [place]
    position.ImagePositionPatient = [_ds(value) for value in frame.position]
    source.ReferencedSOPClassUID = UID(frame.image.sop_class_uid)
    source.ReferencedSOPInstanceUID = UID(frame.image.sop_uid)
    if frame.image.frame is not None:
        source.ReferencedFrameNumber = frame.image.frame
    source.PurposeOfReferenceCodeSequence = [concept(codes.SOURCE_IMAGE)]
    source.SpatialLocationsPreserved = "YES"
    derived.SourceImageSequence = [source]
    derived.DerivationCodeSequence = [derivation]
    group.FrameContentSequence = [content]
    group.PlanePositionSequence = [position]
    group.DerivationImageSequence = [derived]
    return group


def _ds(value: float) -> str:
    return format_number_as_ds(float(value))
