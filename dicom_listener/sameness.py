"""The same object again: what two objects of one SOP Instance UID have in common (design, section 7).

Looked at only when a SOP Instance UID comes a second time, so it may be slow. Where bytes do not tell, headers are
parsed and frames decoded in a child process, within limits: anybody may have sent them.
"""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path

from dicom_listener.bounded import BoundedDecoder, Bounds
from dicom_listener.filed import opened
from fhir_records.errors import PixelsNotReadable

_UNCOMPRESSED_WORDS = ("little", "big")
# Objects wait behind a comparison.
_MOST_SECONDS = 60.0


class Sameness(StrEnum):
    """What a second object is to the first."""

    SAME = "same"  # at most the encoding differs
    HEADER_DIFFERS = "header differs"  # the same pixels, something else said about them
    PIXELS_DIFFER = "pixels differ"


class Comparer:
    """Compares files of the spool. Its child is started by the first comparison that needs it.

    Args:
        bounds: of one question to the child: two headers, or two frames.
        module: what the child runs.
    """

    def __init__(self, bounds: Bounds | None = None, module: str = "dicom_listener.sameness_child") -> None:
        self._child = BoundedDecoder(bounds or Bounds(processes=1), module)

    def __enter__(self) -> Comparer:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close()

    def compare(self, path: Path, other: Path, pixels_sha256: str, other_pixels_sha256: str) -> Sameness:
        """Compare two files of the spool.

        Args:
            path: of one.
            other: of the other one.
            pixels_sha256: what the index keeps of the pixels of the one.
            other_pixels_sha256: and of the other.

        Raises:
            FileNotFoundError: one of them is gone.
            ObjectNotStorable: one of them is broken.
        """
        with opened(path) as one, opened(other) as two:
            if one.received.transfer_syntax_uid == two.received.transfer_syntax_uid and one.has_data_of(two):
                return Sameness.SAME
        if not self._same_pixels(path, other, pixels_sha256, other_pixels_sha256):
            return Sameness.PIXELS_DIFFER
        try:
            same, _ = self._ask("headers", path, other)
        except PixelsNotReadable:
            same = False
        return Sameness.SAME if same else Sameness.HEADER_DIFFERS

    def _same_pixels(self, path: Path, other: Path, word: str, other_word: str) -> bool:
        if word == other_word:
            return True
        if not _may_be_the_same(word, other_word):
            return False
        deadline, frame, more = time.monotonic() + _MOST_SECONDS, 1, True
        try:
            while more:
                if time.monotonic() > deadline:
                    return False  # there are too many frames
                same, more = self._ask("frame", path, other, frame)
                if not same:
                    return False
                frame += 1
        except PixelsNotReadable:
            # What cannot be compared is kept apart: losing an image would be worse than keeping one too many.
            return False
        return True

    def _ask(self, what: str, path: Path, other: Path, frame: int = 1) -> tuple[bool, bool]:
        """Whether they are the same, and whether more frames follow.

        Raises:
            PixelsNotReadable: it cannot be told.
        """
        told, _ = self._child.ask({"what": what, "path": str(path), "other": str(other), "frame": frame})
        return bool(told["same"]), bool(told["more"])


def _may_be_the_same(word: str, other: str) -> bool:
    """Whether pixels of different hashes may be the same ones, in another encoding."""
    if not word or not other:
        return False
    encodings = {word.split(":", maxsplit=1)[0], other.split(":", maxsplit=1)[0]}
    return len(encodings) > 1 or not encodings <= set(_UNCOMPRESSED_WORDS)
