"""What a model outlines, as a Segmentation, with the volume of each segment measured.

The masks are the model's; where they lie is their images'. The structured report refers to the segments (TID 1411).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from highdicom.color import CIELabColor
from pydicom.dataset import Dataset
from pydicom.pixels.utils import pack_bits
from pydicom.uid import SegmentationStorage

from fhir_records.errors import RenderingError
from fhir_records.model import Code, ImageRef, Report
from fhir_records.renderings import codes, plain_words, source_header
from fhir_records.renderings.dicom_file import (
    DicomObject,
    add_common,
    check_evidence,
    file_bytes,
    lo,
    object_uid,
    referenced_instances,
    site_of,
)
from fhir_records.renderings.frame_geometry import add_functional_groups
from fhir_records.renderings.frame_place import FrameGeometry, geometry_of, same_plane, slice_distance
from fhir_records.renderings.image_library import concept
from fhir_records.renderings.kinds import FIRST_SERIES_NUMBER, SEGMENTATION
from fhir_records.renderings.source_header import put

_LABEL: Final = "SEGMENTATION"
# What the result's volume, which is rounded, may differ from that of the masks.
_SAME_MM3: Final = 0.1
_SAME_SHARE: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Segment:
    """One thing that a model outlined over the slices of a series."""

    label: str  # the model's own word
    code: Code  # what it is
    category: Code  # PS3.16 CID 7150: what kind of thing that is
    tracking_id: str
    tracking_uid: str  # stable across revisions (PS3.16 TID 4108)
    masks: Mapping[ImageRef, npt.NDArray[np.bool_]]  # (rows, columns) of each frame that it was looked for in
    wording: str = ""  # in plain words; "": the code's meaning
    site: Code | None = None  # None: that of the result
    colour: tuple[int, int, int] | None = None  # red, green, blue, 0 to 255: how it is best shown
    volume_mm3: float | None = None  # as the result says it; None: only the masks do


@dataclass(frozen=True, slots=True)
class MeasuredSegment:
    """A segment as the structured report speaks of it."""

    segment: Segment
    number: int  # in the Segmentation, from 1
    volume_mm3: float
    sop_uid: str  # of the Segmentation
    series_uid: str
    sources: tuple[ImageRef, ...]  # the frames that it was found in


def measured(report: Report, evidence: Sequence[Dataset], segments: Sequence[Segment]) -> tuple[MeasuredSegment, ...]:
    """The volumes of the segments that were found, in mm3: their voxels, as thick as the slices are apart.

    Empty masks are no segment. Raises RenderingError where a frame does not say where it lies, or does not lie in the
    stack of the others, and where the result says another volume than its masks have: all must say the same.
    """
    found = []
    for segment in segments:
        frames = _stack(evidence, segment)
        sources = tuple(frame.image for frame in frames if segment.masks[frame.image].any())
        if not sources:
            continue
        area = frames[0].spacing[0] * frames[0].spacing[1]
        voxels = sum(int(segment.masks[image].sum()) for image in sources)
        found.append((segment, _agreed(segment, voxels * area * slice_distance(frames)), sources))
    return tuple(
        MeasuredSegment(
            segment=segment,
            number=number,
            volume_mm3=volume,
            sop_uid=object_uid(report, SEGMENTATION, "instance"),
            series_uid=object_uid(report, SEGMENTATION, "series"),
            sources=sources,
        )
        for number, (segment, volume, sources) in enumerate(found, start=1)
    )


def _agreed(segment: Segment, measured_mm3: float) -> float:
    """The volume that the result says, where the masks have it, too."""
    said = segment.volume_mm3
    if said is None:
        return measured_mm3
    if abs(said - measured_mm3) > max(_SAME_MM3, _SAME_SHARE * measured_mm3):
        raise RenderingError("A segment's masks have another volume than the result says.")
    return said


def render_seg(report: Report, evidence: Sequence[Dataset], segments: Sequence[Segment]) -> DicomObject | None:
    """The segments as a binary Segmentation: same study, new series; None where nothing was outlined.

    Only frames with something in them are written (PS3.3 section A.51.5.1). Raises RenderingError as `measured`.
    """
    check_evidence(report, evidence)
    found = measured(report, evidence, segments)
    if not found:
        return None
    first = evidence[0]
    headers = {header.SOPInstanceUID: header for header in evidence}
    ds = source_header.patient_and_study(first)
    number = FIRST_SERIES_NUMBER[SEGMENTATION]
    add_common(ds, report, first, kind=SEGMENTATION, modality="SEG", series_number=number)
    ds.SOPClassUID = SegmentationStorage
    ds.DeviceSerialNumber = report.result.algorithm.device_uid
    source_header.add_body_part(ds, site_of(report.result), first)
    _add_image(ds, report)
    ds.SegmentSequence = [_segment(report, one) for one in found]
    frames = [(one, frame) for one in found for frame in _stack(evidence, one.segment) if frame.image in one.sources]
    add_functional_groups(
        ds,
        [frame for _, frame in frames],
        organization_uid=object_uid(report, SEGMENTATION, "dimensions"),
        derivation=concept(codes.SEGMENTATION_DERIVATION),
    )
    _add_segment_dimension(ds, [one.number for one, _ in frames])
    if len(frames) > 1:
        distance = slice_distance(_stack(evidence, found[0].segment))
        ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = f"{distance:.6g}"
    ds.ReferencedSeriesSequence = referenced_instances([headers[frame.image.sop_uid] for _, frame in frames])
    ds.PixelData = pack_bits(np.stack([one.segment.masks[frame.image] for one, frame in frames]).astype(np.uint8))
    content = file_bytes(ds, source_header.character_set(first))
    return DicomObject(SEGMENTATION, ds.SOPInstanceUID, ds.SOPClassUID, content)


def _stack(evidence: Sequence[Dataset], segment: Segment) -> tuple[FrameGeometry, ...]:
    """The frames that a segment was looked for in, in their order in the patient."""
    headers = {header.SOPInstanceUID: header for header in evidence}
    if any(image.sop_uid not in headers for image in segment.masks):
        raise RenderingError("A mask is of an image that is not in the study's revision.")
    placed = [geometry_of(headers[image.sop_uid], image) for image in segment.masks]
    frames = [frame for frame in placed if frame is not None]
    if not frames or len(frames) < len(placed) or len(same_plane(frames)) < len(frames):
        raise RenderingError("A segment's images do not say that they lie in one stack.")
    if any(segment.masks[frame.image].shape != (frame.rows, frame.columns) for frame in frames):
        raise RenderingError("A mask has not the rows and columns of its image.")
    return tuple(sorted(frames, key=lambda frame: frame.along))


def _add_image(ds: Dataset, report: Report) -> None:
    """Segmentation Image and Image Pixel (PS3.3 sections C.8.20.2 and C.7.6.3)."""
    ds.ImageType = ["DERIVED", "PRIMARY"]
    ds.SegmentationType = "BINARY"
    ds.SegmentsOverlap = "UNDEFINED"
    ds.ContentLabel = _LABEL
    put(ds, "ContentDescription", lo(plain_words.title(report.result)))
    ds.ContentCreatorName = ""
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 1, 1, 0, 0
    ds.LossyImageCompression = "00"
    ds.BurnedInAnnotation = "NO"
    put(ds, "ImageComments", "\n".join((*plain_words.sentences(report.result), report.installation.statement)))


def _segment(report: Report, one: MeasuredSegment) -> Dataset:
    """An item of Segment Sequence (PS3.3 section C.8.20.4)."""
    algorithm, segment, item = report.result.algorithm, one.segment, Dataset()
    item.SegmentNumber = one.number
    put(item, "SegmentLabel", lo(segment.wording or segment.code.meaning))
    put(item, "SegmentDescription", lo(segment.label))
    item.SegmentAlgorithmType = "AUTOMATIC"
    put(item, "SegmentAlgorithmName", lo(f"{algorithm.name} {algorithm.version}"))
    item.SegmentedPropertyCategoryCodeSequence = [concept(segment.category)]
    item.SegmentedPropertyTypeCodeSequence = [concept(segment.code)]
    item.AnatomicRegionSequence = [concept(segment.site or site_of(report.result))]
    if segment.colour is not None:
        item.RecommendedDisplayCIELabValue = list(CIELabColor.from_rgb(*segment.colour).value)
    put(item, "TrackingID", segment.tracking_id)
    item.TrackingUID = segment.tracking_uid
    return item


def _add_segment_dimension(ds: Dataset, numbers: Sequence[int]) -> None:
    """Frames are indexed by segment first, then by place."""
    index = Dataset()
    index.DimensionOrganizationUID = ds.DimensionOrganizationSequence[0].DimensionOrganizationUID
    index.DimensionIndexPointer = 0x0062000B  # ReferencedSegmentNumber
    index.FunctionalGroupPointer = 0x0062000A  # SegmentIdentificationSequence
    index.DimensionDescriptionLabel = "Referenced Segment Number"
    ds.DimensionIndexSequence = [index, *ds.DimensionIndexSequence]
    # Frames of several segments may share a place, so that the stack is not one of three dimensions.
    del ds.DimensionOrganizationType
    for number, group in zip(numbers, ds.PerFrameFunctionalGroupsSequence, strict=True):
        identification, content = Dataset(), group.FrameContentSequence[0]
        identification.ReferencedSegmentNumber = number
        group.SegmentIdentificationSequence = [identification]
        content.DimensionIndexValues = [number, content.DimensionIndexValues]
