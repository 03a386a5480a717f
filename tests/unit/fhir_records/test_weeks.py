"""When days and weeks begin, in zones whose clocks change."""

from __future__ import annotations

import datetime as dt
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_records.weeks import mondays, start_of, week_words

HOURS = dt.timedelta(hours=1)


@pytest.mark.parametrize(
    ("zone", "monday", "hours"),
    [
        ("Europe/Berlin", dt.date(2026, 3, 23), 167),  # forward on Sunday 29 March
        ("Europe/Berlin", dt.date(2026, 10, 19), 169),  # back on Sunday 25 October
        ("America/New_York", dt.date(2026, 11, 2), 168),  # the clock went back the day before
        ("Australia/Lord_Howe", dt.date(2026, 4, 5) - dt.timedelta(days=6), 168.5),  # by half an hour
        ("Asia/Kolkata", dt.date(2026, 3, 23), 168),
    ],
)
def test_a_week_is_as_long_as_its_clock_says(zone: str, monday: dt.date, hours: float) -> None:
    """From Monday's midnight to the next one's, whatever the clock does between them."""
    assert monday.weekday() == 0
    begin, end = (start_of(day, ZoneInfo(zone)) for day in (monday, monday + dt.timedelta(days=7)))
    assert (end - begin) / HOURS == hours


def test_a_day_without_a_midnight_begins_after_it() -> None:
    """In Beirut, 27 March 2022 began at 1 o'clock."""
    zone = ZoneInfo("Asia/Beirut")
    begin = start_of(dt.date(2022, 3, 27), zone)
    assert begin == dt.datetime(2022, 3, 26, 22, tzinfo=dt.UTC)
    assert f"{begin.astimezone(zone):%H:%M}" == "01:00"


def test_weeks_have_the_names_of_iso_8601() -> None:
    """The week of the first Thursday is the first of its year, also when it began in the year before."""
    assert week_words(dt.date(2024, 12, 30)) == "2025-W01"
    assert week_words(dt.date(2026, 12, 28)) == "2026-W53"


@given(
    zone=st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York", "Pacific/Apia", "Europe/London"]),
    seconds=st.lists(st.integers(1_104_537_600, 1_893_456_000), min_size=2, max_size=2),  # 2005 to 2030
)
def test_every_instant_is_in_one_week(zone: str, seconds: list[int]) -> None:
    """The weeks go on without a gap, begin on Mondays, and the first and the last hold the instants."""
    first, last = (dt.datetime.fromtimestamp(second, dt.UTC) for second in sorted(seconds))
    found = mondays(first, last, ZoneInfo(zone))
    assert all(day.weekday() == 0 for day in found)
    assert all(later - earlier == dt.timedelta(days=7) for earlier, later in pairwise(found))
    assert start_of(found[0], ZoneInfo(zone)) <= first < start_of(found[0] + dt.timedelta(days=7), ZoneInfo(zone))
    assert start_of(found[-1], ZoneInfo(zone)) <= last < start_of(found[-1] + dt.timedelta(days=7), ZoneInfo(zone))
