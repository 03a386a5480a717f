"""What a training run is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fhir_records.errors import TrainingError
from inference.networks import NETWORKS
from inference.preprocess import PreprocessSettings
from inference.training.batch_augment import AugmentSettings
from inference.training.data import SplitSettings
from inference.training.loop import LoopSettings

RECIPES = Path(__file__).with_name("recipes")


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What is trained, on what, for how long."""

    data: Path  # one folder of images for each class, a CSV that names images, or what `anatomy` says
    recipe: Path  # a contract.toml without [preprocess] and [calibration], which training adds; RECIPES holds ours
    output: Path  # the bundle's folder, made new
    work: Path  # checkpoints while it trains; a run that was broken off goes on from them
    network: str | Mapping[str, Any] = "resnet_small"  # a name of `networks.NETWORKS`, or a definition
    epochs: int = 36
    batch_size: int = 64
    learning_rate: float = 2e-3  # highest of the one-cycle schedule
    weight_decay: float = 0.03
    label_smoothing: float = 0.05
    ema_decay: float = 0.99  # of the running average of the weights, by step
    seed: int = 20261120
    threads: int = 2
    device: str = "cpu"
    half: bool = True  # forward and backward in bfloat16
    keep_best: bool = True  # the epoch best on the calibration groups; False: the last
    patience: int = 0  # epochs without a better one after which training stops; 0: never
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    monai: bool = False  # augment with MONAI's transforms instead: slower
    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    split: SplitSettings = field(default_factory=SplitSettings)
    anatomy: bool = False  # `data` holds the collections that `AnatomySources.under` names
    for_good: bool = False  # train on the validation groups, too
    split_of: Path | None = None  # a bundle whose stored split is kept
    warm_start: Path | None = None  # a bundle whose weights, but for the last layer's where classes differ, come first
    mirror: bool = False  # the image mirrored left to right is looked at, too
    folds: int = 0  # that the training groups are dealt to, for networks that are each trained without one; 0: none
    folds_trained: int = 0  # of these networks, where time does not allow all; 0: all
    taught: bool = False  # whether their mean teaches the network that is shipped
    together: bool = False  # whether they are shipped with it, as one network that is the mean of all
    fold_epochs: int = 30  # of each of these
    lineage: Mapping[str, Any] | None = None  # what the bundle says of where it comes from
    baselines: tuple[str, ...] = ()  # names of networks that are trained and measured on the same split

    @property
    def definition(self) -> Mapping[str, Any]:
        """The network's definition. Raises TrainingError for a name that is none."""
        if not isinstance(self.network, str):
            return self.network
        if self.network not in NETWORKS:
            raise TrainingError(f"There is no network {self.network!r}; known are {', '.join(NETWORKS)}.")
        return NETWORKS[self.network]

    @property
    def loop(self) -> LoopSettings:
        """The loop's part of the settings."""
        return LoopSettings(
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            label_smoothing=self.label_smoothing,
            ema_decay=self.ema_decay,
            seed=self.seed,
            device=self.device,
            half=self.half,
            keep_best=self.keep_best and not self.for_good,
            patience=self.patience,
            augment=self.augment,
            monai=self.monai,
        )
