"""Text in pixels: what headers say of it, and what is found in pictures."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from dicom_listener.burnt_in import shows_text, why_not
from dicom_listener.pixels import grey_frame
from fhir_records.renderings.typeface import font

LINES = ("DOE^JANE", "Meier, Anna", "19610503", "MRN 0049213", "ACC0012345")


def drawn(
    text: str, size: int, fill: int, *, around: int = 40, side: int = 256, at: tuple[int, int] = (20, 30)
) -> np.ndarray:
    """A grey picture with some noise and a line of text."""
    rng = np.random.default_rng(size)
    picture = Image.fromarray(np.clip(rng.normal(around, 8, (side, side)), 0, 255).astype(np.uint8))
    ImageDraw.Draw(picture).text(at, text, fill=fill, font=font(size))
    return np.asarray(picture, dtype=np.float32)


@pytest.mark.parametrize("size", [12, 16, 24, 40])
@pytest.mark.parametrize("text", LINES)
def test_lines_of_text_are_found(text: str, size: int) -> None:
    """Names and numbers in letters of 12 to 40 pixels, white on dark and black on bright, whatever the range."""
    assert shows_text(drawn(text, size, 250, side=384))
    assert shows_text(drawn(text, size, 10, around=200, side=384))
    assert shows_text(drawn(text, size, 250, side=384) * 16 - 1024)


def test_what_is_no_line_of_text_is_let_through() -> None:
    """An even picture, waves, a letter and a bar show no text."""
    assert not shows_text(np.full((128, 128), 7.0, dtype=np.float32))
    row, column = np.mgrid[0:256, 0:256]
    assert not shows_text((np.sin(row / 9) * np.cos(column / 13)).astype(np.float32))
    assert not shows_text(drawn("L", 24, 250))
    bar = drawn("", 12, 0)
    bar[20:30, 20:200] = 250
    assert not shows_text(bar)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("BurnedInAnnotation", "YES"),
        ("RecognizableVisualFeatures", "YES"),
        ("ConversionType", "WSD"),
        ("ImageType", ["DERIVED", "SECONDARY", "SCREEN SAVE"]),
    ],
)
def test_a_header_that_warns_is_believed(keyword: str, value: object) -> None:
    """Burnt-in text, a recognisable face, a converter or a screen: each is a reason in words."""
    ds = Dataset()
    ds.ImageType, ds.BurnedInAnnotation = ["ORIGINAL", "PRIMARY"], "NO"
    assert why_not(ds) is None
    setattr(ds, keyword, value)
    assert "(" in str(why_not(ds))


def test_how_often_it_errs_on_real_images(test_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On films nearly nothing is refused wrongly, on heads less than every fourth; most drawn text is found on both."""
    chance = random.Random(7)
    shares: dict[str, tuple[float, float]] = {}
    for name, folder in (("films", "chest_xr/normal"), ("heads", "brain_mr/meningioma")):
        files = chance.sample(sorted((test_data / folder).iterdir()), 40)
        wrong = found = 0
        for file in files:
            with Image.open(file) as opened:
                picture = opened.convert("L").resize((512, 512))
            wrong += shows_text(np.asarray(picture, dtype=np.float32))
            place = (chance.randint(4, 300), chance.choice((6, 480)))
            ImageDraw.Draw(picture).text(place, chance.choice(LINES), fill=255, font=font(16))
            found += shows_text(np.asarray(picture, dtype=np.float32))
        shares[name] = (wrong / len(files), found / len(files))
    series = sorted((test_data / "dicom" / "philips_brain_mr").iterdir())[::10]
    refused = sum(shows_text(grey_frame(file)) for file in series) / len(series)
    with capsys.disabled():
        for name, (wrong, found) in shares.items():
            print(f"{name}: refused wrongly {wrong:.0%}, drawn text found {found:.0%}")
        print(f"a head series: refused wrongly {refused:.0%}")
    assert shares["films"][0] <= 0.05
    assert max(shares["heads"][0], refused) <= 0.25
    assert min(found for _, found in shares.values()) >= 0.75
