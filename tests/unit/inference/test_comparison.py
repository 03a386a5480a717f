"""Whether a version is called better: never on chance, never without saying of how many people."""

from __future__ import annotations

import numpy as np
import pytest

from inference.training.comparison import Answers, Verdict, compare, in_words, verdict, worse_somewhere

CLASSES = ("a", "b")


def answers(called: list[int], refused: list[bool] | None = None) -> Answers:
    return Answers(np.eye(2)[called] * 0.8 + 0.1, np.array(refused or [False] * len(called)))


def compared(before: list[int], after: list[int], truth: list[int], groups: list[int]) -> dict[str, object]:
    return compare(answers(before), answers(after), np.array(truth), np.array(groups), CLASSES)


def test_many_people_answered_better_are_better() -> None:
    """Of 40 people 20 are answered right that were not: the interval is above nothing, and so is the sign test."""
    truth = [0, 1] * 20
    found = compared([0] * 40, truth, truth, list(range(40)))
    assert found["verdict"] == Verdict.BETTER
    assert (found["difference"], found["groups"], found["images"]) == (0.5, 40, 40)
    low, high = found["difference_interval"]  # type: ignore[misc]
    assert 0.3 < low <= high <= 0.7 or high == 0.5
    assert found["groups_by_class"] == {"a": 20, "b": 20}


def test_many_images_of_few_people_are_not() -> None:
    """A hundred images of four people are four people."""
    truth = [0, 1] * 50
    found = compared([0] * 100, truth, truth, [number % 4 for number in range(100)])
    assert found["verdict"] == Verdict.OPEN and found["sign_test_p"] == 0.5


def test_one_who_lost_is_worse_and_nobody_may_hide_it() -> None:
    """What is worse on either kind of images is worse."""
    truth = [0, 1] * 20
    worse = compared(truth, [0] * 40, truth, list(range(40)))
    assert worse["verdict"] == Verdict.WORSE
    same = compared(truth, truth, truth, list(range(40)))
    assert worse_somewhere({"reviewed": same, "former": worse}) and not worse_somewhere(
        {"reviewed": same, "former": None}
    )


@pytest.mark.parametrize(
    ("low", "high", "p_value", "groups", "expected"),
    [
        (0.01, 0.2, 0.04, 30, Verdict.BETTER),
        (0.01, 0.2, 0.06, 200, Verdict.NO_WORSE),
        (0.0, 0.0, 1.0, 100, Verdict.NO_WORSE),
        (0.0, 0.0, 1.0, 20, Verdict.OPEN),  # 3 of 20 may be lost, and none of these be seen
        (-0.1, 0.1, 1.0, 100, Verdict.OPEN),
        (-0.2, -0.01, 0.5, 100, Verdict.WORSE),
    ],
)
def test_verdicts(low: float, high: float, p_value: float, groups: int, expected: Verdict) -> None:
    """Better needs interval and sign test; no worse needs people enough; worse needs the interval alone."""
    assert verdict(low, high, p_value, groups) is expected


def test_classes_that_nobody_has_are_no_part_of_it_and_are_named() -> None:
    """Balanced over the classes that there are; the words name the others, and what was not at hand."""
    found = compared([0] * 8, [0] * 8, [0] * 8, list(range(8)))
    assert found["after"]["sensitivity"] == {"a": 1.0, "b": None}  # type: ignore[index]
    words = " ".join(
        in_words(
            {
                "base": {"name": "m", "version": "0.1.0"},
                "reviewed": found,
                "former": None,
                "strange": {"pictures": 10, "refused_before": 9, "refused_after": 8},
            }
        )
    )
    assert "Too few of the people held out have b " in words
    assert "were not at hand" in words and "8 are refused" in words and "by m 0.1.0 9." in words
