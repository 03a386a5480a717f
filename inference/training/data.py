"""Folders of images, made into clusters of look-alikes and split by cluster.

Public slice collections carry no patient numbers, and neighbouring slices of one patient look nearly the same. A split
by file would put such neighbours on both sides and flatter the model; so images whose perceptual hashes are near are
joined (single linkage: no near pair is ever parted) and a cluster goes to one part whole. Where file names tell the
person, persons take the place of clusters.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dicom_listener.pixels import grey_frame
from fhir_records.errors import PixelsNotReadable, TrainingError
from inference.preprocess import PreprocessSettings, cut

PARTS = ("train", "calibration", "validation")
_SUFFIXES = {".jpg", ".jpeg", ".png", ".dcm"}
_HASH_INPUT = 32  # pixels a side of the thumbnail that is hashed


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """How images are grouped and parted."""

    hash_side: int = 16  # low frequencies a side of the perceptual hash; its bits are side² - 1
    near: float = 0.20  # share of differing bits up to which two images are joined
    # Of the images of each class: train, calibration, validation.
    shares: tuple[float, float, float] = (0.70, 0.10, 0.20)
    seed: int = 20261120
    person: str = ""  # where file names tell the person: a pattern whose match at the name's start is the person


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Preprocessed images of all classes, with what is needed to part them."""

    squares: npt.NDArray[np.uint8]  # shape (images, size, size), 0 background to 255
    labels: npt.NDArray[np.int64]  # shape (images,), index into `classes`
    digests: tuple[str, ...]  # first 10 hexadecimal digits of the SHA-256 of each file
    classes: tuple[str, ...]  # folder names, in the model's order
    skipped: int  # files without anything bright in them
    names: tuple[str, ...] = ()  # of the files; empty where the images come from no files
    persons: tuple[str, ...] = ()  # who is on each, "" where nobody says; empty where nobody says of any


@dataclass(frozen=True, slots=True)
class Split:
    """Which image, by index, stands in which part; and the cluster that each belongs to."""

    train: npt.NDArray[np.int64]
    calibration: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    clusters: npt.NDArray[np.int64]  # shape (images,)

    def part(self, name: str) -> npt.NDArray[np.int64]:
        """Indices of one of `PARTS`."""
        indices: npt.NDArray[np.int64] = getattr(self, name)
        return indices


def load_folders(
    root: Path, classes: Sequence[str], preprocess: PreprocessSettings, least: int = len(PARTS)
) -> ImageSet:
    """Every JPEG, PNG and DICOM image under `root/<class>`, preprocessed; or those that a CSV file names.

    A CSV has the columns `path` (from the file's own folder) and `label`, and may have `person`, whose images are then
    never parted. Raises TrainingError where a class has fewer than `least` images, or a file cannot be read.
    """
    listed = _from_csv(root, classes) if root.is_file() else _from_folders(root, classes)
    squares: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    digests: list[str] = []
    names: list[str] = []
    persons: list[str] = []
    skipped = 0
    for file, label, name, person in listed:
        found = cut(_grey(file), preprocess)
        if found is None:
            skipped += 1
            continue
        squares.append((found[0] * 255).astype(np.uint8))
        labels.append(label)
        digests.append(hashlib.sha256(file.read_bytes()).hexdigest()[:10])
        names.append(name)
        persons.append(person)
    lacking = [name for label, name in enumerate(classes) if labels.count(label) < least]
    if lacking or not squares:
        raise TrainingError(f"Too few images of {', '.join(lacking or classes)} show anything; at least 3 are needed.")
    return ImageSet(
        np.stack(squares),
        np.array(labels, dtype=np.int64),
        tuple(digests),
        tuple(classes),
        skipped,
        tuple(names),
        tuple(persons) if any(persons) else (),
    )


def _from_folders(root: Path, classes: Sequence[str]) -> list[tuple[Path, int, str, str]]:
    listed: list[tuple[Path, int, str, str]] = []
    for label, name in enumerate(classes):
        files = sorted(file for file in (root / name).glob("*") if file.suffix.lower() in _SUFFIXES)
        if len(files) < len(PARTS):
            raise TrainingError(
                f"The class {name!r} has {len(files)} images under {root / name}; at least 3 are needed."
            )
        listed += [(file, label, file.name, "") for file in files]
    return listed


def _from_csv(table: Path, classes: Sequence[str]) -> list[tuple[Path, int, str, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"path", "label"} <= set(rows[0]):
        raise TrainingError(f"{table.name} needs a line of column names with path and label, and lines under it.")
    unknown = sorted({row["label"] for row in rows} - set(classes))
    if unknown:
        raise TrainingError(f"{table.name} has the labels {', '.join(unknown)}; known are {', '.join(classes)}.")
    return [
        (
            table.parent / row["path"],
            classes.index(row["label"]),
            row.get("person") or Path(row["path"]).name,
            row.get("person") or "",
        )
        for row in rows
    ]


def _grey(file: Path) -> npt.NDArray[np.float32]:
    try:
        if file.suffix.lower() == ".dcm":
            return np.nan_to_num(grey_frame(str(file), 1), posinf=0.0, neginf=0.0)
        with Image.open(file) as picture:
            return np.asarray(picture.convert("L"), dtype=np.float32)
    except (OSError, PixelsNotReadable) as error:
        raise TrainingError(f"{file.name} cannot be read as an image.") from error


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What a collection holds more than once."""

    images: int
    groups: int  # of look-alikes, or persons
    identical: int  # files that are byte for byte another one
    near: int  # images that share their group with another
    contradicting: int  # groups whose images are of several classes


def duplicates(images: ImageSet, settings: SplitSettings) -> Duplicates:
    """How far the images are from being independent of each other: a report to read before training."""
    groups = group(images, settings)
    sizes = np.bincount(groups, minlength=len(groups))
    mixed = [len(set(images.labels[groups == number].tolist())) > 1 for number in np.flatnonzero(sizes > 1)]
    return Duplicates(
        images=len(groups),
        groups=int((sizes > 0).sum()),
        identical=len(images.digests) - len(set(images.digests)),
        near=int(sizes[sizes > 1].sum()),
        contradicting=sum(mixed),
    )


def group(images: ImageSet, settings: SplitSettings) -> npt.NDArray[np.int64]:
    """The group of each image that goes to one part whole: its person where names tell, else its look-alikes.

    Where a table names persons, they are kept whole too, see `joined`. Raises TrainingError for a name that does not
    match the pattern of persons.
    """
    if images.persons and not settings.person:
        alike = cluster(perceptual_hashes(images.squares, settings.hash_side), settings.near)
        return joined(alike, images.persons)
    if not settings.person:
        return cluster(perceptual_hashes(images.squares, settings.hash_side), settings.near)
    pattern = re.compile(settings.person)
    found = [pattern.match(name) for name in images.names]
    persons = [match.group() for match in found if match is not None]
    if len(persons) < len(images.labels):
        raise TrainingError(f"{len(images.labels) - len(persons)} file names do not tell the person.")
    first = {person: number for number, person in reversed(list(enumerate(persons)))}
    return np.array([first[person] for person in persons], dtype=np.int64)


def joined(groups: npt.NDArray[np.int64], persons: Sequence[str]) -> npt.NDArray[np.int64]:
    """The group of each image where some are of people with a name: a person is in one group, the lowest index of it.

    Look-alikes of people who are known to be different ones are not joined; those of images of nobody known are, also
    with a person's.
    """
    named = np.array([bool(person) for person in persons])
    alone = np.bincount(groups[~named], minlength=len(groups)) == 0  # clusters of named people only
    alike = np.where(alone[groups], np.arange(len(groups)), groups)
    numbers: dict[str, int] = {}
    whose = np.array([numbers.setdefault(person or f"\0{index}", index) for index, person in enumerate(persons)])
    linked = alike.copy()
    while True:
        before = linked
        for links in (alike, whose):
            lowest = np.full(len(linked), len(linked), dtype=np.int64)
            np.minimum.at(lowest, links, linked)
            linked = lowest[links]
        if np.array_equal(before, linked):
            return linked


def dealt(labels: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], count: int, seed: int) -> npt.NDArray[np.int64]:
    """The fold of each image, 0 to `count` - 1: each group in one of them, each fold with as much of each class."""
    order = np.random.default_rng(seed).permutation(np.unique(groups))

    def rank(number: int) -> tuple[int, int]:
        held = np.bincount(labels[groups == number])
        return int(held.argmax()), -int(held.sum())

    place = {number: turn % count for turn, number in enumerate(sorted(order.tolist(), key=rank))}
    return np.array([place[number] for number in groups.tolist()], dtype=np.int64)


def for_good(split: Split) -> Split:
    """The split of a final training: the validation groups are trained on, too; the calibration groups are not."""
    together = np.sort(np.concatenate([split.train, split.validation]))
    return Split(together, split.calibration, np.zeros(0, dtype=np.int64), split.clusters)


def perceptual_hashes(squares: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.bool_]:
    """Sign of each low frequency of the discrete cosine transform against their median; shape (images, side² - 1)."""
    n = np.arange(_HASH_INPUT)
    basis = np.cos(np.pi * (2 * n[None, :] + 1) * n[:, None] / (2 * _HASH_INPUT))[:side]
    size = (_HASH_INPUT, _HASH_INPUT)
    small = np.stack([np.asarray(Image.fromarray(s).resize(size, Image.Resampling.BILINEAR), float) for s in squares])
    low = (basis @ small @ basis.T).reshape(len(squares), -1)[:, 1:]  # without the mean brightness
    hashes: npt.NDArray[np.bool_] = low > np.median(low, axis=1, keepdims=True)
    return hashes


def cluster(hashes: npt.NDArray[np.bool_], near: float) -> npt.NDArray[np.int64]:
    """Cluster of each image: the lowest index that pairs differing in a share `near` of their bits link it to."""
    bits = hashes.astype(np.float32)
    ones = bits.sum(axis=1)
    labels = np.arange(len(bits))
    linked = [
        (ones[rows, None] + ones[None, :] - 2 * bits[rows] @ bits.T) <= near * bits.shape[1]
        for rows in np.array_split(np.arange(len(bits)), max(1, len(bits) // 512))
    ]
    while True:
        lowest = np.concatenate([np.where(block, labels[None, :], len(bits)).min(axis=1) for block in linked])
        lowest = lowest[lowest]
        if np.array_equal(lowest, labels):
            return labels
        labels = lowest


def split_by_cluster(images: ImageSet, settings: SplitSettings) -> Split:
    """Give each cluster, in an order drawn by the seed, to the part that lacks most of the class it is mostly of."""
    clusters = group(images, settings)
    counts = np.bincount(images.labels, minlength=len(images.classes))
    missing = np.outer(settings.shares, counts)  # shape (parts, classes)
    members: dict[int, list[int]] = {}
    for index, number in enumerate(clusters.tolist()):
        members.setdefault(number, []).append(index)
    order = np.random.default_rng(settings.seed).permutation(sorted(members))
    # Large clusters first: a big one that came last could no longer be balanced by others.
    parts: list[list[int]] = [[] for _ in PARTS]
    for number in sorted(order.tolist(), key=lambda n: -len(members[n])):
        held = np.bincount(images.labels[members[number]], minlength=len(images.classes))
        share_missing = (missing / np.maximum(1e-9, np.outer(settings.shares, counts)))[:, int(held.argmax())]
        chosen = int(share_missing.argmax())
        parts[chosen].extend(members[number])
        missing[chosen] -= held
    train, calibration, validation = (np.array(sorted(part), dtype=np.int64) for part in parts)
    if min(len(train), len(calibration), len(validation)) == 0:
        raise TrainingError("The images form too few clusters of look-alikes to be split into three parts.")
    return Split(train, calibration, validation, clusters)


def split_record(images: ImageSet, split: Split, settings: SplitSettings) -> dict[str, Any]:
    """The split as stored beside the model: per part the clusters, each the digests of its files."""
    record: dict[str, Any] = {
        "hash_side": settings.hash_side,
        "near": settings.near,
        "shares": list(settings.shares),
        "seed": settings.seed,
        "person": settings.person,
    }
    for name in PARTS:
        grouped: dict[int, list[str]] = {}
        for index in split.part(name).tolist():
            grouped.setdefault(int(split.clusters[index]), []).append(images.digests[index])
        record[name] = [" ".join(digests) for digests in grouped.values()]
    return record


def split_from_record(images: ImageSet, record: Mapping[str, Any]) -> Split:
    """The stored split over these files. Raises TrainingError where a file is not in it."""
    places = {
        digest: (part, number)
        for part in PARTS
        for number, line in enumerate(record[part])
        for digest in str(line).split()
    }
    unknown = sum(digest not in places for digest in images.digests)
    if unknown:
        raise TrainingError(f"{unknown} of {len(images.digests)} images are not in the model's stored split.")
    found = [places[digest] for digest in images.digests]
    parts = {name: np.array([i for i, (p, _) in enumerate(found) if p == name], dtype=np.int64) for name in PARTS}
    numbers = {place: number for number, place in enumerate(dict.fromkeys(found))}
    return Split(**parts, clusters=np.array([numbers[place] for place in found], dtype=np.int64))
