"""The key images of a finding as a Key Object Selection, so that a PACS opens the study at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import highdicom.sr as hd
from highdicom.ko import KeyObjectSelection
from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from fhir_records.model import Report
from fhir_records.renderings import codes, plain_words, source_header
from fhir_records.renderings.dicom_file import DicomObject, add_common, check_evidence, evidence_of, file_bytes
from fhir_records.renderings.dicom_sr import observer
from fhir_records.renderings.image_library import concept, images_by_instance
from fhir_records.renderings.kinds import FIRST_SERIES_NUMBER, KEY_OBJECTS


def render_ko(report: Report, evidence: Sequence[Dataset]) -> DicomObject | None:
    """The finding's key images, titled "Of Interest", described by the answer: same study, new series.

    None where there is no finding, or it has no key image.

    Raises RenderingError where the evidence does not match the report.
    """
    check_evidence(report, evidence)
    finding = report.result.finding
    if finding is None or not finding.key_images:
        return None
    first = evidence[0]
    headers = {header.SOPInstanceUID: header for header in evidence}
    images = images_by_instance(finding.key_images)
    ds = source_header.patient_and_study(first)
    number = FIRST_SERIES_NUMBER[KEY_OBJECTS]
    add_common(ds, report, first, kind=KEY_OBJECTS, modality="KO", series_number=number)
    ds.SOPClassUID = KeyObjectSelectionDocumentStorage
    ds.ReferencedPerformedProcedureStepSequence = []
    selected = [headers[uid] for uid in images]
    ds.CurrentRequestedProcedureEvidenceSequence = evidence_of(ds, selected)
    ds.update(_content(report, images, headers))
    # The images are items of their own, not one running text, which is what highdicom writes (PS3.3 C.18.8).
    ds.ContinuityOfContent = "SEPARATE"
    content = file_bytes(ds, source_header.character_set(first))
    return DicomObject(KEY_OBJECTS, ds.SOPInstanceUID, ds.SOPClassUID, content)


def _content(report: Report, images: Mapping[str, tuple[int, ...]], headers: Mapping[str, Dataset]) -> Dataset:
    """The content tree, TID 2010; its root is the document's own data set."""
    description = " ".join((*plain_words.sentences(report.result), report.installation.statement))
    tree: Dataset = KeyObjectSelection(
        document_title=concept(codes.OF_INTEREST),
        referenced_objects=[headers[uid] for uid in images],
        observer_device_context=observer(report),
        description=description,
    )[0]
    items = list(tree.ContentSequence)[: -len(images)]
    items += [_image(headers[uid], frames) for uid, frames in images.items()]
    tree.ContentSequence = hd.ContentSequence(items)
    return tree


def _image(header: Dataset, frames: tuple[int, ...]) -> hd.ImageContentItem:
    return hd.ImageContentItem(
        concept(codes.SOURCE),
        header.SOPClassUID,
        header.SOPInstanceUID,
        referenced_frame_numbers=list(frames) or None,
        relationship_type=hd.RelationshipTypeValues.CONTAINS,
    )
