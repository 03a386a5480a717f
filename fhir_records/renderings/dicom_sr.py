"""A result as a DICOM structured report: Comprehensive 3D SR, root TID 1500, after IHE AI Results.

The templates come from highdicom; the document around them is put together here, because highdicom's own would write
the clock into it and pass the patient's name through its log. The same report gives the same bytes, for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import highdicom.sr as hd
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from fhir_records.errors import RenderingError
from fhir_records.identities import name_uid
from fhir_records.model import Code, Finding, Presence, Report, Result, ResultStatus
from fhir_records.renderings import codes, plain_words, source_header
from fhir_records.renderings.dicom_file import (
    DicomObject,
    add_common,
    check_evidence,
    evidence_of,
    file_bytes,
    object_uid,
)
from fhir_records.renderings.image_library import concept, image_library, images_by_instance
from fhir_records.renderings.segmentation import MeasuredSegment
from fhir_records.renderings.signed_by import marked_region, person_observer, predecessors, verifying_observer
from fhir_records.renderings.sr_segments import segmentation_header, volume_groups

KIND: Final = "dicom_sr"

# Far above what scanners number, so that our series stands last in a list.
_FIRST_SERIES_NUMBER: Final = 9001


def render_sr(report: Report, evidence: Sequence[Dataset], segments: Sequence[MeasuredSegment] = ()) -> DicomObject:
    """The result as an SR document: same study, new series; a refusal is written too.

    `evidence` are the headers (without pixels) of `report.instances`, in the same order. The images read, or all where
    none was, stand in the image library (TID 1600); the key images in the measurement group (TID 1501). `segments` are
    those of the result's Segmentation, with their volumes, a group each (TID 1411).

    A signed result is VERIFIED by its signer, a finding that a person made has that person as its observer, and the
    reports that it takes the place of are named. What was rejected is not said in DICOM: it is withdrawn.

    Raises RenderingError where the evidence does not match the report, there is no image to speak of, or the result is
    rejected, or signed by nobody.
    """
    _check(report, evidence)
    first = evidence[0]
    ds = source_header.patient_and_study(first)
    _add_document(ds, report, first)
    ds.CurrentRequestedProcedureEvidenceSequence = evidence_of(ds, [*evidence, *segmentation_header(report, segments)])
    _add_content(ds, report, evidence, segments)
    content = file_bytes(ds, source_header.character_set(first))
    return DicomObject(KIND, ds.SOPInstanceUID, ds.SOPClassUID, content)


def document_uid(report: Report, part: str) -> str:
    """The UID of a `part` ("instance" or "series") of the report's document (design: words and identities)."""
    return object_uid(report, KIND, part)


def _check(report: Report, evidence: Sequence[Dataset]) -> None:
    status = report.result.status
    if status is ResultStatus.ENTERED_IN_ERROR:
        raise RenderingError(f"A result with status {status.value!r} is not written as an SR; it is withdrawn.")
    if report.result.is_signed and report.result.signature is None:
        raise RenderingError(f"A result with status {status.value!r} is not written as an SR without its signer.")
    check_evidence(report, evidence)


def _add_document(ds: Dataset, report: Report, source: Dataset) -> None:
    """SOP Common, SR Document Series, General Equipment and SR Document General (PS3.3 section A.35.13)."""
    add_common(ds, report, source, kind=KIND, modality="SR", series_number=_FIRST_SERIES_NUMBER)
    ds.SOPClassUID = Comprehensive3DSRStorage
    ds.ReferencedPerformedProcedureStepSequence = []

    ds.CompletionFlag = "COMPLETE"
    signature = report.result.signature if report.result.is_signed else None
    ds.VerificationFlag = "VERIFIED" if signature else "UNVERIFIED"
    ds.PreliminaryFlag = "FINAL" if signature and report.installation.signed_is_final else "PRELIMINARY"
    if signature:
        ds.VerifyingObserverSequence = [verifying_observer(signature)]
    if report.replaces:
        ds.PredecessorDocumentsSequence = predecessors(report)
    ds.PerformedProcedureCodeSequence = []


def _add_content(ds: Dataset, report: Report, evidence: Sequence[Dataset], segments: Sequence[MeasuredSegment]) -> None:
    """The content tree, TID 1500; its root is the document's own data set (PS3.3 section C.17.3)."""
    by_uid = {header.SOPInstanceUID: header for header in evidence}
    images = images_by_instance(report.result.images_read) or dict.fromkeys(by_uid, ())
    seen = by_uid[next(iter(images))]
    procedures = source_header.procedure_codes(seen) or (codes.imaging_procedure(str(seen.get("Modality") or "")),)
    tree = hd.MeasurementReport(
        observation_context=hd.ObservationContext(observer_device_context=observer(report)),
        procedure_reported=[concept(code) for code in procedures],
        imaging_measurements=[_measurement_group(report), *volume_groups(report, segments)],
        title=concept(codes.IMAGING_MEASUREMENT_REPORT),
    )[0]
    children = list(tree.ContentSequence)
    # TID 1500 has the image library before the measurements.
    library = image_library([(by_uid[uid], frames) for uid, frames in images.items()])
    tree.ContentSequence = hd.ContentSequence([*children[:-1], library, children[-1]])
    ds.update(tree)
    # The items are statements of their own, not one running text, which is what highdicom writes (PS3.3 C.18.8).
    for element in ds.iterall():
        if element.keyword == "ContinuityOfContent":
            element.value = "SEPARATE"


def observer(report: Report) -> hd.ObserverContext:
    """TID 1002: the observer is the device that the model is (TID 1004)."""
    algorithm = report.result.algorithm
    device = hd.DeviceObserverIdentifyingAttributes(
        uid=algorithm.device_uid,
        name=algorithm.title,
        manufacturer_name=algorithm.manufacturer,
        model_name=algorithm.name,
        physical_location=report.installation.organization or None,
    )
    return hd.ObserverContext(concept(codes.DEVICE), device)


Group: TypeAlias = hd.MeasurementsAndQualitativeEvaluations | hd.PlanarROIMeasurementsAndQualitativeEvaluations


def _measurement_group(report: Report) -> Group:
    """TID 1501: what was looked for, where, by whom, and the answer, said once; TID 1410 where a person marked it."""
    result, algorithm = report.result, report.result.algorithm
    question, site, presence = _question(result)
    said: dict[str, Any] = {
        "tracking_identifier": _tracking(report),
        "finding_type": concept(question),
        "finding_sites": [hd.FindingSite(anatomic_location=concept(site))],
        "measurements": list(_probability(result.finding)),
        "qualitative_evaluations": [hd.QualitativeEvaluation(concept(question), concept(codes.PRESENCE[presence]))],
    }
    if result.author is None:
        said["algorithm_id"] = hd.AlgorithmIdentification(
            name=algorithm.name, version=algorithm.version, manufacturer=algorithm.manufacturer
        )
    group: Group
    if result.finding is not None and result.finding.region is not None:
        region = marked_region(result.finding.region)
        group = hd.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **said)
    else:
        group = hd.MeasurementsAndQualitativeEvaluations(source_images=_source_images(report), **said)
    if result.author is not None:
        # Observation context stands first, and holds for the group alone (PS3.3 section C.17.5).
        context = person_observer(result.author)
        group[0].ContentSequence = hd.ContentSequence([*context, *group[0].ContentSequence])
    group[0].ContentSequence.extend(_comments((*plain_words.sentences(result), report.installation.statement)))
    return group


def _source_images(report: Report) -> list[hd.SourceImageForMeasurementGroup]:
    key_images = images_by_instance(report.result.finding.key_images) if report.result.finding else {}
    classes = {instance.sop_uid: instance.sop_class_uid for instance in report.instances}
    return [
        hd.SourceImageForMeasurementGroup(classes[uid], uid, list(frames) or None) for uid, frames in key_images.items()
    ]


def _question(result: Result) -> tuple[Code, Code, Presence]:
    """What was looked for, where, and the answer; for a refusal, that nobody knows."""
    if result.finding is not None:
        return result.finding.code, result.finding.site, result.finding.presence
    if result.refusal is not None:
        return result.refusal.question, result.refusal.site, Presence.UNDETERMINED
    raise RenderingError("A result has either a finding or a refusal.")


def _tracking(report: Report) -> hd.TrackingIdentifier:
    """TID 4108; a refusal carries none and gets that of the model's first finding, should later images be read."""
    result = report.result
    if result.finding is not None:
        return hd.TrackingIdentifier(uid=result.finding.tracking_uid, identifier=result.finding.tracking_id)
    name = result.algorithm.name
    uid = name_uid(report.installation.namespace, report.study.study_uid, name, "finding", 1)
    return hd.TrackingIdentifier(uid=uid, identifier=f"{name} 1")


def _probability(finding: Finding | None) -> Iterator[hd.Measurement]:
    """TID 300. The number alone would read as that of the finding, so it says of what it is the probability."""
    if finding is None or finding.probability is None:
        return
    percent = plain_words.percent(finding.probability)
    measurement = hd.Measurement(name=concept(codes.PROBABILITY), value=percent, unit=concept(codes.PERCENT))
    about = plain_words.about(finding)
    modifier = hd.TextContentItem(concept(codes.COMMENT), about, hd.RelationshipTypeValues.HAS_CONCEPT_MOD)
    measurement[0].ContentSequence = hd.ContentSequence([modifier])
    yield measurement


def _comments(texts: Iterable[str]) -> Iterator[hd.TextContentItem]:
    for text in texts:
        if text:
            yield hd.TextContentItem(concept(codes.COMMENT), text, hd.RelationshipTypeValues.CONTAINS)
