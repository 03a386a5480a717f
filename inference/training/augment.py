"""Chance changes to a training image, with MONAI's transforms.

They are strong on purpose: the classes of public collections differ in scanner, sequence and framing, and a network
would sooner learn those than the tumour.
"""

from __future__ import annotations

from typing import cast

import torch
from monai.data.meta_obj import set_track_meta
from monai.transforms.compose import Compose
from monai.transforms.intensity.array import (
    RandAdjustContrast,
    RandBiasField,
    RandCoarseDropout,
    RandGaussianNoise,
    RandGaussianSmooth,
    RandHistogramShift,
)
from monai.transforms.spatial.array import RandAffine, RandFlip
from monai.transforms.transform import RandomizableTransform


def augmentation(size: int) -> Compose:
    """Transforms of a tensor of shape (1, size, size), 0 to 1, into one of the same shape and range (nearly)."""
    set_track_meta(False)
    return Compose(
        [
            RandFlip(prob=0.5, spatial_axis=1),
            RandAffine(
                prob=0.9,
                rotate_range=0.35,  # radians
                shear_range=0.1,
                translate_range=0.07 * size,
                scale_range=0.15,
                padding_mode="zeros",
            ),
            RandOtherContrast(prob=0.15),
            RandHistogramShift(num_control_points=(5, 10), prob=0.4),
            RandAdjustContrast(prob=0.5, gamma=(0.6, 1.7)),
            RandBiasField(degree=2, coeff_range=(0.0, 0.2), prob=0.2),
            RandGaussianSmooth(sigma_x=(0.3, 1.2), sigma_y=(0.3, 1.2), prob=0.25),
            RandGaussianNoise(prob=0.4, std=0.05),
            # Holes take pieces of skull, face and border away, so that no one spot can carry the class.
            RandCoarseDropout(
                holes=1, max_holes=4, spatial_size=size // 18, max_spatial_size=size // 5, fill_value=0, prob=0.3
            ),
        ]
    )


class RandOtherContrast(RandomizableTransform):
    """Bright made dark and dark bright inside the head, as between T1 and T2: the sequence must not tell the class."""

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """The tensor of shape (1, size, size), 0 to 1, inverted with the transform's probability."""
        self.randomize(None)
        return torch.where(image > 0.02, 1.02 - image, image) if self._do_transform else image


def augment_each(images: torch.Tensor, transform: Compose) -> torch.Tensor:
    """Images of shape (images, 1, side, side), 0 to 1, each changed by chance."""
    return torch.stack([cast(torch.Tensor, transform(image)).clamp(0.0, 1.0) for image in images])
