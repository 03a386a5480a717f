"""One study read by one model, inside the model's process: headers, the contract, pixels in batches, the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pydicom

from fhir_records.errors import PixelsNotReadable
from inference.answers import Alternative, Answer, Classified, KeyImage, Refused
from inference.backends import Backend, Outputs
from inference.classify import StudyScore, calibrated_log_probabilities, evaluated_slices, score_study
from inference.contract import Contract
from inference.preprocess import prepare
from inference.suitability import Chosen, ImageFacts, check, facts_of

ReadHeader = Callable[[str], pydicom.Dataset]
GreyFrame = Callable[[str, int], npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An object of the study, where its bytes lie."""

    path: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str


@dataclass(frozen=True, slots=True)
class Pixels:
    """How headers and pixels are read: the two functions of `dicom_listener.pixels`, or a test's."""

    read_header: ReadHeader
    grey_frame: GreyFrame  # (path, frame from 1) → float32, shape (rows, columns)


@dataclass(frozen=True, slots=True)
class _Slices:
    """What the network said of the slices that show something, in the order of the stack."""

    places: list[tuple[ImageFacts, int]]  # image and frame (from 1)
    logits: npt.NDArray[np.float32]  # shape (slices, classes)
    distances: npt.NDArray[np.float32] | None  # shape (slices,), from the training images
    areas: list[float]  # share of the slice that the head covers
    decoded: int
    undecodable: int


def read_study(contract: Contract, backend: Backend, images: Sequence[ImageFile], pixels: Pixels) -> Answer:
    """The model's answer to the study, a refusal included. Memory is bounded by the contract's batch size."""
    facts, unreadable = _headers(images, pixels)
    if images and not facts:
        return _nothing_decoded()
    suited = check(contract, facts)
    if isinstance(suited, Refused):
        return suited
    slices = _run(contract, backend, suited, pixels)
    if not slices.decoded:
        return _nothing_decoded()
    heads = len(evaluated_slices(slices.areas)) if slices.areas else 0
    if heads < contract.required.min_head_images:
        because = f"too few of its images ({heads}) show something like {contract.required.anatomy}"
        return Refused("anatomy", f"Not read, because {because}.")
    suited_or_not = _familiar(contract, suited, slices)
    if isinstance(suited_or_not, Refused):
        return suited_or_not
    suited = suited_or_not
    log_probabilities = calibrated_log_probabilities(slices.logits, contract.temperature)
    absent = next(number for number, item in enumerate(contract.classes) if item.presence == "absent")
    score = score_study(log_probabilities, slices.areas, absent)
    lost = unreadable + slices.undecodable
    if lost:
        total = len(images) if not slices.undecodable else slices.decoded + lost
        sentence = f"{lost} of {total} images could not be decoded."
        suited = replace(suited, limits=(*suited.limits, sentence))
    return _classified(contract, suited, slices, score)


def _headers(images: Sequence[ImageFile], pixels: Pixels) -> tuple[list[ImageFacts], int]:
    facts: list[ImageFacts] = []
    unreadable = 0
    for image in images:
        try:
            ds = pixels.read_header(image.path)
        except PixelsNotReadable as error:
            _raise_if_out_of_memory(error)
            unreadable += 1
            continue
        facts.append(facts_of(ds, image.path, image.series_uid, image.sop_uid, image.sop_class_uid))
    return facts, unreadable


def _run(contract: Contract, backend: Backend, chosen: Chosen, pixels: Pixels) -> _Slices:
    """Every frame of the series through the network, a batch at a time."""
    places: list[tuple[ImageFacts, int]] = []
    areas: list[float] = []
    decoded = undecodable = 0
    outputs: list[Outputs] = []
    batch: list[npt.NDArray[np.float32]] = []
    for image, frame in _frames(chosen):
        try:
            grey = pixels.grey_frame(image.path, frame)
        except PixelsNotReadable as error:
            _raise_if_out_of_memory(error)
            undecodable += 1
            continue
        decoded += 1
        prepared = prepare(np.nan_to_num(grey, posinf=0.0, neginf=0.0), contract.preprocess)
        if prepared is None:  # nothing bright: air above the head
            continue
        square, head = prepared
        batch.append(square)
        places.append((image, frame))
        areas.append(head.fraction)
        if len(batch) == contract.batch_size:
            outputs.append(backend.run(np.stack(batch)[:, None]))
            batch.clear()
    if batch:
        outputs.append(backend.run(np.stack(batch)[:, None]))
    logits = np.concatenate([np.zeros((0, len(contract.classes)), np.float32), *(output.logits for output in outputs)])
    known = [output.distances for output in outputs if output.distances is not None]
    return _Slices(places, logits, np.concatenate(known) if known else None, areas, decoded, undecodable)


def _familiar(contract: Contract, chosen: Chosen, slices: _Slices) -> Chosen | Refused:
    """Whether the series looks like what the model was trained on; a limit is added where it hardly does."""
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


def _frames(chosen: Chosen) -> Iterator[tuple[ImageFacts, int]]:
    for image in chosen.images:
        for frame in range(1, image.number_of_frames + 1):
            yield image, frame


def _classified(contract: Contract, chosen: Chosen, slices: _Slices, score: StudyScore) -> Classified:
    answer = contract.classes[score.answer]
    order = np.argsort(-score.probabilities, kind="stable")
    return Classified(
        label=answer.label,
        wording=answer.wording,
        code=answer.code,
        presence=answer.presence,
        probability=float(score.probabilities[score.answer]),
        site=answer.site,
        key_images=tuple(_key_image(*slices.places[place]) for place in score.key_slices),
        limits=chosen.limits,
        alternatives=tuple(Alternative(contract.classes[i].label, float(score.probabilities[i])) for i in order),
        images_read=slices.decoded,
        series_uid=chosen.series_uid,
    )


def _key_image(image: ImageFacts, frame: int) -> KeyImage:
    return KeyImage(image.series_uid, image.sop_uid, image.sop_class_uid, None if image.single_frame else frame)


def _nothing_decoded() -> Refused:
    return Refused("no-readable-images", "Not read, because none of its images could be decoded.")


def _raise_if_out_of_memory(error: PixelsNotReadable) -> None:
    """An image is not broken because this process reached its limit."""
    if isinstance(error.__cause__, MemoryError):
        raise error.__cause__
