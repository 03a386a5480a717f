"""Training: a MONAI network, by name, on folders of images.

`fit` trains and keeps the best weights; `train_model` does that, then calibrates, evaluates on the validation clusters
and writes a bundle that `Registry.add` takes.
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.data.dataloader import DataLoader
from monai.utils.misc import set_determinism
from safetensors.torch import load_file, save_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fhir_records.errors import TrainingError
from inference.contract import load_contract
from inference.export import load_network
from inference.networks import build_network, predict, split_last_layer
from inference.preprocess import PreprocessSettings
from inference.training.augment import AugmentedSquares, augmentation
from inference.training.bundle import BundleParts, Found, contract_text, write_bundle
from inference.training.data import (
    PARTS,
    ImageSet,
    Split,
    SplitSettings,
    load_folders,
    split_by_cluster,
    split_from_record,
    split_record,
)
from inference.training.evaluate import Metrics, evaluate, fit_temperature, softmax
from inference.training.familiarity import KnownImages
from inference.training.report import metrics_record

RECIPES = Path(__file__).with_name("recipes")
_SMALL_RESNET: Mapping[str, Any] = {
    "_target_": "monai.networks.nets.ResNet",
    "block": "basic",
    "layers": [2, 2, 2, 2],
    "block_inplanes": [32, 64, 128, 256],
    "spatial_dims": 2,
    "n_input_channels": 1,
    "conv1_t_stride": 2,
}


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """What is trained, on what, for how long."""

    data: Path  # holds one folder of images for each class
    recipe: Path  # a contract.toml without [preprocess] and [calibration], which training adds; RECIPES holds ours
    output: Path  # the bundle's folder, made new
    work: Path  # checkpoints and history while it trains
    epochs: int = 36
    batch_size: int = 64
    learning_rate: float = 2e-3  # highest of the one-cycle schedule
    weight_decay: float = 0.03
    label_smoothing: float = 0.05
    ema_decay: float = 0.99  # of the running average of the weights, by step
    seed: int = 20261120
    threads: int = 2
    loaders: int = 1  # processes that augment
    bfloat16: bool = True  # forward and backward in bfloat16 where the processor has it
    network: Mapping[str, Any] = field(default_factory=lambda: dict(_SMALL_RESNET))
    preprocess: PreprocessSettings = field(default_factory=PreprocessSettings)
    split: SplitSettings = field(default_factory=SplitSettings)


@dataclass(frozen=True, slots=True)
class EpochReport:
    """What a watcher of a training run is told after each epoch."""

    epoch: int  # from 1
    epochs: int
    loss: float  # mean over the training images
    balanced_accuracy: float  # on the calibration clusters, which also choose the best epoch
    best: float
    seconds_left: float


Progress = Callable[[EpochReport], None]


@dataclass(frozen=True, slots=True)
class Fitted:
    """The best weights of a run, with the images and the split it was run on."""

    state: dict[str, torch.Tensor]
    images: ImageSet
    split: Split
    history: tuple[EpochReport, ...]


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training run."""

    bundle: Path
    metrics: Metrics  # on the validation clusters
    temperature: float


def train_model(settings: TrainSettings, progress: Progress | None = None) -> Trained:
    """Train, calibrate, evaluate and write the bundle to `settings.output`.

    The calibration clusters choose the epoch and the temperature; the validation clusters are looked at once, here.
    Raises TrainingError for data that cannot be trained on, BundleError for a recipe that makes no contract.
    """
    labels, absent = _classes(settings.recipe)
    contract_text(
        settings.recipe.read_text(encoding="utf-8"), settings.preprocess, Found(1.0, 1.0, 1.0)
    )  # fail before training
    return finish(settings, fit(settings, labels, progress), absent)


def finish(settings: TrainSettings, fitted: Fitted, absent: int) -> Trained:
    """Calibrate, evaluate and write what `fit` found; `absent` is the index of the class that means "nothing there"."""
    images, split = fitted.images, fitted.split
    network = build_network(settings.network, len(images.classes))
    network.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in fitted.state.items()})
    logits = {part: predict(network, images.squares[split.part(part)]) for part in ("calibration", "validation")}
    temperature = fit_temperature(logits["calibration"], images.labels[split.calibration])
    held = split.validation
    before, after = (
        evaluate(softmax(logits["validation"], t), images.labels[held], split.clusters[held], images.classes, absent)
        for t in (1.0, temperature)
    )
    counts = {
        part: dict(zip(images.classes, np.bincount(images.labels[split.part(part)]).tolist(), strict=True))
        for part in PARTS
    }
    features = split_last_layer(network)[0]
    known = KnownImages.of(predict(features, images.squares[split.train]))
    distances = known.distances(predict(features, images.squares[split.calibration]))
    found = Found(temperature, *(round(float(value), 4) for value in np.percentile(distances, (95, 99))))
    write_bundle(
        settings.output,
        BundleParts(
            contract=contract_text(settings.recipe.read_text(encoding="utf-8"), settings.preprocess, found),
            network_def=settings.network,
            state=fitted.state,
            known=known,
            metrics=metrics_record(after, before.expected_calibration_error, temperature, counts),
            split=split_record(images, split, settings.split),
        ),
    )
    return Trained(settings.output, after, temperature)


def evaluate_bundle(bundle: Path, data: Path, threads: int = 1) -> Metrics:
    """A bundle's figures on its own validation clusters, from its stored split.

    Raises TrainingError where the images under `data` are not those of the split.
    """
    torch.set_num_threads(threads)
    contract = load_contract(bundle / "contract.toml")
    labels = tuple(item.label for item in contract.classes)
    images = load_folders(data, labels, contract.preprocess)
    split = split_from_record(images, json.loads((bundle / "split.json").read_text(encoding="utf-8")))
    held = split.validation
    logits = predict(load_network(bundle, len(labels)), images.squares[held])
    absent = [item.presence for item in contract.classes].index("absent")
    probabilities = softmax(logits, contract.temperature)
    return evaluate(probabilities, images.labels[held], split.clusters[held], labels, absent)


def _classes(recipe: Path) -> tuple[tuple[str, ...], int]:
    """The recipe's classes in the order of the network's outputs, and which one means "nothing there"."""
    try:
        listed = tomllib.loads(recipe.read_text(encoding="utf-8"))["classes"]
        return tuple(item["label"] for item in listed), [item["presence"] for item in listed].index("absent")
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"The recipe {recipe.name} names no classes, or none whose presence is 'absent'."
        ) from error


def fit(settings: TrainSettings, classes: tuple[str, ...], progress: Progress | None = None) -> Fitted:
    """Train on the training clusters; the epoch best on the calibration clusters wins.

    `settings.work` takes the best weights so far and the split.
    """
    set_determinism(settings.seed)
    torch.set_num_threads(settings.threads)
    settings.work.mkdir(parents=True, exist_ok=True)
    images = load_folders(settings.data, classes, settings.preprocess)
    split = split_by_cluster(images, settings.split)
    (settings.work / "split.json").write_text(json.dumps(split_record(images, split, settings.split)))
    network = build_network(settings.network, len(classes)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = AveragedModel(network, multi_avg_fn=_running_mean(settings.ema_decay), use_buffers=True)
    loader = _loader(images, split, settings)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    steps = max(10, settings.epochs * len(loader))  # below ten the schedule's phases have no length
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=steps, pct_start=0.2)
    loss_of = torch.nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing)
    held = split.calibration
    history: list[EpochReport] = []
    best, started = -1.0, time.monotonic()
    for epoch in range(1, settings.epochs + 1):
        network.train()
        losses: list[float] = []
        for batch, labels in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
                logits = network(batch.to(memory_format=torch.channels_last))
            loss = loss_of(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            averaged.update_parameters(network)
            losses.append(float(loss.detach()))
        score = balanced_accuracy(predict(averaged.module, images.squares[held]), images.labels[held])
        if score >= best:
            best = score
            save_file(weights_of(averaged.module), settings.work / "best.safetensors")
        left = (time.monotonic() - started) / epoch * (settings.epochs - epoch)
        history.append(EpochReport(epoch, settings.epochs, float(np.mean(losses)), score, best, left))
        if progress is not None:
            progress(history[-1])
    return Fitted(load_file(settings.work / "best.safetensors"), images, split, tuple(history))


def _running_mean(decay: float) -> Callable[..., None]:
    running: Callable[..., None] = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return running


def balanced_accuracy(logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Mean over the classes present of the share of their images that are called right."""
    called = logits.argmax(axis=1)
    return float(np.mean([(called[labels == label] == label).mean() for label in np.unique(labels)]))


def weights_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The network's state, contiguous as safetensors demands; in 16 bits, which halves the file."""
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }


def _loader(images: ImageSet, split: Split, settings: TrainSettings) -> DataLoader:
    """Batches of training images in which every class is as frequent as the others."""
    labels = images.labels[split.train]
    weights = 1.0 / np.bincount(labels, minlength=len(images.classes)).clip(1)[labels]
    draw = torch.Generator().manual_seed(settings.seed)
    sampler = torch.utils.data.WeightedRandomSampler(cast(Any, weights.tolist()), len(labels), generator=draw)
    dataset = AugmentedSquares(images.squares[split.train], labels, augmentation(settings.preprocess.size))
    return DataLoader(
        dataset,
        batch_size=min(settings.batch_size, len(labels)),
        sampler=sampler,
        num_workers=settings.loaders,
        drop_last=True,
        persistent_workers=settings.loaders > 0,
    )
