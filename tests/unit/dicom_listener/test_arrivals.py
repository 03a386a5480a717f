"""When a study is complete."""

from __future__ import annotations

import datetime as dt

import pytest

from dicom_listener.arrivals import CompletionRules, judge
from fhir_records.store.completeness import OpenStudy
from fhir_records.store.expected import Expectation

NOW = dt.datetime(2026, 11, 20, 12, 0, tzinfo=dt.UTC)
RULES = CompletionRules(idle_seconds=60, max_seconds=3600)


@pytest.mark.parametrize(
    ("open_for", "quiet_for", "associations", "complete"),
    [
        (100, 59, 0, False),
        (100, 60, 0, True),
        (100, 99, 1, False),
        (3599, 500, 1, False),
        (3600, 500, 1, True),
        (3600, 0, 2, True),
    ],
)
def test_complete_when_quiet_and_released_or_open_too_long(
    open_for: int, quiet_for: int, associations: int, complete: bool
) -> None:
    """Nothing for the idle time and no sender open, or the longest time after the first image whatever is open."""
    study = OpenStudy(
        1, "1.2", NOW - dt.timedelta(seconds=open_for), NOW - dt.timedelta(seconds=quiet_for), associations
    )
    assert (judge(study, RULES, NOW) is not None) is complete


@pytest.mark.parametrize(
    ("arrived", "expected", "source", "associations", "open_for", "reason"),
    [
        (5, 5, "objects", 1, 1, "all 5 expected instances are here"),
        (5, 5, "pacs:main", 1, 1, None),  # more may come, to both
        (5, 5, "pacs:main", 0, 1, "all 5 expected instances are here"),
        (4, 5, "pacs:main", 0, 3599, None),
        (4, 5, "pacs:main", 3, 3600, "open for 3600 s; 4 of 5 expected instances are here"),
    ],
)
def test_expected_numbers_go_before_silence(
    arrived: int, expected: int, source: str, associations: int, open_for: int, reason: str | None
) -> None:
    """With all there a study is complete at once, with fewer not before the longest time; and it is said how many."""
    study = OpenStudy(
        1,
        "1.2",
        NOW - dt.timedelta(seconds=open_for),
        NOW - dt.timedelta(seconds=open_for),
        associations,
        ("CT1",),
        Expectation(arrived, expected, arrived >= expected, source),
    )
    assert judge(study, RULES, NOW) == reason
