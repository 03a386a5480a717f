"""A share and its interval, against published values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_records.proportions import FEWEST, Proportion, wilson

# R. G. Newcombe, Two-sided confidence intervals for the single proportion: comparison of seven methods, Statistics in
# Medicine 17 (1998) 857-872, table I, method 3.
PUBLISHED = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize(("hits", "of", "low", "high"), PUBLISHED)
def test_the_interval_is_the_published_one(hits: int, of: int, low: float, high: float) -> None:
    """The score interval of 95 % has the four digits that the paper prints."""
    interval = wilson(hits, of)
    assert (round(interval.low, 4), interval.share, round(interval.high, 4)) == (low, hits / of, high)


@given(of=st.integers(1, 10_000), data=st.data())
def test_the_interval_holds_the_share_and_mirrors(of: int, data: st.DataObject) -> None:
    """It lies within 0 and 1 around the share; that of the misses is its mirror image."""
    hits = data.draw(st.integers(0, of))
    interval, mirror = wilson(hits, of), wilson(of - hits, of)
    assert 0 <= interval.low <= interval.share <= interval.high <= 1
    assert interval.low == pytest.approx(1 - mirror.high, abs=1e-12)


def test_more_makes_it_narrower() -> None:
    """Ten times as many of the same share are trusted more."""
    few, many = wilson(9, 10), wilson(90, 100)
    assert few.low < many.low < many.high < few.high


def test_of_fewer_than_five_there_is_no_figure() -> None:
    """Four are too few, five are not."""
    assert Proportion(FEWEST - 1, FEWEST - 1).interval is None
    assert Proportion(FEWEST, FEWEST).interval == wilson(5, 5)
    assert Proportion(0, 0).interval is None


def test_what_cannot_be_is_refused() -> None:
    """More than all, fewer than none, and a share of nothing are no proportions."""
    for hits, of in ((2, 1), (-1, 3)):
        with pytest.raises(ValueError, match="no proportion"):
            Proportion(hits, of)
    with pytest.raises(ValueError, match="nothing"):
        wilson(0, 0)


def test_the_words_never_round_to_all_or_none() -> None:
    """Whole percents; one miss in a thousand is not "100 %"."""
    assert Proportion(12, 14).words == "86 % (60 to 96 %)"
    assert Proportion(999, 1000).words == ">99 % (99 to >99 %)"
    assert Proportion(0, 1000).words == "0 % (0 to <1 %)"
    assert Proportion(20, 20).words == "100 % (84 to 100 %)"
    assert Proportion(4, 4).words == "too few"
