"""Days and weeks of a time zone as instants: the one place that knows when they begin."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

DAY = dt.timedelta(days=1)
WEEK = 7 * DAY


def start_of(day: dt.date, zone: ZoneInfo) -> dt.datetime:
    """The instant at which a day begins in a zone, in UTC; where its midnight is skipped, the first one after that."""
    return dt.datetime.combine(day, dt.time(), zone).astimezone(dt.UTC)


def monday_of(day: dt.date) -> dt.date:
    """The first day of the ISO 8601 week that a day is in."""
    return day - dt.timedelta(days=day.weekday())


def week_words(monday: dt.date) -> str:
    """An ISO 8601 week by its name: "2026-W47"."""
    year, week, _ = monday.isocalendar()
    return f"{year}-W{week:02}"


def mondays(first: dt.datetime, last: dt.datetime, zone: ZoneInfo) -> tuple[dt.date, ...]:
    """The Mondays of all weeks from that of one instant to that of another, in a zone."""
    begin, end = (monday_of(instant.astimezone(zone).date()) for instant in (first, last))
    return tuple(begin + place * WEEK for place in range((end - begin) // WEEK + 1))
