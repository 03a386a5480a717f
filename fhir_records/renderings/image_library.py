"""The image library of a structured report: which images were read, and what they have in common (PS3.16 TID 1600)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import highdicom.sr as hd
from pydicom.dataset import Dataset

from fhir_records.errors import RenderingError
from fhir_records.model import Code, ImageRef
from fhir_records.renderings import codes

_ACQUISITION = hd.RelationshipTypeValues.HAS_ACQ_CONTEXT
_CONTAINS = hd.RelationshipTypeValues.CONTAINS


def concept(code: Code) -> hd.CodedConcept:
    """The code as a coded entry (PS3.3 section 8.8).

    Raises RenderingError where its meaning has more than 64 characters.
    """
    try:
        return hd.CodedConcept(code.value, code.scheme, code.meaning)
    except ValueError as error:
        raise RenderingError(f"The code {code.scheme} {code.value} cannot be written: {error}") from error


def images_by_instance(images: Iterable[ImageRef]) -> Mapping[str, tuple[int, ...]]:
    """SOP Instance UID to the frames referred to, each once, in order; no frames: the whole instance."""
    frames: dict[str, tuple[int, ...]] = {}
    for image in images:
        known = frames.setdefault(image.sop_uid, ())
        if image.frame is not None and image.frame not in known:
            frames[image.sop_uid] = (*known, image.frame)
    return frames


def image_library(images: Sequence[tuple[Dataset, tuple[int, ...]]]) -> hd.ContainerContentItem:
    """TID 1600: a group for images that share series, matrix and spacing; the shared descriptors stand at the group.

    `images` are headers with the frames referred to. What a header lacks is left out: every descriptor of TID 1602
    is there only "if it is in the image".
    """
    groups: dict[tuple[object, ...], list[tuple[Dataset, tuple[int, ...]]]] = {}
    for header, frames in images:
        groups.setdefault(_shared(header), []).append((header, frames))
    library = hd.ContainerContentItem(concept(codes.IMAGE_LIBRARY), relationship_type=_CONTAINS)
    library.ContentSequence = hd.ContentSequence([_group(members) for members in groups.values()])
    return library


def _group(members: Sequence[tuple[Dataset, tuple[int, ...]]]) -> hd.ContainerContentItem:
    group = hd.ContainerContentItem(concept(codes.IMAGE_LIBRARY_GROUP), relationship_type=_CONTAINS)
    entries = (_entry(header, frames) for header, frames in members)
    group.ContentSequence = hd.ContentSequence([*_descriptors(members[0][0]), *entries])
    return group


def _shared(header: Dataset) -> tuple[object, ...]:
    keywords = ("SeriesInstanceUID", "Modality", "FrameOfReferenceUID", "Rows", "Columns")
    return (*(header.get(keyword) for keyword in keywords), _spacing(header))


def _spacing(header: Dataset) -> tuple[float, float] | None:
    try:
        row, column = header.PixelSpacing
        return float(row), float(column)
    except (AttributeError, TypeError, ValueError):
        return None


def _number_of_frames(header: Dataset) -> int:
    try:
        return int(header.NumberOfFrames)
    except (AttributeError, TypeError, ValueError):
        return 1


def _descriptors(header: Dataset) -> list[hd.ContentItem]:
    """TID 1602, and the spacing of TID 1604."""
    modality = concept(codes.modality(str(header.get("Modality") or "")))
    items: list[hd.ContentItem] = [hd.CodeContentItem(concept(codes.MODALITY), modality, _ACQUISITION)]
    if frame_of_reference := header.get("FrameOfReferenceUID"):
        name = concept(codes.FRAME_OF_REFERENCE_UID)
        items.append(hd.UIDRefContentItem(name, frame_of_reference, _ACQUISITION))
    spacing = _spacing(header)
    numbers = (
        (codes.PIXEL_DATA_ROWS, header.get("Rows"), codes.PIXELS),
        (codes.PIXEL_DATA_COLUMNS, header.get("Columns"), codes.PIXELS),
        (codes.HORIZONTAL_PIXEL_SPACING, spacing and spacing[1], codes.MILLIMETER),
        (codes.VERTICAL_PIXEL_SPACING, spacing and spacing[0], codes.MILLIMETER),
    )
    items.extend(_number(name, value, unit) for name, value, unit in numbers if value is not None)
    return items


def _number(name: Code, value: float, unit: Code) -> hd.NumContentItem:
    item = hd.NumContentItem(concept(name), value, concept(unit), relationship_type=_ACQUISITION)
    if isinstance(value, int):
        # highdicom writes "256.0" for a number of rows.
        item.MeasuredValueSequence[0].NumericValue = str(value)
    return item


def _entry(header: Dataset, frames: tuple[int, ...]) -> hd.ImageContentItem:
    """TID 1601; an instance of which every frame was read is referred to as a whole."""
    every = len(frames) == _number_of_frames(header)
    return hd.ImageContentItem(
        concept(codes.SOURCE),
        header.SOPClassUID,
        header.SOPInstanceUID,
        referenced_frame_numbers=None if every or not frames else list(frames),
        relationship_type=_CONTAINS,
    )
