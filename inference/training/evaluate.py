"""How good a model is on clusters that it was not trained on, by MONAI's metrics, and how far to believe it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics.confusion_matrix import ConfusionMatrixMetric
from monai.metrics.rocauc import ROCAUCMetric

from fhir_records.errors import TrainingError

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

_BINS = 15


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One class against all others."""

    label: str
    images: int
    precision: float | None  # None: no image was called this
    sensitivity: float
    specificity: float
    auc: float  # area under the receiver operating characteristic


@dataclass(frozen=True, slots=True)
class Metrics:
    """A model's performance on one part of the images."""

    images: int
    clusters: int
    accuracy: float
    balanced_accuracy: float
    balanced_accuracy_interval: tuple[float, float]  # 95 %, bootstrap over clusters
    expected_calibration_error: float
    negative_log_likelihood: float
    classes: tuple[ClassMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]  # [true][called]
    any_finding_sensitivity: float  # share of slices with a finding, called any finding
    any_finding_specificity: float  # share of slices without one, called so


def softmax(logits: npt.NDArray[np.float32], temperature: float) -> Floats:
    """Probabilities, shape (images, classes), of logits divided by the temperature."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    powers = np.exp(scaled)
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result


def fit_temperature(logits: npt.NDArray[np.float32], labels: Labels, importance: Floats | None = None) -> float:
    """The temperature with the least negative log-likelihood (Guo et al., ICML 2017).

    Where no `importance`, shape (images,), is given, classes weigh the same.
    """
    weights = 1.0 / np.bincount(labels, minlength=logits.shape[1]).clip(1)[labels] if importance is None else importance
    grid = np.exp(np.linspace(np.log(0.2), np.log(8.0), 400))
    picked = [np.log(softmax(logits, t)[np.arange(len(labels)), labels].clip(1e-12)) for t in grid]
    losses = [-(weights * values).sum() for values in picked]
    return round(float(grid[int(np.argmin(losses))]), 4)


def evaluate(probabilities: Floats, labels: Labels, clusters: Labels, classes: Sequence[str], absent: int) -> Metrics:
    """Metrics of probabilities, shape (images, classes). Raises TrainingError where a class has no image."""
    lacking = [name for index, name in enumerate(classes) if not (labels == index).any()]
    if lacking:
        raise TrainingError(f"No images of {', '.join(lacking)} among those to evaluate on.")
    called = probabilities.argmax(axis=1)
    confusion = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(confusion, (labels, called), 1)
    nothing, says_nothing = labels == absent, called == absent
    return Metrics(
        images=len(labels),
        clusters=len(np.unique(clusters)),
        accuracy=float((called == labels).mean()),
        balanced_accuracy=_balanced(called, labels),
        balanced_accuracy_interval=_interval(called, labels, clusters),
        expected_calibration_error=calibration_error(probabilities, labels),
        negative_log_likelihood=float(-np.log(probabilities[np.arange(len(labels)), labels].clip(1e-12)).mean()),
        classes=_by_class(probabilities, called, labels, classes),
        confusion=tuple(tuple(int(value) for value in row) for row in confusion),
        any_finding_sensitivity=float((~says_nothing)[~nothing].mean()),
        any_finding_specificity=float(says_nothing[nothing].mean()),
    )


def calibration_error(probabilities: Floats, labels: Labels) -> float:
    """Expected calibration error of the answers, 15 bins of equal width (Naeini et al., AAAI 2015)."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    gaps = [abs(sure[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(sum(gaps))


def _by_class(
    probabilities: Floats, called: Labels, labels: Labels, classes: Sequence[str]
) -> tuple[ClassMetrics, ...]:
    """Per class, by MONAI's metrics."""
    truth = _one_hot(labels, len(classes))
    matrix = ConfusionMatrixMetric(metric_name=("precision", "sensitivity", "specificity"), reduction="sum_batch")
    matrix(_one_hot(called, len(classes)), truth)
    precision, sensitivity, specificity = (row.tolist() for row in cast(list[torch.Tensor], matrix.aggregate()))
    curve = ROCAUCMetric(average="none")
    curve(list(torch.from_numpy(probabilities)), list(truth))
    area = np.asarray(cast(Any, curve.aggregate())).tolist()
    return tuple(
        ClassMetrics(
            name,
            int((labels == i).sum()),
            None if np.isnan(precision[i]) else precision[i],
            sensitivity[i],
            specificity[i],
            area[i],
        )
        for i, name in enumerate(classes)
    )


def _one_hot(labels: Labels, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(labels), classes)


def _balanced(called: Labels, labels: Labels) -> float:
    return float(np.mean([(called[labels == label] == label).mean() for label in np.unique(labels)]))


def _interval(called: Labels, labels: Labels, clusters: Labels, draws: int = 1000) -> tuple[float, float]:
    """95 % interval of the balanced accuracy: whole clusters are drawn, for images within one are not independent."""
    members = [np.flatnonzero(clusters == number) for number in np.unique(clusters)]
    rng = np.random.default_rng(0)
    scores = []
    for _ in range(draws):
        drawn = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        scores.append(_balanced(called[drawn], labels[drawn]))
    low, high = np.percentile(scores, (2.5, 97.5))
    return float(low), float(high)
