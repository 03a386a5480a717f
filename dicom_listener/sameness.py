"""The same object again: what two objects of one SOP Instance UID have in common (design, section 7).

Looked at only when a SOP Instance UID comes a second time, so it may be slow. Bytes that are the same are the same
object. For anything else, headers are parsed and frames decoded in a child process, within limits: no object that is
sent again can hold up or end whoever indexes it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Final

import structlog

from dicom_listener.bounded import BoundedDecoder, Bounds
from dicom_listener.filed import opened
from fhir_records.errors import PixelsNotReadable

log = structlog.get_logger(__name__)

_UNCOMPRESSED_WORDS: Final = frozenset({"little", "big"})
IDLE_S: Final = 30.0  # after which the children end
WHOLE_S: Final = 300.0  # for all frames of an object


class Sameness(StrEnum):
    """What a second object is to the first."""

    SAME = "same"  # at most the encoding differs
    HEADER_DIFFERS = "header differs"  # the same pixels, something else said about them
    PIXELS_DIFFER = "pixels differ"


class Comparer:
    """Compares files of the spool; any thread may ask.

    Args:
        bounds: of one comparison of two headers, or of two frames.
        module: what its children run.
    """

    def __init__(self, bounds: Bounds | None = None, module: str = "dicom_listener.sameness_child") -> None:
        self._bounds = bounds or Bounds(processes=4)
        self._module = module
        self._lock = threading.Lock()
        self._children: BoundedDecoder | None = None
        self._users = 0
        self._timer: threading.Timer | None = None

    def compare(self, path: Path, other: Path, pixels_sha256: str, other_pixels_sha256: str) -> Sameness:
        """Compare two files; the hashes are those that the index keeps of their pixels.

        Raises:
            FileNotFoundError: one of them is gone.
            ObjectNotStorable: one of them is broken.
        """
        with opened(path) as one, opened(other) as two:
            if one.received.transfer_syntax_uid == two.received.transfer_syntax_uid and one.has_data_of(two):
                return Sameness.SAME
        if pixels_sha256 != other_pixels_sha256:
            if not _may_be_the_same(pixels_sha256, other_pixels_sha256):
                return Sameness.PIXELS_DIFFER
            # What cannot be compared is kept apart: losing an image would be worse than keeping one too many.
            if not self._holds({"what": "pixels", "path": str(path), "other": str(other)}):
                return Sameness.PIXELS_DIFFER
        same = self._holds({"what": "headers", "path": str(path), "other": str(other)})
        return Sameness.SAME if same else Sameness.HEADER_DIFFERS

    def close(self) -> None:
        """End the children; they are started again when they are needed."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            children, self._children = self._children, None
        if children is not None:
            children.close()

    def _holds(self, question: dict[str, str]) -> bool:
        """Whether a child says yes; one that passes its limits does not."""
        deadline = time.monotonic() + WHOLE_S
        try:
            with self._kept() as children:
                told, frame = {"more": True, "same": True}, 1
                while told["more"] and told["same"]:
                    if time.monotonic() > deadline:
                        raise PixelsNotReadable("Comparing took too long.")
                    told, _ = children.ask({**question, "frame": frame})
                    frame += 1
        except PixelsNotReadable as error:
            log.warning("two objects of one UID cannot be compared", reason=str(error))
            return False
        return bool(told["same"])

    @contextmanager
    def _kept(self) -> Iterator[BoundedDecoder]:
        """The children, until nobody needed them for a while."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._children is None:
                self._children = BoundedDecoder(self._bounds, self._module)
            children = self._children
            self._users += 1
        try:
            yield children
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._timer = threading.Timer(IDLE_S, self._end_idle)
                    self._timer.daemon = True
                    self._timer.start()

    def _end_idle(self) -> None:
        with self._lock:
            if self._users or self._children is None:
                return
            children, self._children = self._children, None
        children.close()


_COMPARER: Final = Comparer()


def compare(path: Path, other: Path, pixels_sha256: str, other_pixels_sha256: str) -> Sameness:
    """As `Comparer.compare`, with the children that all of this process share."""
    return _COMPARER.compare(path, other, pixels_sha256, other_pixels_sha256)


def _may_be_the_same(word: str, other: str) -> bool:
    """Whether pixels of different hashes may be the same ones, in another encoding."""
    if not word or not other:
        return False
    encodings = {word.split(":", maxsplit=1)[0], other.split(":", maxsplit=1)[0]}
    return len(encodings) > 1 or not encodings <= _UNCOMPRESSED_WORDS
