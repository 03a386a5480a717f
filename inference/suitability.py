"""Whether a model may read a study, from the headers of its images: a series to read, or a refusal in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pydicom

from inference.answers import Refused
from inference.contract import Contract
from inference.stack import frame_positions


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What a header says that a contract may ask about. Texts are upper case; "" where the header has none."""

    path: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str
    modality: str
    image_type: tuple[str, ...]
    rows: int
    columns: int
    photometric: str
    body_part: str
    contrast_agent: str
    instance_number: int
    number_of_frames: int  # 1 for a single-frame image
    single_frame: bool  # the object has no Number of Frames
    position: float | None  # mm along the slices' normal; None where the header gives no geometry
    frame_positions: tuple[float, ...] = ()  # the same of each frame; empty where the header does not tell of all
    series_number: str = ""
    series_description: str = ""


HEADER_KEYWORDS = (
    "Modality",
    "ImageType",
    "Rows",
    "Columns",
    "PhotometricInterpretation",
    "BodyPartExamined",
    "ContrastBolusAgent",
    "InstanceNumber",
    "NumberOfFrames",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "FrameOfReferenceUID",
    "PixelSpacing",
    "SliceThickness",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "SeriesNumber",
    "SeriesDescription",
)  # all that `facts_of` looks at, and what says where an image lies in the patient


@dataclass(frozen=True, slots=True)
class Chosen:
    """The series that is read, its images in the order of the stack, and what limits the reading."""

    series_uid: str
    images: tuple[ImageFacts, ...]
    limits: tuple[str, ...]


def facts_of(ds: pydicom.Dataset, path: str, series_uid: str, sop_uid: str, sop_class_uid: str) -> ImageFacts:
    """The facts in a header. UIDs come from the caller, who knows the object by them."""
    frames = _number(ds, "NumberOfFrames")
    return ImageFacts(
        path=path,
        series_uid=series_uid,
        sop_uid=sop_uid,
        sop_class_uid=sop_class_uid,
        modality=_text(ds, "Modality"),
        image_type=tuple(str(value).strip().upper() for value in _several(ds.get("ImageType"))),
        rows=_number(ds, "Rows"),
        columns=_number(ds, "Columns"),
        photometric=_text(ds, "PhotometricInterpretation"),
        body_part=_text(ds, "BodyPartExamined"),
        contrast_agent=_text(ds, "ContrastBolusAgent"),
        instance_number=_number(ds, "InstanceNumber"),
        number_of_frames=max(1, frames),
        single_frame=frames < 1,
        position=_position(ds),
        frame_positions=frame_positions(ds) if frames > 1 else (),
        series_number=_text(ds, "SeriesNumber"),
        series_description=" ".join(str(ds.get("SeriesDescription") or "").split()),
    )


def check(contract: Contract, facts: Sequence[ImageFacts]) -> Chosen | Refused:
    """The series that the contract suits best, or why none does.

    Requirements are put one after another; the first that no image meets is the reason of the refusal. Of the series
    that are long enough, the one that meets most of the contract's expectations is read, then the one with most images.
    """
    if not facts:
        return Refused("no-images", "Not read, because the study has no images.")
    required = contract.required
    left: Sequence[ImageFacts] = facts
    for code, meets, because in _requirements(contract):
        kept = [image for image in left if meets(image)]
        if not kept:
            return Refused(code, f"Not read, because {because(left)}.")
        left = kept
    frames = Counter[str]()
    for image in left:
        frames[image.series_uid] += image.number_of_frames
    longest = max(frames.values())
    if longest < required.min_images:
        return Refused(
            "too-few-images",
            f"Not read, because the longest series that this model could read has {_images(longest)}, "
            f"and it needs at least {required.min_images}.",
        )
    suitable = [uid for uid, count in frames.items() if count >= required.min_images]
    by_series = {uid: tuple(image for image in left if image.series_uid == uid) for uid in suitable}
    chosen = max(suitable, key=lambda uid: (-len(_unmet(contract, by_series[uid])), frames[uid], uid))
    limits = [*contract.limits, *_unmet(contract, by_series[chosen])]
    if len(suitable) > 1:
        read = _images(frames[chosen])
        limits.append(
            f"The study has {len(suitable)} series that this model can read; {_named(by_series[chosen][0])}, "
            f"with {read}, was read."
        )
    return Chosen(chosen, in_stack_order(by_series[chosen]), tuple(limits))


def in_stack_order(images: Iterable[ImageFacts]) -> tuple[ImageFacts, ...]:
    """Images by their place along the slices' normal; by Instance Number where any has no geometry."""
    listed = list(images)
    if all(image.position is not None for image in listed):
        return tuple(sorted(listed, key=lambda image: (image.position, image.instance_number, image.sop_uid)))
    return tuple(sorted(listed, key=lambda image: (image.instance_number, image.sop_uid)))


_Requirement = tuple[str, Callable[[ImageFacts], bool], Callable[[Sequence[ImageFacts]], str]]


def _requirements(contract: Contract) -> list[_Requirement]:
    """Code, test of one image, and the words for images of which none passes."""
    required = contract.required
    return [
        (
            "modality",
            lambda image: image.modality in required.modality,
            lambda left: (
                f"the study has {_listed(image.modality or 'unnamed' for image in left)} images "
                f"and this model reads {_listed(required.modality)} only"
            ),
        ),
        (
            "image-type",
            lambda image: not required.sop_class or image.sop_class_uid in required.sop_class,
            lambda left: "its images are of a kind that this model does not read (secondary captures, for example)",
        ),
        (
            "image-type",
            lambda image: not _excluded(contract, image),
            lambda left: (
                "it has only localizers or images that were computed from others "
                f"({_listed(value for image in left for value in _excluded(contract, image))})"
            ),
        ),
        (
            "anatomy",
            lambda image: not image.body_part or not required.body_part or image.body_part in required.body_part,
            lambda left: (
                f"the images are labelled {_listed(image.body_part for image in left)} "
                f"and this model reads images of {required.anatomy} only"
            ),
        ),
        (
            "photometric",
            lambda image: not required.photometric or image.photometric in required.photometric,
            lambda left: (
                f"the images are {_listed(image.photometric or 'unnamed' for image in left)} "
                f"and this model reads {_listed(required.photometric)} only"
            ),
        ),
        (
            "matrix",
            lambda image: min(image.rows, image.columns) >= required.min_matrix,
            lambda left: (
                f"the images have no more than {max(min(image.rows, image.columns) for image in left)} pixels "
                f"a side and this model needs at least {required.min_matrix}"
            ),
        ),
    ]


def _excluded(contract: Contract, image: ImageFacts) -> list[str]:
    return [value for value in image.image_type if value in contract.required.image_type_excluded]


def _unmet(contract: Contract, images: Sequence[ImageFacts]) -> list[str]:
    """Sentences of the expectations that no image of the series meets."""
    return [item.sentence for item in contract.expected if not any(getattr(image, item.attribute) for image in images)]


def _named(image: ImageFacts) -> str:
    """The image's series as people call it; its UID says nothing to them."""
    number = f"series {image.series_number}" if image.series_number else "one"
    return f'{number} ("{image.series_description}")' if image.series_description else number


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _listed(values: Iterable[str]) -> str:
    """Each value once, commonest first: "CT and SR"."""
    names = [name for name, _ in Counter(values).most_common(4)]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _several(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return list(value) if isinstance(value, (list, tuple, pydicom.multival.MultiValue)) else [value]


def _text(ds: pydicom.Dataset, keyword: str) -> str:
    values = _several(ds.get(keyword))
    return str(values[0]).strip().upper() if values else ""


def _number(ds: pydicom.Dataset, keyword: str) -> int:
    try:
        return int(_several(ds.get(keyword))[0])
    except (IndexError, TypeError, ValueError):
        return 0


def _position(ds: pydicom.Dataset) -> float | None:
    """Where the slice lies along its normal, mm (PS3.3 section C.7.6.2)."""
    try:
        row, column = np.array(ds["ImageOrientationPatient"].value, dtype=float).reshape(2, 3)
        return float(np.cross(row, column) @ np.array(ds["ImagePositionPatient"].value, dtype=float))
    except (KeyError, TypeError, ValueError):
        return None
