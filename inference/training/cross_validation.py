"""Cross-validation: every training image judged by a network that never saw it, nor anything that looks like it.

One part of the images, however it is drawn, may be easier than what comes later. Here each group of look-alikes is left
out once, so the figures are of all of them; and they say how much harder the whole is than the calibration part, which
the shipped network's temperature was fitted on. The networks are its teachers afterwards (`loop.train_network`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.utils.misc import set_determinism
from safetensors.torch import load_file, save_file

from inference.networks import build_network, predict
from inference.training.data import ImageSet, Split, dealt
from inference.training.evaluate import Metrics, evaluate, fit_temperature, softmax
from inference.training.loop import LoopSettings, Progress, train_network

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FoldSettings:
    """How the networks are trained."""

    count: int  # folds
    trained: int  # networks, for the first so many folds; 0: for all
    definition: dict[str, Any]  # of each network
    loop: LoopSettings  # its seed is the first network's less one
    split_seed: int
    threads: int = 2


@dataclass(frozen=True, slots=True)
class CrossValidated:
    """What the networks say of the images that each was not trained on."""

    networks: tuple[torch.nn.Module, ...]
    folds: int  # that the groups were dealt to
    logits: npt.NDArray[np.float32]  # shape (n, classes), n the images of the folds that were left out once
    labels: Labels  # shape (n,)
    groups: Labels  # shape (n,)
    temperature: float  # fitted on these
    of_calibration: float  # the same networks' temperature on the calibration part
    metrics: Metrics  # by temperatures that were fitted on the other folds

    @property
    def harder(self) -> float:
        """What a temperature that was fitted on the calibration part is multiplied by, to fit all groups."""
        return self.temperature / self.of_calibration

    def record(self) -> dict[str, Any]:
        """For `metrics.json`."""
        low, high = self.metrics.balanced_accuracy_interval
        return {
            "folds": self.folds,
            "networks": len(self.networks),
            "images": self.metrics.images,
            "clusters": self.metrics.clusters,
            "balanced_accuracy": round(self.metrics.balanced_accuracy, 4),
            "balanced_accuracy_interval": [round(low, 4), round(high, 4)],
            "expected_calibration_error": round(self.metrics.expected_calibration_error, 4),
            "sensitivity": {item.label: round(item.sensitivity, 4) for item in self.metrics.classes},
            "temperature": self.temperature,
            "temperature_on_calibration": self.of_calibration,
            "harder": round(self.harder, 4),
        }


def cross_validate(
    images: ImageSet, split: Split, absent: int, settings: FoldSettings, work: Path, progress: Progress | None = None
) -> CrossValidated:
    """Train networks on the training part, each without one fold of its groups.

    `work` keeps each one's weights; a run that was broken off goes on from them. `absent` is the index of the class
    that means "nothing there".
    """
    labels, groups = images.labels[split.train], split.clusters[split.train]
    fold = dealt(labels, groups, settings.count, settings.split_seed)
    networks = tuple(
        _network(images, split.train[fold != k], settings, k, work / f"fold-{k}", progress)
        for k in range(settings.trained or settings.count)
    )
    logits = np.zeros((len(labels), len(images.classes)), dtype=np.float32)
    for k, network in enumerate(networks):
        logits[fold == k] = predict(network, images.squares[split.train[fold == k]])
    judged = fold < len(networks)
    logits, labels, groups, fold = logits[judged], labels[judged], groups[judged], fold[judged]
    known = split.calibration
    easy = np.concatenate([predict(network, images.squares[known]) for network in networks])
    probabilities = _judged_by_others(logits, labels, fold)
    return CrossValidated(
        networks=networks,
        folds=settings.count,
        logits=logits,
        labels=labels,
        groups=groups,
        temperature=fit_temperature(logits, labels),
        of_calibration=fit_temperature(easy, np.tile(images.labels[known], len(networks))),
        metrics=evaluate(probabilities, labels, groups, images.classes, absent),
    )


def _network(
    images: ImageSet, train: Labels, settings: FoldSettings, number: int, work: Path, progress: Progress | None
) -> torch.nn.Module:
    loop = replace(
        settings.loop, seed=settings.loop.seed + 1 + number, keep_best=False, look_every=settings.loop.epochs
    )
    set_determinism(loop.seed)
    torch.set_num_threads(settings.threads)
    network = build_network(settings.definition, len(images.classes))
    weights = work / "weights.safetensors"
    if not weights.exists():
        work.mkdir(parents=True, exist_ok=True)
        nothing = (images.squares[:0], images.labels[:0])  # the length is fixed: nothing is chosen by the fold left out
        stage = f"fold {number + 1} of {settings.trained or settings.count}: "
        state, _ = train_network(
            network,
            images.squares[train],
            images.labels[train],
            nothing,
            loop,
            work / "checkpoint.pt",
            None if progress is None else lambda report: progress(replace(report, stage=stage)),
        )
        save_file({name: value.contiguous() for name, value in state.items()}, weights)
        (work / "checkpoint.pt").unlink()
    network.load_state_dict(load_file(weights))
    return network.eval()


def _judged_by_others(logits: npt.NDArray[np.float32], labels: Labels, fold: Labels) -> Floats:
    """Probabilities, each fold's by the temperature that fits the other folds."""
    probabilities = np.zeros(logits.shape)
    for number in np.unique(fold):
        own = fold == number
        probabilities[own] = softmax(logits[own], fit_temperature(logits[~own], labels[~own]))
    return probabilities
