"""A volume through windows, compared with MONAI's SlidingWindowInferer."""

from __future__ import annotations

import numpy as np
import pytest

from fhir_records.errors import ModelFailed
from inference.segmentation_contract import WindowSettings
from inference.windows import over_windows


def position_bound(inputs: np.ndarray) -> np.ndarray:
    """Two channels that depend on where in the window a voxel lies, so that a window's place shows."""
    sides = inputs.shape[2:]
    ramp = np.add.reduce(np.meshgrid(*(np.linspace(-1, 1, side) for side in sides), indexing="ij")).astype(np.float32)
    return np.concatenate([inputs * ramp, inputs + ramp], axis=1)


@pytest.mark.parametrize("blend", ["constant", "gaussian"])
@pytest.mark.parametrize(
    ("shape", "size", "overlap"),
    [
        ((20, 23, 31), (16, 16, 16), 0.25),
        ((20, 23, 31), (16, 8, 12), 0.5),
        ((10, 40, 16), (16, 16, 16), 0.25),
        ((16, 16, 16), (16, 16, 16), 0.0),
        ((7, 5, 3), (16, 16, 8), 0.6),
    ],
)
def test_the_windows_are_those_of_monai(
    shape: tuple[int, ...], size: tuple[int, ...], overlap: float, blend: str
) -> None:
    """Places, padding, weights and the sum are the same as MONAI's for volumes larger and smaller than a window."""
    import torch
    from monai.inferers import SlidingWindowInferer

    volume = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    ours = over_windows(volume, WindowSettings(size, overlap, blend), 3, position_bound)
    inferer = SlidingWindowInferer(roi_size=size, sw_batch_size=2, overlap=overlap, mode=blend)
    theirs = inferer(torch.from_numpy(volume)[None, None], lambda x: torch.from_numpy(position_bound(x.numpy())))
    assert ours.shape == (2, *shape)
    assert np.abs(ours - theirs[0].numpy()).max() < 1e-4


def test_a_flat_network_sees_every_slice() -> None:
    """A network with windows of two sides is shown each slice of the third axis, as MONAI would show it."""
    import torch
    from monai.inferers import SlidingWindowInferer

    volume = np.random.default_rng(2).normal(size=(20, 14, 3)).astype(np.float32)
    ours = over_windows(volume, WindowSettings((16, 16), 0.25, "gaussian"), 4, position_bound)
    inferer = SlidingWindowInferer(roi_size=(16, 16), sw_batch_size=2, overlap=0.25, mode="gaussian")
    for place in range(3):
        slice_ = torch.from_numpy(volume[None, None, :, :, place].copy())
        theirs = inferer(slice_, lambda x: torch.from_numpy(position_bound(x.numpy())))
        assert np.abs(ours[..., place] - theirs[0].numpy()).max() < 1e-4


def test_an_answer_of_another_shape_is_the_models_failure() -> None:
    """A network that gives fewer voxels than it was shown is not believed."""
    with pytest.raises(ModelFailed, match="shape"):
        over_windows(
            np.zeros((16, 16, 16), np.float32), WindowSettings((16, 16, 16), 0, "constant"), 1, lambda x: x[..., ::2]
        )
