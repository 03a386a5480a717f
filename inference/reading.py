"""One study read by one model, inside the model's process: headers, the contract, pixels in batches, the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pydicom

from fhir_records.errors import PixelsNotReadable
from inference.answers import ActivationMap, Alternative, Answer, Classified, KeyImage, Refused
from inference.backends import Backend
from inference.classify import (
    StudyScore,
    calibrated_log_probabilities,
    evaluated_slices,
    prediction_set,
    score_study,
)
from inference.contract import Contract
from inference.outlining import Series, outline_series
from inference.preprocess import find_subject
from inference.saliency import evidence, packed
from inference.series_faults import nothing_decoded, series_faults
from inference.slices import Frame, Picture, Slices, clean, run_network, stack_frames
from inference.suitability import Chosen, ImageFacts, check, facts_of

_GUARD_LOOKS_AT = 12  # frames, evenly over the stack without its ends

OpenImage = Callable[[str], tuple[pydicom.Dataset, Picture]]
"""A path → what `HEADER_KEYWORDS` names of the header, and the way to the pixels. Raises PixelsNotReadable."""
Guard = Callable[[Iterator[npt.NDArray[np.float32]]], Refused | None]
"""Sees some whole grey frames of the series before the network does; what it refuses is not read."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An object of the study, where its bytes lie."""

    path: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str


def read_study(
    contract: Contract,
    backend: Backend,
    images: Sequence[ImageFile],
    open_image: OpenImage,
    guard: Guard | None = None,
) -> Answer:
    """The model's answer to the study, a refusal included. Memory is bounded by the contract's batch size."""
    different = list({image.sop_uid: image for image in images}.values())
    outlines = contract.segmentation
    headers: dict[str, pydicom.Dataset] | None = None if outlines is None else {}
    facts, pictures, unreadable = _opened(different, open_image, headers)
    if images and not facts:
        return nothing_decoded()
    suited = check(contract, facts)
    if isinstance(suited, Refused):
        return suited
    frames = stack_frames(suited.images, pictures)
    refused = guard(_looked_at(frames)) if guard is not None else None
    if refused is not None:
        return refused
    total = len(different) + len(frames) - len(suited.images)
    if outlines is not None and headers is not None:
        return outline_series(contract, outlines, backend, Series(suited, frames, headers, total, unreadable))
    slices = run_network(contract, backend, frames)
    looked_at = _familiar(contract, suited, slices)
    if isinstance(looked_at, Refused):
        return looked_at
    log_probabilities = calibrated_log_probabilities(slices.logits, contract.temperature)
    absent = next(number for number, item in enumerate(contract.classes) if item.presence == "absent")
    score = score_study(log_probabilities, slices.areas, absent, contract.independence)
    faults = series_faults(suited.images, total, unreadable + slices.undecodable, slices.repeated)
    suited = replace(looked_at, limits=(*looked_at.limits, *faults))
    return _classified(contract, suited, slices, score, absent)


def _opened(
    images: Sequence[ImageFile], open_image: OpenImage, headers: dict[str, pydicom.Dataset] | None
) -> tuple[list[ImageFacts], dict[str, Picture], int]:
    """Facts, the ways to the pixels by path, and how many could not be read; headers go into `headers`, if wanted."""
    facts: list[ImageFacts] = []
    pictures: dict[str, Picture] = {}
    unreadable = 0
    for image in images:
        try:
            ds, picture = open_image(image.path)
        except PixelsNotReadable as error:
            if isinstance(error.__cause__, MemoryError):  # the image is not broken: this process reached its limit
                raise error.__cause__ from error
            unreadable += 1
            continue
        pictures[image.path] = picture
        if headers is not None:
            headers[image.path] = ds
        facts.append(facts_of(ds, image.path, image.series_uid, image.sop_uid, image.sop_class_uid))
    return facts, pictures, unreadable


def _looked_at(frames: Sequence[Frame]) -> Iterator[npt.NDArray[np.float32]]:
    """Some frames' grey values, without the tenth at either end of the stack, where little of the body is seen."""
    ends = len(frames) // 10
    for place in np.unique(np.linspace(ends, len(frames) - 1 - ends, _GUARD_LOOKS_AT).astype(int)):
        try:
            yield clean(frames[place].picture.grey(frames[place].number))
        except PixelsNotReadable as error:
            if isinstance(error.__cause__, MemoryError):
                raise error.__cause__ from error


def _familiar(contract: Contract, chosen: Chosen, slices: Slices) -> Chosen | Refused:
    """Whether the series looks like what the model was trained on; a limit is added where it hardly does."""
    if not slices.decoded:
        return nothing_decoded()
    heads = len(evaluated_slices(slices.areas)) if slices.areas else 0
    if heads < contract.required.min_head_images:
        because = f"too few of its images ({heads}) show something like {contract.required.anatomy}"
        return Refused("anatomy", f"Not read, because {because}.")
    if contract.familiarity is None or slices.distances is None:
        return chosen
    distance = float(np.median(slices.distances[evaluated_slices(slices.areas)]))
    if distance > contract.familiarity.limit:
        because = "the images do not look like those that this model was trained on"
        return Refused("unfamiliar", f"Not read, because {because}.")
    if distance > contract.familiarity.usual:
        sentence = "The images look unlike most of those that the model was trained on."
        return replace(chosen, limits=(*chosen.limits, sentence))
    return chosen


def _classified(contract: Contract, chosen: Chosen, slices: Slices, score: StudyScore, absent: int) -> Classified:
    answer = contract.classes[score.answer]
    order = np.argsort(-score.probabilities, kind="stable")
    return Classified(
        label=answer.label,
        wording=answer.wording,
        code=answer.code,
        presence=answer.presence,
        probability=float(score.probabilities[score.answer]),
        site=answer.site,
        key_images=tuple(_key_image(slices.frames[place]) for place in score.key_slices),
        limits=chosen.limits,
        alternatives=tuple(Alternative(contract.classes[i].label, float(score.probabilities[i])) for i in order),
        images_read=slices.decoded,
        series_uid=chosen.series_uid,
        activation=tuple(_activation(contract, slices, score, absent)),
        prediction_set=tuple(contract.classes[i].label for i in prediction_set(score, contract.prediction_set)),
    )


def _activation(contract: Contract, slices: Slices, score: StudyScore, absent: int) -> Iterator[ActivationMap]:
    """The key images' maps; their frames are decoded once more, for what was kept of a slice is not its picture."""
    if slices.maps is None:
        return
    label = contract.classes[score.answer].label
    for place in score.key_slices:
        frame = slices.frames[place]
        head = find_subject(clean(frame.picture.grey(frame.number)), contract.preprocess)
        if head is not None:
            cells = evidence(slices.maps[place], score.answer, absent)
            yield packed(cells, head, contract.preprocess, _key_image(frame), label)


def _key_image(frame: Frame) -> KeyImage:
    image = frame.image
    return KeyImage(image.series_uid, image.sop_uid, image.sop_class_uid, None if image.single_frame else frame.number)
