"""The part of `contract.toml` that only models have that outline what they see (`kind = "segmentation"`)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from inference.answers import Concept
from inference.toml_table import Table, fail

INTENSITIES = ("range", "percentile", "standard", "none")
BLENDS = ("constant", "gaussian")
ACTIVATIONS = ("softmax", "sigmoid")
PROBABILITIES = ("largest_part", "strongest")  # `outlines.found_in` says what they are
STORED = "stored"  # the orientation of the images as they are: along the rows, down the columns, over the slices
_LETTERS = ("LR", "PA", "IS")  # the two ends of each axis of the patient
ORIENTATIONS = (
    STORED,
    *("".join(ends) for axes in itertools.permutations(_LETTERS) for ends in itertools.product(*axes)),
)
_MOST_VOXELS = 256**3  # of one window
_MOST_CHANNELS = 256


@dataclass(frozen=True, slots=True)
class SegmentClass:
    """One thing that the network outlines."""

    label: str  # the model's own word
    wording: str  # in plain words
    channel: int  # of the network's output
    code: Concept  # what it is: PS3.16 CID 7151, segmentation property type
    category: Concept  # PS3.16 CID 7150
    site: Concept  # where it is
    colour: tuple[int, int, int]  # red, green, blue, 0 to 255: how it is drawn
    min_volume_ml: float  # connected parts that are smaller are taken for noise and left out
    answers: bool  # whether its presence is the answer to the contract's question


@dataclass(frozen=True, slots=True)
class VolumeSettings:
    """How a series becomes what the network takes: MONAI's Orientation, Spacing and scaling of intensity, in order."""

    dimensions: int  # 3: volumes; 2: the slices of the oriented volume's third axis, each alone
    orientation: str  # one of ORIENTATIONS: where each axis of the network's input leads to
    spacing: tuple[float, ...]  # mm of the voxels along the oriented axes; 0: as it is
    intensity: str  # one of INTENSITIES
    low: float = 0.0  # range: the value, percentile: the percentile that becomes the first of `output`
    high: float = 1.0
    output: tuple[float, ...] = (0.0, 1.0)
    clip: bool = True  # what lies beyond low and high
    nonzero: bool = False  # standard: mean and deviation over the values that are not 0, and only they change


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """The windows that the network is shown one after another."""

    size: tuple[int, ...]  # voxels along the oriented axes: as many numbers as the network has dimensions
    overlap: float  # of neighbours, as a share of the window
    blend: str  # one of BLENDS: how much a window's edge counts where windows overlap


@dataclass(frozen=True, slots=True)
class SegmentationSettings:
    """All that is particular to a model that outlines."""

    segments: tuple[SegmentClass, ...]
    volume: VolumeSettings
    window: WindowSettings
    activation: str  # softmax: one answer a voxel, channel 0 is none of them; sigmoid: each channel by itself
    threshold: float  # sigmoid: the probability from which a voxel belongs to a segment
    probability: str  # one of PROBABILITIES

    @property
    def channels(self) -> int:
        """How many channels of the network's output are spoken of, at least."""
        return max(segment.channel for segment in self.segments) + 1


def parse_segmentation(top: Table) -> SegmentationSettings:
    """What a contract of this kind says. Raises BundleError that names the key, its value and what is allowed."""
    output = top.table("output")
    activation = output.choice("activation", ACTIVATIONS)
    segments = tuple(_segment(table, activation) for table in top.tables("segments"))
    if not segments:
        fail("segments", [], "at least one [[segments]]")
    for name in ("label", "channel"):
        values = [getattr(segment, name) for segment in segments]
        if len(set(values)) != len(values):
            fail("segments", values, f"{name}s that differ")
    if not any(segment.answers for segment in segments):
        fail("segments", "none that answers", "at least one whose 'answers' is true")
    volume = _volume(top.table("preprocess"))
    return SegmentationSettings(
        segments=segments,
        volume=volume,
        window=_window(top.table("window"), volume.dimensions),
        activation=activation,
        threshold=output.number("threshold", 0.01, 0.99) if "threshold" in output.values else 0.5,
        probability=output.choice("probability", PROBABILITIES),
    )


def _segment(table: Table, activation: str) -> SegmentClass:
    red, green, blue = (int(value) for value in table.numbers("colour", 3, 0, 255))
    least = 1 if activation == "softmax" else 0  # channel 0 of a softmax is what is nothing
    return SegmentClass(
        label=table.text("label"),
        wording=table.text("wording"),
        channel=int(table.number("channel", least, _MOST_CHANNELS - 1)),
        code=table.concept("code"),
        category=table.concept("category"),
        site=table.concept("site"),
        colour=(red, green, blue),
        min_volume_ml=table.number("min_volume_ml", 0, 10_000),
        answers=table.flag("answers", True),
    )


def _volume(table: Table) -> VolumeSettings:
    intensity = table.choice("intensity", INTENSITIES)
    low, high = 0.0, 1.0
    if intensity == "range":
        low = table.number("low", -1e9, 1e9)
        high = table.number("high", low, 1e9)
    elif intensity == "percentile":
        low, high = table.number("low", 0, 49), table.number("high", 51, 100)
    if not high > low:
        fail(table.at("high"), high, f"a number above {low:g}")
    return VolumeSettings(
        dimensions=int(table.number("dimensions", 2, 3)),
        orientation=table.choice("orientation", ORIENTATIONS),
        spacing=table.numbers("spacing", 3, 0, 100),
        intensity=intensity,
        low=low,
        high=high,
        output=table.numbers("output", 2, -1e6, 1e6) if "output" in table.values else (0.0, 1.0),
        clip=table.flag("clip", True),
        nonzero=table.flag("nonzero", False),
    )


def _window(table: Table, dimensions: int) -> WindowSettings:
    size = tuple(int(side) for side in table.numbers("size", dimensions, 8, 1024))
    if math.prod(size) > _MOST_VOXELS:
        fail(table.at("size"), list(size), f"at most {_MOST_VOXELS} voxels in all")
    return WindowSettings(size, table.number("overlap", 0, 0.9), table.choice("blend", BLENDS))
