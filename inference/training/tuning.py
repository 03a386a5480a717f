"""A new version from reviewed cases: its last layer fitted anew, calibrated, compared with its base, and written.

The network before its last layer stays as it is: it sees the same in an image, and says otherwise what that means. How
far strange images are from the known ones is measured with the reviewed cases among the known. Nothing is registered.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import load_file

from fhir_records.errors import BundleError, TrainingError
from inference.export import load_network
from inference.networks import predict, split_last_layer
from inference.registered import RegisteredModel
from inference.training.comparison import Answers, compare
from inference.training.evaluate import Metrics, fit_temperature, softmax
from inference.training.familiarity import KnownImages
from inference.training.finish import Fitted, Told, finish
from inference.training.last_layer import LastLayer, fitted_anew
from inference.training.outliers import outlier
from inference.training.settings import TrainSettings
from inference.training.tuning_data import LEAST_PEOPLE, Material, gather
from inference.training.weights import weights_of

_STRANGE = 100  # made pictures


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """What a training on reviewed cases is told."""

    train: TrainSettings  # recipe, output, work and the like; its `data` is labels.csv of the cases
    base: RegisteredModel
    former: Path | None = None  # images that the base was trained on, where they are at hand
    least_people: int = LEAST_PEOPLE


@dataclass(frozen=True, slots=True)
class Tuned:
    """A finished training."""

    bundle: Path
    metrics: Metrics  # on all images that were held out
    compared: dict[str, Any]  # with the base; `comparison.in_words` says it


def tune_model(settings: TuneSettings) -> Tuned:
    """Fit, calibrate, compare and write the bundle to `settings.train.output`.

    Raises TrainingError for cases that cannot be trained on, BundleError for a base that does not load.
    """
    train, base = settings.train, settings.base
    contract = base.contract
    if contract.familiarity is None:
        raise TrainingError(f"{base.name} {base.version} does not say what its training images were like.")
    classes = tuple(item.label for item in contract.classes)
    torch.set_num_threads(train.threads)
    train.work.mkdir(parents=True, exist_ok=True)
    material = gather(
        train.data, settings.former, base.path, classes, contract.preprocess, train.seed, settings.least_people
    )
    network = load_network(base.path, len(classes))
    features, _ = split_last_layer(network)
    looks = predict(features, material.images.squares)
    before, known = LastLayer.of(network), stored_features(base.path)
    inside = material.split.train
    after = fitted_anew(before, known, looks[inside], material.images.labels[inside], material.importance("train"))
    after.put_into(network)
    stored = weights_of(network)
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored.items()})
    after = LastLayer.of(network)  # measured as it is stored, in 16 bits
    wider = known.joined_by(looks[material.part("train", reviewed=True)])
    usual, limit = _limits(wider, looks, material, (contract.familiarity.usual, contract.familiarity.limit))
    held = material.split.calibration
    fitted = fit_temperature(
        after.logits(looks[held]), material.images.labels[held], material.importance("calibration")
    )
    # So few images, all of them answered right, would make it as sure as can be: it may not be surer than its base.
    temperature = max(fitted, contract.temperature)
    versions = (
        _Version(before, contract.temperature, known, contract.familiarity.limit),
        _Version(after, temperature, wider, limit),
    )
    compared = _compared(versions, looks, material, features, train.seed)
    compared["base"] = {"name": base.name, "version": base.version, "device_uid": base.device_uid}
    told = Told(looks, wider, (usual, limit), temperature, contract.independence, material.record, compared)
    absent = [item.presence for item in contract.classes].index("absent")
    trained = finish(train, Fitted(stored, material.images, material.split, told=told), absent)
    return Tuned(trained.bundle, trained.metrics, compared)


@dataclass(frozen=True, slots=True)
class _Version:
    """What decides a version's answers on features that it shares with the other."""

    layer: LastLayer
    temperature: float
    known: KnownImages
    limit: float  # distance above which it refuses

    def answers(self, looks: npt.NDArray[np.float32]) -> Answers:
        return Answers(softmax(self.layer.logits(looks), self.temperature), self.known.distances(looks) > self.limit)


def stored_features(bundle: Path) -> KnownImages:
    """What a bundle stores of its training images' features. Raises BundleError."""
    try:
        stored = load_file(bundle / "models" / "familiarity.safetensors")
        return KnownImages(stored["mean"].astype(np.float64), stored["whitening"].astype(np.float64))
    except (OSError, KeyError) as error:
        raise BundleError(f"models/familiarity.safetensors of {bundle.name} cannot be read.") from error


def _limits(
    known: KnownImages, looks: npt.NDArray[np.float32], material: Material, before: tuple[float, float]
) -> tuple[float, float]:
    """Distances that are usual and that are too far, on whichever calibration images are the farther ones.

    Without images of the base's, its own limits stand for them.
    """
    kinds = [material.part("calibration", reviewed) for reviewed in (True, False)]
    found = [np.percentile(known.distances(looks[kind]), (95, 99)) for kind in kinds if len(kind)]
    if not len(kinds[1]):
        found.append(np.array(before))
    usual, limit = np.max(found, axis=0)
    return round(float(usual), 4), round(float(limit), 4)


def _compared(
    versions: tuple[_Version, _Version],
    looks: npt.NDArray[np.float32],
    material: Material,
    features: torch.nn.Module,
    seed: int,
) -> dict[str, Any]:
    """Both versions on what was held out, and on pictures that neither should answer."""
    record: dict[str, Any] = {}
    for name, reviewed in (("reviewed", True), ("former", False)):
        held = material.part("validation", reviewed)
        record[name] = (
            compare(
                versions[0].answers(looks[held]),
                versions[1].answers(looks[held]),
                material.images.labels[held],
                material.split.clusters[held],
                material.images.classes,
            )
            if len(held)
            else None
        )
    rng = np.random.default_rng(seed)
    squares = material.images.squares
    pictures = [outlier(squares, squares.shape[1], rng) for _ in range(_STRANGE)]
    strange = predict(features, np.rint(np.stack(pictures) * 255).astype(np.uint8))
    refused = [int(version.answers(strange).refused.sum()) for version in versions]
    record["strange"] = {"pictures": _STRANGE, "refused_before": refused[0], "refused_after": refused[1]}
    return record
