"""The grid that a network takes and the way back, compared with MONAI's own transforms."""

from __future__ import annotations

import numpy as np
import pytest

from inference.answers import Refused
from inference.segmentation_contract import VolumeSettings
from inference.slices import Frame
from inference.stack_geometry import Stack, stacked
from inference.suitability import facts_of
from inference.volume import grid_of, scaled
from tests.unit.inference.volumes import AXIAL, SAGITTAL, Cut, Drawn, oblique

RANDOM = np.random.default_rng(5)


def stack_of(cut: Cut) -> tuple[Stack, list[np.ndarray]]:
    """The stack of a cut, and its slices in the stack's order."""
    frames, headers = [], {}
    for place, number in enumerate(cut.numbers):
        ds = cut.header(number, place)
        path = f"{number}"
        headers[path] = ds
        facts = facts_of(ds, path, "1.2", f"1.2.{number}", "1.3")
        frames.append(Frame(facts, 1, Drawn(cut.scene(cut.points(number)))))
    stack = stacked(frames, headers)
    assert not isinstance(stack, Refused), stack
    return stack, [frame.picture.grey(1) for frame in stack.frames]


def noise(points: np.ndarray) -> np.ndarray:
    """Another value at every point, the same each time."""
    return (np.sin(points @ [0.31, 0.17, 0.23]) + np.cos(points @ [-0.11, 0.29, 0.19])).astype(np.float32)


def monai_volume(stack: Stack, slices: list[np.ndarray], settings: VolumeSettings) -> np.ndarray:
    """The same by MONAI's transforms, which take the patient's axes as right, front and head."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms import (
        NormalizeIntensity,
        Orientation,
        ScaleIntensityRange,
        ScaleIntensityRangePercentiles,
        Spacing,
    )

    affine = np.eye(4)
    steps = stack.directions * np.array([[stack.spacing[1]], [stack.spacing[0]], [stack.distance]])
    affine[:3, :3] = (steps * [-1, -1, 1]).T
    image = MetaTensor(torch.from_numpy(np.stack(slices).transpose(2, 1, 0)[None].copy()), torch.from_numpy(affine))
    if settings.orientation != "stored":
        image = Orientation(axcodes=settings.orientation, labels=(("L", "R"), ("P", "A"), ("I", "S")))(image)
    image = Spacing(pixdim=settings.spacing, mode="bilinear", padding_mode="border")(image)
    least, most = settings.output
    scale = {
        "range": lambda: ScaleIntensityRange(settings.low, settings.high, least, most, settings.clip),
        "percentile": lambda: ScaleIntensityRangePercentiles(settings.low, settings.high, least, most, settings.clip),
        "standard": lambda: NormalizeIntensity(nonzero=settings.nonzero),
        "none": lambda: lambda values: values,
    }[settings.intensity]()
    return np.asarray(scale(image))[0]


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "IPL", "stored"])
@pytest.mark.parametrize("directions", [AXIAL, SAGITTAL, oblique()], ids=["axial", "sagittal", "oblique"])
def test_the_grid_is_that_of_monai(orientation: str, directions: np.ndarray) -> None:
    """Turned, resampled to other voxels and scaled, a stack gives the values that MONAI's transforms give."""
    cut = Cut(noise, count=9, shape=(21, 30), spacing=(0.8, 1.1), gap=2.7, directions=directions)
    settings = VolumeSettings(3, orientation, (1.5, 1.3, 2.0), "range", -1.2, 1.3)
    stack, slices = stack_of(cut)
    grid = grid_of(stack, settings)
    ours = scaled(grid.volume([grid.plane(one) for one in slices]), settings)
    theirs = monai_volume(stack, slices, settings)
    assert ours.shape == theirs.shape == grid.shape
    assert np.abs(ours - theirs).max() < 2e-4


@pytest.mark.parametrize(
    "settings",
    [
        VolumeSettings(3, "RAS", (1, 1, 1), "percentile", 5, 95, output=(-1, 1)),
        VolumeSettings(3, "RAS", (1, 1, 1), "percentile", 1, 99, clip=False),
        VolumeSettings(3, "RAS", (1, 1, 1), "standard"),
        VolumeSettings(3, "RAS", (1, 1, 1), "standard", nonzero=True),
        VolumeSettings(3, "RAS", (1, 1, 1), "none"),
    ],
    ids=["percentile", "unclipped", "standard", "nonzero", "none"],
)
def test_intensities_are_those_of_monai(settings: VolumeSettings) -> None:
    """Every way of scaling gives what MONAI's transform of that name gives."""
    stack, slices = stack_of(Cut(noise, count=5, shape=(12, 14), gap=1.0))
    grid = grid_of(stack, settings)
    ours = scaled(grid.volume([grid.plane(one) for one in slices]), settings)
    assert np.abs(ours - monai_volume(stack, slices, settings)).max() < 5e-4


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SAR", "stored"])
@pytest.mark.parametrize("spacing", [(0, 0, 0), (0.6, 0.7, 0.9), (2.0, 3.0, 5.0)])
def test_the_way_back_finds_every_pixel(orientation: str, spacing: tuple[float, ...]) -> None:
    """Each pixel gets the grid's nearest voxel: no further away than half a voxel along any axis."""
    cut = Cut(noise, count=7, shape=(15, 22), spacing=(1.2, 0.9), gap=2.5, directions=oblique(10), left_out=(3,))
    stack, _ = stack_of(cut)
    grid = grid_of(stack, VolumeSettings(3, orientation, spacing, "none"))
    for axis, coordinates in enumerate((np.arange(22) * 0.9, np.arange(15) * 1.2, stack.places - stack.places[0])):
        one = grid.axes[axis]
        away = np.abs(one.samples[one.nearest()] - coordinates)
        allowed = one.step / 2 if one.step else 1e-9
        # The grid's last voxel may lie up to half a step before the source's.
        assert away.max() <= allowed + 1e-9
    whole = list(grid.on_slices(np.ones(grid.shape, bool)))
    assert len(whole) == 6
    assert all(plane.shape == (15, 22) and plane.all() for plane in whole)


def test_a_mask_goes_back_to_where_it_was() -> None:
    """With the slices' own voxels the way there and back changes nothing, whichever way the axes are turned."""
    stack, slices = stack_of(Cut(noise, count=6, shape=(10, 13), directions=SAGITTAL, order=-1))
    grid = grid_of(stack, VolumeSettings(3, "RAS", (0, 0, 0), "none"))
    back = list(grid.on_slices(grid.volume([grid.plane(one) for one in slices]) > 0.3))
    assert all(np.array_equal(plane, one > 0.3) for plane, one in zip(back, slices, strict=True))


def test_slices_of_a_flat_network_are_scaled_one_by_one() -> None:
    """A network of slices has each slice standardised by itself."""
    stack, slices = stack_of(Cut(noise, count=4, shape=(8, 8)))
    settings = VolumeSettings(2, "stored", (0, 0, 0), "standard")
    grid = grid_of(stack, settings)
    volume = scaled(grid.volume([grid.plane(one) for one in slices]), settings)
    assert volume.mean(axis=(0, 1)) == pytest.approx(np.zeros(4), abs=1e-5)
    assert volume.std(axis=(0, 1)) == pytest.approx(np.ones(4), abs=1e-5)
