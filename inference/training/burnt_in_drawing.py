"""Pictures with text drawn into them, as scanners, consoles and converters burn it in: what the finder learns from.

Every picture is the same again from the same generator. Fonts come with the packages that Wetread needs anyway, so
that a training can be repeated anywhere: typefaces alike Arial, Times and Courier and a few free ones (reportlab,
Pillow, this project), and Pillow's bitmap font.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import reportlab
from PIL import Image, ImageDraw, ImageFont

from fhir_records.renderings import typeface

Grey = npt.NDArray[np.uint8]  # shape (rows, columns)
Typeface = ImageFont.FreeTypeFont | ImageFont.ImageFont

BITMAP = "bitmap"
AILERON = "aileron"  # Pillow's own
_REPORTLAB = Path(reportlab.__file__).parent / "fonts"
_OURS = Path(typeface.__file__).parent / "fonts"
# What is drawn with while training. The measurement draws with others.
TRAINING_FONTS = (
    BITMAP,
    str(_REPORTLAB / "_a______.pfb"),
    str(_REPORTLAB / "_a______.pfb"),
    str(_REPORTLAB / "_ab_____.pfb"),
    str(_REPORTLAB / "_er_____.pfb"),
    str(_REPORTLAB / "_eb_____.pfb"),
    str(_REPORTLAB / "com_____.pfb"),
    str(_REPORTLAB / "cob_____.pfb"),
    str(_REPORTLAB / "Vera.ttf"),
    str(_OURS / "DejaVuSansCondensed.ttf"),
    str(_OURS / "DejaVuSansCondensed-Bold.ttf"),
)
HELD_OUT_FONTS = (
    AILERON,
    str(_REPORTLAB / "VeraBd.ttf"),
    str(_REPORTLAB / "_ai_____.pfb"),
    str(_REPORTLAB / "_ei_____.pfb"),
    str(_REPORTLAB / "cobo____.pfb"),
)

_CONSONANTS, _VOWELS = "bcdfghjklmnprstvwz", "aeiou"
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_WORDS = (
    "MRN", "DOB", "ID", "ACC", "Name", "Dr", "Hospital", "KLINIK", "Patient", "born", "Sex", "M", "F", "Y", "Study",
    "Ser", "Im", "SE", "TR", "TE", "kV", "mA", "WW", "WL", "FOV", "HFS", "AP", "PA", "ERECT", "PORTABLE", "SUPINE",
    "mm", "cm", "sec", "T1", "T2", "FLAIR", "AX", "SAG", "COR", "CHEST", "BRAIN",
)  # fmt: skip
_MONTHS = ("JAN", "Feb", "MAR", "Apr", "MAY", "Jun", "JUL", "Aug", "SEP", "Oct", "NOV", "Dec")
_OTHER_SCRIPTS = ("ÄÖÜßéèñçåø", "абвгдежиклмнопрстуя", "ΑΒΓΔΕΘΛΞΠΣΦΨΩ")


@dataclass(frozen=True, slots=True)
class Text:
    """How one text is drawn."""

    words: str
    font: str  # a file, `BITMAP` or `AILERON`
    size: int  # pixels: of the type, whose capitals are about 0.7 as high
    level: int  # brightness, 0 to 255
    opacity: float = 1.0
    smooth: bool = True  # anti-aliased
    edge: int | None = None  # brightness of an outline
    plate: int | None = None  # brightness of a filled rectangle behind it
    turned: int = 0  # quarter turns, counter-clockwise
    tilt: float = 0.0  # degrees, counter-clockwise


@dataclass(frozen=True, slots=True)
class Contrast:
    """By how much text stands out from the mean of what is under it, at least."""

    levels: float = 40  # of 255
    spreads: float = 1.5  # standard deviations of what is under it

    def least(self, under: Grey) -> float:
        """Levels, over these pixels."""
        return max(self.levels, self.spreads * float(under.std())) if under.size else self.levels


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in a picture, in pixels; right and bottom are one past the last."""

    left: int
    top: int
    right: int
    bottom: int


@cache
def font_of(name: str, size: int) -> Typeface:
    """A typeface by its name in `Text.font`; the bitmap font has one size alone."""
    if name == BITMAP:
        return ImageFont.load_default_imagefont()
    if name == AILERON:
        return ImageFont.load_default(size)
    return ImageFont.truetype(name, size)


def mask_of(text: Text, *, edge: int = 0) -> Grey:
    """As `_mask`, of what of a text is its shape."""
    return _mask(replace(text, level=0, opacity=1.0, edge=None, plate=None), edge)


@lru_cache(maxsize=8)
def _mask(text: Text, edge: int) -> Grey:
    """The letters alone, uint8 (rows, columns), 255 where they cover a pixel; `edge` pixels wider all around."""
    font = font_of(text.font, text.size)
    probe = ImageDraw.Draw(Image.new("L", (1, 1)))
    left, top, right, bottom = (round(value) for value in probe.textbbox((0, 0), text.words, font=font))
    picture = Image.new("L", (right - left + 6, bottom - top + 6))
    draw = ImageDraw.Draw(picture)
    draw.fontmode = "L" if text.smooth else "1"
    wider = 0 if text.font == BITMAP else edge
    draw.text((3 - left, 3 - top), text.words, fill=255, font=font, stroke_width=wider)
    if text.font == BITMAP and text.size >= 20:  # its letters are 11 pixels high, at every size a multiple of it
        times = text.size // 10
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    if text.tilt:
        picture = picture.rotate(text.tilt, Image.Resampling.BILINEAR, expand=True)
    mask = np.rot90(np.asarray(picture), text.turned)
    return np.ascontiguousarray(mask)


def draw_text(picture: Grey, text: Text, at: tuple[int, int]) -> Box | None:
    """Draw into the picture, in place, with the left upper corner of the letters' box at (column, row).

    Returns the box of what shows of the letters; None where nothing does.
    """
    letters = mask_of(text)
    if text.plate is not None:
        _blend(picture, np.full_like(letters, 255), text.plate, 1.0, at)
    if text.edge is not None:
        wide = mask_of(text, edge=1)
        shift = ((wide.shape[1] - letters.shape[1]) // 2, (wide.shape[0] - letters.shape[0]) // 2)
        _blend(picture, wide, text.edge, text.opacity, (at[0] - shift[0], at[1] - shift[1]))
    return _blend(picture, letters, text.level, text.opacity, at)


def _blend(picture: Grey, mask: Grey, level: int, opacity: float, at: tuple[int, int]) -> Box | None:
    left, top = at
    rows = slice(max(0, top), min(picture.shape[0], top + mask.shape[0]))
    columns = slice(max(0, left), min(picture.shape[1], left + mask.shape[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    part = mask[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    if not (part > 64).any():
        return None
    share = part.astype(np.float32) * (opacity / 255)
    under = picture[rows, columns]
    picture[rows, columns] = np.rint(under * (1 - share) + level * share).astype(np.uint8)
    down, across = np.flatnonzero((part > 64).any(axis=1)), np.flatnonzero((part > 64).any(axis=0))
    return Box(
        columns.start + int(across[0]),
        rows.start + int(down[0]),
        columns.start + int(across[-1]) + 1,
        rows.start + int(down[-1]) + 1,
    )


def words(rng: np.random.Generator, letters: int | None = None) -> str:
    """Something that could be burnt in: a name, a date, a number, a technical word; of so many letters where asked."""
    if letters is not None and letters < 4:
        pool = _CAPITALS if rng.random() < 0.5 else f"{_CAPITALS}{_CAPITALS.lower()}0123456789"
        if letters == 1 and rng.random() < 0.4:
            pool = "LR"
        return "".join(rng.choice(list(pool), letters))
    made = ""
    while not made or (letters is not None and len(made.replace(" ", "")) < letters) or rng.random() < 0.25:
        made = f"{made} {_word(rng)}" if made else _word(rng)
    if letters is not None:
        kept, count = "", 0
        for sign in made:
            count += sign != " "
            kept += sign
            if count == letters:
                break
        made = kept
    return made[:30].strip()


def _word(rng: np.random.Generator) -> str:
    kind = int(rng.integers(8))
    year, month, day = int(rng.integers(1920, 2030)), int(rng.integers(1, 13)), int(rng.integers(1, 29))
    if kind <= 2:
        name = f"{_name(rng)}{rng.choice(['^', ', ', ' ', ','])}{_name(rng)}"
        return name.upper() if rng.random() < 0.5 else name
    if kind == 3:
        forms = (
            f"{year}{month:02}{day:02}", f"{year}-{month:02}-{day:02}", f"{day:02}.{month:02}.{year}",
            f"{month}/{day}/{year % 100:02}", f"{day} {_MONTHS[month - 1]} {year}", f"{day % 24:02}:{month * 4:02}",
        )  # fmt: skip
        return forms[int(rng.integers(len(forms)))]
    if kind == 4:
        return str(rng.integers(10, 10 ** int(rng.integers(2, 12))))
    if kind == 5:
        return f"{rng.choice(list('ABCDEFMNPRSTXZ'))}{rng.choice(['', '-', ' '])}{rng.integers(10**5, 10**9)}"
    if kind == 6:
        return f"{rng.choice(_WORDS)}{rng.choice([' ', ': ', '=', ''])}{rng.integers(1, 5000)}"
    return str(rng.choice(_WORDS))


def _name(rng: np.random.Generator) -> str:
    if rng.random() < 0.06:
        return "".join(rng.choice(list(_OTHER_SCRIPTS[int(rng.integers(3))]), int(rng.integers(3, 9)))).capitalize()
    made = "".join(
        str(rng.choice(list(_CONSONANTS if (number + turn) % 2 else _VOWELS)))
        for turn in [int(rng.integers(2))]
        for number in range(int(rng.integers(3, 10)))
    )
    return made.capitalize()


def styled(
    rng: np.random.Generator,
    picture: Grey,
    fonts: Sequence[str],
    size: int,
    letters: int | None,
    contrast: Contrast,
) -> tuple[Text, tuple[int, int]]:
    """A text, and where it goes (column, row), so that it stands out from what is under it."""
    said, font = words(rng, letters), str(fonts[int(rng.integers(len(fonts)))])
    if not said.isascii():  # the others have no such letters
        font = str(_OURS / "DejaVuSansCondensed.ttf")
    draft = Text(said, font, size, 255, smooth=bool(rng.random() < 0.7))
    if rng.random() < 0.12:
        draft = replace(draft, turned=int(rng.choice([1, 3])))
    elif rng.random() < 0.08:
        draft = replace(draft, tilt=float(rng.uniform(-8, 8)))
    height, width = mask_of(draft).shape
    at = place(rng, picture.shape, (height, width))
    rows = slice(max(0, at[1]), max(1, at[1] + height))
    columns = slice(max(0, at[0]), max(1, at[0] + width))
    under = picture[rows, columns]
    middle, least = float(under.mean()) if under.size else 0.0, contrast.least(under)
    levels = [level for level in range(0, 256, 5) if abs(level - middle) >= least]
    style = rng.random()
    if style < 0.10:
        plate = int(rng.integers(256))
        level = int(rng.choice([level for level in range(0, 256, 5) if abs(level - plate) >= contrast.levels]))
        return replace(draft, level=level, plate=plate), at
    if style < 0.25 or not levels:
        level = int(rng.choice([255, 255, 0, int(rng.integers(170, 256))]))
        return replace(draft, level=level, edge=255 if level < 100 else 0), at
    level = 255 if 255 - middle >= least and rng.random() < 0.5 else int(rng.choice(levels))
    opacity = float(rng.uniform(min(1.0, least / abs(level - middle)), 1.0)) if rng.random() < 0.35 else 1.0
    return replace(draft, level=level, opacity=opacity), at


def place(rng: np.random.Generator, shape: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    """Where (column, row) a mask of size (rows, columns) goes: anywhere, or at an edge; inside where it fits."""
    free = (max(0, shape[1] - size[1]), max(0, shape[0] - size[0]))
    column, row = int(rng.integers(free[0] + 1)), int(rng.integers(free[1] + 1))
    if rng.random() < 0.4:
        column = int(rng.choice([0, free[0]]))
    if rng.random() < 0.4:
        row = int(rng.choice([0, free[1]]))
    return column, row


def coded(picture: Grey, quality: int) -> Grey:
    """As it comes back from JPEG (baseline) of that quality, 1 to 95."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream).convert("L"))
