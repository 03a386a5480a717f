"""What every DICOM object that we write has in common: whose it is, who made it, its UIDs, and its bytes.

No clock and no chance: the same report gives the same bytes, for ever. The patient's name passes through no library
that might log it.
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRLittleEndian

from fhir_records.errors import RenderingError
from fhir_records.identities import name_uid
from fhir_records.model import Code, Report, Result
from fhir_records.renderings import codes, plain_words, source_header
from fhir_records.renderings.image_library import concept
from fhir_records.renderings.source_header import put

# PS3.7 section D.3.3.2: names this implementation in the files that it writes.
IMPLEMENTATION_CLASS_UID: Final = UID("2.25.303627088232571111756063201835477371248")
IMPLEMENTATION_VERSION_NAME: Final = "WETREAD"

# Value representations that SpecificCharacterSet governs (PS3.5 section 6.1.2.3).
_TEXT_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


@dataclass(frozen=True, slots=True)
class DicomObject:
    """A rendered object, as it is stored and sent."""

    kind: str  # as in `kinds`
    sop_uid: str
    sop_class_uid: str
    content: bytes  # PS3.10 file, Explicit VR Little Endian


def object_uid(report: Report, kind: str, part: str) -> str:
    """The UID of a `part` ("instance" or "series") of the report's object of this kind (design: words and identities).

    Named by what the object is about, not by database ids: a record restored elsewhere gives the same.
    """
    result = report.result
    return name_uid(
        report.installation.namespace,
        kind,
        part,
        report.study.study_uid,
        report.read.revision,
        result.algorithm.name,
        result.algorithm.version,
        result.version,
        report.destination,
    )


def check_evidence(report: Report, evidence: Sequence[Dataset]) -> None:
    """See that `evidence` are the headers of the report's instances, in their order.

    Raises RenderingError where they are not, where there are none, or where the result refers to another image.
    """
    if not evidence:
        raise RenderingError("An object about a result refers to images, and the study's revision has none.")
    uids = [(instance.study_uid, instance.sop_uid) for instance in report.instances]
    if uids != [(ds.get("StudyInstanceUID"), ds.get("SOPInstanceUID")) for ds in evidence]:
        raise RenderingError("The headers given as evidence are not those of the report's instances, in their order.")
    finding = report.result.finding
    referenced = {image.sop_uid for image in (*report.result.images_read, *(finding.key_images if finding else ()))}
    if not referenced <= {instance.sop_uid for instance in report.instances}:
        raise RenderingError("The result refers to an image that is not in the study's revision.")


def add_common(ds: Dataset, report: Report, source: Dataset, *, kind: str, modality: str, series_number: int) -> None:
    """SOP Common, General Series and General Equipment (PS3.3 sections C.12.1, C.7.3.1 and C.7.5.1).

    `series_number` is that of the first revision's series. SOPClassUID is the caller's.
    """
    result, algorithm = report.result, report.result.algorithm
    written = source_header.local_time(result.created_at, source, report.study)
    date, time = f"{written:%Y%m%d}", tm(written)
    ds.SOPInstanceUID = object_uid(report, kind, "instance")
    ds.InstanceCreationDate, ds.InstanceCreationTime = date, time

    ds.Modality = modality
    ds.SeriesInstanceUID = object_uid(report, kind, "series")
    ds.SeriesNumber = series_number + report.read.revision - 1
    ds.SeriesDate, ds.SeriesTime = date, time
    ds.SeriesDescription = plain_words.title(result)

    put(ds, "Manufacturer", lo(algorithm.manufacturer))
    put(ds, "ManufacturerModelName", lo(algorithm.title))
    put(ds, "SoftwareVersions", lo(algorithm.version))
    if report.installation.organization:
        put(ds, "InstitutionName", lo(report.installation.organization))
    ds.DeviceUID = algorithm.device_uid
    ds.ContributingEquipmentSequence = [equipment(report)]

    ds.InstanceNumber = result.version
    ds.ContentDate, ds.ContentTime = date, time


def equipment(report: Report) -> Dataset:
    """The item of Contributing Equipment Sequence that names the model's very weights (PS3.3 section C.12.1).

    What it must say stands in IHE AI Results, RAD TF-3 section 6.5.3.1; model name, version and UID are the same as in
    the content tree's TID 1004 and 4019 (table 6.5.3.1-1).
    """
    algorithm = report.result.algorithm
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [concept(codes.PROCESSING_EQUIPMENT)]
    put(item, "Manufacturer", lo(algorithm.manufacturer))
    put(item, "ManufacturerModelName", lo(algorithm.name))
    put(item, "SoftwareVersions", lo(algorithm.version))
    item.DeviceUID = algorithm.device_uid
    result, read = report.result, report.read
    # A signed version is of the time of signing; the model did its part when it read.
    made_at = result.created_at if result.signature is None else read.finished_at or result.created_at
    item.ContributionDateTime = utc(made_at)
    put(item, "ContributionDescription", f"Model {algorithm.name}, weights SHA-256 {algorithm.weights_sha256}")
    return item


def site_of(result: Result) -> Code:
    """Where the result looked. Raises RenderingError where it has neither a finding nor a refusal."""
    if result.finding is not None:
        return result.finding.site
    if result.refusal is not None:
        return result.refusal.site
    raise RenderingError("A result has either a finding or a refusal.")


def utc(instant: dt.datetime) -> str:
    """A DT of the instant that says its own zone, so that the source's does not matter (PS3.5 section 6.2)."""
    return f"{instant.astimezone(dt.UTC):%Y%m%d%H%M%S.%f}+0000"


def referenced_series(headers: Sequence[Dataset]) -> list[Dataset]:
    """Items of Referenced Series Sequence for these images (PS3.3 section 10.3.1 and table 10-4)."""
    series: dict[str, list[Dataset]] = {}
    for header in {header.SOPInstanceUID: header for header in headers}.values():
        reference = Dataset()
        reference.ReferencedSOPClassUID = header.SOPClassUID
        reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
        series.setdefault(header.SeriesInstanceUID, []).append(reference)
    items = []
    for series_uid, references in series.items():
        item = Dataset()
        item.SeriesInstanceUID = series_uid
        item.ReferencedSOPSequence = references
        items.append(item)
    return items


def referenced_instances(headers: Sequence[Dataset]) -> list[Dataset]:
    """Referenced Series Sequence of the Common Instance Reference module (PS3.3 section C.12.2)."""
    items = []
    for series in referenced_series(headers):
        item = Dataset()
        item.SeriesInstanceUID = series.SeriesInstanceUID
        item.ReferencedInstanceSequence = list(series.ReferencedSOPSequence)
        items.append(item)
    return items


def evidence_of(ds: Dataset, headers: Sequence[Dataset]) -> list[Dataset]:
    """The value of Current Requested Procedure Evidence Sequence in `ds` (PS3.3 section C.17.2)."""
    study = Dataset()
    study.StudyInstanceUID = ds.StudyInstanceUID
    study.ReferencedSeriesSequence = referenced_series(headers)
    return [study]


def file_bytes(ds: Dataset, charset: str | list[str] | None) -> bytes:
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
        # A name of pydicom's keeps the bytes that it was first written as; a faulty source has several.
        name = ds[keyword].value
        put(ds, keyword, "\\".join(map(str, name)) if isinstance(name, MultiValue) else str(name))
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    ds.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def _texts(ds: Dataset) -> list[str]:
    return [str(element.value) for element in ds.iterall() if element.VR in _TEXT_VRS]


def tm(instant: dt.datetime) -> str:
    """`instant`'s time as TM, with a fraction only where it has one."""
    fraction = f".{instant.microsecond:06d}" if instant.microsecond else ""
    return f"{instant:%H%M%S}{fraction}"


def lo(text: str) -> str:
    """`text` as one LO value: a backslash would part it in two, and it has 64 characters (PS3.5 section 6.2)."""
    return text.replace("\\", "/").strip()[:64]
