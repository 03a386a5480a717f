"""Where frames lie in the patient, written into objects that are made on the same frames; `frame_place` reads it."""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import format_number_as_ds

from fhir_records.renderings import codes
from fhir_records.renderings.frame_place import FrameGeometry, slice_distance
from fhir_records.renderings.image_library import concept


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
