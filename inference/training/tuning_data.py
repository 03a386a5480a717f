"""What a new version is fitted to and measured on: reviewed cases, and beside them images that its base was trained on.

Every person is in one part. What the base was trained on, or what looks like it, is never measured on: the base's
stored split (`split.json`) tells by the files' digests, for its own images as for cases of an earlier export.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fhir_records.errors import TrainingError
from inference.preprocess import PreprocessSettings
from inference.training.data import (
    PARTS,
    ImageSet,
    Split,
    SplitSettings,
    group,
    load_folders,
    perceptual_hashes,
    split_record,
)
from inference.training.people import check_parts, check_people

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

LEAST_PEOPLE = 10  # of each class, where the images of the base are not at hand
LEAST_IN_ALL = 20  # of all classes together, where they are
_SHARES = {"validation": 0.3, "calibration": 0.2}  # of the people of each class; the others train
_REHEARSED = 150  # images of each class that the base was trained on, and as many that it was not


@dataclass(frozen=True, slots=True)
class Material:
    """Images of both kinds with their parts."""

    images: ImageSet
    reviewed: Flags  # shape (n,): which are reviewed cases; the others are of the base's collection
    split: Split  # its clusters: persons, or look-alikes
    record: Mapping[str, Any]  # the split as it is stored, with what the base was trained on before

    def part(self, name: str, reviewed: bool) -> Labels:
        """Indices of one kind's images in a part."""
        inside = self.split.part(name)
        chosen: Labels = inside[self.reviewed[inside] == reviewed]
        return chosen

    def importance(self, name: str) -> Floats:
        """Of each image of a part: classes count the same; in a class both kinds do; in a kind every person does."""
        inside = self.split.part(name)
        labels, kinds, groups = self.images.labels[inside], self.reviewed[inside], self.split.clusters[inside]
        weights = np.zeros(len(inside))
        for label in np.unique(labels):
            for kind in np.unique(kinds[labels == label]):
                chosen = (labels == label) & (kinds == kind)
                _, whose, sizes = np.unique(groups[chosen], return_inverse=True, return_counts=True)
                share = 1.0 / len(np.unique(kinds[labels == label]))
                weights[chosen] = share / (len(sizes) * sizes[whose])
        return weights


def gather(
    cases: Path,
    former: Path | None,
    base: Path,
    classes: tuple[str, ...],
    preprocess: PreprocessSettings,
    seed: int,
    least_people: int = LEAST_PEOPLE,
) -> Material:
    """Load and part the images.

    Args:
        cases: labels.csv of reviewed cases.
        former: a folder with one sub-folder a class of images that the base was trained on, or a CSV.
        base: the bundle's folder.
        classes: in the order of the network's outputs.
        preprocess: the base's.
        seed: of what chance decides.
        least_people: of each class, where `former` is not given.

    Raises:
        TrainingError: too few people; it says how many more are needed.
    """
    parts_of = _known_parts(base)
    reviewed = load_folders(cases, classes, preprocess, least=0)
    images = reviewed
    places = np.full(len(reviewed.labels), "", dtype=object)
    groups = group(reviewed, SplitSettings(seed=seed))
    if former is not None:
        more = load_folders(former, classes, preprocess, least=0)
        chosen, of_chosen, clusters = _rehearsed(more, parts_of, seed)
        if not len(chosen):
            raise TrainingError(f"Nothing under {former.name} shows anything.")
        more = _some(more, chosen)
        images = _both(reviewed, more)
        groups = np.concatenate([groups, clusters + len(reviewed.labels)])
        places = np.concatenate([places, of_chosen])
    is_reviewed = np.arange(len(images.labels)) < len(reviewed.labels)
    held_out = {"calibration", "validation"} <= set(places[~is_reviewed].tolist())
    if held_out and all((images.labels[places == part] == k).any() for part in PARTS for k in range(len(classes))):
        _check_in_all(reviewed, groups)
    else:
        check_people(reviewed, groups[is_reviewed], least_people)
    known = _known_people(images, groups, places, is_reviewed, parts_of)
    places[is_reviewed] = _dealt(reviewed.labels, groups[is_reviewed], known, seed)
    train, calibration, validation = (np.flatnonzero(places == part) for part in PARTS)
    split = Split(train, calibration, validation, groups)
    material = Material(images, is_reviewed, split, _record(images, split, parts_of, seed))
    if not held_out:
        check_parts(images, split)
    if not len(np.unique(groups[material.part("validation", True)])) >= 2:
        raise TrainingError(
            "The version before was trained on nearly all of these people already: too few are left to measure on."
        )
    return material


def _known_parts(base: Path) -> dict[str, tuple[str, int]]:
    """Where the base's training put each file, by digest: the part, and the number of its cluster in it."""
    try:
        record = json.loads((base / "split.json").read_text(encoding="utf-8"))
        return {
            digest: (part, number)
            for part in PARTS
            for number, line in enumerate(record[part])
            for digest in str(line).split()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"split.json of {base.name} is no stored split.") from error


def _rehearsed(
    more: ImageSet, parts_of: Mapping[str, tuple[str, int]], seed: int
) -> tuple[Labels, npt.NDArray[np.object_], Labels]:
    """Which images of the base's collection are used, in which part, and of which cluster.

    What was held out of its training is calibrated and measured with, whole clusters in one of both; all else trains.
    """
    found = [parts_of.get(digest, ("train", -1)) for digest in more.digests]
    parts = np.array([part for part, _ in found], dtype=object)
    keys = {key: number for number, key in enumerate(dict.fromkeys(found))}
    alone = len(keys) + np.arange(len(found))
    clusters = np.array([keys[key] if key[1] >= 0 else alone[i] for i, key in enumerate(found)], dtype=np.int64)
    held = parts != "train"
    if held.any() and len(set(parts[held])) == 1:
        parts[held] = np.where(_halves(more.labels[held], clusters[held], seed), "calibration", "validation")
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in range(len(more.classes)):
        for kind in (held, ~held):
            of_kind = rng.permutation(np.flatnonzero((more.labels == label) & kind))
            chosen += sorted(of_kind[:_REHEARSED].tolist())
    kept = np.array(chosen, dtype=np.int64)
    return kept, parts[kept], clusters[kept]


def _halves(labels: Labels, clusters: Labels, seed: int) -> Flags:
    """Which images are in the first half: whole clusters, of each class as many in one as in the other."""
    first = set()
    for turn, (_, number) in enumerate(_by_class(labels, clusters, np.random.default_rng(seed))):
        if turn % 2 == 0:
            first.add(number)
    result: Flags = np.isin(clusters, list(first))
    return result


def _by_class(labels: Labels, groups: Labels, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Each group's commonest class and its number, class by class, by chance within."""
    order = rng.permutation(np.unique(groups)).tolist()
    return sorted(((int(np.bincount(labels[groups == n]).argmax()), n) for n in order), key=lambda pair: pair[0])


def _known_people(
    images: ImageSet,
    groups: Labels,
    places: npt.NDArray[np.object_],
    is_reviewed: Flags,
    parts_of: Mapping[str, tuple[str, int]],
) -> set[int]:
    """Groups of reviewed cases that the base was trained on, or that look like images which it was."""
    settings = SplitSettings()
    trained = np.array([parts_of.get(digest, ("", 0))[0] == "train" for digest in images.digests])
    reviewed, rehearsed = np.flatnonzero(is_reviewed), np.flatnonzero(~is_reviewed & (places == "train"))
    alike = np.zeros(len(images.labels), dtype=bool)
    if len(rehearsed):
        bits = perceptual_hashes(images.squares, settings.hash_side).astype(np.float32)
        ones = bits.sum(axis=1)
        apart = ones[reviewed, None] + ones[None, rehearsed] - 2 * bits[reviewed] @ bits[rehearsed].T
        alike[reviewed] = (apart <= settings.near * bits.shape[1]).any(axis=1)
    return set(groups[is_reviewed & (trained | alike)].tolist())


def _dealt(labels: Labels, groups: Labels, known: set[int], seed: int) -> npt.NDArray[np.object_]:
    """The part of each reviewed image: people by class, by chance; whom the base knows is trained on again."""
    part_of = dict.fromkeys(known, "train")
    people = [pair for pair in _by_class(labels, groups, np.random.default_rng(seed)) if pair[1] not in known]
    for label in np.unique(labels):
        own = [number for of, number in people if of == label]
        taken = 0
        for part, share in _SHARES.items():
            count = int(share * len(own) + 0.5)
            part_of |= dict.fromkeys(own[taken : taken + count], part)
            taken += count
        part_of |= dict.fromkeys(own[taken:], "train")
    return np.array([part_of[number] for number in groups.tolist()], dtype=object)


def _check_in_all(reviewed: ImageSet, groups: Labels) -> None:
    count = len(np.unique(groups[: len(reviewed.labels)]))
    if count < LEAST_IN_ALL:
        raise TrainingError(
            f"Too few people to train from: {LEAST_IN_ALL} different ones are needed beside the images that the "
            f"version before was trained on; there are {count}, {LEAST_IN_ALL - count} more are needed."
        )


def _record(images: ImageSet, split: Split, parts_of: Mapping[str, tuple[str, int]], seed: int) -> dict[str, Any]:
    """The split as stored: this one's, and whatever else the base says that it was trained on."""
    record = split_record(images, split, SplitSettings(seed=seed, shares=(0.5, 0.2, 0.3)))
    here = set(images.digests)
    before: dict[tuple[str, int], list[str]] = {}
    for digest, place in parts_of.items():
        if digest not in here:
            before.setdefault(place, []).append(digest)
    for (part, _), digests in before.items():
        record[part].append(" ".join(digests))
    return record


def _some(images: ImageSet, chosen: Labels) -> ImageSet:
    return ImageSet(
        squares=images.squares[chosen],
        labels=images.labels[chosen],
        digests=tuple(images.digests[i] for i in chosen),
        classes=images.classes,
        skipped=images.skipped,
        names=tuple(images.names[i] for i in chosen),
    )


def _both(first: ImageSet, second: ImageSet) -> ImageSet:
    return ImageSet(
        squares=np.concatenate([first.squares, second.squares]),
        labels=np.concatenate([first.labels, second.labels]),
        digests=first.digests + second.digests,
        classes=first.classes,
        skipped=first.skipped + second.skipped,
        names=first.names + second.names,
    )
