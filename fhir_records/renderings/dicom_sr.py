"""A result as a DICOM structured report: Comprehensive 3D SR, root TID 1500, after IHE AI Results.

The templates come from highdicom; the document around them is put together here, because highdicom's own would write
the clock into it and pass the patient's name through its log. The same report gives the same bytes, for ever.
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import highdicom.sr as hd
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, Comprehensive3DSRStorage, ExplicitVRLittleEndian

from fhir_records.errors import RenderingError
from fhir_records.identities import name_uid
from fhir_records.model import Code, Finding, Presence, Report, Result, ResultStatus
from fhir_records.renderings import codes, plain_words, source_header
from fhir_records.renderings.image_library import concept, image_library, images_by_instance
from fhir_records.renderings.source_header import put

KIND: Final = "dicom_sr"

# PS3.7 section D.3.3.2: names this implementation in the files that it writes.
IMPLEMENTATION_CLASS_UID: Final = UID("2.25.303627088232571111756063201835477371248")
IMPLEMENTATION_VERSION_NAME: Final = "WETREAD"

# Far above what scanners number, so that our series stands last in a list.
_FIRST_SERIES_NUMBER: Final = 9000

# Value representations that SpecificCharacterSet governs (PS3.5 section 6.1.2.3).
_TEXT_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


@dataclass(frozen=True, slots=True)
class SrDocument:
    """A rendered report, as it is stored and sent."""

    sop_uid: str
    sop_class_uid: str
    content: bytes  # PS3.10 file, Explicit VR Little Endian


def render_sr(report: Report, evidence: Sequence[Dataset]) -> SrDocument:
    """The result as an SR document: same study, new series; a refusal is written too.

    `evidence` are the headers (without pixels) of `report.instances`, in the same order. The images read, or all where
    none was, stand in the image library (TID 1600); the key images in the measurement group (TID 1501).

    Raises RenderingError where the evidence does not match the report, there is no image to speak of, or the result's
    status is not `preliminary`.
    """
    _check(report, evidence)
    first = evidence[0]
    ds = source_header.patient_and_study(first)
    _add_document(ds, report, first)
    _add_evidence(ds, evidence)
    _add_content(ds, report, evidence)
    return SrDocument(ds.SOPInstanceUID, ds.SOPClassUID, _file_bytes(ds, source_header.character_set(first)))


def document_uid(report: Report, part: str) -> str:
    """The UID of a `part` ("instance" or "series") of the report's document (design: words and identities).

    Named by what the document is about, not by database ids: a record restored elsewhere gives the same.
    """
    result = report.result
    return name_uid(
        report.installation.namespace,
        KIND,
        part,
        report.study.study_uid,
        report.read.revision,
        result.algorithm.name,
        result.algorithm.version,
        result.version,
        report.destination,
    )


def _check(report: Report, evidence: Sequence[Dataset]) -> None:
    if report.result.status is not ResultStatus.PRELIMINARY:
        status = report.result.status.value
        raise RenderingError(f"A result with status {status!r} is not written as an SR; only preliminary ones are.")
    if not evidence:
        raise RenderingError("An SR refers to images, and the study's revision has none.")
    uids = [(instance.study_uid, instance.sop_uid) for instance in report.instances]
    if uids != [(ds.get("StudyInstanceUID"), ds.get("SOPInstanceUID")) for ds in evidence]:
        raise RenderingError("The headers given as evidence are not those of the report's instances, in their order.")
    finding = report.result.finding
    referenced = {image.sop_uid for image in (*report.result.images_read, *(finding.key_images if finding else ()))}
    if not referenced <= {instance.sop_uid for instance in report.instances}:
        raise RenderingError("The result refers to an image that is not in the study's revision.")


def _add_document(ds: Dataset, report: Report, source: Dataset) -> None:
    """SOP Common, SR Document Series, General Equipment and SR Document General (PS3.3 section A.35.13)."""
    result, algorithm = report.result, report.result.algorithm
    written = source_header.local_time(result.created_at, source, report.study)
    date, time = f"{written:%Y%m%d}", _tm(written)
    ds.SOPClassUID = Comprehensive3DSRStorage
    ds.SOPInstanceUID = document_uid(report, "instance")
    ds.InstanceCreationDate, ds.InstanceCreationTime = date, time

    ds.Modality = "SR"
    ds.SeriesInstanceUID = document_uid(report, "series")
    ds.SeriesNumber = _FIRST_SERIES_NUMBER + report.read.revision
    ds.SeriesDate, ds.SeriesTime = date, time
    ds.SeriesDescription = plain_words.title(result)
    ds.ReferencedPerformedProcedureStepSequence = []

    put(ds, "Manufacturer", _lo(algorithm.manufacturer))
    put(ds, "ManufacturerModelName", _lo(algorithm.title))
    put(ds, "SoftwareVersions", _lo(algorithm.version))
    if report.installation.organization:
        put(ds, "InstitutionName", _lo(report.installation.organization))
    ds.DeviceUID = algorithm.device_uid
    ds.ContributingEquipmentSequence = [_equipment(report)]

    ds.InstanceNumber = result.version
    ds.ContentDate, ds.ContentTime = date, time
    ds.CompletionFlag = "COMPLETE"
    ds.VerificationFlag = "UNVERIFIED"
    ds.PreliminaryFlag = "PRELIMINARY"
    ds.PerformedProcedureCodeSequence = []


def _equipment(report: Report) -> Dataset:
    """The item of Contributing Equipment Sequence that names the model's very weights (PS3.3 section C.12.1)."""
    algorithm = report.result.algorithm
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [concept(codes.PROCESSING_EQUIPMENT)]
    put(item, "Manufacturer", _lo(algorithm.manufacturer))
    put(item, "ManufacturerModelName", _lo(algorithm.title))
    put(item, "SoftwareVersions", _lo(algorithm.version))
    # PS3.3 allows DeviceUID here; dciodvfy does not know that yet, so it stands here as the serial number, and as
    # DeviceUID in the General Equipment module.
    item.DeviceSerialNumber = algorithm.device_uid
    item.ContributionDateTime = f"{report.result.created_at.astimezone(dt.UTC):%Y%m%d%H%M%S.%f}+0000"
    put(item, "ContributionDescription", f"Model {algorithm.name}, weights SHA-256 {algorithm.weights_sha256}")
    return item


def _add_evidence(ds: Dataset, evidence: Sequence[Dataset]) -> None:
    series: dict[str, list[Dataset]] = {}
    for header in evidence:
        reference = Dataset()
        reference.ReferencedSOPClassUID = header.SOPClassUID
        reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
        series.setdefault(header.SeriesInstanceUID, []).append(reference)
    study = Dataset()
    study.StudyInstanceUID = ds.StudyInstanceUID
    study.ReferencedSeriesSequence = []
    for series_uid, references in series.items():
        item = Dataset()
        item.SeriesInstanceUID = series_uid
        item.ReferencedSOPSequence = references
        study.ReferencedSeriesSequence.append(item)
    ds.CurrentRequestedProcedureEvidenceSequence = [study]


def _add_content(ds: Dataset, report: Report, evidence: Sequence[Dataset]) -> None:
    """The content tree, TID 1500; its root is the document's own data set (PS3.3 section C.17.3)."""
    by_uid = {header.SOPInstanceUID: header for header in evidence}
    images = images_by_instance(report.result.images_read) or dict.fromkeys(by_uid, ())
    seen = by_uid[next(iter(images))]
    procedures = source_header.procedure_codes(seen) or (codes.imaging_procedure(str(seen.get("Modality") or "")),)
    tree = hd.MeasurementReport(
        observation_context=_observation_context(report),
        procedure_reported=[concept(code) for code in procedures],
        imaging_measurements=[_measurement_group(report)],
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


def _observation_context(report: Report) -> hd.ObservationContext:
    """TID 1001: the observer is the device that the model is (TID 1004)."""
    algorithm = report.result.algorithm
    device = hd.DeviceObserverIdentifyingAttributes(
        uid=algorithm.device_uid,
        name=algorithm.title,
        manufacturer_name=algorithm.manufacturer,
        model_name=algorithm.name,
        physical_location=report.installation.organization or None,
    )
    return hd.ObservationContext(observer_device_context=hd.ObserverContext(concept(codes.DEVICE), device))


def _measurement_group(report: Report) -> hd.MeasurementsAndQualitativeEvaluations:
    """TID 1501: what was looked for, where, by which algorithm, and the answer, said once."""
    result, algorithm = report.result, report.result.algorithm
    question, site, presence = _question(result)
    key_images = images_by_instance(result.finding.key_images) if result.finding else {}
    classes = {instance.sop_uid: instance.sop_class_uid for instance in report.instances}
    group = hd.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(report),
        finding_type=concept(question),
        finding_sites=[hd.FindingSite(anatomic_location=concept(site))],
        algorithm_id=hd.AlgorithmIdentification(
            name=algorithm.name, version=algorithm.version, manufacturer=algorithm.manufacturer
        ),
        measurements=list(_probability(result.finding)),
        qualitative_evaluations=[hd.QualitativeEvaluation(concept(question), concept(codes.PRESENCE[presence]))],
        source_images=[
            hd.SourceImageForMeasurementGroup(classes[uid], uid, list(frames) or None)
            for uid, frames in key_images.items()
        ],
    )
    group[0].ContentSequence.extend(_comments((*plain_words.sentences(result), report.installation.statement)))
    return group


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
    # Never 0 or 100: a model is not certain, and its calibration has no more digits than these.
    percent = min(max(round(finding.probability * 100, 2), 0.01), 99.99)
    measurement = hd.Measurement(name=concept(codes.PROBABILITY), value=percent, unit=concept(codes.PERCENT))
    about = plain_words.about(finding)
    modifier = hd.TextContentItem(concept(codes.COMMENT), about, hd.RelationshipTypeValues.HAS_CONCEPT_MOD)
    measurement[0].ContentSequence = hd.ContentSequence([modifier])
    yield measurement


def _comments(texts: Iterable[str]) -> Iterator[hd.TextContentItem]:
    for text in texts:
        if text:
            yield hd.TextContentItem(concept(codes.COMMENT), text, hd.RelationshipTypeValues.CONTAINS)


def _file_bytes(ds: Dataset, charset: str | list[str] | None) -> bytes:
    """`ds` as a PS3.10 file: in the source's character set where that can say all its texts, else in UTF-8."""
    texts = _texts(ds)
    if all(text.isascii() for text in texts):
        return _written(ds, charset)
    charset = charset or source_header.LATIN_1
    if all(source_header.can_say(charset, text) for text in texts):
        content = _written(ds, charset)
        # Code extensions have too many rules to trust: what was written is read back before it may leave.
        if _texts(dcmread(io.BytesIO(content))) == texts:
            return content
    return _written(ds, source_header.UTF_8)


def _written(ds: Dataset, charset: str | list[str] | None) -> bytes:
    if charset:
        ds.SpecificCharacterSet = charset
    for keyword in ("PatientName", "ReferringPhysicianName"):
        # A name of pydicom's keeps the bytes that it was first written as.
        put(ds, keyword, str(ds[keyword].value))
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    ds.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def _texts(ds: Dataset) -> list[str]:
    return [str(element.value) for element in ds.iterall() if element.VR in _TEXT_VRS]


def _tm(instant: dt.datetime) -> str:
    fraction = f".{instant.microsecond:06d}" if instant.microsecond else ""
    return f"{instant:%H%M%S}{fraction}"


def _lo(text: str) -> str:
    """`text` as one LO value: a backslash would part it in two, and it has 64 characters (PS3.5 section 6.2)."""
    return text.replace("\\", "/").strip()[:64]
