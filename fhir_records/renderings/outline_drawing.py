"""Outlines drawn on a picture: a line around each, over the picture itself, which stays seen inside and outside."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from fhir_records.renderings.result_page import KeyPicture

_LEAST: Final = 720  # pixels of the longer side: smaller pictures are enlarged, or their lines were coarse steps
_LINE: Final = 1 / 180  # of the longer side: two pixels and a half of a page's panel
_TINT: Final = 0.16  # of the colour inside the line

Rgb = npt.NDArray[np.uint8]  # shape (rows, columns, 3)


def outlined(picture: KeyPicture) -> Rgb:
    """The picture with its outlines, uint8 of shape (rows, columns, 3); at least 720 pixels along its longer side."""
    pixels = picture.pixels if picture.pixels.ndim == 3 else np.repeat(picture.pixels[..., None], 3, axis=2)
    rows, columns = pixels.shape[:2]
    times = max(1, -(-_LEAST // max(rows, columns)))
    size = (columns * times, rows * times)
    shown = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC), np.float32)
    shown = shown.copy()
    width = max(1, round(max(size) * _LINE))
    for outline in picture.outlines:
        mask = Image.fromarray(outline.mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)
        inside = np.asarray(mask) > 0
        # Within the mask: the line's outer edge is where the outline ends.
        core = np.asarray(_eroded(mask, width)) > 0
        colour = np.array(outline.colour, np.float32)
        shown[inside] = shown[inside] * (1 - _TINT) + colour * _TINT
        shown[inside & ~core] = colour
    result: Rgb = np.rint(np.clip(shown, 0, 255)).astype(np.uint8)
    return result


def _eroded(mask: Image.Image, width: int) -> Image.Image:
    """The mask without its outermost `width` pixels; the picture's own edge is an edge, too."""
    framed = Image.new("L", (mask.width + 2 * width, mask.height + 2 * width))
    framed.paste(mask, (width, width))
    small = framed.filter(ImageFilter.MinFilter(2 * width + 1))
    return small.crop((width, width, width + mask.width, width + mask.height))
