"""The page about a result: what stands on it, that all of it is legible, and what must never stand on it."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pypdfium2
import pytest
from PIL import Image

from fhir_records.errors import RenderingError
from fhir_records.model import Act, ImageRef, Report, ResultStatus, SaliencyMap
from fhir_records.renderings.encapsulated_pdf import draw_pdf
from fhir_records.renderings.page_picture import SIDE, SMALLEST, draw_page, overlaid
from fhir_records.renderings.result_page import KeyPicture, Page, page_of, shown_map, stretched
from fhir_records.renderings.typeface import can_draw, font, lines
from tests.unit.fhir_records.renderings.sr_reports import (
    ABSENT,
    LIMIT,
    PRESENT,
    REFUSAL,
    STATEMENT,
    header,
    ref,
    report_of,
    signature,
)

GROUND = (11, 15, 20)


def grey(rows: int = 96, columns: int = 64) -> np.ndarray:
    return np.tile(np.linspace(0, 255, columns).astype(np.uint8), (rows, 1))


def map_of(image: ImageRef, peak: float = 2.0) -> SaliencyMap:
    levels = np.zeros((4, 4), np.uint8)
    levels[0, 0] = 255
    return SaliencyMap(image, "glioma", 4, 4, peak, levels.tobytes())


def picture_of(report: Report, saliency: bool = True, **more: object) -> KeyPicture:
    image = report.result.finding.key_images[0] if report.result.finding else ref(header(1))
    return KeyPicture(image, grey(), map_of(image) if saliency else None, **more)  # type: ignore[arg-type]


def page(said: object = PRESENT, *, with_picture: bool = True, **changes: object) -> tuple[Page, KeyPicture | None]:
    evidence = [header(1), header(2)]
    report = report_of(evidence, said)  # type: ignore[arg-type]
    report = replace(report, result=replace(report.result, **changes))  # type: ignore[arg-type]
    picture = picture_of(report) if with_picture else None
    return page_of(report, evidence[0], picture, signer="Dr. Ada Curie"), picture


def printed(made: Page, picture: KeyPicture | None) -> str:
    """The text of the PDF page, as PDFium reads it."""
    text = pypdfium2.PdfDocument(draw_pdf(made, picture))[0].get_textpage().get_text_range()
    return " ".join(text.replace("\xa0", " ").split())


@pytest.mark.parametrize("said", [PRESENT, ABSENT, REFUSAL], ids=["present", "absent", "refused"])
def test_no_page_names_the_patient(said: object) -> None:
    """Neither name nor identifiers of the patient, nor the accession number, stand in what is drawn."""
    made, picture = page(said, with_picture=said is not REFUSAL)
    text = printed(made, picture) + repr(made)
    for value in ("Curie^Marie", "Marie", "P1", "1867", "A1", "1234567890123"):
        assert value not in text, value


def test_words_of_a_finding() -> None:
    """Answer, probability, limits, model with version, time, status and statement stand on the page."""
    made, picture = page()
    text = printed(made, picture)
    for words in (
        "Glioma of the brain: present, probability 93 %",
        "Probability 93 % that glioma of the brain is present",
        LIMIT,
        "Brain MR tumour, version 1.0.0",
        "2026-03-04 05:06",
        "PRELIMINARY · NOT SIGNED",
        "not signed by a person",
        STATEMENT,
        "No outline of a lesion",
    ):
        assert words in text, words


def test_words_of_a_refusal() -> None:
    """A refusal's page says that nothing was read, why, and that this says nothing of the images."""
    made, _ = page(REFUSAL, with_picture=False)
    text = printed(made, None)
    assert REFUSAL.sentence.rstrip(".") in text
    assert "This says nothing about what the images show." in text
    assert made.probability is None and "Probability" not in text


@pytest.mark.parametrize(
    ("status", "stamp"),
    [
        (ResultStatus.PRELIMINARY, "PRELIMINARY · NOT SIGNED"),
        (ResultStatus.FINAL, "SIGNED BY DR. ADA CURIE"),
        (ResultStatus.AMENDED, "AMENDED AND SIGNED BY DR. ADA CURIE"),
        (ResultStatus.ENTERED_IN_ERROR, "ENTERED IN ERROR · DO NOT USE"),
    ],
)
def test_how_far_it_stands(status: ResultStatus, stamp: str) -> None:
    """Nobody can take a page for signed that is not, or for valid that was taken back."""
    act = Act.REJECT if status is ResultStatus.ENTERED_IN_ERROR else Act.ACCEPT
    made, picture = page(status=status, signature=None if status is ResultStatus.PRELIMINARY else signature(act))
    assert made.stamp == stamp
    assert stamp in printed(made, picture)


def test_a_page_is_drawn_the_same_twice() -> None:
    """The same page gives the same pixels and the same PDF."""
    made, picture = page()
    assert np.array_equal(draw_page(made, picture), draw_page(made, picture))
    assert draw_pdf(made, picture) == draw_pdf(made, picture)


@pytest.mark.parametrize("limits", [0, 1, 4, 12, 40])
def test_no_text_runs_out_of_the_page(limits: int) -> None:
    """However many limits there are, the margins stay empty and nothing reaches the edge."""
    evidence = [header(1)]
    report = report_of(evidence, replace(PRESENT, limits=(f"{LIMIT} {LIMIT}",) * limits))
    picture = picture_of(report)
    drawn = draw_page(page_of(report, evidence[0], picture), picture)
    assert drawn.shape == (SIDE, SIDE, 3) and drawn.dtype == np.uint8
    for margin in (drawn[70:, :30], drawn[70:, -30:], drawn[-8:, :]):
        assert (margin == GROUND).all()


def test_what_does_not_fit_is_counted() -> None:
    """Limits without room are not cut in two: the page says how many more there are, and where."""
    evidence = [header(1)]
    report = report_of(evidence, replace(PRESENT, limits=(f"{LIMIT} {LIMIT}",) * 40))
    picture = picture_of(report)
    text = printed(page_of(report, evidence[0], picture), picture)
    assert "more sentences in the structured report" in text


def test_type_is_legible_at_half_size() -> None:
    """The smallest type has 11 pixels where the page is shown at 512, and its contrast is at least 7 to 1."""
    assert SMALLEST / 2 >= 11
    made, picture = page(ABSENT)
    small = np.asarray(Image.fromarray(draw_page(made, picture)).resize((512, 512), Image.Resampling.LANCZOS)) / 255.0
    foot = small[-16:-6, 16:200]  # the statement
    light = np.where(foot <= 0.03928, foot / 12.92, ((foot + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    assert (light.max() + 0.05) / (light.min() + 0.05) >= 7


def test_the_map_is_laid_over_its_place() -> None:
    """The overlay changes the picture where the map is strong, and leaves it where there is none."""
    image = ref(header(1))
    picture = KeyPicture(image, grey(), map_of(image))
    shown = overlaid(picture).astype(int)
    bare = np.repeat(grey()[..., None], 3, axis=2).astype(int)
    assert np.abs(shown[:12, :8] - bare[:12, :8]).max() > 60
    assert np.array_equal(shown[48:, 32:], bare[48:, 32:])


def test_no_map_and_an_empty_map() -> None:
    """Without a map, or with one that is nowhere above 0, the picture is bare and the page says why."""
    evidence = [header(1)]
    report = report_of(evidence, PRESENT)
    for saliency, words in ((None, "gives no map"), (map_of(ref(evidence[0]), peak=0.0), "Nowhere in this image")):
        picture = KeyPicture(ref(evidence[0]), grey(), saliency)
        assert shown_map(picture) is None
        assert words in page_of(report, evidence[0], picture).map_words


def test_a_map_is_stretched_over_the_frame() -> None:
    """Each cell's level is found at its own place, and the values between lie between."""
    values = stretched(map_of(ref(header(1))), 40, 80)
    assert values.shape == (40, 80) and values.dtype == np.float32
    assert values[4, 8] == pytest.approx(1, abs=0.1) and values[30, 70] == 0
    assert values.min() >= 0 and values.max() <= 1


def test_faulty_pictures_and_maps_are_named() -> None:
    """Pixels of another type, impossible aspects and maps whose bytes do not fit are errors."""
    image = ref(header(1))
    with pytest.raises(RenderingError, match="uint8"):
        KeyPicture(image, grey().astype(np.float32), None)  # type: ignore[arg-type]
    with pytest.raises(RenderingError, match="100 times"):
        KeyPicture(image, grey(), None, aspect=1000)
    with pytest.raises(RenderingError, match="do not fit"):
        stretched(replace(map_of(image), rows=5), 10, 10)


@pytest.mark.parametrize("shape", [(96, 64), (1, 1), (2000, 20), (20, 2000), (64, 64, 3)])
def test_pictures_of_every_shape(shape: tuple[int, ...]) -> None:
    """Narrow, wide, tiny and coloured images stand within the page."""
    evidence = [header(1)]
    report = report_of(evidence, PRESENT)
    picture = KeyPicture(ref(evidence[0]), np.full(shape, 200, np.uint8), None, aspect=1.5)
    drawn = draw_page(page_of(report, evidence[0], picture), picture)
    assert (drawn[70:, :30] == GROUND).all() and (drawn == 200).all(axis=2).any()


def test_a_statement_in_a_script_that_cannot_be_drawn() -> None:
    """The page says where the statement stands, rather than showing boxes."""
    evidence = [header(1)]
    report = report_of(evidence, PRESENT)
    report = replace(report, installation=replace(report.installation, statement="चिकित्सा उपकरण नहीं"))
    assert "structured report" in page_of(report, evidence[0], None).statement
    assert can_draw("Kein Medizinprodukt. Не медицинское изделие. Όχι.") and not can_draw("医")


def test_lines_keep_numbers_whole() -> None:
    """No line ends between a number and its percent sign, every word is kept, and none is wider than allowed."""
    face = font(24)
    text = "Probability 93 % that the thing is present in this very longwordthatdoesnotfitintoitsline indeed"
    made = list(lines(text, face, 180))
    assert not any(line.startswith("%") for line in made)
    assert "".join(made).replace("\xa0", " ").replace(" ", "") == text.replace(" ", "")
    assert all(face.getlength(line) <= 180 for line in made)


def test_a_pdf_has_its_fonts_inside() -> None:
    """The PDF is one page with embedded fonts, without scripts, and with the finding as its title."""
    made, picture = page()
    content = draw_pdf(made, picture)
    assert len(pypdfium2.PdfDocument(io.BytesIO(content))) == 1
    assert b"/FontFile2" in content and b"/JavaScript" not in content
