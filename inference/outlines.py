"""From the network's logits to segments: voxels, connected parts, the answer to the question, masks on the slices."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from fhir_records.errors import ModelFailed
from inference.answers import OutlinedFrame, OutlinedSegment, Outlines
from inference.segmentation_contract import SegmentationSettings
from inference.stack_geometry import Stack, image_of
from inference.volume import Grid

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_TOUCHING = np.ones((3, 3, 3), bool)  # voxels of one part share a face, an edge or a corner
_LARGEST = 40_000_000  # characters of all masks of an answer: what goes through the pipe has a limit


@dataclass(frozen=True, slots=True)
class Found:
    """What was found on the grid."""

    masks: tuple[Mask, ...]  # of each segment of the contract, without the parts that are too small
    probability: float  # that what the contract asks for is there, 0 to 1


def found_in(logits: Floats, settings: SegmentationSettings, temperature: float, voxel_mm3: float) -> Found:
    """The segments in logits of shape (channels, *grid), and how probable it is that the question's answer is yes.

    Where nothing was found, that is the mean of the most probable voxels, as many as would together have been just
    enough to count, and at most 1/2. Where something was, at least 1/2: the mean over the largest connected part of
    what answers the question (`largest_part`), or of the most probable voxels as before (`strongest`).

    `logits` is overwritten. Raises ModelFailed where the network has fewer channels than the contract speaks of, or
    gives numbers that are none.
    """
    if len(logits) < settings.channels:
        raise ModelFailed(f"The network has {len(logits)} channels; the contract speaks of {settings.channels}.")
    if not np.isfinite(logits).all():
        raise ModelFailed("The network's answer has numbers that are none.")
    probabilities = _softmax(logits, temperature) if settings.activation == "softmax" else _sigmoid(logits, temperature)
    if settings.activation == "softmax":
        chosen = probabilities.argmax(axis=0)
        raw = [chosen == segment.channel for segment in settings.segments]
    else:
        raw = [probabilities[segment.channel] >= settings.threshold for segment in settings.segments]
    masks = tuple(
        _without_specks(mask, segment.min_volume_ml * 1000 / voxel_mm3)
        for mask, segment in zip(raw, settings.segments, strict=True)
    )
    return Found(masks, _probability(probabilities, masks, settings, voxel_mm3))


def _softmax(logits: Floats, temperature: float) -> Floats:
    logits -= logits.max(axis=0)
    logits /= np.float32(temperature)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)
    return logits


def _sigmoid(logits: Floats, temperature: float) -> Floats:
    np.clip(logits, -60 * temperature, 60 * temperature, out=logits)  # beyond it e to that power is no float32
    result: Floats = 1 / (1 + np.exp(-logits / np.float32(temperature)))
    return result


def _without_specks(mask: Mask, least: float) -> Mask:
    """The mask without connected parts of fewer than `least` voxels."""
    if least <= 1 or not mask.any():
        return mask
    parts, count = ndimage.label(mask, _TOUCHING)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    keep = sizes >= least
    keep[0] = False
    result: Mask = keep[parts]
    return result


def _probability(
    probabilities: Floats, masks: tuple[Mask, ...], settings: SegmentationSettings, voxel_mm3: float
) -> float:
    answering = [place for place, segment in enumerate(settings.segments) if segment.answers]
    first, *others = (probabilities[settings.segments[place].channel] for place in answering)
    of_any = first.copy()
    join = np.add if settings.activation == "softmax" else np.maximum
    for other in others:
        join(of_any, other, out=of_any)
    mask = np.logical_or.reduce([masks[place] for place in answering])
    if mask.any() and settings.probability == "largest_part":
        parts, _ = ndimage.label(mask, _TOUCHING)
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        return max(0.5, float(of_any[parts == sizes.argmax()].mean()))
    least = min(settings.segments[place].min_volume_ml for place in answering) * 1000 / voxel_mm3
    count = min(max(1, round(least)), of_any.size)
    strongest = float(np.partition(of_any, -count, axis=None)[-count:].mean())
    return max(0.5, strongest) if mask.any() else min(0.5, strongest)


@dataclass(frozen=True, slots=True)
class OnSlices:
    """The segments on the slices of the stack."""

    outlines: Outlines
    areas: npt.NDArray[np.int64]  # voxels on each slice of what answers the question; shape (slices,)


def on_slices(found: Found, settings: SegmentationSettings, grid: Grid, stack: Stack) -> OnSlices:
    """What was found, on the images' own pixels; a segment that has no pixel there is not among them.

    Raises ModelFailed where the masks are too ragged to be kept.
    """
    segments = []
    areas = np.zeros(len(stack.frames), np.int64)
    left = _LARGEST
    for settled, mask in zip(settings.segments, found.masks, strict=True):
        counts = np.zeros(len(stack.frames), np.int64)
        frames = []
        for place, plane in _planes(mask, grid):
            counts[place] = np.count_nonzero(plane)
            if counts[place]:
                frames.append(OutlinedFrame(place, packed(plane)))
                left -= len(frames[-1].mask)
            if left < 0:
                raise ModelFailed("What the network outlined is too ragged to be kept.")
        if frames:
            volume = round(int(counts.sum()) * stack.voxel_mm3, 1)
            segments.append(OutlinedSegment(settled.label, volume, tuple(frames)))
        if settled.answers:
            areas += counts
    images = tuple(image_of(frame) for frame in stack.frames)
    return OnSlices(Outlines(stack.rows, stack.columns, images, tuple(segments)), areas)


def _planes(mask: Mask, grid: Grid) -> Iterator[tuple[int, Mask]]:
    if mask.any():
        yield from enumerate(grid.on_slices(mask))


def packed(plane: Mask) -> str:
    """A mask of one image as it goes into an answer."""
    return base64.b64encode(zlib.compress(np.packbits(plane).tobytes(), 6)).decode()
