"""Whether a new version is better than the one that it came from: on the same images, person by person, in words.

Both answered the same images, so the difference is drawn anew (bootstrap) with both answers of a person together. An
interval from few people is too narrow, and has no width at all where nobody's answer changed; so "better" must pass a
sign test over people, too, and "no worse" reckons with what so many people can hide (the rule of three).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from inference.training.evaluate import calibration_error

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

MARGIN = 0.05  # of balanced accuracy: a loss that is called none
_DRAWS = 1000
_FEW = 5  # people of a class, below which nothing is said of it


class Verdict(StrEnum):
    """What the figures show."""

    BETTER = "better"
    NO_WORSE = "no worse"
    OPEN = "not shown to be better or worse"
    WORSE = "worse"


@dataclass(frozen=True, slots=True)
class Answers:
    """What one version says of n images."""

    probabilities: Floats  # shape (n, classes), calibrated
    refused: Flags  # shape (n,): too far from what it was trained on


def compare(before: Answers, after: Answers, labels: Labels, groups: Labels, classes: Sequence[str]) -> dict[str, Any]:
    """Both versions' figures and their difference, for `metrics.json`.

    Accuracies are of what the networks call the images, refused or not; balanced over the classes that there are.

    Args:
        before: of the version that the new one came from.
        after: of the new one.
        labels: what is true, shape (n,).
        groups: whose the images are, shape (n,): persons, or clusters of look-alikes.
        classes: names.
    """
    numbers, whose = np.unique(groups, return_inverse=True)
    right = [answers.probabilities.argmax(axis=1) == labels for answers in (before, after)]
    drawn = np.array([[_balanced(one[chosen], labels[chosen]) for one in right] for chosen in _draws(whose)])
    values = [_balanced(one, labels) for one in right]
    low, high = np.percentile(drawn[:, 1] - drawn[:, 0], (2.5, 97.5))
    p_value = _sign_test(right[0], right[1], whose)
    return {
        "images": len(labels),
        "groups": len(numbers),
        "groups_by_class": {name: len(np.unique(whose[labels == k])) for k, name in enumerate(classes)},
        "before": _figures(before, right[0], values[0], drawn[:, 0], labels, classes),
        "after": _figures(after, right[1], values[1], drawn[:, 1], labels, classes),
        "difference": round(values[1] - values[0], 4),
        "difference_interval": [round(float(low), 4), round(float(high), 4)],
        "sign_test_p": round(p_value, 4),
        "verdict": verdict(float(low), float(high), p_value, len(numbers)).value,
    }


def verdict(low: float, high: float, p_value: float, groups: int) -> Verdict:
    """What an interval of the difference in balanced accuracy, a sign test and so many people show together."""
    if high < 0:
        return Verdict.WORSE
    if low > 0 and p_value < 0.05:
        return Verdict.BETTER
    # Hanley and Lippman-Hand, JAMA 1983: what was seen in none of n people may be in 3/n of all.
    return Verdict.NO_WORSE if min(low, -3 / groups) >= -MARGIN else Verdict.OPEN


def in_words(compared: Mapping[str, Any]) -> list[str]:
    """Sentences for the model card, the report and whoever registers the version."""
    base = "{name} {version}".format(**compared["base"])
    lines = [_sentence("On reviewed cases that were held out", "people", compared["reviewed"], base)]
    few = [name for name, number in compared["reviewed"]["groups_by_class"].items() if number < _FEW]
    if few:
        lines.append(f"Too few of the people held out have {', '.join(few)} to say anything of these.")
    if compared["former"]:
        lines.append(_sentence(f"On images that {base} was validated on", "clusters", compared["former"], base))
    else:
        lines.append(
            f"The images that {base} was validated on were not at hand: whether this version is worse on them is not "
            "known."
        )
    strange = compared["strange"]
    lines.append(
        f"Of {strange['pictures']} made pictures of nothing that it knows, {strange['refused_after']} are refused by "
        f"their distance; by {base} {strange['refused_before']}."
    )
    return lines


def worse_somewhere(compared: Mapping[str, Any]) -> bool:
    """Whether the version was shown to be worse than its base, on whatever images."""
    return any(part and part["verdict"] == Verdict.WORSE for part in (compared["reviewed"], compared["former"]))


def _sentence(where: str, whose: str, found: Mapping[str, Any], base: str) -> str:
    low, high = found["difference_interval"]
    told = [
        "{:.3f} ({:.3f} to {:.3f})".format(one["balanced_accuracy"], *one["balanced_accuracy_interval"])
        for one in (found["after"], found["before"])
    ]
    return (
        f"{where} ({found['images']} images, {found['groups']} {whose}) it is {found['verdict']} than {base}: balanced "
        f"accuracy {told[0]} against {told[1]}, difference {found['difference']:+.3f} ({low:+.3f} to {high:+.3f}); "
        f"refused as strange {found['after']['refused']:.1%} against {found['before']['refused']:.1%}."
    )


def _figures(
    answers: Answers, right: Flags, value: float, drawn: Floats, labels: Labels, classes: Sequence[str]
) -> dict[str, Any]:
    low, high = np.percentile(drawn, (2.5, 97.5))
    return {
        "balanced_accuracy": round(value, 4),
        "balanced_accuracy_interval": [round(float(low), 4), round(float(high), 4)],
        "sensitivity": {
            name: round(float(right[labels == k].mean()), 4) if (labels == k).any() else None
            for k, name in enumerate(classes)
        },
        "expected_calibration_error": round(calibration_error(answers.probabilities, labels), 4),
        "refused": round(float(answers.refused.mean()), 4),
    }


def _draws(whose: Labels) -> list[Labels]:
    members = [np.flatnonzero(whose == number) for number in range(int(whose.max()) + 1)]
    rng = np.random.default_rng(0)
    return [np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))]) for _ in range(_DRAWS)]


def _balanced(right: Flags, labels: Labels) -> float:
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def _sign_test(before: Flags, after: Flags, whose: Labels) -> float:
    """Two-sided, exact: whether as many people are answered better as are answered worse."""
    change = np.bincount(whose, weights=after.astype(float) - before.astype(float))
    gained, lost = int((change > 0).sum()), int((change < 0).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
