"""Folders of images, made into clusters of look-alikes and split by cluster.

Public slice collections carry no patient numbers, and neighbouring slices of one patient look nearly the same. A split
by file would put such neighbours on both sides and flatter the model; so images whose perceptual hashes are near are
joined (single linkage: no near pair is ever parted) and a cluster goes to one part whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fhir_records.errors import TrainingError
from inference.preprocess import PreprocessSettings, crop_and_scale, find_head

PARTS = ("train", "calibration", "validation")
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_HASH_INPUT = 32  # pixels a side of the thumbnail that is hashed


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """How images are clustered and parted."""

    hash_side: int = 16  # low frequencies a side of the perceptual hash; its bits are side² - 1
    near: float = 0.20  # share of differing bits up to which two images are joined
    shares: tuple[float, float, float] = (
        0.70,
        0.10,
        0.20,
    )  # of the images of each class: train, calibration, validation
    seed: int = 20261120


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Preprocessed images of all classes, with what is needed to part them."""

    squares: npt.NDArray[np.uint8]  # shape (images, size, size), 0 background to 255
    labels: npt.NDArray[np.int64]  # shape (images,), index into `classes`
    digests: tuple[str, ...]  # first 10 hexadecimal digits of the SHA-256 of each file
    classes: tuple[str, ...]  # folder names, in the model's order
    skipped: int  # files without anything bright in them


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


def load_folders(root: Path, classes: Sequence[str], preprocess: PreprocessSettings) -> ImageSet:
    """Every JPEG and PNG under `root/<class>`, preprocessed.

    Raises TrainingError where a class has no folder or fewer than three images.
    """
    squares: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    digests: list[str] = []
    skipped = 0
    for label, name in enumerate(classes):
        files = sorted(file for file in (root / name).glob("*") if file.suffix.lower() in _SUFFIXES)
        if len(files) < len(PARTS):
            raise TrainingError(
                f"The class {name!r} has {len(files)} images under {root / name}; at least 3 are needed."
            )
        for file in files:
            image = np.asarray(Image.open(file).convert("L"), dtype=np.float32)
            head = find_head(image, preprocess)
            if head is None:
                skipped += 1
                continue
            squares.append((crop_and_scale(image, head, preprocess) * 255).astype(np.uint8))
            labels.append(label)
            digests.append(hashlib.sha256(file.read_bytes()).hexdigest()[:10])
    return ImageSet(np.stack(squares), np.array(labels, dtype=np.int64), tuple(digests), tuple(classes), skipped)


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
    clusters = cluster(perceptual_hashes(images.squares, settings.hash_side), settings.near)
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
