"""Calibration for whole studies, on series built from slices."""

from __future__ import annotations

import numpy as np
import pytest

from fhir_records.errors import TrainingError
from inference.classify import StudyScore, calibrated_log_probabilities, prediction_set
from inference.contract import PredictionSet, parse_contract
from inference.training.studies import StudySettings, calibrate_studies, conformal_threshold
from tests.unit.inference.samples import contract_document

FAST = StudySettings(series=120)


def _slices(strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities of a classifier that is right more often the stronger it is, labels and clusters."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 60)
    logits = rng.normal(size=(180, 3)) + strength * np.eye(3)[labels]
    return calibrated_log_probabilities(logits.astype(np.float32), 1.0), labels, np.arange(180) // 4


def test_the_sets_cover_what_they_promise() -> None:
    """Of series that did not set the threshold, about 95 % or more have their class in the set."""
    found = calibrate_studies(*_slices(1.5), absent=1, settings=FAST)
    assert found.covered > 0.92
    assert 0 < found.threshold < 1


def test_a_weaker_classifier_has_larger_sets() -> None:
    """Doubt shows as more classes that cannot be ruled out."""
    strong = calibrate_studies(*_slices(3.0), absent=1, settings=FAST)
    weak = calibrate_studies(*_slices(0.3), absent=1, settings=FAST)
    assert weak.mean_size > strong.mean_size
    assert weak.threshold < strong.threshold


def test_the_threshold_is_a_quantile_that_keeps_its_own() -> None:
    """At 90 % of 99 series the tenth lowest is the threshold; too few series rule nothing out."""
    values = np.arange(1, 100) / 100
    assert conformal_threshold(values, 0.9) == pytest.approx(0.10)
    assert conformal_threshold(values[:5], 0.95) == 0


def test_a_class_without_slices_cannot_be_calibrated() -> None:
    """No series is made up of a class that has none."""
    log_probabilities, labels, clusters = _slices(1.0)
    with pytest.raises(TrainingError, match=r"\[2\]"):
        calibrate_studies(log_probabilities, np.minimum(labels, 1), clusters, absent=1)


def test_the_table_is_what_the_contract_reads() -> None:
    """What training writes of it, a contract has."""
    import tomllib

    found = calibrate_studies(*_slices(1.5), absent=1, settings=FAST)
    read = parse_contract({**contract_document(), **tomllib.loads(found.table())}).prediction_set
    assert read == PredictionSet(0.95, found.threshold)
    assert "no real study" in found.record()["built_from"]


def test_the_set_holds_the_answer_and_what_cannot_be_ruled_out() -> None:
    """Likeliest first; the answer is in it even below the threshold; without calibration there is none."""
    score = StudyScore(np.array([0.3, 0.1, 0.6]), 2, (0,), 1)
    assert prediction_set(score, PredictionSet(0.95, 0.25)) == (2, 0)
    assert prediction_set(score, PredictionSet(0.95, 0.9)) == (2,)
    assert prediction_set(score, None) == ()
