"""The kept outlines of a read as the segments that its objects are made of, and on one image as it is drawn."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from fhir_records.errors import RenderingError
from fhir_records.model import Finding, ImageRef, Outlines
from fhir_records.renderings import plain_words
from fhir_records.renderings.result_page import DrawnOutline
from fhir_records.renderings.segmentation import Segment

Mask = npt.NDArray[np.bool_]

_NO_OUTLINES: Final = "The result speaks of outlines, and none of them is kept; run `wetread doctor`."


class KeptMasks(Mapping[ImageRef, Mask]):
    """A segment's masks by image, bool of shape (rows, columns), unpacked when asked for: stacks may be large."""

    def __init__(self, outlines: Outlines, segment: int) -> None:
        self._rows, self._columns = outlines.rows, outlines.columns
        bits = {mask.place: mask.bits for mask in outlines.masks if mask.segment == segment}
        self._bits = {image: bits.get(place) for place, image in enumerate(outlines.images)}
        self._nothing = np.zeros((outlines.rows, outlines.columns), bool)
        self._nothing.flags.writeable = False

    def __getitem__(self, image: ImageRef) -> Mask:
        bits = self._bits[image]
        return self._nothing if bits is None else unpacked(bits, self._rows, self._columns)

    def __iter__(self) -> Iterator[ImageRef]:
        return iter(self._bits)

    def __len__(self) -> int:
        return len(self._bits)


def unpacked(bits: bytes, rows: int, columns: int) -> Mask:
    """The mask, shape (rows, columns). Raises RenderingError where the bits do not fit it."""
    try:
        packed = np.frombuffer(zlib.decompress(bits), np.uint8)
    except zlib.error as error:
        raise RenderingError("A kept outline is damaged; run `wetread doctor`.") from error
    if packed.size != (rows * columns + 7) // 8:
        raise RenderingError("A kept outline does not fit the rows and columns of its images.")
    return np.unpackbits(packed, count=rows * columns).reshape(rows, columns).astype(bool)


def segments_of(finding: Finding | None, outlines: Outlines | None) -> tuple[Segment, ...]:
    """The segments that a finding speaks of. Raises RenderingError where their outlines are not kept."""
    if finding is None or not finding.segments:
        return ()
    if outlines is None:
        raise RenderingError(_NO_OUTLINES)
    return tuple(
        Segment(
            label=said.label,
            code=said.code,
            category=said.category,
            tracking_id=said.tracking_id,
            tracking_uid=said.tracking_uid,
            masks=KeptMasks(outlines, number),
            wording=said.wording,
            site=said.site,
            colour=said.colour,
            volume_mm3=said.volume_mm3,
        )
        for number, said in enumerate(finding.segments, start=1)
    )


def drawn_on(image: ImageRef, finding: Finding | None, outlines: Outlines | None) -> tuple[DrawnOutline, ...]:
    """What is outlined on this image, as a page draws it; the first segment last, so that it lies on top."""
    if finding is None or outlines is None or image not in outlines.images:
        return ()
    place = outlines.images.index(image)
    bits = {mask.segment: mask.bits for mask in outlines.masks if mask.place == place}
    return tuple(
        DrawnOutline(
            unpacked(bits[number], outlines.rows, outlines.columns), said.colour, plain_words.segment_words(said)
        )
        for number, said in reversed(list(enumerate(finding.segments, start=1)))
        if number in bits
    )
