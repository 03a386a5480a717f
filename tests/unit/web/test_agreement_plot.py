"""Where the weeks of the plot stand."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise

import pytest

from fhir_records.agreement import Outcome, Tally
from fhir_records.proportions import wilson
from web.agreement_plot import COUNTS_BOTTOM, COUNTS_TOP, LEFT, RIGHT, SHARES_BOTTOM, TOP, plot

MONDAY = dt.date(2024, 11, 4)


def weeks(*agreed: int) -> dict[dt.date, Tally]:
    """A week for each number of answers that stood, with one in each that did not and two unsigned."""
    return {
        MONDAY + dt.timedelta(weeks=place): Tally({Outcome.AGREED: count, Outcome.CORRECTED: 1, Outcome.UNSIGNED: 2})
        for place, count in enumerate(agreed)
    }


def test_shares_and_counts_stand_at_their_height() -> None:
    """The axis of shares runs from 0 to 100 %, that of counts from 0 to the fullest week."""
    told = weeks(7, 2)
    drawn = plot(told, Tally({Outcome.AGREED: 9, Outcome.CORRECTED: 2}))
    full, sparse = drawn.weeks
    interval = wilson(7, 8)
    assert full.whisker is not None
    for height, share in zip(
        (full.whisker.share, full.whisker.low, full.whisker.high),
        (interval.share, interval.low, interval.high),
        strict=True,
    ):
        assert height == pytest.approx(SHARES_BOTTOM - share * (SHARES_BOTTOM - TOP), abs=0.05)
    assert sparse.whisker is None
    assert (drawn.most, full.answers_top) == (10, COUNTS_TOP)
    assert full.signed_top == pytest.approx(COUNTS_BOTTOM - 0.8 * (COUNTS_BOTTOM - COUNTS_TOP))
    assert full.words == ("2024-W45, from 4 Nov 2024: 7 of 8 agree, 88 % (53 to 98 %); 8 of 10 answers compared")
    assert "too few" in sparse.words


@pytest.mark.parametrize("number", [1, 14, 60, 300])
def test_labels_never_run_into_each_other(number: int) -> None:
    """They are 40 apart at least, the newest week has one, and every year is named once; all weeks are inside."""
    drawn = plot(weeks(*range(number)), Tally())
    labelled = [week for week in drawn.weeks if week.label]
    assert labelled[-1] is drawn.weeks[-1]
    assert all(later.x - earlier.x >= 40 for earlier, later in pairwise(labelled))
    years = [week.year for week in drawn.weeks if week.year]
    assert years == sorted(set(years))
    assert years[0] == "2024"
    assert all(LEFT < week.x < drawn.width - RIGHT for week in drawn.weeks)
    assert all(later.x - earlier.x >= drawn.bar for earlier, later in pairwise(drawn.weeks))
