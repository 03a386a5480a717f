"""Outlines as they are kept, drawn and named, and the volume in words."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pypdfium2
import pytest

from fhir_records.errors import RenderingError
from fhir_records.model import Code, ImageRef, Outlines, Presence, SegmentMask, SegmentVolume
from fhir_records.renderings import plain_words
from fhir_records.renderings.encapsulated_pdf import draw_pdf
from fhir_records.renderings.outline_drawing import outlined
from fhir_records.renderings.page_picture import draw_page
from fhir_records.renderings.result_page import DrawnOutline, KeyPicture, Page, page_of
from fhir_records.renderings.segment_masks import KeptMasks, drawn_on, segments_of
from tests.unit.fhir_records.renderings.sr_reports import BRAIN, NEOPLASM, PRESENT, header, ref, report_of, result_of

AMBER = (246, 186, 70)
TUMOUR = SegmentVolume(
    "tumour", "Tumour core", NEOPLASM, Code("SCT", "49755003", "Morphology"), BRAIN, AMBER, 9234.5, "m tumour", "2.25.8"
)
IMAGES = tuple(ImageRef("2.25.100", f"2.25.1000{number}", "1.2", None) for number in (1, 2, 3))


def box(rows: int = 10, columns: int = 12) -> np.ndarray:
    mask = np.zeros((rows, columns), bool)
    mask[3:8, 2:9] = True
    return mask


def kept(*masks: tuple[int, int, np.ndarray]) -> Outlines:
    """Outlines of these: segment, place, mask."""
    packed = tuple(
        SegmentMask(segment, place, zlib.compress(np.packbits(mask).tobytes())) for segment, place, mask in masks
    )
    return Outlines(10, 12, IMAGES, packed)


@pytest.mark.parametrize(
    ("mm3", "words"),
    [
        (0.4, "under 0.1 mL"),
        (99.9, "under 0.1 mL"),
        (100.0, "0.1 mL"),
        (9234.5, "9.2 mL"),
        (99_940.0, "99.9 mL"),
        (99_960.0, "100 mL"),
        (1_481_520.7, "1482 mL"),
    ],
)
def test_a_volume_is_said_no_finer_than_it_is_measured(mm3: float, words: str) -> None:
    """Millilitres with one place, from a hundred on with none; a little is never said to be nothing."""
    assert plain_words.volume_words(mm3) == words


@pytest.mark.parametrize("mm3", [0.0, -1.0, float("nan")])
def test_no_volume_is_an_error(mm3: float) -> None:
    """What has no volume was not outlined."""
    with pytest.raises(RenderingError, match="above nought"):
        plain_words.volume_words(mm3)


def test_the_sentences_name_each_volume() -> None:
    """One sentence names all that was outlined, also where the question's answer is no."""
    organ = replace(TUMOUR, wording="Liver", volume_mm3=1.5e6)
    for presence in (Presence.PRESENT, Presence.ABSENT):
        said = replace(PRESENT, presence=presence, segments=(TUMOUR, organ))
        assert "Outlined by the model: tumour core 9.2 mL, liver 1500 mL." in plain_words.sentences(result_of(said))
    assert not any("Outlined" in sentence for sentence in plain_words.sentences(result_of(PRESENT)))


def test_kept_masks_come_out_as_they_went_in() -> None:
    """Every image that was looked at is there, those with nothing too, and the bits are the same."""
    masks = KeptMasks(kept((1, 1, box()), (2, 0, ~box())), 1)
    assert list(masks) == list(IMAGES) and len(masks) == 3
    assert np.array_equal(masks[IMAGES[1]], box())
    assert not masks[IMAGES[0]].any() and masks[IMAGES[0]].shape == (10, 12)


@pytest.mark.parametrize("bits", [b"no zlib", zlib.compress(b"\0" * 14), zlib.compress(b"\0" * 16)])
def test_damaged_outlines_are_named(bits: bytes) -> None:
    """Bits that are no mask of these rows and columns are an error, not an empty outline."""
    outlines = Outlines(10, 12, IMAGES, (SegmentMask(1, 0, bits),))
    with pytest.raises(RenderingError, match="kept outline"):
        KeptMasks(outlines, 1)[IMAGES[0]]


def test_a_finding_without_its_outlines_is_an_error() -> None:
    """A result that speaks of volumes needs what they are of; one that does not has no segments."""
    said = replace(PRESENT, segments=(TUMOUR,))
    with pytest.raises(RenderingError, match="none of them is kept"):
        segments_of(said, None)
    assert segments_of(PRESENT, kept((1, 0, box()))) == () and segments_of(None, None) == ()
    (segment,) = segments_of(said, kept((1, 0, box())))
    assert (segment.volume_mm3, segment.colour, segment.site) == (9234.5, AMBER, BRAIN)


def test_what_lies_on_an_image_is_drawn_there_alone() -> None:
    """A page gets the outlines of its own image, the first on top; of another image or after a correction none."""
    organ = replace(TUMOUR, label="liver", wording="Liver", volume_mm3=1.5e6)
    said = replace(PRESENT, segments=(TUMOUR, organ))
    outlines = kept((1, 1, box()), (2, 0, ~box()), (2, 1, ~box()))
    assert [one.words for one in drawn_on(IMAGES[1], said, outlines)] == ["liver 1500 mL", "tumour core 9.2 mL"]
    assert [one.words for one in drawn_on(IMAGES[0], said, outlines)] == ["liver 1500 mL"]
    assert drawn_on(IMAGES[2], said, outlines) == ()
    assert drawn_on(IMAGES[1], PRESENT, outlines) == () and drawn_on(IMAGES[1], said, None) == ()


@pytest.mark.parametrize("shape", [(10, 12), (600, 900), (1500, 900)])
def test_the_line_runs_within_the_outline(shape: tuple[int, int]) -> None:
    """Outside the mask nothing changes; along its edge the colour stands, and the middle stays the picture's."""
    mask = np.zeros(shape, bool)
    mask[shape[0] // 5 : -shape[0] // 5, shape[1] // 5 : -shape[1] // 5] = True
    picture = KeyPicture(IMAGES[0], np.full(shape, 100, np.uint8), None, outlines=(DrawnOutline(mask, AMBER, "x"),))
    drawn = outlined(picture)
    assert max(drawn.shape[:2]) >= 720
    times = drawn.shape[0] // shape[0]
    large = np.kron(mask, np.ones((times, times), bool))
    assert (drawn[~large] == 100).all()
    edge = large & ~np.roll(large, 1, axis=0)
    assert (drawn[edge] == AMBER).all()
    middle = drawn[drawn.shape[0] // 2, drawn.shape[1] // 2].astype(int)
    assert np.abs(middle - 100).max() < 30


def test_an_outline_at_the_pictures_edge_is_closed() -> None:
    """What fills the whole picture has its line along the picture's own edge."""
    whole = DrawnOutline(np.ones((40, 40), bool), AMBER, "x")
    drawn = outlined(KeyPicture(IMAGES[0], np.zeros((40, 40), np.uint8), None, outlines=(whole,)))
    for side in (drawn[0], drawn[-1], drawn[:, 0], drawn[:, -1]):
        assert (side == AMBER).all()


def test_an_outline_of_another_shape_is_an_error() -> None:
    """A mask has the rows and columns of its picture."""
    with pytest.raises(RenderingError, match="rows and columns"):
        KeyPicture(IMAGES[0], np.zeros((8, 8), np.uint8), None, outlines=(DrawnOutline(box(), AMBER, "x"),))


def page(count: int, words: str = "tumour core {} 9.2 mL") -> tuple[Page, KeyPicture]:
    """A page whose picture has so many outlines."""
    evidence = [header(1)]
    report = report_of(evidence, PRESENT)
    outlines = tuple(
        DrawnOutline(np.roll(box(96, 64), 6 * number, 0), (40 * number % 256, 200, 250 - 30 * number % 200),
                     words.format(number)) for number in range(count)
    )  # fmt: skip
    picture = KeyPicture(ref(evidence[0]), np.full((96, 64), 60, np.uint8), None, outlines=outlines)
    return page_of(report, evidence[0], picture), picture


@pytest.mark.parametrize(
    ("count", "words"), [(1, "mass 3 mL"), (4, "part {} 1.0 mL"), (9, "a longer name of it {} 12 mL")]
)
def test_outlines_have_their_names_beside_their_colours(count: int, words: str) -> None:
    """The page shows the colours of its outlines under the picture, nothing runs out of it, and the PDF names them."""
    made, picture = page(count, words)
    drawn = draw_page(made, picture)
    ground = (11, 15, 20)
    assert (drawn[100:900, :24] == ground).all() and (drawn[100:900, -24:] == ground).all()
    last = picture.outlines[-1]
    assert (np.abs(drawn.astype(int) - last.colour).max(axis=-1) < 3).sum() > 200
    text = pypdfium2.PdfDocument(draw_pdf(made, picture))[0].get_textpage().get_text_range().replace("\xa0", " ")
    assert last.words in text
    assert (f"and {count - 5} more, listed in the structured report" in text) == (count > 5)


def test_a_long_name_keeps_its_volume() -> None:
    """A name too long for its line loses words in its middle, never the volume at its end."""
    from fhir_records.renderings.page_picture import SMALLEST, _shortened
    from fhir_records.renderings.typeface import font

    words = "a very long name of a structure that nobody would ever put on a page 12.3 mL"
    short = _shortened(words, font(SMALLEST), 300)
    assert short.endswith("12.3 mL") and "…" in short
    assert font(SMALLEST).getlength(short) <= 300
