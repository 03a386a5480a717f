"""Curves of a classifier over all thresholds, and figures with the interval that chance leaves them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from inference.training.evaluate import calibration_error

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_DRAWS = 300


def roc(scores: Floats, truth: Flags) -> tuple[Floats, Floats]:
    """False and true positive rate from the highest threshold to the lowest, (0, 0) first; one point a score."""
    positive, negative = _counts(scores, truth)
    return (
        np.concatenate([[0.0], negative / max(1, negative[-1])]),
        np.concatenate([[0.0], positive / max(1, positive[-1])]),
    )


def precision_recall(scores: Floats, truth: Flags) -> tuple[Floats, Floats]:
    """Recall and precision from the highest threshold to the lowest."""
    positive, negative = _counts(scores, truth)
    return positive / max(1, positive[-1]), positive / np.maximum(1, positive + negative)


def _counts(scores: Floats, truth: Flags) -> tuple[Floats, Floats]:
    """True and false positives down to each score that occurs; equal scores are one threshold."""
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    hit = truth[order]
    return np.cumsum(hit)[last_of_equals].astype(float), np.cumsum(~hit)[last_of_equals].astype(float)


def area_under_roc(scores: Floats, truth: Flags) -> float:
    """By the trapezoids of the curve; NaN where one side has no image."""
    if truth.all() or not truth.any():
        return float("nan")
    across, up = roc(scores, truth)
    return float(np.trapezoid(up, across))


def reliability(probabilities: Floats, labels: Labels, bins: int = 10) -> tuple[Floats, Floats, Labels]:
    """Of the answers by their probability: its mean, the share that is right, and how many; empty bins left out."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.minimum((sure * bins).astype(int), bins - 1)
    used = np.unique(place)
    return (
        np.array([sure[place == b].mean() for b in used]),
        np.array([right[place == b].mean() for b in used]),
        np.array([(place == b).sum() for b in used]),
    )


def risk_coverage(probabilities: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Share of the images answered, surest first, and the share of these answers that is wrong."""
    order = np.argsort(-probabilities.max(axis=1), kind="stable")
    wrong = (probabilities.argmax(axis=1) != labels)[order]
    answered = np.arange(1, len(labels) + 1)
    return answered / len(labels), np.cumsum(wrong) / answered


def brier(probabilities: Floats, labels: Labels) -> float:
    """Mean squared distance of the probabilities from the truth, over all classes (Brier, 1950): 0 to 2."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(np.square(probabilities - truth).sum(axis=1).mean())


def figures(probabilities: Floats, labels: Labels, classes: Sequence[str]) -> dict[str, float]:
    """Every figure of the report by name; those of a class are named "sensitivity, glioma". NaN: undefined."""
    called = probabilities.argmax(axis=1)
    found = {
        "accuracy": float((called == labels).mean()),
        "balanced accuracy": float(np.mean([(called[labels == c] == c).mean() for c in np.unique(labels)])),
        "expected calibration error": calibration_error(probabilities, labels),
        "Brier score": brier(probabilities, labels),
    }
    for number, name in enumerate(classes):
        said, true = called == number, labels == number
        found[f"precision, {name}"] = _share(true[said])
        found[f"sensitivity, {name}"] = _share(said[true])
        found[f"specificity, {name}"] = _share(~said[~true])
        found[f"AUC, {name}"] = area_under_roc(probabilities[:, number], true)
    return found


def _share(flags: Flags) -> float:
    return float(flags.mean()) if len(flags) else float("nan")


def with_intervals(
    of: Callable[[Labels], Mapping[str, float]], clusters: Labels, seed: int = 0
) -> dict[str, tuple[float, float, float]]:
    """Each figure of `of(indices)` with its 95 % interval: whole clusters are drawn, images in one being one fact."""
    members = [np.flatnonzero(clusters == number) for number in np.unique(clusters)]
    rng = np.random.default_rng(seed)
    chosen = (rng.integers(len(members), size=len(members)) for _ in range(_DRAWS))
    draws = [of(np.concatenate([members[i] for i in drawn])) for drawn in chosen]
    result = {}
    for name, value in of(np.arange(len(clusters))).items():
        drawn = np.array([draw[name] for draw in draws])
        known = drawn[~np.isnan(drawn)]
        low, high = np.percentile(known, (2.5, 97.5)) if len(known) else (float("nan"), float("nan"))
        result[name] = (value, float(low), float(high))
    return result
