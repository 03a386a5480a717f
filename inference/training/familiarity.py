"""What the training images look like to the network, so that images of something else can be told from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

_RIDGE = 1e-3  # of the mean variance, added to each, so that features that never vary do not count without end


@dataclass(frozen=True, slots=True)
class KnownImages:
    """Mean and spread of the training images' features; distances as `contract.Familiarity` says."""

    mean: npt.NDArray[np.float64]  # shape (features,)
    whitening: npt.NDArray[np.float64]  # shape (features, features): makes their covariance the identity

    @classmethod
    def of(cls, features: npt.NDArray[np.float32]) -> KnownImages:
        """From features of shape (images, features)."""
        covariance = np.atleast_2d(np.cov(features.astype(np.float64).T))
        variance = np.trace(covariance) / len(covariance)
        values, vectors = np.linalg.eigh(covariance + max(_RIDGE * variance, 1e-12) * np.eye(len(covariance)))
        return cls(features.mean(axis=0, dtype=np.float64), vectors / np.sqrt(values) @ vectors.T)

    def distances(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Shape (images,), for features of shape (images, features)."""
        result: npt.NDArray[np.float64] = np.square((features - self.mean) @ self.whitening).mean(axis=1)
        return result

    def joined_by(self, features: npt.NDArray[np.float32]) -> KnownImages:
        """These and others, shape (images, features), as one: both kinds count the same, however many they are."""
        white = (features - self.mean) @ self.whitening
        middle = white.mean(axis=0) / 2
        spread = white.T @ white / len(white)
        joined = (np.eye(len(middle)) + spread) / 2 - np.outer(middle, middle)
        # In the coordinates of the first, where their covariance is the identity; so the sum is never singular.
        inverse = self.whitening @ np.linalg.inv(joined) @ self.whitening.T
        values, vectors = np.linalg.eigh((inverse + inverse.T) / 2)
        root = vectors * np.sqrt(values.clip(0)) @ vectors.T
        return KnownImages(self.mean + middle @ np.linalg.inv(self.whitening), root)

    def tensors(self) -> dict[str, torch.Tensor]:
        """As they are stored and exported, fp32."""
        return {name: torch.from_numpy(getattr(self, name)).float().contiguous() for name in ("mean", "whitening")}
