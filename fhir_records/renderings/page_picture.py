"""A result's page drawn: dark as a reading room, 1024 pixels square, legible at half that size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fhir_records.model import Presence, ResultStatus
from fhir_records.renderings.outline_drawing import outlined
from fhir_records.renderings.result_page import KeyPicture, Page, shown_map
from fhir_records.renderings.typeface import font, lines

SIDE: Final = 1024  # pixels
SMALLEST: Final = 22  # pixels of type: 11 where the page is shown at 512

_MARGIN: Final = 32
_GAP: Final = 16
_WIDTH: Final = SIDE - 2 * _MARGIN
_PANEL: Final = (_WIDTH - _GAP) // 2

_GROUND: Final = (11, 15, 20)
_PANEL_GROUND: Final = (0, 0, 0)
_RULE: Final = (52, 62, 74)
_WHITE: Final = (240, 244, 248)
_GREY: Final = (168, 180, 192)
_DARK: Final = (16, 20, 26)
_AMBER: Final = (246, 186, 70)
_BLUE: Final = (112, 178, 236)
_VIOLET: Final = (190, 164, 240)
_RED: Final = (240, 104, 96)

# From black through violet, red and orange to pale yellow: brighter is always more, also to the colour-blind.
_RAMP: Final = np.array(
    [[0, 0, 4], [60, 12, 100], [146, 32, 110], [214, 62, 66], [248, 136, 24], [252, 220, 90], [254, 250, 200]], float
)
_STRONGEST: Final = 0.72  # opacity of the map where it is strongest: what lies under it stays seen

Colour = tuple[int, int, int]


def draw_page(page: Page, picture: KeyPicture | None) -> npt.NDArray[np.uint8]:
    """The page as uint8 of shape (1024, 1024, 3), RGB."""
    canvas = Image.new("RGB", (SIDE, SIDE), _GROUND)
    pen = ImageDraw.Draw(canvas)
    accent = _accent(page)
    _bar_at_top(pen, page)
    top = _headline(pen, page, accent, 92)
    if page.probability is not None:
        top = _probability(pen, page, page.probability, accent, top + 10)
    foot = _foot(pen, page)
    if picture is not None:
        notes_height = _notes_height(page)
        height = max(300, min(_PANEL, foot - top - 82 - notes_height))
        top = _pictures(canvas, pen, page, picture, top + 18, height)
    else:
        top = _empty_panel(pen, page, top + 24, foot - 28 - _notes_height(page))
    _notes(pen, page, top + 14, foot - 10)
    return np.asarray(canvas, dtype=np.uint8)


def overlaid(picture: KeyPicture) -> npt.NDArray[np.uint8]:
    """The picture with its outlines drawn, or its map laid over; the bare picture where there is neither.

    uint8 of the picture's shape, (rows, columns, 3); with outlines larger, so that their lines are fine.
    """
    if picture.outlines:
        return outlined(picture)
    grey = _rgb(picture.pixels)
    strength = shown_map(picture)
    if strength is None:
        return grey
    opacity = (_STRONGEST * np.clip(strength * 1.6, 0, 1))[..., None]
    mixed = grey * (1 - opacity) + _ramp(strength) * opacity
    shown: npt.NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return shown


def _ramp(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    places = np.linspace(0, 1, len(_RAMP))
    return np.stack([np.interp(values, places, _RAMP[:, channel]) for channel in range(3)], axis=-1)


def _rgb(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels


def _accent(page: Page) -> Colour:
    if page.status is ResultStatus.ENTERED_IN_ERROR:
        return _RED
    if page.refused or page.presence is Presence.UNDETERMINED:
        return _VIOLET
    # Neither is green: an answer of "nothing there" must not look like an all-clear.
    return _AMBER if page.presence is Presence.PRESENT else _BLUE


def _bar_at_top(pen: ImageDraw.ImageDraw, page: Page) -> None:
    pen.rectangle((0, 0, SIDE, 68), fill=(20, 26, 34))
    pen.text((_MARGIN, 34), "Wetread", font=font(32, bold=True), fill=_WHITE, anchor="lm")
    left = _MARGIN + font(32, bold=True).getlength("Wetread") + 14
    pen.text((left, 34), "AI read", font=font(28), fill=_GREY, anchor="lm")
    face = _fitting(page.stamp, SIDE - left - 180, (27, 25, 23, SMALLEST), bold=True)
    width = face.getlength(page.stamp) + 32
    fill = {ResultStatus.PRELIMINARY: _AMBER, ResultStatus.ENTERED_IN_ERROR: _RED}.get(page.status, _WHITE)
    box = (SIDE - _MARGIN - width, 12, SIDE - _MARGIN, 56)
    pen.rounded_rectangle(box, radius=22, fill=fill)
    pen.text((box[0] + 16, 34), page.stamp, font=face, fill=_DARK, anchor="lm")


def _fitting(text: str, width: float, sizes: Sequence[int], *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The largest of these sizes at which `text` stands on one line; the last where none does."""
    for size in sizes:
        if font(size, bold=bold).getlength(text) <= width:
            break
    return font(size, bold=bold)


def _headline(pen: ImageDraw.ImageDraw, page: Page, accent: Colour, top: int) -> int:
    text = page.headline.rstrip(".")
    for size, most in ((46, 1), (42, 1), (38, 1), (40, 2), (34, 3), (28, 5)):
        face = font(size, bold=True)
        set_lines = list(lines(text, face, _WIDTH - 28))
        if len(set_lines) <= most:
            break
    height = round(size * 1.24)
    pen.rounded_rectangle((_MARGIN, top, _MARGIN + 8, top + height * len(set_lines)), radius=4, fill=accent)
    for number, line in enumerate(set_lines):
        pen.text((_MARGIN + 28, top + height * number + height / 2), line, font=face, fill=_WHITE, anchor="lm")
    return top + height * len(set_lines)


def _probability(pen: ImageDraw.ImageDraw, page: Page, probability: float, accent: Colour, top: int) -> int:
    """The bar, from 0 to 100 %, and what it is the probability of."""
    left, right = _MARGIN + 28, SIDE - _MARGIN
    pen.rounded_rectangle((left, top, right, top + 18), radius=9, fill=_RULE)
    end = left + (right - left) * min(max(probability, 0.02), 0.995)
    pen.rounded_rectangle((left, top, end, top + 18), radius=9, fill=accent)
    for quarter in (0.25, 0.5, 0.75):
        place = left + (right - left) * quarter
        pen.line((place, top + 2, place, top + 16), fill=_GROUND, width=2)
    text = f"Probability {page.probability_words}"
    face = _fitting(text, right - left, (25, 24, 23, SMALLEST))
    pen.text((left, top + 40), text, font=face, fill=_GREY, anchor="lm")
    return top + 56


def _pictures(
    canvas: Image.Image, pen: ImageDraw.ImageDraw, page: Page, picture: KeyPicture, top: int, height: int
) -> int:
    """The key image and, where there is a map, the same with it laid over, each with its caption."""
    where = f"Key image: {page.key_image}." if page.key_image else "Key image."
    if picture.shows_more:
        right = _MARGIN + _PANEL + _GAP
        panels = [(_rgb(picture.pixels), where, _MARGIN, _PANEL), (overlaid(picture), page.map_words, right, _PANEL)]
    else:
        panels = [(_rgb(picture.pixels), f"{where} {page.map_words}", _MARGIN, _WIDTH)]
    bottom = below = top + height
    for pixels, caption, left, width in panels:
        pen.rectangle((left, top, left + width, bottom), fill=_PANEL_GROUND, outline=_RULE)
        shown = _scaled(pixels, picture.aspect, width - 2, height - 2)
        canvas.paste(shown, (left + (width - shown.width) // 2, top + (height - shown.height) // 2))
        place = bottom + 18
        for line in lines(caption, font(SMALLEST), width):
            pen.text((left, place), line, font=font(SMALLEST), fill=_GREY, anchor="lm")
            place += 27
        if pixels is not panels[0][0]:
            place = _names(pen, picture, left, width, place)
        below = max(below, place - 12)
    if picture.shows_more and not picture.outlines:
        _legend(canvas, pen, SIDE - _MARGIN - 168, bottom - 40)
    return below


def _names(pen: ImageDraw.ImageDraw, picture: KeyPicture, left: int, width: int, place: int) -> int:
    """What each outline is, beside its colour, in two lines; gives where the next line stands."""
    face, at, last = font(SMALLEST), left, place + 27
    for number, outline in enumerate(reversed(picture.outlines)):
        text = _shortened(outline.words, face, width - 28)
        needed = 28 + round(face.getlength(text))
        if at > left and at + needed > left + width:
            at, place = left, place + 27
        if place > last:
            more = f"and {len(picture.outlines) - number} more, listed in the structured report"
            pen.text((left, place), more, font=face, fill=_GREY, anchor="lm")
            return place + 27
        pen.rounded_rectangle((at, place - 8, at + 16, place + 8), radius=4, fill=outline.colour)
        pen.text((at + 24, place), text, font=face, fill=_WHITE, anchor="lm")
        at += needed + 20
    return place + 27 if picture.outlines else place


def _shortened(text: str, face: ImageFont.FreeTypeFont, width: float) -> str:
    """`text` with words left out of its middle until it fits; its end, which says the volume, stays."""
    words = text.split(" ")
    while len(words) > 4 and face.getlength(" ".join(words)) > width:
        del words[len(words) - 3]
        words[len(words) - 3] = words[len(words) - 3].rstrip("…") + "…"
    return " ".join(words)


def _legend(canvas: Image.Image, pen: ImageDraw.ImageDraw, left: int, top: int) -> None:
    pen.rounded_rectangle((left - 6, top - 4, left + 162, top + 32), radius=6, fill=(0, 0, 0))
    strip = _ramp(np.tile(np.linspace(0.15, 1, 60, dtype=np.float32), (14, 1)))
    canvas.paste(Image.fromarray(np.rint(strip).astype(np.uint8)), (left + 48, top + 7))
    for text, place, anchor in (("less", left, "lm"), ("more", left + 158, "rm")):
        pen.text((place, top + 14), text, font=font(20), fill=_WHITE, anchor=anchor)


def _scaled(pixels: npt.NDArray[np.uint8], aspect: float, width: int, height: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    scale = min(width / image.width, height / (image.height * aspect))
    size = max(1, round(image.width * scale)), max(1, round(image.height * aspect * scale))
    return image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def _empty_panel(pen: ImageDraw.ImageDraw, page: Page, top: int, bottom: int) -> int:
    """Where no picture can be shown, the reason stands in its place."""
    bottom = max(top + 240, bottom)
    pen.rounded_rectangle((_MARGIN, top, SIDE - _MARGIN, bottom), radius=12, outline=_RULE, width=2)
    centre, middle = SIDE // 2, (top + bottom) // 2 - 46
    pen.ellipse((centre - 40, middle - 40, centre + 40, middle + 40), outline=_GREY, width=5)
    pen.line((centre - 27, middle + 27, centre + 27, middle - 27), fill=_GREY, width=5)
    for number, line in enumerate(lines(page.without_picture, font(26), _WIDTH - 120)):
        pen.text((centre, middle + 86 + 36 * number), line, font=font(26), fill=_WHITE, anchor="mm")
    return bottom


def _note_lines(page: Page, size: int) -> list[list[str]]:
    return [list(lines(note, font(size), _WIDTH - 28)) for note in page.notes]


def _notes_height(page: Page) -> int:
    count = sum(len(one) for one in _note_lines(page, SMALLEST))
    return min(count, 7) * 30 + 14


def _notes(pen: ImageDraw.ImageDraw, page: Page, top: int, bottom: int) -> None:
    """What was weighed and what limits the answer; a note that does not fit is counted, never cut in two."""
    for size in (26, 24, SMALLEST):
        notes, height = _note_lines(page, size), round(size * 1.32)
        if sum(map(len, notes)) * height <= bottom - top:
            break
    fits, used = 0, 0
    for note in notes:
        room = bottom - top - (height if fits + 1 < len(notes) else 0)
        if used + len(note) * height > room:
            break
        fits, used = fits + 1, used + len(note) * height
    place = top + height // 2
    for note in notes[:fits]:
        pen.ellipse((_MARGIN + 4, place - 4, _MARGIN + 12, place + 4), fill=_GREY)
        for line in note:
            pen.text((_MARGIN + 28, place), line, font=font(size), fill=_WHITE, anchor="lm")
            place += height
    if left_out := len(notes) - fits:
        more = f"and {left_out} more {'sentence' if left_out == 1 else 'sentences'} in the structured report"
        pen.text((_MARGIN + 28, place), more, font=font(SMALLEST), fill=_AMBER, anchor="lm")


def _foot(pen: ImageDraw.ImageDraw, page: Page) -> int:
    """Who made it, how far it stands, and the site's statement, at the bottom; gives where it begins."""
    grey, white = font(SMALLEST), font(23, bold=True)
    set_lines = [(line, grey, _GREY) for line in lines(f"{page.made_by} Written {page.written}.", grey, _WIDTH)]
    set_lines += [(line, grey, _GREY) for line in lines(page.standing, grey, _WIDTH)]
    set_lines += [(line, white, _WHITE) for line in list(lines(page.statement, white, _WIDTH))[:6]]
    top = SIDE - 20 - 30 * len(set_lines)
    pen.line((_MARGIN, top - 10, SIDE - _MARGIN, top - 10), fill=_RULE, width=2)
    for number, (line, face, fill) in enumerate(set_lines):
        pen.text((_MARGIN, top + 30 * number + 15), line, font=face, fill=fill, anchor="lm")
    return top - 10
