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

    def tensors(self) -> dict[str, torch.Tensor]:
        """As they are stored and exported, fp32."""
        return {name: torch.from_numpy(getattr(self, name)).float().contiguous() for name in ("mean", "whitening")}
