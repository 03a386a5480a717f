"""How far to believe an answer for a whole study, when all that is labelled is single slices.

Synthetic series are built from slices that the network, or the one of its teachers that judges them, was not trained
on: for a finding, one stretch of slices with it, drawn from a few clusters (the nearest thing to one patient), among
slices without any; for "nothing there", such slices alone. Each goes through `classify.score_study` as a real one does.
They say how much more neighbouring slices tell together than one alone (`classify` calls it their independence), and
which classes cannot be ruled out. What they lack is said in the model card: in a real patient the slices beside a
tumour come from the same head and scanner, and look less like those of healthy people than these do.
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

_INDEPENDENCES = np.linspace(0.0, 1.0, 21)  # those that are tried


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
    most_independence: float = 1.0  # of neighbouring slices
    seed: int = 20261120


@dataclass(frozen=True, slots=True)
class LabelledSlices:
    """Slices that were judged by a network that was not trained on them."""

    log_probabilities: Floats  # shape (n, classes), calibrated
    labels: Labels  # shape (n,)
    clusters: Labels  # shape (n,): slices of one cluster are like one patient's

    def of(self, chosen: Labels) -> LabelledSlices:
        """Some of them, by index."""
        return LabelledSlices(self.log_probabilities[chosen], self.labels[chosen], self.clusters[chosen])


@dataclass(frozen=True, slots=True)
class FilmCalibration:
    """What single films, each a study, showed; the names are those of `StudyCalibration`."""

    coverage: float
    threshold: float
    covered: float
    mean_size: float
    films: int  # that it was measured on

    def table(self) -> str:
        """The `[prediction_set]` table as TOML, for the contract."""
        return f"[prediction_set]\ncoverage = {self.coverage}\nthreshold = {self.threshold}\n"

    def record(self) -> dict[str, Any]:
        """For `metrics.json`."""
        return {
            "films": self.films,
            "coverage": self.coverage,
            "threshold": self.threshold,
            "covered": round(self.covered, 4),
            "mean_size": round(self.mean_size, 4),
        }


@dataclass(frozen=True, slots=True)
class StudyCalibration:
    """What the synthetic series showed. `threshold` is the contract's `[prediction_set] threshold`."""

    independence: float  # of neighbouring slices, `[study] independence`
    coverage: float  # aimed at
    threshold: float  # least probability of a class in the prediction set
    covered: float  # share of the other half of the series whose class is in its set
    mean_size: float  # of their sets, in classes
    accuracy: float  # of the answers alone
    calibration_error: float  # of the answers' probabilities, 10 bins
    calibration_error_before: float  # with an independence of 0
    series: int  # in that half

    def table(self) -> str:
        """The `[study]` and `[prediction_set]` tables as TOML, for the contract."""
        return (
            f"[study]\nindependence = {self.independence}\n\n"
            f"[prediction_set]\ncoverage = {self.coverage}\nthreshold = {self.threshold}\n"
        )

    def record(self) -> dict[str, Any]:
        """For `metrics.json`."""
        rounded = {name: round(getattr(self, name), 4) for name in ("covered", "mean_size", "accuracy")}
        return {
            "built_from": "built from labelled slices that their judge never saw; no real study was labelled",
            "series": self.series,
            "coverage": self.coverage,
            "threshold": self.threshold,
            "independence": self.independence,
            "calibration_error": round(self.calibration_error, 4),
            "calibration_error_before": round(self.calibration_error_before, 4),
            **rounded,
        }


def calibrate_studies(slices: LabelledSlices, absent: int, settings: StudySettings | None = None) -> StudyCalibration:
    """The independence of neighbouring slices and the prediction set's threshold.

    Half of the clusters make the series that are fitted to, the other half those that show what came of it. `absent`
    is the index of the class that means "nothing there". Raises TrainingError where a class has too few slices.
    """
    settings = settings or StudySettings()
    rng = np.random.default_rng(settings.seed)
    half = _halves(slices, rng)
    fitted, shown = (_built(slices.of(np.flatnonzero(half == side)), absent, settings, rng) for side in (0, 1))
    tried = _INDEPENDENCES[settings.most_independence + 1e-9 >= _INDEPENDENCES]
    independence = float(tried[int(np.argmin([fitted.loss(value) for value in tried]))])
    told, before, after = (f.probabilities(i) for f, i in ((fitted, independence), (shown, 0.0), (shown, independence)))
    threshold = conformal_threshold(told[np.arange(len(told)), fitted.truth], settings.coverage)
    answers, right = after.argmax(axis=1), after.argmax(axis=1) == shown.truth
    inside = after >= threshold
    inside[np.arange(len(after)), answers] = True
    return StudyCalibration(
        independence=independence,
        coverage=settings.coverage,
        threshold=threshold,
        covered=float(inside[np.arange(len(after)), shown.truth].mean()),
        mean_size=float(inside.sum(axis=1).mean()),
        accuracy=float(right.mean()),
        calibration_error=_calibration_error(after.max(axis=1), right),
        calibration_error_before=_calibration_error(before.max(axis=1), before.argmax(axis=1) == shown.truth),
        series=len(after),
    )


def _halves(slices: LabelledSlices, rng: np.random.Generator) -> Labels:
    """0 or 1 for each slice, by its cluster: by chance, or class by class where chance leaves a half without one."""
    numbers = np.unique(slices.clusters)
    half: Labels = rng.permutation(len(numbers))[np.searchsorted(numbers, slices.clusters)] % 2
    classes = set(slices.labels.tolist())
    if all(set(slices.labels[half == side].tolist()) == classes for side in (0, 1)):
        return half
    mostly = [int(np.bincount(slices.labels[slices.clusters == number]).argmax()) for number in numbers]
    order = np.argsort(mostly, kind="stable")
    dealt = np.empty(len(numbers), dtype=np.int64)
    dealt[order] = np.arange(len(numbers)) % 2
    return dealt[np.searchsorted(numbers, slices.clusters)]


def calibrate_films(
    films: LabelledSlices, shown: LabelledSlices | None = None, coverage: float = 0.95
) -> FilmCalibration:
    """The prediction set's threshold where one image is the study, and what it covers of the images `shown`.

    Without `shown` one half of the clusters sets it and the other shows it. Every class is to be covered on its own:
    where one is missed more often than the others, it sets the threshold.
    """
    if shown is None:
        numbers = np.unique(films.clusters)
        half = np.random.default_rng(0).permutation(len(numbers))[np.searchsorted(numbers, films.clusters)] % 2
        films, shown = films.of(np.flatnonzero(half == 0)), films.of(np.flatnonzero(half == 1))
    of_truth = np.exp(films.log_probabilities)[np.arange(len(films.labels)), films.labels]
    threshold = min(conformal_threshold(of_truth[films.labels == label], coverage) for label in np.unique(films.labels))
    probabilities = np.exp(shown.log_probabilities)
    inside = probabilities >= threshold
    inside[np.arange(len(inside)), probabilities.argmax(axis=1)] = True
    covered = float(inside[np.arange(len(inside)), shown.labels].mean())
    return FilmCalibration(coverage, threshold, covered, float(inside.sum(axis=1).mean()), len(inside))


@dataclass(frozen=True, slots=True)
class _Series:
    """Synthetic series, and what each is of."""

    log_probabilities: Floats  # of the slices that they are built from
    stacks: list[Labels]  # indices of their slices
    truth: Labels  # shape (series,)
    absent: int

    def probabilities(self, independence: float) -> Floats:
        """The study-level probabilities, shape (series, classes)."""
        return np.stack(
            [
                score_study(self.log_probabilities[stack], [1.0] * len(stack), self.absent, independence).probabilities
                for stack in self.stacks
            ]
        )

    def loss(self, independence: float) -> float:
        """Mean negative log-likelihood of the truth."""
        told = self.probabilities(independence)[np.arange(len(self.truth)), self.truth]
        return float(-np.log(told.clip(1e-12)).mean())


def _built(slices: LabelledSlices, absent: int, settings: StudySettings, rng: np.random.Generator) -> _Series:
    classes = slices.log_probabilities.shape[1]
    lacking = [number for number in range(classes) if not (slices.labels == number).any()]
    if lacking:
        raise TrainingError(f"Too few slices of the classes with the numbers {lacking}; no series can be built.")
    truth = np.tile(np.arange(classes), settings.series // 2)
    stacks = [_series(int(label), slices.labels, slices.clusters, absent, settings, rng) for label in truth]
    return _Series(slices.log_probabilities, stacks, truth, absent)


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


def _calibration_error(sure: Floats, right: npt.NDArray[np.bool_], bins: int = 10) -> float:
    places = np.minimum((sure * bins).astype(int), bins - 1)
    gaps = [abs(sure[places == b].mean() - right[places == b].mean()) * (places == b).mean() for b in np.unique(places)]
    return float(sum(gaps))
