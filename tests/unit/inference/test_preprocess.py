"""The head is found, the rest blanked, and the scale does not depend on what lies outside."""

from __future__ import annotations

import numpy as np
import pytest

from inference.preprocess import PreprocessSettings, crop_and_scale, find_head, prepare, standardise

SETTINGS = PreprocessSettings(size=64)


def _head(rows: int = 200, columns: int = 160, noise: float = 3.0) -> np.ndarray:
    """A bright ellipse with a darker inside on noise."""
    row, column = np.mgrid[0:rows, 0:columns]
    far = ((row - rows / 2) / (0.35 * rows)) ** 2 + ((column - columns / 2) / (0.3 * columns)) ** 2
    image = np.where(far < 1, np.where(far < 0.8, 400.0, 900.0), 0.0)
    return (image + np.abs(np.random.default_rng(1).normal(scale=noise, size=image.shape))).astype(np.float32)


def test_the_box_lies_round_the_head() -> None:
    """The head's bounding box is right to within a cell of the grid that it is looked for in."""
    head = find_head(_head(), SETTINGS)
    assert head is not None
    assert (head.top, head.bottom) == (pytest.approx(30, abs=5), pytest.approx(170, abs=5))
    assert (head.left, head.right) == (pytest.approx(32, abs=5), pytest.approx(128, abs=5))
    assert head.fraction == pytest.approx(np.pi * 0.35 * 0.3, rel=0.12)


def test_text_burnt_in_beside_the_head_is_cut_away() -> None:
    """Bright letters in a corner change nothing that the network sees."""
    plain, written = _head(), _head()
    written[4:12, 4:40:3] = 900.0
    first, second = prepare(plain, SETTINGS), prepare(written, SETTINGS)
    assert first is not None
    assert second is not None
    assert np.abs(first[0] - second[0]).max() < 0.05


@pytest.mark.parametrize(("gain", "offset"), [(0.1, 0.0), (7.0, 300.0)])
def test_the_scale_of_the_values_does_not_matter(gain: float, offset: float) -> None:
    """A scanner with other gain and offset gives the same picture."""
    first, second = prepare(_head(), SETTINGS), prepare(_head() * np.float32(gain) + np.float32(offset), SETTINGS)
    assert first is not None
    assert second is not None
    assert np.abs(first[0] - second[0]).max() < 0.02


def test_a_wider_field_of_view_does_not_matter() -> None:
    """The same head in more air is nearly the same picture (the box moves by less than a cell)."""
    narrow = prepare(_head(noise=0), SETTINGS)
    wide = prepare(np.pad(_head(noise=0), 60), SETTINGS)
    assert narrow is not None
    assert wide is not None
    assert np.corrcoef(narrow[0].ravel(), wide[0].ravel())[0, 1] > 0.9


def test_the_picture_has_the_networks_size_and_range() -> None:
    """Whatever the image's shape, the square has the size asked for and values from 0 to 1."""
    for shape in ((300, 90), (33, 47), (512, 512)):
        image = _head(*shape)
        head = find_head(image, SETTINGS)
        assert head is not None
        square = crop_and_scale(image, head, SETTINGS)
        assert square.shape == (64, 64)
        assert square.dtype == np.float32
        assert square.min() >= 0.0
        assert square.max() <= 1.0


def test_an_empty_image_shows_no_head() -> None:
    """An image of one value has nothing in it, and that raises nothing."""
    assert prepare(np.zeros((64, 64), np.float32), SETTINGS) is None
    assert prepare(np.full((64, 64), 12.0, np.float32), SETTINGS) is None


def test_standardised_pictures_have_mean_zero_and_variance_one() -> None:
    """The network's input is centred and scaled."""
    picture = standardise(np.random.default_rng(0).uniform(size=(64, 64)).astype(np.float32))
    assert picture.mean() == pytest.approx(0, abs=1e-5)
    assert picture.std() == pytest.approx(1, abs=1e-4)


def test_a_border_of_one_grey_is_cut_away_and_nothing_blanked() -> None:
    """With crop "frame" the picture inside a uniform border is what is seen; its dark parts stay."""
    inside = np.random.default_rng(0).uniform(100, 200, size=(80, 60)).astype(np.float32)
    inside[30:50, 20:40] = 0.0
    framed = np.pad(inside, ((10, 30), (25, 5)), constant_values=20.0)
    settings = PreprocessSettings(size=64, crop="frame")
    found = prepare(framed, settings)
    assert found is not None
    subject = found[1]
    assert (subject.top, subject.bottom, subject.left, subject.right) == (10, 90, 25, 85)
    assert np.corrcoef(found[0].ravel(), prepare(inside, settings)[0].ravel())[0, 1] > 0.999  # type: ignore[index]


def test_the_whole_picture_is_seen_where_nothing_is_cut() -> None:
    """With crop "none" a wide picture is padded above and below, never stretched."""
    picture = np.full((20, 40), 1.0, dtype=np.float32)
    picture[:, :20] = 3.0
    found = prepare(picture, PreprocessSettings(size=40, crop="none"))
    assert found is not None
    square = found[0]
    assert square.shape == (40, 40)
    assert found[1].fraction == 1.0
    assert (square[:10] == square[0, 0]).all()
    assert square[20, 5] > square[20, 35]


@pytest.mark.parametrize("crop", ["frame", "none"])
def test_a_picture_of_one_grey_shows_nothing(crop: str) -> None:
    """An empty frame is told as such, whatever the crop."""
    assert prepare(np.full((30, 30), 7.0, dtype=np.float32), PreprocessSettings(size=32, crop=crop)) is None
