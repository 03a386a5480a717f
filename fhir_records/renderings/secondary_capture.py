"""A result as one colour page: a Secondary Capture for every PACS that cannot show structured reports.

What the page says stands in the header too, so that it can be searched, read aloud and compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from fhir_records.model import Report
from fhir_records.renderings import codes, plain_words, source_header
from fhir_records.renderings.dicom_file import DicomObject, add_common, check_evidence, file_bytes, site_of
from fhir_records.renderings.image_library import concept
from fhir_records.renderings.kinds import FIRST_SERIES_NUMBER, SECONDARY_CAPTURE
from fhir_records.renderings.page_picture import SIDE, draw_page
from fhir_records.renderings.result_page import KeyPicture, page_of
from fhir_records.renderings.source_header import put

_LONGEST_ST: Final = 1024  # characters of ST and of LT, PS3.5 section 6.2
_LONGEST_LT: Final = 10240


def render_sc(
    report: Report, evidence: Sequence[Dataset], picture: KeyPicture | None, *, signer: str = ""
) -> DicomObject:
    """The result's page as a Secondary Capture Image: same study, new series; a refusal has its page too.

    `evidence` are the headers of `report.instances`, in the same order; `picture` is the first key image, None where
    there is none or its pixels cannot be drawn; `signer` is the name of the person who signed the result.

    Raises RenderingError where the evidence or the picture does not match the report.
    """
    check_evidence(report, evidence)
    first = evidence[0]
    ds = source_header.patient_and_study(first)
    number = FIRST_SERIES_NUMBER[SECONDARY_CAPTURE]
    add_common(ds, report, first, kind=SECONDARY_CAPTURE, modality="OT", series_number=number)
    ds.SOPClassUID = SecondaryCaptureImageStorage
    ds.ConversionType = "WSD"  # PS3.3 section C.8.6.1: workstation
    ds.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    ds.PatientOrientation = ""
    # The page's own words name nobody; what is burnt into the image that it shows, only that image's header can tell.
    if said := source_header.burned_in(evidence, picture.image.sop_uid if picture else None):
        ds.BurnedInAnnotation = said
    source_header.add_body_part(ds, site_of(report.result), first)
    words = "\n".join((*plain_words.sentences(report.result), report.installation.statement))
    put(ds, "ImageComments", words[:_LONGEST_LT])
    put(ds, "DerivationDescription", plain_words.headline(report.result)[:_LONGEST_ST])
    if picture is not None:
        ds.SourceImageSequence = [_source(picture)]
    _add_pixels(ds, draw_page(page_of(report, first, picture, signer=signer), picture).tobytes())
    content = file_bytes(ds, source_header.character_set(first))
    return DicomObject(SECONDARY_CAPTURE, ds.SOPInstanceUID, ds.SOPClassUID, content)


def _source(picture: KeyPicture) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = picture.image.sop_class_uid
    item.ReferencedSOPInstanceUID = picture.image.sop_uid
    if picture.image.frame is not None:
        item.ReferencedFrameNumber = picture.image.frame
    item.PurposeOfReferenceCodeSequence = [concept(codes.SOURCE_IMAGE)]
    return item


def _add_pixels(ds: Dataset, pixels: bytes) -> None:
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows = ds.Columns = SIDE
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.PixelData = pixels
