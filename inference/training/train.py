"""Training: networks by name, on folders of images, a CSV, or the anatomy collection.

`fit` trains; `train_model` does that, then calibrates, measures and writes a bundle that `Registry.add` takes. A final
training (`for_good`) uses the validation groups, too; it is measured on the calibration groups, by a temperature that
was fitted on other groups than those it is measured on. With `folds`, networks that were each trained without one part
of the groups say first how good such a network is on what it never saw; they may teach the one that is shipped.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import torch
from monai.utils.misc import set_determinism
from safetensors.torch import save_file

from fhir_records.errors import TrainingError
from inference.networks import build_network
from inference.training.anatomy_data import CLASSES as ANATOMY_CLASSES
from inference.training.anatomy_data import AnatomySources, load_anatomy
from inference.training.bundle import Found, contract_text
from inference.training.cross_validation import CrossValidated, FoldSettings, cross_validate
from inference.training.data import (
    ImageSet,
    Split,
    for_good,
    load_folders,
    split_by_cluster,
    split_from_record,
    split_record,
)
from inference.training.finish import Fitted, Trained, evaluate_bundle, finish
from inference.training.loop import EpochReport, Progress, balanced_accuracy, train_network
from inference.training.settings import RECIPES, TrainSettings
from inference.training.weights import warm, weights_of

__all__ = ["RECIPES", "EpochReport", "TrainSettings", "balanced_accuracy", "evaluate_bundle", "fit", "train_model"]


def train_model(settings: TrainSettings, progress: Progress | None = None) -> Trained:
    """Train, calibrate, evaluate and write the bundle to `settings.output`.

    The calibration groups choose the epoch and the temperature; the validation groups are looked at once, here.
    Raises TrainingError for data that cannot be trained on, BundleError for a recipe that makes no contract.
    """
    labels, absent = _classes(settings.recipe)
    contract_text(
        settings.recipe.read_text(encoding="utf-8"), settings.preprocess, Found(1.0, 1.0, 1.0)
    )  # fail before training
    return finish(settings, fit(settings, labels, absent, progress), absent)


def fit(settings: TrainSettings, classes: tuple[str, ...], absent: int, progress: Progress | None = None) -> Fitted:
    """Train on the training groups; the epoch best on the calibration groups wins, of a final training the last.

    `absent` is the index of the class that means "nothing there".
    """
    settings.work.mkdir(parents=True, exist_ok=True)
    images, split = load(settings, classes)
    crossed = _crossed(settings, images, split, absent, progress)
    set_determinism(settings.seed)
    torch.set_num_threads(settings.threads)
    (settings.work / "split.json").write_text(json.dumps(split_record(images, split, settings.split)))
    network = build_network(settings.definition, len(classes))
    if settings.warm_start is not None:
        warm(network, settings.warm_start)
    held = split.calibration
    state, history = train_network(
        network,
        images.squares[split.train],
        images.labels[split.train],
        (images.squares[held], images.labels[held]),
        settings.loop,
        settings.work / "checkpoint.pt",
        progress,
        crossed.networks if crossed and settings.taught else (),
    )
    network.load_state_dict(state)
    state = weights_of(network)
    save_file(state, settings.work / "weights.safetensors")
    return Fitted(state, images, split, history, crossed)


def _crossed(
    settings: TrainSettings, images: ImageSet, split: Split, absent: int, progress: Progress | None
) -> CrossValidated | None:
    if not settings.folds:
        return None
    folds = FoldSettings(
        count=settings.folds,
        trained=settings.folds_trained,
        definition=dict(settings.definition),
        loop=replace(settings.loop, epochs=settings.fold_epochs, patience=0),
        split_seed=settings.split.seed,
        threads=settings.threads,
    )
    return cross_validate(images, split, absent, folds, settings.work, progress)


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


def _classes(recipe: Path) -> tuple[tuple[str, ...], int]:
    """The recipe's classes in the order of the network's outputs, and which one means "nothing there"."""
    try:
        listed = tomllib.loads(recipe.read_text(encoding="utf-8"))["classes"]
        return tuple(item["label"] for item in listed), [item["presence"] for item in listed].index("absent")
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"The recipe {recipe.name} names no classes, or none whose presence is 'absent'."
        ) from error
