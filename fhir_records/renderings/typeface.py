"""The one typeface that pages are set in: DejaVu Sans Condensed, which has Latin, Greek and Cyrillic.

Its files lie beside, for a page must look the same on every machine. Licence: `fonts/LICENSE.txt`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from PIL import ImageFont

_FOLDER: Final = Path(__file__).parent / "fonts"
REGULAR: Final = _FOLDER / "DejaVuSansCondensed.ttf"
BOLD: Final = _FOLDER / "DejaVuSansCondensed-Bold.ttf"

# No font has a glyph for a noncharacter (Unicode section 23.7), so its picture is that of "no glyph".
_NO_GLYPH: Final = "\uffff"


@functools.cache
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The typeface at `size` pixels."""
    # The basic layout needs no shaping library, so that every machine sets the same.
    return ImageFont.truetype(BOLD if bold else REGULAR, size, layout_engine=ImageFont.Layout.BASIC)


def can_draw(text: str) -> bool:
    """Whether the typeface has a glyph for every character of `text`."""
    return all(_has_glyph(character) for character in set(text) - set(" \n"))


@functools.lru_cache(maxsize=4096)
def _has_glyph(character: str) -> bool:
    face = font(24)
    return bytes(face.getmask(character)) != bytes(face.getmask(_NO_GLYPH))


def lines(text: str, face: ImageFont.FreeTypeFont, width: float) -> Iterator[str]:
    """`text` broken between words into lines no wider than `width` pixels; a longer word is broken within."""
    line = ""
    # A number keeps its percent sign.
    for word in text.replace(" %", "\xa0%").split(" "):
        longer = f"{line} {word}" if line else word
        if face.getlength(longer) <= width:
            line = longer
            continue
        if line:
            yield line
        *whole, line = _pieces(word, face, width)
        yield from whole
    if line:
        yield line


def _pieces(word: str, face: ImageFont.FreeTypeFont, width: float) -> Iterator[str]:
    rest = word
    while face.getlength(rest) > width and len(rest) > 1:
        fits = next((count for count in range(len(rest) - 1, 1, -1) if face.getlength(rest[:count]) <= width), 1)
        yield rest[:fits]
        rest = rest[fits:]
    yield rest
