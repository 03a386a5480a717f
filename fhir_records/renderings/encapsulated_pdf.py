"""A result as one printed page: an Encapsulated PDF, for archives and portals that show documents.

The page says what the Secondary Capture says, in text that can be searched and copied. Its fonts are inside it, and it
names no patient: the header does.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import EncapsulatedPDFStorage
from reportlab.lib.colors import Color, HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from fhir_records.model import Presence, Report, ResultStatus
from fhir_records.renderings import codes, plain_words, source_header
from fhir_records.renderings.dicom_file import DicomObject, add_common, check_evidence, file_bytes, lo
from fhir_records.renderings.image_library import concept
from fhir_records.renderings.kinds import ENCAPSULATED_PDF, FIRST_SERIES_NUMBER
from fhir_records.renderings.page_picture import overlaid
from fhir_records.renderings.result_page import KeyPicture, Page, page_of
from fhir_records.renderings.source_header import put
from fhir_records.renderings.typeface import BOLD, REGULAR

_PAGE_WIDTH, _PAGE_HEIGHT = A4  # points
_MARGIN: Final = 48
_WIDTH: Final = _PAGE_WIDTH - 2 * _MARGIN
_TEXT, _STRONG = "Wetread", "Wetread-Bold"

_MOST_NAMES: Final = 5  # of outlines, under their picture

_INK: Final = HexColor("#14202B")
_GREY: Final = HexColor("#52606D")
_RULE: Final = HexColor("#C9D2DA")
_AMBER: Final = HexColor("#F6BA46")
_BLUE: Final = HexColor("#2F7CC0")
_VIOLET: Final = HexColor("#7C5CC4")
_RED: Final = HexColor("#C8372D")


def render_pdf(
    report: Report, evidence: Sequence[Dataset], picture: KeyPicture | None, *, signer: str = ""
) -> DicomObject:
    """The result's page as an Encapsulated PDF: same study, new series; arguments as those of `render_sc`.

    Raises RenderingError where the evidence or the picture does not match the report.
    """
    check_evidence(report, evidence)
    first = evidence[0]
    ds = source_header.patient_and_study(first)
    number = FIRST_SERIES_NUMBER[ENCAPSULATED_PDF]
    add_common(ds, report, first, kind=ENCAPSULATED_PDF, modality="DOC", series_number=number)
    ds.SOPClassUID = EncapsulatedPDFStorage
    ds.ConversionType = "WSD"  # PS3.3 section C.8.6.1: workstation
    ds.AcquisitionDateTime = ""
    # Has to be said here; where the shown image does not say it, the page counts as one that names the patient.
    ds.BurnedInAnnotation = source_header.burned_in(evidence, picture.image.sop_uid if picture else None) or "YES"
    put(ds, "DocumentTitle", lo(plain_words.title(report.result)))
    ds.ConceptNameCodeSequence = [concept(codes.RADIOLOGY_REPORT)]
    ds.MIMETypeOfEncapsulatedDocument = "application/pdf"
    if picture is not None:
        source = Dataset()
        source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = (
            picture.image.sop_class_uid,
            picture.image.sop_uid,
        )
        ds.SourceInstanceSequence = [source]
    document = draw_pdf(page_of(report, first, picture, signer=signer), picture)
    ds.EncapsulatedDocumentLength = len(document)
    ds.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    content = file_bytes(ds, source_header.character_set(first))
    return DicomObject(ENCAPSULATED_PDF, ds.SOPInstanceUID, ds.SOPClassUID, content)


def draw_pdf(page: Page, picture: KeyPicture | None) -> bytes:
    """The page as a PDF of one A4 sheet; the same page gives the same bytes."""
    for name, path in ((_TEXT, REGULAR), (_STRONG, BOLD)):
        if name not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(TTFont(name, str(path)))
    buffer = io.BytesIO()
    # Invariant: without the clock, and with an identifier made from the content.
    canvas = Canvas(buffer, pagesize=A4, invariant=1, lang="en")
    canvas.setTitle(page.headline)
    canvas.setAuthor("Wetread")
    canvas.setSubject(page.standing)
    top = _heading(canvas, page)
    if picture is not None:
        top = _pictures(canvas, page, picture, top)
    else:
        top = _paragraph(canvas, page.without_picture, top - 26, _TEXT, 11, _INK)
    _notes(canvas, page, top - 8, _foot(canvas, page))
    canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def _accent(page: Page) -> Color:
    if page.status is ResultStatus.ENTERED_IN_ERROR:
        return _RED
    if page.refused or page.presence is Presence.UNDETERMINED:
        return _VIOLET
    return _AMBER if page.presence is Presence.PRESENT else _BLUE


def _heading(canvas: Canvas, page: Page) -> float:
    top = _PAGE_HEIGHT - 56
    canvas.setFillColor(_INK)
    canvas.setFont(_STRONG, 17)
    canvas.drawString(_MARGIN, top, "Wetread")
    canvas.setFillColor(_GREY)
    canvas.setFont(_TEXT, 13)
    canvas.drawString(_MARGIN + pdfmetrics.stringWidth("Wetread ", _STRONG, 17) + 3, top, "AI read")
    width = pdfmetrics.stringWidth(page.stamp, _STRONG, 10.5) + 22
    canvas.setFillColor(_AMBER if page.status is ResultStatus.PRELIMINARY else _RULE)
    canvas.roundRect(_PAGE_WIDTH - _MARGIN - width, top - 6, width, 22, 11, stroke=0, fill=1)
    canvas.setFillColor(_INK)
    canvas.setFont(_STRONG, 10.5)
    canvas.drawRightString(_PAGE_WIDTH - _MARGIN - 11, top + 1.5, page.stamp)
    start = top - 22
    words = page.headline.rstrip(".")
    sizes = (21, 19, 17)
    size = next((one for one in sizes if pdfmetrics.stringWidth(words, _STRONG, one) <= _WIDTH - 14), sizes[-1])
    bottom = _paragraph(canvas, words, start - 22, _STRONG, size, _INK, left=_MARGIN + 14)
    canvas.setFillColor(_accent(page))
    canvas.roundRect(_MARGIN, bottom - 6, 5, start - bottom + 2, 2.5, stroke=0, fill=1)
    if page.probability is None:
        return bottom
    canvas.setFillColor(_RULE)
    canvas.roundRect(_MARGIN + 14, bottom - 24, _WIDTH - 14, 9, 4.5, stroke=0, fill=1)
    canvas.setFillColor(_accent(page))
    filled = (_WIDTH - 14) * min(max(page.probability, 0.03), 0.995)
    canvas.roundRect(_MARGIN + 14, bottom - 24, filled, 9, 4.5, stroke=0, fill=1)
    return _paragraph(canvas, f"Probability {page.probability_words}", bottom - 40, _TEXT, 11, _GREY, left=_MARGIN + 14)


def _pictures(canvas: Canvas, page: Page, picture: KeyPicture, top: float) -> float:
    side, height = (_WIDTH - 12) / 2, 250.0
    where = f"Key image: {page.key_image}." if page.key_image else "Key image."
    shown = [(picture.pixels, where, _MARGIN)]
    if picture.shows_more:
        shown.append((overlaid(picture), page.map_words, _MARGIN + side + 12))
    else:
        shown = [(picture.pixels, f"{where} {page.map_words}", _MARGIN)]
    bottom = below = top - 18 - height
    for pixels, caption, left in shown:
        canvas.setFillColorRGB(0, 0, 0)
        canvas.rect(left, bottom, side, height, stroke=0, fill=1)
        _place(canvas, pixels, picture.aspect, left, bottom, side, height)
        caption_ends = _paragraph(canvas, caption, bottom - 12, _TEXT, 9, _GREY, left=left, width=side)
        if left > _MARGIN:
            caption_ends = _names(canvas, picture, left, caption_ends)
        below = min(below, caption_ends)
    return below


def _names(canvas: Canvas, picture: KeyPicture, left: float, top: float) -> float:
    """What each outline is, beside its colour, a line each; gives the last baseline."""
    for number, outline in enumerate(reversed(picture.outlines)):
        if number == _MOST_NAMES:
            more = f"and {len(picture.outlines) - number} more, listed in the structured report"
            return _paragraph(canvas, more, top - 13, _TEXT, 9, _GREY, left=left)
        top -= 13
        canvas.setFillColorRGB(*(value / 255 for value in outline.colour))
        canvas.roundRect(left, top - 1, 8, 8, 2, stroke=0, fill=1)
        canvas.setFillColor(_INK)
        canvas.setFont(_TEXT, 9)
        canvas.drawString(left + 13, top, outline.words)
    return top


def _notes(canvas: Canvas, page: Page, top: float, foot: float) -> None:
    """What was weighed and what limits the answer; what has no room above `foot` is counted, never cut in two."""
    for number, note in enumerate(page.notes):
        height = 14 * len(list(_lines(note, _TEXT, 10.5, _WIDTH - 14)))
        if top - height - 20 < foot:
            left_out = len(page.notes) - number
            words = f"and {left_out} more {'sentence' if left_out == 1 else 'sentences'} in the structured report"
            _paragraph(canvas, words, top - 16, _TEXT, 10.5, _GREY, left=_MARGIN + 14)
            return
        canvas.setFillColor(_GREY)
        canvas.circle(_MARGIN + 3, top - 12, 1.6, stroke=0, fill=1)
        top = _paragraph(canvas, note, top - 16, _TEXT, 10.5, _INK, left=_MARGIN + 14)


def _place(
    canvas: Canvas,
    pixels: npt.NDArray[np.uint8],
    aspect: float,
    left: float,
    bottom: float,
    width: float,
    height: float,
) -> None:
    rows, columns = pixels.shape[:2]
    scale = min(width / columns, height / (rows * aspect))
    wide, high = columns * scale, rows * aspect * scale
    image = Image.fromarray(np.ascontiguousarray(pixels))
    canvas.drawImage(ImageReader(image), left + (width - wide) / 2, bottom + (height - high) / 2, wide, high)


def _paragraph(
    canvas: Canvas,
    text: str,
    top: float,
    face: str,
    size: float,
    colour: Color,
    *,
    left: float = _MARGIN,
    width: float | None = None,
) -> float:
    """`text` in lines from this baseline on; gives the baseline of the last one."""
    canvas.setFillColor(colour)
    canvas.setFont(face, size)
    baseline = top
    for number, line in enumerate(_lines(text, face, size, width or _PAGE_WIDTH - _MARGIN - left)):
        baseline = top - number * size * 1.3
        canvas.drawString(left, baseline, line)
    return baseline


def _lines(text: str, face: str, size: float, width: float) -> Iterator[str]:
    line = ""
    # A number keeps its percent sign.
    for word in text.replace(" %", "\xa0%").split(" "):
        longer = f"{line} {word}" if line else word
        if line and pdfmetrics.stringWidth(longer, face, size) > width:
            yield line
            line = word
        else:
            line = longer
    yield line


def _foot(canvas: Canvas, page: Page) -> float:
    """Who made it, how far it stands, and the site's statement; gives where it begins."""
    texts = ((f"{page.made_by} Written {page.written}.", _TEXT), (page.standing, _TEXT), (page.statement, _STRONG))
    set_lines = [(line, face) for text, face in texts for line in _lines(text, face, 9.5, _WIDTH)]
    top = 40 + 13 * len(set_lines)
    canvas.setStrokeColor(_RULE)
    canvas.line(_MARGIN, top + 6, _PAGE_WIDTH - _MARGIN, top + 6)
    for number, (line, face) in enumerate(set_lines, start=1):
        canvas.setFillColor(_INK if face == _STRONG else _GREY)
        canvas.setFont(face, 9.5)
        canvas.drawString(_MARGIN, top - 13 * number + 4, line)
    return float(top + 6)
