"""Date parameters (R4 3.1.1.4.7): a partial date is the span of time that it could mean, a prefix says how to compare.

Stored dates are instants, so each prefix comes down to half-open intervals that the instant must lie in.
"""

from __future__ import annotations

import calendar
import datetime as dt
import re
from dataclasses import dataclass
from typing import Final

from fhir_records.errors import QueryError

_VALUE: Final = re.compile(
    r"(?P<prefix>[a-z]{2})?(?P<year>\d{4})(?:-(?P<month>\d\d)(?:-(?P<day>\d\d)"
    r"(?:T(?P<hour>\d\d):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:\.(?P<fraction>\d+))?)?"
    # A "+" that nobody escaped arrives as a space.
    r"(?P<zone>Z|[-+ ]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
ALLOWED: Final = (
    "YYYY, YYYY-MM, YYYY-MM-DD or YYYY-MM-DDThh:mm[:ss[.fff]][Z|±hh:mm], after one of eq ne gt lt ge le sa eb"
)


@dataclass(frozen=True, slots=True)
class Interval:
    """A span of time."""

    start: dt.datetime | None  # the first instant in it; None: since ever
    end: dt.datetime | None  # the first instant after it; None: for ever

    def contains(self, moment: dt.datetime) -> bool:
        """Whether the instant lies in the span."""
        return (self.start is None or self.start <= moment) and (self.end is None or moment < self.end)


def parse_date(value: str, zone: dt.tzinfo) -> tuple[Interval, ...]:
    """The intervals that a date parameter's value asks for; an instant in any of them matches.

    Args:
        value: as in the query.
        zone: the site's, meant where the value names none.

    Raises:
        QueryError: the value is no date, or has a prefix that is not served.
    """
    match = _VALUE.fullmatch(value)
    if match is None:
        raise QueryError(f"This is no date to search for; allowed: {ALLOWED}.")
    try:
        start, end = _span(match, zone)
    except (ValueError, OverflowError) as error:
        raise QueryError("There is no such date or time of day.") from error
    return _compare(match["prefix"] or "eq", start, end)


def _compare(prefix: str, start: dt.datetime, end: dt.datetime) -> tuple[Interval, ...]:
    match prefix:
        case "eq":
            return (Interval(start, end),)
        case "ne":
            return (Interval(None, start), Interval(end, None))
        case "gt" | "sa":
            return (Interval(end, None),)
        case "lt" | "eb":
            return (Interval(None, start),)
        case "ge":
            return (Interval(start, None),)
        case "le":
            return (Interval(None, end),)
        case _:
            raise QueryError(f"The prefix {prefix!r} is not served; allowed: {ALLOWED}.")


def _span(match: re.Match[str], site_zone: dt.tzinfo) -> tuple[dt.datetime, dt.datetime]:
    """First instant of what the value could mean, and the first one after it."""
    zone = _zone(match["zone"]) or site_zone
    year, month, day = int(match["year"]), int(match["month"] or 1), int(match["day"] or 1)
    if match["hour"] is None:
        first = dt.date(year, month, day)
        days = (
            1
            if match["day"]
            else calendar.monthrange(year, month)[1]
            if match["month"]
            else 365 + calendar.isleap(year)
        )
        # Both ends are local midnights, so that a day of 23 or 25 hours is one day.
        return _midnight(first, zone), _midnight(first + dt.timedelta(days=days), zone)
    digits = (match["fraction"] or "")[:6]
    start = dt.datetime(
        year,
        month,
        day,
        int(match["hour"]),
        int(match["minute"]),
        int(match["second"] or 0),
        int(digits.ljust(6, "0")),
        tzinfo=zone,
    ).astimezone(dt.UTC)
    length = dt.timedelta(minutes=1) if match["second"] is None else dt.timedelta(microseconds=10 ** (6 - len(digits)))
    return start, start + length


def _midnight(day: dt.date, zone: dt.tzinfo) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), tzinfo=zone).astimezone(dt.UTC)


def _zone(text: str | None) -> dt.tzinfo | None:
    if text is None or text == "Z":
        return dt.UTC if text else None
    hours, minutes = int(text[1:3]), int(text[4:6])
    if minutes > 59:
        raise ValueError("minutes of an offset end at 59")
    offset = dt.timedelta(hours=hours, minutes=minutes)
    return dt.timezone(-offset if text[0] == "-" else offset)
