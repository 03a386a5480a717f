"""What a page about a result says, whatever it is drawn on: secondary capture and PDF take their words from here.

No page names the patient: pixels cannot be corrected when a name is, cannot be de-identified with the header, and would
stand beside another patient's images if the object were filed wrongly. Who it is about is said by the header alone.
What a scanner has burnt into the key image is shown with it: nobody can tell that from anatomy for certain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from fhir_records.errors import RenderingError
from fhir_records.model import ImageRef, Presence, Report, ResultStatus, SaliencyMap
from fhir_records.renderings import plain_words, source_header
from fhir_records.renderings.typeface import can_draw

_STAMPS = {
    ResultStatus.PRELIMINARY: "PRELIMINARY · NOT SIGNED",
    ResultStatus.FINAL: "SIGNED",
    ResultStatus.AMENDED: "AMENDED AND SIGNED",
    ResultStatus.ENTERED_IN_ERROR: "ENTERED IN ERROR · DO NOT USE",
}


@dataclass(frozen=True, slots=True)
class DrawnOutline:
    """What the model outlined on a key image."""

    mask: npt.NDArray[np.bool_]  # (rows, columns) of the image
    colour: tuple[int, int, int]  # red, green, blue
    words: str  # what it is, and its volume


@dataclass(frozen=True, slots=True)
class KeyPicture:
    """A key image as it is meant to be seen, and where in it the network saw what it answers."""

    image: ImageRef
    pixels: npt.NDArray[np.uint8]  # (rows, columns), or (rows, columns, 3)
    saliency: SaliencyMap | None
    aspect: float = 1.0  # height of a pixel over its width
    outlines: tuple[DrawnOutline, ...] = ()  # the topmost last

    @property
    def shows_more(self) -> bool:
        """Whether there is something to lay over it: outlines, or a map with something in it."""
        return bool(self.outlines) or (self.saliency is not None and self.saliency.peak > 0)

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if any(outline.mask.shape != shape[:2] for outline in self.outlines):
            raise RenderingError("An outline has the rows and columns of its key picture.")
        if self.pixels.dtype != np.uint8 or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)) or 0 in shape:
            raise RenderingError("A key picture is uint8 of shape (rows, columns) or (rows, columns, 3), not empty.")
        if not 0.01 <= self.aspect <= 100:
            raise RenderingError(
                "The pixels of a key picture are at most 100 times as high as wide, or as wide as high."
            )


@dataclass(frozen=True, slots=True)
class Page:
    """A result's page in words and numbers."""

    headline: str  # can stand alone; says "no" where it means no
    presence: Presence
    refused: bool
    stamp: str  # how far it stands, in capitals
    status: ResultStatus
    probability: float | None  # of the answer, 0 to 1
    probability_words: str  # "97 % that no neoplasm of the brain is present"; "" without one
    notes: tuple[str, ...]  # what was weighed and what limits it, a sentence each
    made_by: str
    standing: str
    statement: str  # the site's
    written: str  # when, in the study's own zone
    key_image: str  # where the key image is found in the study; "" without one
    without_picture: str  # why there is no key image; "" with one
    map_words: str  # what the overlay shows, or why there is none


def page_of(report: Report, source: Dataset, picture: KeyPicture | None, *, signer: str = "") -> Page:
    """The page of this result; `source` is a header of the study, `signer` the name of the person who signed it.

    Raises RenderingError where the result has neither a finding nor a refusal.
    """
    result, finding = report.result, report.result.finding
    headline, *notes, made_by, standing = plain_words.sentences(result)
    probability = finding.probability if finding else None
    words = ""
    if finding is not None and probability is not None:
        words = f"{plain_words.probability_words(probability)} {plain_words.about(finding)}"
    signed = result.status in (ResultStatus.FINAL, ResultStatus.AMENDED) and signer
    written = source_header.local_time(result.created_at, source, report.study)
    return Page(
        headline=headline,
        presence=finding.presence if finding else Presence.UNDETERMINED,
        refused=finding is None,
        stamp=f"{_STAMPS[result.status]} BY {signer.upper()}" if signed else _STAMPS[result.status],
        status=result.status,
        probability=probability,
        probability_words=words,
        notes=tuple(notes),
        made_by=made_by,
        standing=standing,
        statement=_drawable(report.installation.statement),
        written=f"{written:%Y-%m-%d %H:%M}",
        key_image=_place(report, picture.image) if picture else "",
        without_picture="" if picture else _why_no_picture(report),
        map_words=_map_words(picture),
    )


def shown_map(picture: KeyPicture) -> npt.NDArray[np.float32] | None:
    """The map over the picture's pixels, 0 to 1, bilinear between its cells; None where there is none to show."""
    found = picture.saliency
    if found is None or found.peak <= 0:
        return None
    return stretched(found, picture.pixels.shape[0], picture.pixels.shape[1])


def stretched(found: SaliencyMap, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """A map's levels as float32 (rows, columns), 0 to 1, over the whole frame; between cells' centres bilinear.

    Raises RenderingError where its bytes do not fit its shape.
    """
    if len(found.levels) != found.rows * found.columns or not found.levels:
        raise RenderingError("A saliency map's bytes do not fit its rows and columns.")
    levels = np.frombuffer(found.levels, np.uint8).reshape(found.rows, found.columns).astype(np.float32) / 255
    result: npt.NDArray[np.float32] = (_weights(rows, found.rows) @ levels @ _weights(columns, found.columns).T).astype(
        np.float32
    )
    return result


def _weights(places: int, cells: int) -> npt.NDArray[np.float32]:
    centre = np.clip((np.arange(places) + 0.5) * cells / places - 0.5, 0, cells - 1)
    near = np.maximum(0.0, 1.0 - np.abs(centre[:, None] - np.arange(cells)[None, :]))
    return near.astype(np.float32)


def _drawable(statement: str) -> str:
    if can_draw(statement):
        return statement
    return "The site's statement is in the structured report, for its script cannot be drawn here."


def _place(report: Report, image: ImageRef) -> str:
    found = next((instance for instance in report.instances if instance.sop_uid == image.sop_uid), None)
    if found is None:
        raise RenderingError("The key picture is of an image that is not in the study's revision.")
    parts = []
    if found.series_number is not None:
        parts.append(f"series {found.series_number}")
    if found.instance_number is not None:
        parts.append(f"image {found.instance_number}")
    if image.frame is not None:
        parts.append(f"frame {image.frame}")
    return ", ".join(parts)


def _why_no_picture(report: Report) -> str:
    finding = report.result.finding
    if finding is None:
        return "No image was read, so none is shown. This says nothing about what the images show."
    if not finding.key_images:
        return "The model names no key image."
    return "The key image's pixels could not be drawn; the structured report refers to it."


def _map_words(picture: KeyPicture | None) -> str:
    if picture is None:
        return ""
    if picture.outlines:
        return "Outlined, with the volume over all slices:"
    if picture.saliency is None:
        return "This model gives no map of what it looked at."
    if picture.saliency.peak <= 0:
        return "Nowhere in this image did the network see evidence for its answer."
    return "Where the network saw evidence for its answer. No outline of a lesion."
