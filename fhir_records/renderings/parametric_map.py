"""The saliency of a result's key images as a Parametric Map, frame by frame on the images that it was seen in.

A map says where the network saw evidence for its answer. It outlines nothing and measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ParametricMapStorage

from fhir_records.model import Report, SaliencyMap
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
from fhir_records.renderings.frame_place import FrameGeometry, geometry_of, same_plane
from fhir_records.renderings.image_library import concept
from fhir_records.renderings.kinds import FIRST_SERIES_NUMBER, PARAMETRIC_MAP
from fhir_records.renderings.result_page import stretched
from fhir_records.renderings.source_header import put

_LABEL: Final = "CLASS_ACTIVATION"  # LUT Label and Content Label, at most 16 characters


def render_map(report: Report, evidence: Sequence[Dataset], maps: Sequence[SaliencyMap]) -> DicomObject | None:
    """The maps of the result's key images as a Parametric Map Image: same study, new series.

    None where there is nothing to show: the model gave no map, a person has changed what the map speaks for, or no
    key image says where it lies in the patient, which a Parametric Map must. Maps of images in another plane than the
    most telling one are left out, for the frames of one object share it.

    Raises RenderingError where the evidence does not match the report, or a map's bytes its shape.
    """
    check_evidence(report, evidence)
    finding = report.result.finding
    headers = {header.SOPInstanceUID: header for header in evidence}
    spoken_for = [one for one in maps if finding is not None and one.label == finding.label and one.peak > 0]
    placed = {one.image: geometry_of(headers[one.image.sop_uid], one.image) for one in spoken_for}
    frames = [frame for frame in placed.values() if frame is not None]
    if not frames:
        return None
    ordered = sorted(same_plane(frames), key=lambda frame: frame.along)
    by_image = {one.image: one for one in spoken_for}
    first = evidence[0]
    ds = source_header.patient_and_study(first)
    number = FIRST_SERIES_NUMBER[PARAMETRIC_MAP]
    add_common(ds, report, first, kind=PARAMETRIC_MAP, modality="OT", series_number=number)
    ds.SOPClassUID = ParametricMapStorage
    ds.DeviceSerialNumber = report.result.algorithm.device_uid
    source_header.add_body_part(ds, site_of(report.result), first)
    _add_image(ds, report)
    add_functional_groups(
        ds,
        ordered,
        organization_uid=object_uid(report, PARAMETRIC_MAP, "dimensions"),
        derivation=concept(codes.CLASS_ACTIVATION),
    )
    shared = ds.SharedFunctionalGroupsSequence[0]
    shared.RealWorldValueMappingSequence = [_mapping(max(by_image[frame.image].peak for frame in ordered))]
    shared.PixelValueTransformationSequence = [_identity()]
    shared.FrameVOILUTSequence = [_window(max(by_image[frame.image].peak for frame in ordered))]
    shared.ParametricMapFrameTypeSequence = [_frame_type()]
    ds.ReferencedSeriesSequence = referenced_instances([headers[frame.image.sop_uid] for frame in ordered])
    ds.FloatPixelData = b"".join(_values(by_image[frame.image], frame) for frame in ordered)
    content = file_bytes(ds, source_header.character_set(first))
    return DicomObject(PARAMETRIC_MAP, ds.SOPInstanceUID, ds.SOPClassUID, content)


def _add_image(ds: Dataset, report: Report) -> None:
    """Parametric Map Image and Floating Point Image Pixel (PS3.3 sections C.8.32.2 and C.7.6.24)."""
    ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    ds.ContentLabel = _LABEL
    put(ds, "ContentDescription", lo(plain_words.title(report.result)))
    ds.ContentCreatorName = ""
    ds.ContentQualification = "RESEARCH"
    put(ds, "ImageComments", "\n".join((*plain_words.sentences(report.result), report.installation.statement)))
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.BitsAllocated = 1, "MONOCHROME2", 32
    ds.PresentationLUTShape = "IDENTITY"
    ds.BurnedInAnnotation, ds.RecognizableVisualFeatures = "NO", "NO"
    ds.LossyImageCompression = "00"
    ds.AcquisitionContextSequence = []


def _values(found: SaliencyMap, frame: FrameGeometry) -> bytes:
    """The frame's evidence in logits, float32 little endian."""
    values = stretched(found, frame.rows, frame.columns) * np.float32(found.peak)
    return values.astype("<f4").tobytes()


def _mapping(peak: float) -> Dataset:
    """Stored values are the evidence itself (PS3.3 section C.7.6.16.2.11)."""
    item, quantity = Dataset(), Dataset()
    item.LUTLabel, item.LUTExplanation = _LABEL, "Evidence (logit) for the answer; 0: none, or against it"
    item.MeasurementUnitsCodeSequence = [concept(codes.NO_UNITS)]
    item.DoubleFloatRealWorldValueFirstValueMapped = 0.0
    item.DoubleFloatRealWorldValueLastValueMapped = float(np.float32(peak))
    item.RealWorldValueSlope, item.RealWorldValueIntercept = 1.0, 0.0
    quantity.ValueType = "CODE"
    quantity.ConceptNameCodeSequence = [concept(codes.QUANTITY)]
    quantity.ConceptCodeSequence = [concept(codes.CLASS_ACTIVATION)]
    item.QuantityDefinitionSequence = [quantity]
    return item


def _identity() -> Dataset:
    item = Dataset()
    item.RescaleIntercept, item.RescaleSlope, item.RescaleType = "0", "1", "US"
    return item


def _window(peak: float) -> Dataset:
    item = Dataset()
    half = f"{max(peak, 1e-4) / 2:.6g}"
    item.WindowCenter, item.WindowWidth = half, f"{max(peak, 1e-4):.6g}"
    return item


def _frame_type() -> Dataset:
    item = Dataset()
    item.FrameType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    return item
