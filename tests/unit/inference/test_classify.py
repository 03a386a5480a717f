"""From slices to one answer: what the formula promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.classify import calibrated_log_probabilities, evaluated_slices, score_study

ABSENT = 2


def _stack(count: int, lesion: range = range(0), towards: int = 0, strength: float = 4.0) -> np.ndarray:
    """Logits of a stack that speaks for the absent class but on the slices of `lesion`."""
    logits = np.zeros((count, 4), dtype=np.float32)
    logits[:, ABSENT] = strength
    logits[list(lesion), ABSENT] = 0.0
    logits[list(lesion), towards] = strength
    return calibrated_log_probabilities(logits, 1.0)


def test_one_slice_keeps_its_calibrated_probability() -> None:
    """The answer to a stack of one slice is that slice's own calibrated probability."""
    logits = np.array([[0.5, 1.5, -0.2, 0.1]], dtype=np.float32)
    log_probabilities = calibrated_log_probabilities(logits, 1.7)
    score = score_study(log_probabilities, [0.5], ABSENT)
    assert score.probabilities == pytest.approx(np.exp(log_probabilities[0]))
    assert score.answer == 1


def test_a_lesion_on_neighbouring_slices_is_found() -> None:
    """A finding on a fifth of the stack is the answer, though four fifths show nothing."""
    score = score_study(_stack(50, range(20, 30)), [0.5] * 50, ABSENT)
    assert score.answer == 0
    assert set(score.key_slices) <= set(range(20, 30))
    assert len(score.key_slices) == 3


def test_the_same_slices_scattered_are_not_a_lesion() -> None:
    """Evidence counts where it holds over neighbours: single slices spread over the stack do not make a finding."""
    together = score_study(_stack(50, range(20, 25)), [0.5] * 50, ABSENT)
    scattered = score_study(_stack(50, range(0, 50, 10)), [0.5] * 50, ABSENT)
    assert scattered.answer == ABSENT
    assert scattered.probabilities[ABSENT] > together.probabilities[ABSENT]


def test_independent_neighbours_tell_more_together() -> None:
    """A stretch of weak evidence counts for more, the more its slices are looks of their own; one slice never does."""
    weak = _stack(20, range(5, 12), strength=1.0)
    said = [score_study(weak, [1.0] * 20, ABSENT, independence).probabilities for independence in (0.0, 0.5, 1.0)]
    assert said[0][ABSENT] != pytest.approx(said[1][ABSENT], abs=1e-3)
    assert said[0].max() < said[1].max() < said[2].max()
    alone = [score_study(weak[5:6], [1.0], ABSENT, independence).probabilities for independence in (0.0, 1.0)]
    assert alone[0] == pytest.approx(alone[1])


def test_absence_names_the_middle_of_the_stack() -> None:
    """Where nothing is found the key images are the middle slice first, then the quarters."""
    score = score_study(_stack(40), [0.5] * 40, ABSENT)
    assert score.answer == ABSENT
    assert score.key_slices == (20, 10, 30)


def test_slices_with_little_head_do_not_speak() -> None:
    """The ends of a stack, with little of the head in them, change nothing."""
    middle = _stack(20)
    ends = _stack(5, range(5), strength=9.0)
    areas = [0.1] * 5 + [0.5] * 20 + [0.1] * 5
    score = score_study(np.vstack([ends, middle, ends]), areas, ABSENT)
    assert score.answer == ABSENT
    assert score.evaluated == 20
    assert score.probabilities == pytest.approx(score_study(middle, [0.5] * 20, ABSENT).probabilities)
    assert evaluated_slices(areas).tolist() == list(range(5, 25))


def test_one_absurdly_sure_slice_does_not_decide_alone() -> None:
    """What a single slice can say is bounded, however sure the network was."""
    score = score_study(_stack(60, range(30, 31), strength=80.0), [0.5] * 60, ABSENT)
    assert score.answer == ABSENT


@given(
    st.integers(1, 40),
    st.floats(0.1, 8),
    st.integers(0, 2**32 - 1),
)
def test_probabilities_are_probabilities_and_keys_are_slices(count: int, temperature: float, seed: int) -> None:
    """For any logits the probabilities add up to one, and the key slices are among those that were evaluated."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=10, size=(count, 4)).astype(np.float32)
    areas = rng.uniform(0.01, 1, size=count).tolist()
    score = score_study(calibrated_log_probabilities(logits, temperature), areas, ABSENT)
    assert score.probabilities.sum() == pytest.approx(1)
    assert (score.probabilities >= 0).all()
    assert 1 <= len(score.key_slices) <= 3
    assert len(set(score.key_slices)) == len(score.key_slices)
    assert set(score.key_slices) <= set(evaluated_slices(areas).tolist())


@given(st.integers(0, 2**32 - 1))
def test_turning_the_stack_round_changes_nothing(seed: int) -> None:
    """Feet to head or head to feet, the study's probabilities are the same."""
    rng = np.random.default_rng(seed)
    log_probabilities = calibrated_log_probabilities(rng.normal(scale=3, size=(25, 4)).astype(np.float32), 1.0)
    areas = rng.uniform(0.2, 1, size=25).tolist()
    there = score_study(log_probabilities, areas, ABSENT)
    back = score_study(log_probabilities[::-1], areas[::-1], ABSENT)
    assert there.probabilities == pytest.approx(back.probabilities)


def test_a_higher_temperature_makes_a_slice_less_sure() -> None:
    """Dividing by a temperature above one pulls probabilities together and leaves their order."""
    logits = np.array([[3.0, 1.0, 0.0, -1.0]], dtype=np.float32)
    sure, unsure = (np.exp(calibrated_log_probabilities(logits, t))[0] for t in (1.0, 3.0))
    assert sure.max() > unsure.max()
    assert np.argsort(sure).tolist() == np.argsort(unsure).tolist()
