"""The same object again: what two objects of one SOP Instance UID have in common (design, section 7).

Looked at only when a SOP Instance UID comes a second time, so it may be slow: where the encodings differ, both are
decoded.
"""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from dicom_listener.data_set import PIXEL_TAGS
from dicom_listener.filed import opened
from dicom_listener.pixels import Decoder, number_of_frames, read_header
from fhir_records.errors import PixelsNotReadable

# What only says how the rest is encoded: character set, lengths, padding, offset tables, and how colour is laid out.
_ENCODING_TAGS = frozenset({0x00080005, 0x00280004, 0x00280006, 0x7FE00001, 0x7FE00002, 0x7FE00003, 0xFFFCFFFC})
_UNCOMPRESSED_WORDS = ("little", "big")
# Objects wait behind a comparison.
_MOST_SECONDS = 60.0


class Sameness(StrEnum):
    """What a second object is to the first."""

    SAME = "same"  # at most the encoding differs
    HEADER_DIFFERS = "header differs"  # the same pixels, something else said about them
    PIXELS_DIFFER = "pixels differ"


def compare(path: Path, other: Path, pixels_sha256: str, other_pixels_sha256: str, decoder: Decoder) -> Sameness:
    """Compare two files of the spool.

    Args:
        path: of one.
        other: of the other one.
        pixels_sha256: what the index keeps of the pixels of the one.
        other_pixels_sha256: and of the other.
        decoder: for pixels that are encoded differently; it bounds what decoding takes, for anybody may have sent them.

    Raises:
        FileNotFoundError: one of them is gone.
        ObjectNotStorable: one of them is broken.
    """
    with opened(path) as one, opened(other) as two:
        if one.received.transfer_syntax_uid == two.received.transfer_syntax_uid and one.has_data_of(two):
            return Sameness.SAME
    if not _same_pixels(path, other, pixels_sha256, other_pixels_sha256, decoder):
        return Sameness.PIXELS_DIFFER
    try:
        same = _comparable(read_header(path)) == _comparable(read_header(other))
    except Exception:  # boundary: pydicom raises whatever a broken value brings about; nothing is removed then
        same = False
    return Sameness.SAME if same else Sameness.HEADER_DIFFERS


def _same_pixels(path: Path, other: Path, word: str, other_word: str, decoder: Decoder) -> bool:
    if word == other_word:
        return True
    if not word or not other_word:
        return False
    encodings = {word.split(":", maxsplit=1)[0], other_word.split(":", maxsplit=1)[0]}
    if len(encodings) == 1 and encodings <= set(_UNCOMPRESSED_WORDS):
        return False
    try:
        return _same_decoded(path, other, decoder)
    except PixelsNotReadable:
        # What cannot be compared is kept apart: losing an image would be worse than keeping one too many.
        return False


def _same_decoded(path: Path, other: Path, decoder: Decoder) -> bool:
    """Whether all frames are the same. Raises PixelsNotReadable where it cannot be told, or not in time."""
    deadline = time.monotonic() + _MOST_SECONDS
    frames = number_of_frames(read_header(path))
    if frames != number_of_frames(read_header(other)):
        return False
    for frame in range(1, frames + 1):
        if time.monotonic() > deadline:
            raise PixelsNotReadable("There are too many frames to compare.")
        one, two = decoder.native_frame(path, frame), decoder.native_frame(other, frame)
        if one.photometric_interpretation != two.photometric_interpretation:
            return False
        if not np.array_equal(one.pixels, two.pixels):
            return False
    return True


def _comparable(ds: Dataset) -> dict[int, Any]:
    """The values of a data set as text, without what only says how they are encoded."""
    return {
        int(element.tag): _value(element.value)
        for element in ds
        if element.tag.element != 0 and int(element.tag) not in _ENCODING_TAGS | PIXEL_TAGS
    }


def _value(value: Any) -> Any:
    if isinstance(value, Dataset):
        return _comparable(value)
    if isinstance(value, bytes):
        return value.rstrip(b"\0 ")
    if isinstance(value, MultiValue | Sequence | list | tuple):
        return [_value(item) for item in value]
    return "" if value is None else str(value)
