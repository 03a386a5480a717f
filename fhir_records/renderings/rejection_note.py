"""A Key Object Selection that takes one of our objects back: the rejection note of IHE IOCM.

It stands in the study of the object that it rejects, refers to it alone, and takes patient and study from it. The same
withdrawal gives the same bytes, for ever. Source: IHE RAD TF-3 section 4.66, PS3.3 section A.35.4, PS3.16 TID 2010.
"""

from __future__ import annotations

import datetime as dt
import io
from dataclasses import dataclass
from typing import Final

import highdicom.sr as hd
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, KeyObjectSelectionDocumentStorage

from fhir_records.errors import RenderingError
from fhir_records.identities import name_uid
from fhir_records.model import Code, Installation, Study, Withdrawal
from fhir_records.renderings import codes, source_header
from fhir_records.renderings.dicom_file import DicomObject, file_bytes, lo, tm
from fhir_records.renderings.image_library import concept
from fhir_records.renderings.source_header import put

KIND: Final = "rejection_note"

_SERIES_NUMBER: Final = 9900  # last among ours
_WORDS: Final = {
    Withdrawal.REJECTED: "A person rejected this result of an AI model: do not use it.",
    Withdrawal.SUPERSEDED: "A newer version takes the place of this result of an AI model.",
    Withdrawal.WRONG_PATIENT: "This result of an AI model is about another patient: do not use it.",
}


@dataclass(frozen=True, slots=True)
class NoteTitle:
    """How rejection notes are titled at a destination."""

    title: Code
    modifier: Code | None = None  # from CID 7011, where the title is "Rejected for Quality Reasons"

    @property
    def key(self) -> str:
        """A short name: notes of the same title are the same."""
        return self.title.value if self.modifier is None else f"{self.title.value}-{self.modifier.value}"


def note_title(code: str, reason: str, why: Withdrawal) -> NoteTitle:
    """The title for a withdrawal: an object about another patient always says so.

    Args:
        code: the configured one, "113037" or "113001".
        reason: code of CID 7011, for "113001".
        why: why the object is withdrawn.
    """
    if why is Withdrawal.WRONG_PATIENT:
        return NoteTitle(codes.INCORRECT_WORKLIST_ENTRY)
    if code == codes.REJECTED_FOR_QUALITY.value:
        return NoteTitle(codes.REJECTED_FOR_QUALITY, codes.QUALITY_REASONS[reason])
    return NoteTitle(codes.REJECTED_FOR_SAFETY)


def render_rejection_note(
    installation: Installation, study: Study, rejected: bytes, title: NoteTitle, why: Withdrawal, at: dt.datetime
) -> DicomObject:
    """The note that rejects an object of ours.

    Args:
        installation: whose UIDs are written.
        study: the study.
        rejected: the object's PS3.10 file, as it was sent.
        title: what the note is called.
        why: why the object is taken back.
        at: since when it is.

    Raises:
        RenderingError: the bytes are no object of this study.
    """
    try:
        source = dcmread(io.BytesIO(rejected), stop_before_pixels=True)
    except Exception as error:  # boundary: pydicom raises whatever damaged bytes bring about
        raise RenderingError("The object that is to be rejected cannot be read.") from error
    if source.get("StudyInstanceUID") != study.study_uid:
        raise RenderingError("The object that is to be rejected is not of this study.")
    ds = source_header.patient_and_study(source)
    _add_document(ds, installation, study, source, title, at)
    _add_content(ds, source, title, why)
    content = file_bytes(ds, source_header.character_set(source))
    return DicomObject(KIND, ds.SOPInstanceUID, ds.SOPClassUID, content)


def _add_document(
    ds: Dataset, installation: Installation, study: Study, source: Dataset, title: NoteTitle, at: dt.datetime
) -> None:
    def uid(part: str) -> UID:
        return UID(name_uid(installation.namespace, KIND, part, str(source.SOPInstanceUID), title.key))

    written = source_header.local_time(at, source, study)
    date, time = f"{written:%Y%m%d}", tm(written)
    ds.SOPClassUID = KeyObjectSelectionDocumentStorage
    ds.SOPInstanceUID = uid("instance")
    ds.InstanceCreationDate, ds.InstanceCreationTime = date, time
    ds.Modality = "KO"
    ds.SeriesInstanceUID = uid("series")
    ds.SeriesNumber = _SERIES_NUMBER
    ds.SeriesDate, ds.SeriesTime = date, time
    ds.SeriesDescription = title.title.meaning
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.Manufacturer = "Wetread"
    if installation.organization:
        put(ds, "InstitutionName", lo(installation.organization))
    ds.InstanceNumber = 1
    ds.ContentDate, ds.ContentTime = date, time
    reference = _reference(source)
    series = Dataset()
    series.SeriesInstanceUID = source.SeriesInstanceUID
    series.ReferencedSOPSequence = [reference]
    evidence = Dataset()
    evidence.StudyInstanceUID = ds.StudyInstanceUID
    evidence.ReferencedSeriesSequence = [series]
    ds.CurrentRequestedProcedureEvidenceSequence = [evidence]


def _add_content(ds: Dataset, source: Dataset, title: NoteTitle, why: Withdrawal) -> None:
    """TID 2010; highdicom's own has no argument for the modifier of the title."""
    ds.ValueType = "CONTAINER"
    ds.ConceptNameCodeSequence = [concept(title.title)]
    ds.ContinuityOfContent = "SEPARATE"
    template = Dataset()
    template.MappingResource, template.TemplateIdentifier = "DCMR", "2010"
    ds.ContentTemplateSequence = [template]
    items: list[Dataset] = []
    if title.modifier is not None:
        relation = hd.RelationshipTypeValues.HAS_CONCEPT_MOD
        items.append(hd.CodeContentItem(concept(codes.DOCUMENT_TITLE_MODIFIER), concept(title.modifier), relation))
    contains = hd.RelationshipTypeValues.CONTAINS
    items.append(hd.TextContentItem(concept(codes.KEY_OBJECT_DESCRIPTION), _WORDS[why], contains))
    is_image = "Rows" in source
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "IMAGE" if is_image else "COMPOSITE"
    item.ReferencedSOPSequence = [_reference(source)]
    items.append(item)
    ds.ContentSequence = items


def _reference(source: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return reference
