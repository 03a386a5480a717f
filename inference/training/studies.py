"""How far to believe an answer for a whole study, when all that is labelled is single slices.

Synthetic series are built from the calibration clusters: for a finding, one stretch of slices with it, drawn from a
few clusters (the nearest thing to one patient), among slices without any; for "nothing there", such slices alone. Each
goes through `classify.score_study` as a real one does. What they lack is said in the model card: in a real patient the
slices beside a tumour come from the same head and scanner, and look less like those of healthy people than these do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fhir_records.errors import TrainingError
from inference.classify import score_study

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StudySettings:
    """What the synthetic series are like."""

    series: int = 400  # for each class; half of them set the threshold, half show what it covers
    shortest: int = 12  # slices
    longest: int = 60
    least_share: float = 0.15  # of the slices, that a finding's stretch takes
    most_share: float = 0.5
    clusters: int = 3  # at most, that a finding's slices are drawn from
    coverage: float = 0.95
    seed: int = 20261120


@dataclass(frozen=True, slots=True)
class StudyCalibration:
    """What the synthetic series showed. `threshold` is the contract's `[prediction_set] threshold`."""

    coverage: float  # aimed at
    threshold: float  # least probability of a class in the prediction set
    covered: float  # share of the other half of the series whose class is in its set
    mean_size: float  # of their sets, in classes
    accuracy: float  # of the answers alone
    calibration_error: float  # of the answers' probabilities, 10 bins
    series: int  # in that half

    def table(self) -> str:
        """The `[prediction_set]` table as TOML, for the contract."""
        return f"[prediction_set]\ncoverage = {self.coverage}\nthreshold = {self.threshold}\n"

    def record(self) -> dict[str, Any]:
        """For `metrics.json`."""
        rounded = {name: round(getattr(self, name), 4) for name in ("covered", "mean_size", "accuracy")}
        return {
            "built_from": "single labelled slices of the calibration clusters; no real study was labelled",
            "series": self.series,
            "coverage": self.coverage,
            "threshold": self.threshold,
            "calibration_error": round(self.calibration_error, 4),
            **rounded,
        }


def calibrate_studies(
    log_probabilities: Floats, labels: Labels, clusters: Labels, absent: int, settings: StudySettings | None = None
) -> StudyCalibration:
    """The prediction set's threshold from calibrated slice log-probabilities, shape (slices, classes).

    `labels` and `clusters` have shape (slices,), `absent` is the index of the class that means "nothing there". Raises
    TrainingError where a class has no slice.
    """
    settings = settings or StudySettings()
    classes = log_probabilities.shape[1]
    lacking = [number for number in range(classes) if not (labels == number).any()]
    if lacking:
        raise TrainingError(f"No calibration slices of the classes with the numbers {lacking}; no series can be built.")
    rng = np.random.default_rng(settings.seed)
    truth = np.tile(np.arange(classes), settings.series)
    probabilities = np.stack(
        [
            _score(log_probabilities, _series(int(label), labels, clusters, absent, settings, rng), absent)
            for label in truth
        ]
    )
    half = len(truth) // 2
    threshold = conformal_threshold(probabilities[np.arange(half), truth[:half]], settings.coverage)
    held, true = probabilities[half:], truth[half:]
    answers = held.argmax(axis=1)
    inside = held >= threshold
    inside[np.arange(len(held)), answers] = True
    return StudyCalibration(
        coverage=settings.coverage,
        threshold=threshold,
        covered=float(inside[np.arange(len(held)), true].mean()),
        mean_size=float(inside.sum(axis=1).mean()),
        accuracy=float((answers == true).mean()),
        calibration_error=_calibration_error(held.max(axis=1), answers == true),
        series=len(held),
    )


def conformal_threshold(of_the_truth: Floats, coverage: float) -> float:
    """The probability that the true class reaches in a share `coverage` of series like these (split conformal).

    `of_the_truth` are the true classes' probabilities; with too few of them it is 0, which rules nothing out.
    """
    below = int(np.floor((1 - coverage) * (len(of_the_truth) + 1) + 1e-9))
    # Rounded down: rounding up would put some of the series that set it outside.
    return float(np.floor(np.sort(of_the_truth)[below - 1] * 1e6) / 1e6) if below >= 1 else 0.0


def _series(
    label: int, labels: Labels, clusters: Labels, absent: int, settings: StudySettings, rng: np.random.Generator
) -> Labels:
    """Indices of the slices of one synthetic series, in the order of its stack."""
    count = int(rng.integers(settings.shortest, settings.longest + 1))
    stack = rng.choice(np.flatnonzero(labels == absent), count)
    if label == absent:
        return stack
    length = max(3, round(count * rng.uniform(settings.least_share, settings.most_share)))
    start = int(rng.integers(0, count - length + 1))
    theirs = np.flatnonzero(labels == label)
    known = np.unique(clusters[theirs])
    drawn = rng.choice(known, min(len(known), int(rng.integers(1, settings.clusters + 1))), replace=False)
    stack[start : start + length] = rng.choice(theirs[np.isin(clusters[theirs], drawn)], length)
    return stack


def _score(log_probabilities: Floats, stack: Labels, absent: int) -> Floats:
    return score_study(log_probabilities[stack], [1.0] * len(stack), absent).probabilities


def _calibration_error(sure: Floats, right: npt.NDArray[np.bool_], bins: int = 10) -> float:
    places = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [abs(sure[places == b].mean() - right[places == b].mean()) * (places == b).mean() for b in np.unique(places)]
    return float(sum(gaps))
