"""Measured segments in a structured report: a volumetric group (TID 1411) each, which refers to the Segmentation.

A group says the volume and nothing of presence: that is said once, by the finding's own group.
"""

from __future__ import annotations

from collections.abc import Sequence

import highdicom.sr as hd
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from fhir_records.model import Report
from fhir_records.renderings import codes
from fhir_records.renderings.dicom_file import site_of
from fhir_records.renderings.image_library import concept
from fhir_records.renderings.segmentation import MeasuredSegment


def volume_groups(
    report: Report, segments: Sequence[MeasuredSegment]
) -> list[hd.VolumetricROIMeasurementsAndQualitativeEvaluations]:
    """TID 1411: what each segment is, where, by which algorithm, its volume in mm3, and the images that it lies in."""
    algorithm = report.result.algorithm
    return [
        hd.VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.TrackingIdentifier(uid=one.segment.tracking_uid, identifier=one.segment.tracking_id),
            referenced_segment=hd.ReferencedSegment(
                sop_class_uid=SegmentationStorage,
                sop_instance_uid=one.sop_uid,
                segment_number=one.number,
                source_images=[
                    hd.SourceImageForSegmentation(
                        image.sop_class_uid, image.sop_uid, [image.frame] if image.frame is not None else None
                    )
                    for image in one.sources
                ],
            ),
            finding_type=concept(one.segment.code),
            finding_sites=[hd.FindingSite(anatomic_location=concept(one.segment.site or site_of(report.result)))],
            algorithm_id=hd.AlgorithmIdentification(
                name=algorithm.name, version=algorithm.version, manufacturer=algorithm.manufacturer
            ),
            measurements=[_volume(one)],
        )
        for one in segments
    ]


def segmentation_header(report: Report, segments: Sequence[MeasuredSegment]) -> list[Dataset]:
    """The Segmentation as a header to be listed as evidence; none where there are no segments."""
    if not segments:
        return []
    header = Dataset()
    header.StudyInstanceUID = report.study.study_uid
    header.SeriesInstanceUID = segments[0].series_uid
    header.SOPClassUID, header.SOPInstanceUID = SegmentationStorage, segments[0].sop_uid
    return [header]


def _volume(one: MeasuredSegment) -> hd.Measurement:
    # To a tenth of a cubic millimetre: the voxels are larger.
    return hd.Measurement(
        name=concept(codes.VOLUME), value=round(one.volume_mm3, 1), unit=concept(codes.CUBIC_MILLIMETER)
    )
