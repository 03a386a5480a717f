"""The same chance changes as `augment`, made to a whole batch at once on the training thread.

On two cores MONAI's transforms, image by image, cost as much as the network itself; a batch at a time they cost a
fraction of that.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

_KNOTS = 7  # of the random monotone curve that replaces the grey scale


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """How far images are changed. Chances are per image, lengths are shares of the side."""

    rotate: float = 0.35  # radians
    scale: float = 0.15
    shear: float = 0.1
    translate: float = 0.07
    invert: float = 0.15  # chance of bright made dark inside the head, as between T1 and T2
    curve: float = 0.4  # chance of another grey scale
    gamma: float = 0.5
    bias: float = 0.2
    smooth: float = 0.25
    noise: float = 0.4
    coarsen: float = 0.0  # chance of being scaled down and up again
    holes: float = 0.3
    mixup: float = 0.0  # parameter of the beta distribution that two images are mixed by; 0 mixes none


def augment_batch(images: torch.Tensor, settings: AugmentSettings, draw: torch.Generator) -> torch.Tensor:
    """Images of shape (images, 1, side, side), 0 to 1, changed by chance; mirrored left to right half the time."""
    changed = _moved(images, settings, draw)
    changed = _regreyed(changed, settings, draw)
    changed = _blurred(changed, settings, draw)
    changed = _pierced(changed, settings, draw)
    noisy = _chance(images, settings.noise, draw) * 0.05 * torch.rand(len(images), 1, 1, 1, generator=draw)
    return (changed + noisy * torch.randn(changed.shape, generator=draw)).clamp(0.0, 1.0)


def standardise_batch(images: torch.Tensor) -> torch.Tensor:
    """As `preprocess.standardise`, for a batch of shape (images, 1, side, side)."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    spread = images.std(dim=(2, 3), keepdim=True, unbiased=False).clamp(min=1e-3)
    return (images - mean) / spread


def mixed(
    images: torch.Tensor, targets: torch.Tensor, alpha: float, draw: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each image mixed with another of the batch, its target likewise (Zhang et al., ICLR 2018)."""
    if alpha <= 0:
        return images, targets
    first, second = (torch._standard_gamma(torch.full((len(images),), alpha), generator=draw) for _ in range(2))
    share = first / (first + second).clamp(min=1e-9)
    share = torch.maximum(share, 1 - share)
    other = torch.randperm(len(images), generator=draw)
    across = share.view(-1, 1, 1, 1)
    return (
        across * images + (1 - across) * images[other],
        share[:, None] * targets + (1 - share[:, None]) * targets[other],
    )


def _uniform(count: int, reach: float, draw: torch.Generator) -> torch.Tensor:
    return (2 * torch.rand(count, generator=draw) - 1) * reach


def _chance(images: torch.Tensor, share: float, draw: torch.Generator) -> torch.Tensor:
    """1.0 or 0.0 for each image, shape (images, 1, 1, 1)."""
    return (torch.rand(len(images), 1, 1, 1, generator=draw) < share).float()


def _moved(images: torch.Tensor, settings: AugmentSettings, draw: torch.Generator) -> torch.Tensor:
    count = len(images)
    angle = _uniform(count, settings.rotate, draw)
    grow = 1 + _uniform(count, settings.scale, draw)
    stretch = 1 + _uniform(count, settings.scale / 2, draw)
    flip = 1 - 2 * (torch.rand(count, generator=draw) < 0.5).float()
    shear = _uniform(count, settings.shear, draw)
    cos, sin = angle.cos() * grow, angle.sin() * grow
    rows = [
        torch.stack([flip * cos, -sin * stretch + shear, 2 * _uniform(count, settings.translate, draw)], dim=1),
        torch.stack([flip * sin, cos * stretch, 2 * _uniform(count, settings.translate, draw)], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def _regreyed(images: torch.Tensor, settings: AugmentSettings, draw: torch.Generator) -> torch.Tensor:
    """Other contrast, another grey scale, gamma and an uneven field, each with its chance."""
    count = len(images)
    inverted = _chance(images, settings.invert, draw) * (images > 0.02)
    images = torch.where(inverted > 0, 1.02 - images, images).clamp(0.0, 1.0)
    curved = _chance(images, settings.curve, draw)
    steps = torch.rand(count, _KNOTS, generator=draw) + 0.3
    heights = functional.pad(steps.cumsum(1) / steps.sum(1, keepdim=True), (1, 0))
    place = images * (_KNOTS - 1e-4)
    low = place.floor().long()
    flat = low.view(count, -1)
    below, above = heights.gather(1, flat), heights.gather(1, flat + 1)
    drawn = (below + (above - below) * (place - low).view(count, -1)).view_as(images)
    images = torch.where(curved > 0, drawn, images)
    exponent = torch.exp(_uniform(count, 0.5, draw)).view(-1, 1, 1, 1)
    exponent = torch.where(_chance(images, settings.gamma, draw) > 0, exponent, torch.ones_like(exponent))
    images = images.clamp(min=1e-6) ** exponent
    coarse = _uniform(count * 9, 0.3, draw).view(count, 1, 3, 3)
    field = functional.interpolate(coarse, size=images.shape[2:], mode="bicubic", align_corners=True)
    return images * (1 + _chance(images, settings.bias, draw) * field)


def _blurred(images: torch.Tensor, settings: AugmentSettings, draw: torch.Generator) -> torch.Tensor:
    chosen = torch.rand(len(images), generator=draw)
    soft = (chosen < settings.smooth).nonzero().flatten()
    if len(soft):
        sigma = float(0.3 + 0.9 * torch.rand(1, generator=draw))
        reach = torch.arange(-3, 4, dtype=torch.float32)
        weights = torch.exp(-(reach**2) / (2 * sigma**2))
        weights = weights / weights.sum()
        across = functional.conv2d(images[soft], weights.view(1, 1, 1, -1), padding=(0, 3))
        images = images.index_copy(0, soft, functional.conv2d(across, weights.view(1, 1, -1, 1), padding=(3, 0)))
    rough = (chosen > 1 - settings.coarsen).nonzero().flatten()
    if len(rough):
        side = images.shape[-1]
        small = max(8, int(side * float(0.4 + 0.5 * torch.rand(1, generator=draw))))
        down = functional.interpolate(images[rough], size=(small, small), mode="area")
        up = functional.interpolate(down, size=(side, side), mode="bilinear", align_corners=False)
        images = images.index_copy(0, rough, up)
    return images


def _pierced(images: torch.Tensor, settings: AugmentSettings, draw: torch.Generator) -> torch.Tensor:
    """Up to three blank squares, so that no one spot of skull, face or border can carry the class."""
    count, side = len(images), images.shape[-1]
    place = torch.arange(side, dtype=torch.float32) / side
    keep = torch.ones_like(images)
    some = _chance(images, settings.holes, draw)
    for _ in range(3):
        half = (0.03 + 0.07 * torch.rand(count, 1, generator=draw)) * (torch.rand(count, 1, generator=draw) < 0.7)
        row, column = torch.rand(count, 1, generator=draw), torch.rand(count, 1, generator=draw)
        in_rows = ((place - row).abs() < half).float()[:, None, :, None]
        in_columns = ((place - column).abs() < half).float()[:, None, None, :]
        keep = keep * (1 - some * in_rows * in_columns)
    return images * keep
