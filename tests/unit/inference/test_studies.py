"""Calibration for whole studies, on series built from slices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fhir_records.errors import TrainingError
from inference.classify import StudyScore, calibrated_log_probabilities, prediction_set
from inference.contract import PredictionSet, parse_contract
from inference.training.studies import (
    LabelledSlices,
    StudySettings,
    calibrate_films,
    calibrate_studies,
    conformal_threshold,
)
from tests.unit.inference.samples import contract_document

FAST = StudySettings(series=120)


def _slices(strength: float) -> LabelledSlices:
    """Log-probabilities of a classifier that is right more often the stronger it is, labels and clusters."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 240)
    logits = rng.normal(size=(720, 3)) + strength * np.eye(3)[labels]
    return LabelledSlices(calibrated_log_probabilities(logits.astype(np.float32), 1.0), labels, np.arange(720) // 2)


def test_the_sets_cover_what_they_promise() -> None:
    """Of series that did not set the threshold, about 95 % or more have their class in the set."""
    found = calibrate_studies(_slices(1.5), absent=1, settings=FAST)
    assert found.covered > 0.92
    assert 0 < found.threshold < 1


def test_a_weaker_classifier_has_larger_sets() -> None:
    """Doubt shows as more classes that cannot be ruled out."""
    strong = calibrate_studies(_slices(3.0), absent=1, settings=FAST)
    weak = calibrate_studies(_slices(0.3), absent=1, settings=FAST)
    assert weak.mean_size > strong.mean_size
    assert weak.threshold < strong.threshold


def test_independent_slices_make_the_answer_surer_and_better_calibrated() -> None:
    """Slices that each err on their own are found to tell more together, and the study's probability fits better."""
    found = calibrate_studies(_slices(1.5), absent=1, settings=FAST)
    assert found.independence > 0.2
    assert found.calibration_error < found.calibration_error_before


def test_a_film_alone_is_a_study() -> None:
    """Where one image is the study, the set's threshold comes from single images and covers what it promises."""
    found = calibrate_films(_slices(1.5))
    assert found.covered > 0.85
    assert 1 <= found.mean_size <= 3


def test_the_threshold_is_a_quantile_that_keeps_its_own() -> None:
    """At 90 % of 99 series the tenth lowest is the threshold; too few series rule nothing out."""
    values = np.arange(1, 100) / 100
    assert conformal_threshold(values, 0.9) == pytest.approx(0.10)
    assert conformal_threshold(values[:5], 0.95) == 0


def test_a_class_without_slices_cannot_be_calibrated() -> None:
    """No series is made up of a class that has none."""
    slices = _slices(1.0)
    with pytest.raises(TrainingError, match=r"\[2\]"):
        calibrate_studies(replace(slices, labels=np.minimum(slices.labels, 1)), absent=1)


def test_the_table_is_what_the_contract_reads() -> None:
    """What training writes of it, a contract has."""
    import tomllib

    found = calibrate_studies(_slices(1.5), absent=1, settings=FAST)
    read = parse_contract({**contract_document(), **tomllib.loads(found.table())}).prediction_set
    assert read == PredictionSet(0.95, found.threshold)
    assert "no real study" in found.record()["built_from"]


def test_the_set_holds_the_answer_and_what_cannot_be_ruled_out() -> None:
    """Likeliest first; the answer is in it even below the threshold; without calibration there is none."""
    score = StudyScore(np.array([0.3, 0.1, 0.6]), 2, (0,), 1)
    assert prediction_set(score, PredictionSet(0.95, 0.25)) == (2, 0)
    assert prediction_set(score, PredictionSet(0.95, 0.9)) == (2,)
    assert prediction_set(score, None) == ()
