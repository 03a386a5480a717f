"""Slices → one study-level answer.

The formula. Let p_i(c) be the calibrated probability of class c on slice i, o the one class that means "nothing there",
and n the number of slices that are evaluated: those in which the head covers at least `_MIN_SHARE` of what it covers
in the fullest slice (the tops and ends of a stack show no brain). A finding lies in one stretch of neighbouring slices,
w = max(3, 15 % of n) long, and nobody knows in which. So

    r_i(c) = log p_i(c) - log p_i(o), kept within ±`_MOST`      what one slice says for c
    R_k(c) = w^a times the mean of r_i(c) over the stretch of    what a stretch says
             w slices from k
    L(c)   = mean over all stretches k of exp R_k(c)             what the stack says
    P(c)   = L(c) / (1 + sum of L over all findings),  P(o) = 1 / (1 + that sum)

Neighbouring slices show nearly the same tissue, so the evidence in a stretch counts as w^a looks and not as w: a, the
slices' independence, is 0 where they only repeat each other (the evidence is averaged), 1 where each is a look of its
own (it is added). The model's contract has it from calibration. Over stretches the likelihood ratios are averaged,
which is Bayes' rule for a finding that is equally likely to lie in any of them. A stretch that speaks for a finding by
chance is thereby weighed against all that do not, and a stack of one slice keeps that slice's calibrated probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inference.contract import PredictionSet

Floats = npt.NDArray[np.float64]

_MIN_SHARE = 0.6  # of the fullest slice's head
_MOST = float(np.log(99.0))  # no slice may speak with more than 99 to 1, however sure the network was
_STRETCH = 0.15  # of the evaluated slices
_KEY_IMAGES = 3


@dataclass(frozen=True, slots=True)
class StudyScore:
    """What the slices say together."""

    probabilities: Floats  # shape (classes,), adds up to 1
    answer: int  # index of the class
    key_slices: tuple[int, ...]  # indices into the slices given, most telling first
    evaluated: int  # slices that counted


def calibrated_log_probabilities(logits: npt.NDArray[np.float32], temperature: float) -> Floats:
    """Log-probabilities, shape (slices, classes), of logits divided by the temperature."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    result: Floats = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return result


def evaluated_slices(areas: Sequence[float]) -> npt.NDArray[np.int64]:
    """Indices of the slices that show enough of the head, in the order given."""
    covered = np.asarray(areas, dtype=np.float64)
    return np.flatnonzero(covered >= _MIN_SHARE * covered.max())


def score_study(
    log_probabilities: Floats, areas: Sequence[float], absent: int, independence: float = 0.0
) -> StudyScore:
    """The study's answer from its slices in the order of the stack; the module says how.

    `log_probabilities` has shape (slices, classes), `areas` the head's share of each slice, `absent` is the index
    of the class that means "nothing there", `independence` that of neighbouring slices, 0 to 1.
    """
    chosen = evaluated_slices(areas)
    ratios = np.clip(log_probabilities[chosen] - log_probabilities[chosen, absent][:, None], -_MOST, _MOST)
    stretch = min(len(chosen), max(3, round(_STRETCH * len(chosen))))
    evidence = _moving_mean(ratios, stretch) * stretch**independence
    likelihood = np.exp(evidence).mean(axis=0)  # 1 for the absent class, whose ratio is 0 everywhere
    probabilities = likelihood / likelihood.sum()
    answer = int(probabilities.argmax())
    keys = _spread(len(chosen)) if answer == absent else _telling(ratios[:, answer], evidence[:, answer], stretch)
    return StudyScore(probabilities, answer, tuple(int(chosen[key]) for key in keys), len(chosen))


def prediction_set(score: StudyScore, calibrated: PredictionSet | None) -> tuple[int, ...]:
    """Indices of the classes that cannot be ruled out, likeliest first; none where the model is not calibrated for it.

    The answer itself is always among them.
    """
    if calibrated is None:
        return ()
    order = np.argsort(-score.probabilities, kind="stable").tolist()
    return tuple(i for i in order if i == score.answer or score.probabilities[i] >= calibrated.threshold)


def _moving_mean(values: Floats, width: int) -> Floats:
    """Means of `width` neighbouring rows, shape (rows - width + 1, columns)."""
    sums = np.cumsum(np.vstack([np.zeros_like(values[:1]), values]), axis=0)
    result: Floats = (sums[width:] - sums[:-width]) / width
    return result


def _spread(count: int) -> list[int]:
    """The middle of the stack, then a quarter and three quarters into it."""
    return list(dict.fromkeys([count // 2, count // 4, (3 * count) // 4]))[:_KEY_IMAGES]


def _telling(ratios: Floats, evidence: Floats, stretch: int) -> list[int]:
    """Slices that speak most for the class within its strongest stretch, apart enough to show different tissue."""
    start = int(evidence.argmax())
    apart = max(1, stretch // 4)
    keys: list[int] = []
    for index in sorted(range(start, start + stretch), key=lambda i: (-ratios[i], abs(i - start - stretch // 2))):
        if all(abs(index - key) >= apart for key in keys):
            keys.append(index)
    return keys[:_KEY_IMAGES]
