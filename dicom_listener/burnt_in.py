"""Text in the pixels: what a header says of it, and a search for lines of it in the picture.

The search finds what is drawn as annotations are: at least `LEAST_GLYPHS` thin strokes of one brightness and like
height side by side on a line, bright on dark or dark on bright. It is no reading of characters. It misses single
letters (such as the L and R of a film, on purpose), handwriting, text that is turned, blurred or hardly stands out,
and strokes thicker than `_STROKE` pixels at every scale; docs/learning.md has how often, measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset

LEAST_GLYPHS = 4
_STROKE = 7  # pixels: wider bright or dark shapes are no strokes
# Contrast of a stroke over what is around it, of 255, and shapes of a line at least: letters that stand out may touch
# and leave two shapes, as many vessels do; of fainter ones three are needed. Measured on films and heads.
_SEARCHES = ((60, 2), (35, 3))
_HEIGHTS = (6, 40)  # pixels of a glyph
_SMALLEST = 96  # pixels of the shorter side at the coarsest scale
_WIDEST = 6.0  # of a shape, in heights: letters that touch
_FILL = (0.2, 0.75)  # of the box of such a shape
_SAME_BRIGHTNESS = 24  # of 255, between the glyphs of a line
_SCREEN_TERMS = ("SCREEN SAVE", "SCREENSHOT", "SCREEN", "CSA REPORT", "DOSE REPORT", "PROTOCOL", "SUMMARY")

Grey = npt.NDArray[np.float32]  # shape (rows, columns)


@dataclass(frozen=True, slots=True)
class _Glyph:
    """The box of a shape made of thin strokes. Pixels."""

    left: int
    top: int
    right: int  # one past the last column
    bottom: int  # one past the last row
    brightness: float  # 0 to 255

    @property
    def height(self) -> int:
        """Pixels."""
        return self.bottom - self.top

    @property
    def letters(self) -> int:
        """How many letters the shape may be: those of small or bold text touch."""
        return max(1, round((self.right - self.left) / (0.75 * self.height)))


def why_not(header: Dataset) -> str | None:
    """Why the header says that the pixels may name somebody, in words; None where it says nothing of the kind."""
    if str(header.get("BurnedInAnnotation") or "").upper() == "YES":
        return "Its header says that text is burnt in (Burned In Annotation)."
    if str(header.get("RecognizableVisualFeatures") or "").upper() == "YES":
        return "Its header says that the person can be recognised (Recognizable Visual Features)."
    if header.get("ConversionType"):
        return "It was made by a converter or from a screen (Conversion Type)."
    terms = [str(term).upper() for term in header.get("ImageType") or ()]
    if any(term.startswith(_SCREEN_TERMS) for term in terms):
        return "It is a picture of a screen or a report (Image Type)."
    return None


def shows_text(image: Grey) -> bool:
    """Whether a line of text is found in the picture; see this module's words for what is missed."""
    low, high = float(image.min()), float(image.max())
    if not high > low:
        return False
    picture = Image.fromarray(np.rint((image - low) / (high - low) * 255).astype(np.uint8))
    scale = 1
    while scale == 1 or min(picture.width, picture.height) // scale >= _SMALLEST:
        small = picture if scale == 1 else picture.reduce(scale)
        levels = np.asarray(small)
        if any(_has_line(grey) for grey in (levels, 255 - levels)):
            return True
        scale *= 2
    return False


def _has_line(levels: npt.NDArray[np.uint8]) -> bool:
    standing_out = levels.astype(np.int16) - _opened(levels)
    return any(_in_line(_glyphs(levels, standing_out > contrast), least_shapes) for contrast, least_shapes in _SEARCHES)


def _glyphs(levels: npt.NDArray[np.uint8], strokes: npt.NDArray[np.bool_]) -> list[_Glyph]:
    """Shapes of thin strokes that may be letters, or a few letters that touch."""
    found = []
    for left, top, right, bottom, count in _shapes(strokes):
        height, width = bottom - top, right - left
        if not (_HEIGHTS[0] <= height <= _HEIGHTS[1] and width <= _WIDEST * height):
            continue
        if width > height and not _FILL[0] <= count / (width * height) <= _FILL[1]:
            continue  # letters that touch fill part of their box; a bar fills it, a hair does not
        box = levels[top:bottom, left:right][strokes[top:bottom, left:right]]
        found.append(_Glyph(left, top, right, bottom, float(np.percentile(box, 80))))
    return found


def _in_line(glyphs: Sequence[_Glyph], least_shapes: int) -> bool:
    """Whether enough of the shapes stand side by side on one line, alike in height and brightness."""
    ordered = sorted(glyphs, key=lambda glyph: glyph.left)
    longest = [(glyph.letters, 1) for glyph in ordered]  # letters and shapes of the longest line that ends here
    for this, glyph in enumerate(ordered):
        for other in range(this - 1, -1, -1):
            before = ordered[other]
            if glyph.left - before.left > _WIDEST * _HEIGHTS[1]:
                break
            if _follows(before, glyph):
                letters, shapes = longest[other]
                longest[this] = max(longest[this], (letters + glyph.letters, shapes + 1))
        letters, shapes = longest[this]
        if letters >= LEAST_GLYPHS and shapes >= least_shapes:
            return True
    return False


def _follows(before: _Glyph, glyph: _Glyph) -> bool:
    taller, lower = max(before.height, glyph.height), min(before.height, glyph.height)
    return (
        taller <= 1.6 * lower
        and abs(before.bottom - glyph.bottom) <= max(1, 0.12 * taller)
        and -1 <= glyph.left - before.right <= 0.9 * taller
        and abs(before.brightness - glyph.brightness) <= _SAME_BRIGHTNESS
    )


def _opened(levels: npt.NDArray[np.uint8]) -> npt.NDArray[np.int16]:
    """Without what is brighter and thinner than a stroke may be (a grey-scale opening by a square)."""
    side = _STROKE + 2
    padded = np.pad(levels, side // 2, mode="edge")
    eroded = _sliding(_sliding(padded, side, 0, np.minimum), side, 1, np.minimum)
    again = np.pad(eroded, side // 2, mode="edge")
    return _sliding(_sliding(again, side, 0, np.maximum), side, 1, np.maximum).astype(np.int16)


def _sliding(levels: npt.NDArray[np.uint8], side: int, axis: int, pick: np.ufunc) -> npt.NDArray[np.uint8]:
    """The least or greatest of each `side` neighbours along an axis, by doubling; shorter by `side` - 1."""
    reach, made = 1, levels
    while reach < side:
        step = min(reach, side - reach)
        size = made.shape[axis] - step
        made = pick(made.take(range(size), axis), made.take(range(step, step + size), axis))
        reach += step
    return made


def _shapes(mask: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int, int, int, int]]:
    """Left, top, right, bottom and size of each 8-connected region: runs, joined to those of the row above."""
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = (values.tolist() for values in np.nonzero(edges == 1))
    ends = np.nonzero(edges == -1)[1].tolist()
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    above = 0
    for run, row in enumerate(rows):
        while rows[above] < row - 1 or (rows[above] == row - 1 and ends[above] < starts[run]):
            above += 1
        touching = above
        while rows[touching] == row - 1 and starts[touching] <= ends[run]:
            parent[root(touching)] = root(run)
            touching += 1
    boxes: dict[int, tuple[int, int, int, int, int]] = {}
    for run, row in enumerate(rows):
        left, top, right, _, size = boxes.get(root(run), (starts[run], row, 0, 0, 0))
        length = ends[run] - starts[run]
        boxes[root(run)] = (min(left, starts[run]), top, max(right, ends[run]), row + 1, size + length)
    yield from boxes.values()
