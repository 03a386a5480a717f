"""A structured report in another SOP class, for a destination that does not take the one it was written in.

It is made from the bytes of the report that was rendered, so that it says the same, word for word and code for code:
only what names the object differs. It is an object of its own, under UIDs of its own. The same report gives the same
bytes, for ever.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import UID

from fhir_records.errors import RenderingError
from fhir_records.identities import name_uid
from fhir_records.model import Installation
from fhir_records.renderings.conformance.relationships import ALLOWED, relation_faults
from fhir_records.renderings.dicom_file import DicomObject
from fhir_records.renderings.dicom_sr import KIND
from fhir_records.renderings.kinds import SR_CLASS_OF_WORD


@dataclass(frozen=True, slots=True)
class Reference:
    """A document that another one refers to."""

    sop_class_uid: str
    sop_uid: str
    series_uid: str


def holds(content: bytes, sop_class_uid: str) -> bool:
    """Whether a document of this SR class can hold all that the report says.

    Raises RenderingError where `content` is no file that can be read.
    """
    return sop_class_uid in ALLOWED and not any(relation_faults(_read(content), sop_class_uid))


def predecessor_uids(content: bytes) -> tuple[str, ...]:
    """The SOP Instance UIDs of the report's predecessor documents, in their order.

    Raises RenderingError where `content` is no file that can be read.
    """
    try:
        ds = dcmread(io.BytesIO(content), specific_tags=["PredecessorDocumentsSequence"])
        return tuple(str(reference.ReferencedSOPInstanceUID) for reference in _predecessors(ds))
    except Exception as error:  # boundary: pydicom raises whatever damaged bytes bring about
        raise RenderingError("The report cannot be read.") from error


def reference_to(content: bytes) -> Reference:
    """How another document refers to the one in this file. Raises RenderingError where it cannot be read."""
    ds = _read(content)
    return Reference(str(ds.SOPClassUID), str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID))


def variant_of(written_in: str, sop_class_uid: str, predecessors: Mapping[str, Reference]) -> str:
    """The name of the report in this class, among the documents of its result; "" for the one that was rendered.

    Args:
        written_in: SOP Class UID of the report that was rendered.
        sop_class_uid: of the one that is asked for.
        predecessors: what it names instead of the rendered one's predecessors, by their SOP Instance UIDs.
    """
    if sop_class_uid == written_in and not predecessors:
        return ""
    word = next(word for word, uid in SR_CLASS_OF_WORD.items() if uid == sop_class_uid)
    if not predecessors:
        return word
    after = "\n".join(f"{uid} {predecessors[uid].sop_uid}" for uid in sorted(predecessors))
    return f"{word} after {hashlib.sha256(after.encode()).hexdigest()[:16]}"


def in_class(
    installation: Installation, rendered: bytes, sop_class_uid: str, predecessors: Mapping[str, Reference]
) -> DicomObject:
    """The report as a document of another SR class, or with other predecessors.

    Args:
        installation: whose UIDs are written.
        rendered: the report's PS3.10 file, as it was rendered.
        sop_class_uid: the class.
        predecessors: what is named in the place of the report's predecessors, by their SOP Instance UIDs.

    Raises:
        RenderingError: the file cannot be read, or the class cannot hold what it says.
    """
    if not holds(rendered, sop_class_uid):
        raise RenderingError("A document of this SOP class cannot hold what the report says.")
    ds = dcmread(io.BytesIO(rendered))  # not decoded: what is not touched is written as it was, byte for byte
    variant = variant_of(str(ds.SOPClassUID), sop_class_uid, predecessors)
    if not variant:
        raise RenderingError("The report is of this class already.")

    def uid(part: str) -> UID:
        return UID(name_uid(installation.namespace, KIND, part, str(ds.SOPInstanceUID), variant))

    sop_uid, series_uid = uid("instance"), uid("series")
    ds.SOPClassUID, ds.SOPInstanceUID, ds.SeriesInstanceUID = UID(sop_class_uid), sop_uid, series_uid
    _replace_predecessors(ds, predecessors)
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, sop_uid
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return DicomObject(KIND, str(sop_uid), sop_class_uid, buffer.getvalue())


def _replace_predecessors(ds: Dataset, predecessors: Mapping[str, Reference]) -> None:
    """Each series once, as PS3.3 section C.17.2 has it."""
    for study in ds.get("PredecessorDocumentsSequence") or ():
        series: dict[str, list[Dataset]] = {}
        for item in study.ReferencedSeriesSequence:
            for reference in item.ReferencedSOPSequence:
                other = predecessors.get(str(reference.ReferencedSOPInstanceUID))
                series_uid = str(item.SeriesInstanceUID)
                if other is not None:
                    series_uid = other.series_uid
                    reference.ReferencedSOPClassUID = UID(other.sop_class_uid)
                    reference.ReferencedSOPInstanceUID = UID(other.sop_uid)
                series.setdefault(series_uid, []).append(reference)
        study.ReferencedSeriesSequence = [_series(uid, references) for uid, references in series.items()]


def _series(series_uid: str, references: list[Dataset]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = UID(series_uid)
    item.ReferencedSOPSequence = references
    return item


def _predecessors(ds: Dataset) -> list[Dataset]:
    return [
        reference
        for study in ds.get("PredecessorDocumentsSequence") or ()
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    ]


def _read(content: bytes) -> Dataset:
    try:
        ds = dcmread(io.BytesIO(content))
        ds.decode()
    except Exception as error:  # boundary: pydicom raises whatever damaged bytes bring about
        raise RenderingError("The report cannot be read.") from error
    return ds
