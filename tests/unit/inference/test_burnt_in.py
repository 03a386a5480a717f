"""Text in pixels: what is found, what is let through, how often it errs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dicom_listener.pixels import grey_frame
from fhir_records.renderings.typeface import font
from inference import burnt_in
from inference.burnt_in import THRESHOLD, find_text, levels_of, score_of
from inference.training.burnt_in_data import MEASURE, TRAIN, TUNE, pictures
from inference.training.burnt_in_drawing import AILERON, Text, draw_text, mask_of
from tests.bench.bench_burnt_in import clean, found_shares

LINES = ("DOE^JANE", "Meier, Anna", "19610503", "MRN 0049213")


def drawn(text: str, size: int, fill: int, *, around: int = 40, side: int = 256) -> np.ndarray:
    """A grey picture with some noise and a line of text at (20, 30)."""
    rng = np.random.default_rng(size)
    picture = Image.fromarray(np.clip(rng.normal(around, 8, (side, side)), 0, 255).astype(np.uint8))
    ImageDraw.Draw(picture).text((20, 30), text, fill=fill, font=font(size))
    return np.asarray(picture, dtype=np.float32)


def test_the_network_names_no_file_of_the_machine_that_wrote_it() -> None:
    """What the exporter notes of its own source is not shipped."""
    assert b".py" not in Path(burnt_in.__file__).with_suffix(".onnx").read_bytes()


@pytest.mark.parametrize(
    ("text", "size"),
    [(line, size) for line in LINES for size in (9, 12, 16, 24, 40)] + [("AB", 16), ("AB", 24), ("J.D", 24)],
)
def test_text_is_found(text: str, size: int) -> None:
    """Names and numbers in type of 9 to 40 pixels, larger initials, white and black, whatever the range."""
    side = 384
    assert find_text(drawn(text, size, 250, side=side))
    assert find_text(drawn(text, size, 10, around=200, side=side))
    assert find_text(drawn(text, size, 250, side=side) * 16 - 1024)


def test_the_box_lies_around_the_text() -> None:
    """What is found of one line covers most of its letters, and not much else."""
    image = drawn("OKONKWO^CHIDINMA", 20, 250, side=384)
    letters = image > 150
    (box, *_) = find_text(image)
    inside = np.zeros_like(letters)
    inside[box.top : box.bottom, box.left : box.right] = True
    assert (letters & inside).sum() > 0.9 * letters.sum()
    assert inside.sum() < 2.5 * 200 * 20


def test_what_is_no_text_is_let_through() -> None:
    """An even picture, noise, waves, a bar, a grid and a ring show no text."""
    row, column = np.mgrid[0:256, 0:256].astype(np.float32)
    pictures_without = {
        "even": np.full((128, 128), 7.0, dtype=np.float32),
        "noise": np.random.default_rng(1).normal(0, 30, (256, 256)).astype(np.float32),
        "waves": np.sin(row / 9) * np.cos(column / 13),
        "bar": np.where((row > 20) & (row < 30) & (column > 20) & (column < 200), 250, 40).astype(np.float32),
        "grid": np.where((row % 64 == 0) | (column % 64 == 0), 200, 20).astype(np.float32),
        "ring": np.where(np.abs(np.hypot(row - 128, column - 128) - 80) < 3, 250, 20).astype(np.float32),
    }
    assert [name for name, image in pictures_without.items() if find_text(image)] == []


def test_every_part_of_a_large_frame_is_looked_at() -> None:
    """Text is found at each corner, in the middle, and across the seams of a frame that is looked at in parts."""
    rng = np.random.default_rng(2)
    frame = rng.normal(60, 4, (1500, 2300)).clip(0, 255).astype(np.uint8)
    text = Text("MEIER^ANNA", AILERON, 14, 255)
    height, width = mask_of(text).shape
    for row in (0, 1024 - height // 2, 1500 - height):
        for column in (0, 1024 - width // 2, 2300 - width):
            picture = frame.copy()
            draw_text(picture, text, (column, row))
            (box, *_) = find_text(picture.astype(np.float32))
            assert box.top <= row + height / 2 <= box.bottom
            assert box.left <= column + width / 2 <= box.right
    assert not find_text(frame.astype(np.float32))


def test_text_is_found_whatever_else_is_bright() -> None:
    """A few very bright pixels, or numbers that are none, do not hide text: a second window is looked at."""
    image = drawn("DOE^JANE", 16, 120)
    image[200:203, 200:203] = 60000
    image[0, 0], image[0, 1] = np.nan, np.inf
    assert len(levels_of(image)) == 2
    assert find_text(image)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (16, 16), (65, 97)])
def test_frames_of_every_shape_are_looked_at(shape: tuple[int, int]) -> None:
    """Small and narrow frames, and sides that four does not divide, give an answer."""
    assert find_text(np.zeros(shape, dtype=np.float32)) == ()


def test_a_higher_threshold_finds_less() -> None:
    """The score is the threshold at which nothing is found any more."""
    image = drawn("Meier, Anna", 14, 250)
    score = score_of(image)
    assert find_text(image, score - 0.01)
    assert not find_text(image, score)


def test_the_frames_that_have_text_are_refused_in_every_colour(test_data: Path) -> None:
    """Screens of ultrasound machines, in palette and YBR colours and in two frames, show text."""
    screens = ("gdcm-US-ALOKA-16.dcm", "US1_J2KR.dcm", "../transfer_syntaxes/US-YBR_FULL_422-EVRLE.dcm")
    for name in screens:
        assert find_text(grey_frame(test_data / "dicom" / "assorted" / name)), name
    for frame in (1, 2):
        assert find_text(grey_frame(test_data / "dicom" / "assorted/OBXXXX1A_rle_2frame.dcm", frame))


def test_no_picture_is_on_two_sides(test_data: Path) -> None:
    """What the finder learns from, what chooses its threshold and what it is measured on are other images."""
    names = [{picture.name for picture in pictures(test_data, part)} for part in (TRAIN, TUNE, MEASURE)]
    assert all(names)
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])


def test_how_often_it_errs_on_real_images(test_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of clean images few are refused; of text drawn into images that were never learnt from, nearly none is missed."""
    images = list(clean(test_data, 0.15))
    refused = {}
    for kind in ("head", "film", "thumbnail", "dicom/philips_brain_mr"):
        some = [picture for picture in images if picture.kind == kind]
        assert some
        refused[kind] = sum(bool(find_text(one.grey.astype(np.float32))) for one in some) / len(some)
    scores = found_shares(images, seed=5, rounds=12, ways=("as it comes", "white, anywhere"))
    large = [(score > THRESHOLD, one.letters) for cell in scores.values() for score, one in cell if one.text.size >= 9]
    found = {
        "2-3 letters": np.mean([is_found for is_found, letters in large if letters < 4]),
        "4 letters or more": np.mean([is_found for is_found, letters in large if letters >= 4]),
    }
    with capsys.disabled():
        print("\nrefused wrongly:", {kind: f"{share:.1%}" for kind, share in refused.items()})
        print("found:", {name: f"{share:.1%}" for name, share in found.items()})
    assert refused.pop("dicom/philips_brain_mr") <= 0.30  # sagittal: gyri under the vertex; docs/learning.md says so
    assert max(refused.values()) <= 0.05
    assert found["4 letters or more"] >= 0.98
    assert found["2-3 letters"] >= 0.80
