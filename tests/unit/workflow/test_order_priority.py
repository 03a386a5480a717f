"""Which of several requested priorities counts."""

from __future__ import annotations

import pytest

from workflow.headers import most_urgent


@pytest.mark.parametrize(
    ("one", "other", "counts"),
    [
        ("", "ROUTINE", "ROUTINE"),
        ("ROUTINE", "STAT", "STAT"),
        ("STAT", "HIGH", "STAT"),
        ("LOW", "HIGH", "HIGH"),
        ("MEDIUM", "", "MEDIUM"),
        ("", "", ""),
    ],
)
def test_the_most_urgent_series_speaks_for_the_order(one: str, other: str, counts: str) -> None:
    """Whichever series comes first, a STAT one makes the study so."""
    assert most_urgent(one, other) == counts
    if one != "MEDIUM" and other != "LOW":
        assert most_urgent(other, one) == counts
