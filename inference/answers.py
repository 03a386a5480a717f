"""What a model says of a study: an answer, with what it outlined where it outlines, or a refusal in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from inference.drift import InputFigures, figures_from_json


class Concept(NamedTuple):
    """A coded concept (PS3.3 section 8)."""

    scheme: str  # coding scheme designator
    value: str
    meaning: str


class KeyImage(NamedTuple):
    """One image, or one frame of it, that the answer rests on."""

    series_uid: str
    sop_uid: str
    sop_class_uid: str
    frame: int | None  # from 1; None: a single-frame image


class Alternative(NamedTuple):
    """What else it could have been, and how likely the model held that."""

    label: str
    probability: float  # 0 to 1; over all classes they add up to 1


class ActivationMap(NamedTuple):
    """Where in a key image the network saw what it answers: a small picture, to be stretched over the whole frame."""

    image: KeyImage
    label: str  # the class that it speaks for
    rows: int  # of the small picture, 64 at most
    columns: int
    peak: float  # evidence (logit) that 255 stands for; 0 stands for none, or for evidence against
    values: str  # base64 of rows x columns bytes, row by row; `inference.saliency.unpacked` reads it


class OutlinedFrame(NamedTuple):
    """A segment's mask on one image."""

    place: int  # of the image in `Outlines.images`, from 0
    mask: str  # base64 of zlib of the mask's bits, rows x columns, row by row, the first in the highest bit


class OutlinedSegment(NamedTuple):
    """One thing that the model outlined, on the images' own pixels."""

    label: str
    volume_mm3: float  # its voxels, each as thick as the slices are apart
    frames: tuple[OutlinedFrame, ...]  # those with something in them, in the stack's order


class Outlines(NamedTuple):
    """All that the model outlined in a series."""

    rows: int
    columns: int
    images: tuple[KeyImage, ...]  # that it looked at, in the stack's order
    segments: tuple[OutlinedSegment, ...]  # those that it found


@dataclass(frozen=True, slots=True)
class Refused:
    """The model did not read the study, and why."""

    code: str  # modality, no-images, no-readable-images, too-few-images, image-type, anatomy, matrix, geometry …
    sentence: str  # "Not read, because …"
    figures: InputFigures | None = field(default=None, compare=False)  # None: nothing was shown to the network


@dataclass(frozen=True, slots=True)
class Classified:
    """One study-level answer."""

    label: str  # the class, as the model names it
    wording: str  # the finding in plain words; says "no" where it means no
    code: Concept  # what was looked for
    presence: str  # present | absent: whether it is there
    probability: float  # calibrated, 0 to 1, of this answer
    site: Concept
    key_images: tuple[KeyImage, ...]  # most telling first, three at most
    limits: tuple[str, ...]  # sentences: what weakens the answer
    alternatives: tuple[Alternative, ...]  # every class, most likely first, the answer itself among them
    images_read: int  # images or frames that were decoded and shown to the model
    series_uid: str  # the series that was read
    activation: tuple[ActivationMap, ...] = ()  # one for each key image; none where the model gives no maps
    prediction_set: tuple[str, ...] = ()  # labels that cannot be ruled out at 95 % coverage; empty: not calibrated
    figures: InputFigures | None = field(default=None, compare=False)
    outlines: Outlines | None = None  # None: the model outlines nothing


Answer = Refused | Classified


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """The answer as JSON values; `answer_from_json` is its inverse."""
    return {"kind": type(answer).__name__.lower(), **asdict(answer)}


def answer_from_json(values: Mapping[str, Any]) -> Answer:
    """The answer that `answer_to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
    fields = {key: value for key, value in values.items() if key != "kind"}
    fields["figures"] = figures_from_json(fields.get("figures"))
    if values["kind"] == "refused":
        return Refused(**fields)
    if values["kind"] != "classified":
        raise ValueError(f"kind is {values['kind']!r}; 'refused' and 'classified' are allowed.")
    return Classified(
        **{
            **fields,
            "code": Concept(*fields["code"]),
            "site": Concept(*fields["site"]),
            "key_images": tuple(KeyImage(*image) for image in fields["key_images"]),
            "limits": tuple(fields["limits"]),
            "alternatives": tuple(Alternative(*alternative) for alternative in fields["alternatives"]),
            "activation": tuple(
                ActivationMap(KeyImage(*image), *rest) for image, *rest in fields.get("activation", ())
            ),
            "prediction_set": tuple(fields.get("prediction_set", ())),
            "outlines": _outlines(fields["outlines"]) if fields.get("outlines") else None,
        }
    )


def _outlines(values: Sequence[Any]) -> Outlines:
    rows, columns, images, segments = values
    return Outlines(
        rows,
        columns,
        tuple(KeyImage(*image) for image in images),
        tuple(
            OutlinedSegment(label, volume, tuple(OutlinedFrame(*frame) for frame in frames))
            for label, volume, frames in segments
        ),
    )
