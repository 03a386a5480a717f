"""Training: networks by name, on folders of images, a CSV, or the anatomy collection.

`fit` trains; `train_model` does that, then calibrates, measures and writes a bundle that `Registry.add` takes. A final
training (`for_good`) uses the validation groups, too; it is measured on the calibration groups, by a temperature that
was fitted on other groups than those it is measured on.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.utils.misc import set_determinism
from safetensors.torch import load_file, save_file

from fhir_records.errors import BundleError, TrainingError
from inference.class_maps import NetworkWithMaps
from inference.classify import calibrated_log_probabilities
from inference.contract import load_contract
from inference.drift import reference
from inference.export import load_network
from inference.networks import NETWORKS, MeanOfNetworks, build_network, predict, split_last_layer
from inference.preprocess import PreprocessSettings, standardise
from inference.training.anatomy_data import CLASSES as ANATOMY_CLASSES
from inference.training.anatomy_data import AnatomySources, load_anatomy
from inference.training.batch_augment import AugmentSettings
from inference.training.bundle import BundleParts, Found, contract_text, write_bundle
from inference.training.data import (
    PARTS,
    ImageSet,
    Split,
    SplitSettings,
    for_good,
    load_folders,
    split_by_cluster,
    split_from_record,
    split_record,
)
from inference.training.evaluate import Metrics, evaluate, fit_temperature, softmax
from inference.training.familiarity import KnownImages
from inference.training.loop import EpochReport, LoopSettings, Progress, balanced_accuracy, train_network
from inference.training.report import metrics_record
from inference.training.report_html import Epoch, ReportData, write_report
from inference.training.studies import calibrate_studies

__all__ = ["RECIPES", "EpochReport", "TrainSettings", "balanced_accuracy", "evaluate_bundle", "fit", "train_model"]

RECIPES = Path(__file__).with_name("recipes")
Labels = npt.NDArray[np.int64]

_REFERENCE = 1000  # training images whose brightness is kept for comparison
_HALVES = 2  # groups of calibration images that take turns in fitting the temperature and being measured


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
    members: tuple[Path, ...] = ()  # bundles whose networks are averaged with the trained one
    mirror: bool = False  # the image mirrored left to right is looked at, too

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


@dataclass(frozen=True, slots=True)
class Fitted:
    """The weights of a run, with the images and the split it was run on."""

    state: dict[str, torch.Tensor]
    images: ImageSet
    split: Split
    history: tuple[EpochReport, ...] = ()


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training run."""

    bundle: Path
    metrics: Metrics  # on the validation groups; of a final training on the calibration groups
    temperature: float


def train_model(settings: TrainSettings, progress: Progress | None = None) -> Trained:
    """Train, calibrate, evaluate and write the bundle to `settings.output`.

    The calibration groups choose the epoch and the temperature; the validation groups are looked at once, here.
    Raises TrainingError for data that cannot be trained on, BundleError for a recipe that makes no contract.
    """
    labels, absent = _classes(settings.recipe)
    contract_text(
        settings.recipe.read_text(encoding="utf-8"), settings.preprocess, Found(1.0, 1.0, 1.0)
    )  # fail before training
    return finish(settings, fit(settings, labels, progress), absent)


def fit(settings: TrainSettings, classes: tuple[str, ...], progress: Progress | None = None) -> Fitted:
    """Train on the training groups; the epoch best on the calibration groups wins, of a final training the last."""
    set_determinism(settings.seed)
    torch.set_num_threads(settings.threads)
    settings.work.mkdir(parents=True, exist_ok=True)
    images, split = load(settings, classes)
    (settings.work / "split.json").write_text(json.dumps(split_record(images, split, settings.split)))
    network = build_network(settings.definition, len(classes))
    if settings.warm_start is not None:
        _warm(network, settings.warm_start)
    held = split.calibration
    state, history = train_network(
        network,
        images.squares[split.train],
        images.labels[split.train],
        (images.squares[held], images.labels[held]),
        settings.loop,
        settings.work / "checkpoint.pt",
        progress,
    )
    network.load_state_dict(state)
    state = weights_of(network)
    save_file(state, settings.work / "weights.safetensors")
    return Fitted(state, images, split, history)


def load(settings: TrainSettings, classes: tuple[str, ...]) -> tuple[ImageSet, Split]:
    """The images and how they are parted."""
    if settings.anatomy and classes != ANATOMY_CLASSES:
        raise TrainingError(f"The anatomy collection has the classes {', '.join(ANATOMY_CLASSES)}.")
    images = (
        load_anatomy(AnatomySources.under(settings.data), settings.preprocess)
        if settings.anatomy
        else load_folders(settings.data, classes, settings.preprocess)
    )
    if settings.split_of is not None:
        stored = json.loads((settings.split_of / "split.json").read_text(encoding="utf-8"))
        split = split_from_record(images, stored)
    else:
        split = split_by_cluster(images, settings.split)
    return images, for_good(split) if settings.for_good else split


def finish(settings: TrainSettings, fitted: Fitted, absent: int) -> Trained:
    """Calibrate, evaluate and write what `fit` found; `absent` is the index of the class that means "nothing there".

    The report with its pictures of training images goes to `settings.work`, not into the bundle.
    """
    images, split = fitted.images, fitted.split
    definition, network = assembled(settings, fitted.state, len(images.classes))
    features, last = split_last_layer(network)
    looks = {part: predict(features, images.squares[split.part(part)]) for part in PARTS if len(split.part(part))}
    with torch.no_grad():
        logits = {part: last(torch.from_numpy(look)).numpy() for part, look in looks.items()}
    temperature = fit_temperature(logits["calibration"], images.labels[split.calibration])
    measured = _Measured.of(images, split, logits, temperature)
    metrics, before = (
        evaluate(p, images.labels[measured.held], split.clusters[measured.held], images.classes, absent)
        for p in (measured.probabilities, softmax(measured.logits, 1.0))
    )
    counts = {part: _counts(images, split.part(part)) for part in PARTS}
    known = KnownImages.of(looks["train"])
    usual, limit = np.percentile(known.distances(looks["calibration"]), (95, 99))
    found = Found(temperature, round(float(usual), 4), round(float(limit), 4))
    recipe = settings.recipe.read_text(encoding="utf-8")
    record = metrics_record(metrics, before.expected_calibration_error, temperature, counts)
    tables = ""
    if tomllib.loads(recipe)["required"]["min_images"] > 1:  # a film alone is a study
        studies = calibrate_studies(
            calibrated_log_probabilities(logits["calibration"], temperature),
            images.labels[split.calibration],
            split.clusters[split.calibration],
            absent,
        )
        record, tables = {**record, "studies": studies.record()}, studies.table()
    squares = images.squares[split.train][:: max(1, len(split.train) // _REFERENCE)]
    standard = np.stack([standardise(square.astype(np.float32) / 255.0) for square in squares])
    write_bundle(
        settings.output,
        BundleParts(
            contract=contract_text(recipe + "\n" + tables, settings.preprocess, found),
            network_def=definition,
            state=weights_of(network),
            known=known,
            metrics=record,
            split=split_record(images, split, settings.split),
            drift=reference(standard, known.distances(looks["train"])),
        ),
    )
    _report(settings, fitted, network, measured, counts)
    return Trained(settings.output, metrics, temperature)


@dataclass(frozen=True, slots=True)
class _Measured:
    """The part that figures are taken from: the validation groups, or of a final training the calibration groups."""

    held: Labels  # indices of its images
    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls, images: ImageSet, split: Split, logits: Mapping[str, npt.NDArray[np.float32]], temperature: float
    ) -> _Measured:
        """From logits by part. Calibration groups are measured by a temperature that was fitted on other groups."""
        if len(split.validation):
            return cls(split.validation, logits["validation"], softmax(logits["validation"], temperature))
        held, said = split.calibration, logits["calibration"]
        labels, groups = images.labels[held], split.clusters[held]
        numbers = np.unique(groups)
        half = np.random.default_rng(0).permutation(len(numbers))[np.searchsorted(numbers, groups)] % _HALVES
        probabilities = np.zeros(said.shape)
        for number in range(_HALVES):
            fitted = fit_temperature(said[half != number], labels[half != number])
            probabilities[half == number] = softmax(said[half == number], fitted)
        return cls(held, said, probabilities)


def _counts(images: ImageSet, part: Labels) -> dict[str, int]:
    counts = np.bincount(images.labels[part], minlength=len(images.classes)).tolist()
    return dict(zip(images.classes, counts, strict=True))


def _report(
    settings: TrainSettings,
    fitted: Fitted,
    network: torch.nn.Module,
    measured: _Measured,
    counts: Mapping[str, Mapping[str, int]],
) -> None:
    images = fitted.images
    document = tomllib.loads(settings.recipe.read_text(encoding="utf-8"))
    squares = images.squares[measured.held]
    try:
        maps = predict(_MapsAlone(NetworkWithMaps(network, settings.preprocess.size)), squares)
    except BundleError:  # no global average: the report shows the errors without saliency
        maps = None
    write_report(
        settings.work,
        ReportData(
            title=f"{document['title']} {document['version']}",
            classes=images.classes,
            absent=[item["presence"] for item in document["classes"]].index("absent"),
            counts=counts,
            probabilities=measured.probabilities,
            labels=images.labels[measured.held],
            clusters=fitted.split.clusters[measured.held],
            squares=squares,
            maps=maps,
            history=tuple(Epoch(e.epoch, e.loss, e.balanced_accuracy) for e in fitted.history),
            network_summary=str(network),
        ),
    )


class _MapsAlone(torch.nn.Module):
    def __init__(self, network: NetworkWithMaps) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Class activation maps, shape (images, classes, rows, columns)."""
        maps: torch.Tensor = self.network(image)[2]
        return maps


def assembled(
    settings: TrainSettings, state: Mapping[str, torch.Tensor], classes: int
) -> tuple[Mapping[str, Any], torch.nn.Module]:
    """The network as it is shipped, with its definition: the trained one alone, or averaged with the other members."""
    trained = build_network(settings.definition, classes)
    trained.load_state_dict(_full(state))
    if not settings.members and not settings.mirror:
        return settings.definition, trained.eval()
    others = [load_network(bundle, classes) for bundle in settings.members]
    definitions = [
        json.loads((bundle / "configs/inference.json").read_text(encoding="utf-8"))["network_def"]
        for bundle in settings.members
    ]
    together = MeanOfNetworks([trained, *others], settings.mirror)
    together.load_state_dict(_full(weights_of(together)))  # measured as it is stored, in 16 bits
    definition = {
        "_target_": "inference.networks.MeanOfNetworks",
        "members": [dict(settings.definition), *definitions],
        "mirror": settings.mirror,
    }
    return definition, together.eval()


def evaluate_bundle(bundle: Path, data: Path, threads: int = 1) -> Metrics:
    """A bundle's figures on the groups that its training measured it on, from its stored split.

    Raises TrainingError where the images under `data` are not those of the split.
    """
    torch.set_num_threads(threads)
    contract = load_contract(bundle / "contract.toml")
    labels = tuple(item.label for item in contract.classes)
    images = load_folders(data, labels, contract.preprocess)
    split = split_from_record(images, json.loads((bundle / "split.json").read_text(encoding="utf-8")))
    network = load_network(bundle, len(labels))
    absent = [item.presence for item in contract.classes].index("absent")
    part = "validation" if len(split.validation) else "calibration"
    measured = _Measured.of(
        images, split, {part: predict(network, images.squares[split.part(part)])}, contract.temperature
    )
    held = measured.held
    return evaluate(measured.probabilities, images.labels[held], split.clusters[held], labels, absent)


def _classes(recipe: Path) -> tuple[tuple[str, ...], int]:
    """The recipe's classes in the order of the network's outputs, and which one means "nothing there"."""
    try:
        listed = tomllib.loads(recipe.read_text(encoding="utf-8"))["classes"]
        return tuple(item["label"] for item in listed), [item["presence"] for item in listed].index("absent")
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"The recipe {recipe.name} names no classes, or none whose presence is 'absent'."
        ) from error


def _warm(network: torch.nn.Module, bundle: Path) -> None:
    """Weights of another bundle's network of the same build, but for those whose shape differs."""
    stored = _full(load_file(bundle / "models" / "model.safetensors"))
    given = {name.removeprefix("trunks.0."): value for name, value in stored.items()}  # of several, the first
    own = network.state_dict()
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if len(fitting) < len(own) // 2:
        raise TrainingError(f"The weights of {bundle.name} are of a network of another build.")
    network.load_state_dict({**own, **fitting})


def _full(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def weights_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The network's state, contiguous as safetensors demands; in 16 bits, which halves the file."""
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
