"""What follows a training run: calibration, figures, the report and the bundle."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fhir_records.errors import BundleError
from inference.class_maps import NetworkWithMaps
from inference.classify import calibrated_log_probabilities
from inference.contract import load_contract
from inference.drift import reference
from inference.export import load_network
from inference.networks import predict, split_last_layer
from inference.preprocess import standardise
from inference.training.baselines import measure_baselines
from inference.training.bundle import BundleParts, Found, contract_text, write_bundle
from inference.training.comparison import in_words
from inference.training.cross_validation import CrossValidated
from inference.training.data import PARTS, ImageSet, Split, load_folders, split_from_record, split_record
from inference.training.evaluate import Metrics, evaluate, fit_temperature, softmax
from inference.training.familiarity import KnownImages
from inference.training.loop import EpochReport
from inference.training.report import metrics_record
from inference.training.report_html import Epoch, ReportData, write_report
from inference.training.settings import TrainSettings
from inference.training.studies import LabelledSlices, StudySettings, calibrate_films, calibrate_studies
from inference.training.weights import assembled, weights_of

Labels = npt.NDArray[np.int64]

_REFERENCE = 1000  # training images whose brightness is kept for comparison
_HALVES = 2  # groups of calibration images that take turns in fitting the temperature and being measured


@dataclass(frozen=True, slots=True)
class Told:
    """What a training that has looked at all images already need not have found again."""

    looks: npt.NDArray[np.float32]  # features of all images, shape (images, features)
    known: KnownImages
    limits: tuple[float, float]  # distances: usual, and too far
    temperature: float
    independence: float  # of neighbouring slices, at most: few people must not make it surer of studies, either
    split: Mapping[str, Any]  # as it is stored
    compared: Mapping[str, Any]  # with the version before


@dataclass(frozen=True, slots=True)
class Fitted:
    """The weights of a run, with the images and the split it was run on."""

    state: dict[str, torch.Tensor]
    images: ImageSet
    split: Split
    history: tuple[EpochReport, ...] = ()
    crossed: CrossValidated | None = None
    told: Told | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished training run."""

    bundle: Path
    metrics: Metrics  # on the validation groups; of a final training on the calibration groups
    temperature: float


def finish(settings: TrainSettings, fitted: Fitted, absent: int) -> Trained:
    """Calibrate, evaluate and write what `fit` found; `absent` is the index of the class that means "nothing there".

    The report with its pictures of training images goes to `settings.work`, not into the bundle.
    """
    images, split = fitted.images, fitted.split
    crossed, told = fitted.crossed, fitted.told
    others = crossed.networks if crossed and settings.together else ()
    definition, network = assembled(settings.definition, fitted.state, len(images.classes), others, settings.mirror)
    features, last = split_last_layer(network)
    looks = {
        part: told.looks[split.part(part)] if told else predict(features, images.squares[split.part(part)])
        for part in PARTS
        if len(split.part(part))
    }
    with torch.no_grad():
        logits = {part: last(torch.from_numpy(look)).numpy() for part, look in looks.items()}
    harder = crossed.harder if crossed else 1.0
    temperature = (
        told.temperature
        if told
        else round(harder * fit_temperature(logits["calibration"], images.labels[split.calibration]), 4)
    )
    measured = _Measured.of(images, split, logits, temperature, harder)
    metrics, before = (
        evaluate(p, images.labels[measured.held], split.clusters[measured.held], images.classes, absent)
        for p in (measured.probabilities, softmax(measured.logits, 1.0))
    )
    counts = {part: _counts(images, split.part(part)) for part in PARTS}
    known = told.known if told else KnownImages.of(looks["train"])
    usual, limit = told.limits if told else np.percentile(known.distances(looks["calibration"]), (95, 99))
    found = Found(temperature, round(float(usual), 4), round(float(limit), 4))
    recipe = settings.recipe.read_text(encoding="utf-8")
    record = metrics_record(metrics, before.expected_calibration_error, temperature, counts)
    baselines = measure_baselines(settings.baselines, images, split, measured.held)
    if baselines:
        record["baselines"] = baselines
    if crossed:
        record["cross_validation"] = crossed.record()
    if told:
        record["compared"] = dict(told.compared)
    judged = {
        part: LabelledSlices(
            calibrated_log_probabilities(logits[part], temperature), images.labels[held], split.clusters[held]
        )
        for part, held in ((part, split.part(part)) for part in logits)
    }
    if tomllib.loads(recipe)["required"]["min_images"] == 1:  # a film alone is a study
        films = calibrate_films(judged["calibration"], judged.get("validation"))
        record["films"], tables = films.record(), films.table()
    else:
        most = StudySettings(most_independence=told.independence if told else 1.0)
        studies = calibrate_studies(_judged(crossed) if crossed else judged["calibration"], absent, most)
        record["studies"], tables = studies.record(), studies.table()
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
            split=told.split if told else split_record(images, split, settings.split),
            drift=reference(standard, known.distances(looks["train"])),
            lineage=settings.lineage,
        ),
    )
    _report(settings, fitted, network, measured, counts, baselines)
    return Trained(settings.output, metrics, temperature)


@dataclass(frozen=True, slots=True)
class _Measured:
    """The part that figures are taken from: the validation groups, or of a final training the calibration groups."""

    held: Labels  # indices of its images
    logits: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float64]

    @classmethod
    def of(
        cls,
        images: ImageSet,
        split: Split,
        logits: Mapping[str, npt.NDArray[np.float32]],
        temperature: float,
        harder: float = 1.0,
    ) -> _Measured:
        """From logits by part. Calibration groups are measured by a temperature that was fitted on other groups.

        `harder` is that of `CrossValidated`.
        """
        if len(split.validation):
            return cls(split.validation, logits["validation"], softmax(logits["validation"], temperature))
        held, said = split.calibration, logits["calibration"]
        labels, groups = images.labels[held], split.clusters[held]
        numbers = np.unique(groups)
        half = np.random.default_rng(0).permutation(len(numbers))[np.searchsorted(numbers, groups)] % _HALVES
        probabilities = np.zeros(said.shape)
        for number in range(_HALVES):
            fitted = harder * fit_temperature(said[half != number], labels[half != number])
            probabilities[half == number] = softmax(said[half == number], fitted)
        return cls(held, said, probabilities)


def _judged(crossed: CrossValidated) -> LabelledSlices:
    """All training slices, each as the network says that was not trained on it."""
    return LabelledSlices(
        calibrated_log_probabilities(crossed.logits, crossed.temperature), crossed.labels, crossed.groups
    )


def _counts(images: ImageSet, part: Labels) -> dict[str, int]:
    counts = np.bincount(images.labels[part], minlength=len(images.classes)).tolist()
    return dict(zip(images.classes, counts, strict=True))


def _report(
    settings: TrainSettings,
    fitted: Fitted,
    network: torch.nn.Module,
    measured: _Measured,
    counts: Mapping[str, Mapping[str, int]],
    baselines: Mapping[str, Mapping[str, Any]],
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
            baselines=baselines,
            notes=tuple(in_words(fitted.told.compared)) if fitted.told else (),
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
    figures = json.loads((bundle / "metrics.json").read_text(encoding="utf-8"))
    measured = _Measured.of(
        images,
        split,
        {part: predict(network, images.squares[split.part(part)])},
        contract.temperature,
        float(figures.get("cross_validation", {}).get("harder", 1.0)),
    )
    held = measured.held
    return evaluate(measured.probabilities, images.labels[held], split.clusters[held], labels, absent)
