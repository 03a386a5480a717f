"""A stack of slices as the volume that a network takes, and what the network says of it back on the slices.

The steps are those of MONAI's transforms Orientation, Spacing (bilinear) and of intensity, in this order, and give the
same values; they are done here in numpy because the process that serves a model must not load torch. The axes of the
grid are those of the slices, turned and reversed, so that every step works along one axis at a time and a slice is made
smaller as soon as it is decoded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.segmentation_contract import STORED, VolumeSettings
from inference.stack_geometry import Stack

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Where each letter leads to in the patient's coordinates (PS3.3 section C.7.6.2.1.1): x to the left, y to the back,
# z to the head.
_TOWARDS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of the slices, and the grid's voxels along it."""

    centres: npt.NDArray[np.float64]  # of the source's voxels: mm from the first, rising
    step: float  # mm of the grid's voxels; 0: they are the source's own
    reversed: bool  # the grid begins where the source ends
    usual: float  # mm: the usual distance of the source's voxels

    @property
    def samples(self) -> npt.NDArray[np.float64]:
        """Where the grid's voxels lie, in their order: mm from the source's first."""
        last = float(self.centres[-1])
        if not self.step:
            return self.centres[::-1] if self.reversed else self.centres
        places = self.step * np.arange(int(np.round(last / self.step + 1.0)))
        return np.clip(last - places if self.reversed else places, 0.0, last)

    def resampled(self, values: Floats, axis: int) -> Floats:
        """`values` at the grid's voxels along this axis of theirs: linear between the source's, shape changed there."""
        samples = self.samples
        if len(self.centres) == 1 or np.array_equal(samples, self.centres):
            return np.repeat(values, len(samples), axis=axis) if len(self.centres) == 1 else values
        below = np.clip(np.searchsorted(self.centres, samples, side="right") - 1, 0, len(self.centres) - 2)
        share = ((samples - self.centres[below]) / np.diff(self.centres)[below]).astype(np.float32)
        share = share.reshape([-1 if one == axis else 1 for one in range(values.ndim)])
        lower, upper = np.take(values, below, axis=axis), np.take(values, below + 1, axis=axis)
        result: Floats = lower + (upper - lower) * share
        return result

    def nearest(self) -> npt.NDArray[np.intp]:
        """For each of the source's voxels, the grid's that lies nearest."""
        samples = self.samples
        if not self.step:
            return np.arange(len(samples))[::-1] if self.reversed else np.arange(len(samples))
        from_start = self.centres[-1] - self.centres if self.reversed else self.centres
        return np.clip(np.rint(from_start / self.step).astype(np.intp), 0, len(samples) - 1)


@dataclass(frozen=True, slots=True)
class Grid:
    """The network's volume over a stack: which axis of the stack is which of the grid's."""

    axes: tuple[Axis, Axis, Axis]  # the stack's: along the rows, down the columns, over the slices
    order: tuple[int, int, int]  # for each axis of the grid, the stack's axis that it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along the grid's axes."""
        return tuple(len(self.axes[axis].samples) for axis in self.order)

    @property
    def voxel_mm3(self) -> float:
        """Volume of one of the grid's voxels; where the grid has the source's slices, at their usual distance."""
        return math.prod(axis.step or axis.usual for axis in self.axes)

    def plane(self, grey: Floats) -> Floats:
        """A slice of the stack, shape (rows, columns), with as many rows and columns as the grid has there."""
        along_row, down_column, _ = self.axes
        return along_row.resampled(down_column.resampled(grey, 0), 1)

    def volume(self, planes: Sequence[Floats]) -> Floats:
        """What `plane` made of each slice, in the stack's order, as float32 of the grid's shape."""
        stack = self.axes[2].resampled(np.stack(planes), 0)
        return np.ascontiguousarray(np.transpose(stack, [2 - axis for axis in self.order]))

    def on_slices(self, mask: Mask) -> Iterator[Mask]:
        """A mask of the grid's shape on each slice of the stack, shape (rows, columns): that of the nearest voxel."""
        stored = np.transpose(mask, [self.order.index(axis) for axis in (0, 1, 2)])
        along_row, down_column, over = (axis.nearest() for axis in self.axes)
        for place in over:
            yield np.ascontiguousarray(stored[:, :, place][np.ix_(along_row, down_column)].T)


def grid_of(stack: Stack, settings: VolumeSettings) -> Grid:
    """The grid that a model's contract wants over this stack."""
    order, turned = _orientation(stack.directions, settings.orientation)
    steps, backwards = [0.0] * 3, [False] * 3
    for place, axis in enumerate(order):
        steps[axis], backwards[axis] = settings.spacing[place], turned[place]
    centres = (
        np.arange(stack.columns) * stack.spacing[1],
        np.arange(stack.rows) * stack.spacing[0],
        stack.places - stack.places[0],
    )
    # One slice has no neighbour to be interpolated with: it is the grid's one slice.
    usual = (stack.spacing[1], stack.spacing[0], stack.distance)
    along_row, down_column, over = (
        Axis(places, step if len(places) > 1 else 0.0, back, distance)
        for places, step, back, distance in zip(centres, steps, backwards, usual, strict=True)
    )
    return Grid((along_row, down_column, over), order)


def _orientation(
    directions: npt.NDArray[np.float64], wanted: str
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """For each axis that is wanted, the nearest of the stack's, and whether it leads the other way."""
    if wanted == STORED:
        return (0, 1, 2), (False, False, False)
    agreement = np.array([_TOWARDS[letter] for letter in wanted], dtype=float) @ directions.T
    best = max(
        itertools.permutations((0, 1, 2)),
        key=lambda order: sum(abs(agreement[place, axis]) for place, axis in enumerate(order)),
    )
    one, two, three = (bool(agreement[place, axis] < 0) for place, axis in enumerate(best))
    return (best[0], best[1], best[2]), (one, two, three)


def scaled(volume: Floats, settings: VolumeSettings) -> Floats:
    """The volume with the intensities that the network takes; a network of slices has each slice scaled by itself."""
    if settings.dimensions == 2 and settings.intensity in ("percentile", "standard"):
        return np.stack([_scaled(volume[..., place], settings) for place in range(volume.shape[2])], axis=2)
    return _scaled(volume, settings)


def _scaled(values: Floats, settings: VolumeSettings) -> Floats:
    if settings.intensity == "none":
        return values
    if settings.intensity == "standard":
        return _standardised(values, nonzero=settings.nonzero)
    low, high = settings.low, settings.high
    if settings.intensity == "percentile":
        low, high = (float(value) for value in np.percentile(values, (low, high)))
    least, most = settings.output
    if high <= low:
        return np.full_like(values, least)
    result: Floats = (values - np.float32(low)) * np.float32((most - least) / (high - low)) + np.float32(least)
    return np.clip(result, min(least, most), max(least, most)) if settings.clip else result


def _standardised(values: Floats, *, nonzero: bool) -> Floats:
    counted = values != 0 if nonzero else np.ones(values.shape, bool)
    if not counted.any():
        return values
    part = values[counted].astype(np.float64)
    deviation = float(part.std()) or 1.0
    result = values.copy()
    result[counted] = ((part - part.mean()) / deviation).astype(np.float32)
    return result
