"""Networks of student projects on the same split, so that a figure stands beside something.

They are trained as those projects did: RMSprop, no augmentation, no averaging of the weights, the last epoch counts.
They see the same cropped square at their own size, so it is the network and its training that are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.utils.misc import set_determinism
from PIL import Image

from fhir_records.errors import TrainingError
from inference.filters import apply_filter
from inference.networks import NETWORKS, build_network, predict
from inference.training import curves
from inference.training.batch_augment import standardise_batch
from inference.training.data import ImageSet, Split
from inference.training.evaluate import softmax

Squares = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]

_SEED = 20261120


@dataclass(frozen=True, slots=True)
class BaselineSettings:
    """How a baseline was trained where it comes from."""

    size: int  # pixels a side of its input
    filters: tuple[str, ...] = ()  # of `filters.FILTERS`, in this order
    epochs: int = 20
    batch_size: int = 5
    learning_rate: float = 1e-3


BASELINES: Mapping[str, BaselineSettings] = {
    "seed_cnn64": BaselineSettings(size=64),
    "seed_cnn5": BaselineSettings(size=64, filters=("gaussian", "median", "bilateral")),
}


def measure_baselines(
    names: Sequence[str], images: ImageSet, split: Split, held: Labels
) -> dict[str, dict[str, dict[str, float]]]:
    """Each baseline's figures (name → figure → value, low, high) on the `held` images, trained on the training part.

    Probabilities are not calibrated, as those projects' are not. Raises TrainingError for a name that is no baseline.
    """
    unknown = sorted(set(names) - set(BASELINES))
    if unknown:
        raise TrainingError(f"There is no baseline {', '.join(unknown)}; known are {', '.join(BASELINES)}.")
    measured: dict[str, dict[str, dict[str, float]]] = {}
    for name in names:
        settings = BASELINES[name]
        squares = _squares(images.squares, settings)
        network = _trained(name, squares[split.train], images.labels[split.train], len(images.classes), settings)
        probabilities = softmax(predict(network, squares[held]), 1.0)
        measured[name] = _figures(probabilities, images.labels[held], split.clusters[held], images.classes)
    return measured


def _figures(
    probabilities: npt.NDArray[np.float64], labels: Labels, clusters: Labels, classes: Sequence[str]
) -> dict[str, dict[str, float]]:
    found = curves.with_intervals(
        lambda chosen: curves.figures(probabilities[chosen], labels[chosen], classes), clusters
    )
    return {
        name: dict(zip(("value", "low", "high"), (round(value, 4) for value in values), strict=True))
        for name, values in found.items()
        if not np.isnan(values).any()
    }


def _squares(squares: Squares, settings: BaselineSettings) -> Squares:
    size = (settings.size, settings.size)
    small = [np.asarray(Image.fromarray(square).resize(size, Image.Resampling.BILINEAR)) for square in squares]
    if not settings.filters:
        return np.stack(small)
    filtered: list[Any] = []
    for square in small:
        grey = square.astype(np.float32) / 255.0
        for name in settings.filters:
            grey = apply_filter(name, grey)
        filtered.append((grey.clip(0, 1) * 255).astype(np.uint8))
    return np.stack(filtered)


def _trained(name: str, squares: Squares, labels: Labels, classes: int, settings: BaselineSettings) -> torch.nn.Module:
    set_determinism(_SEED)
    network = build_network(NETWORKS[name], classes).train()
    optimizer = torch.optim.RMSprop(network.parameters(), lr=settings.learning_rate)
    draw = torch.Generator().manual_seed(_SEED)
    batch_size = min(settings.batch_size, len(labels))
    for _ in range(settings.epochs):
        order = torch.randperm(len(labels), generator=draw)
        for chosen in order[: len(order) // batch_size * batch_size].view(-1, batch_size):
            images = torch.from_numpy(squares[chosen.numpy()]).float()[:, None] / 255.0
            loss = torch.nn.functional.cross_entropy(
                network(standardise_batch(images)), torch.from_numpy(labels[chosen.numpy()])
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return network.eval()
