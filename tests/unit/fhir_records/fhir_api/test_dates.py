from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_records.errors import QueryError
from fhir_records.fhir_api.dates import Interval, parse_date

KOLKATA = ZoneInfo("Asia/Kolkata")
BERLIN = ZoneInfo("Europe/Berlin")

# Hypothesis takes its bounds without a zone.
FIRST, LAST = dt.datetime(1900, 1, 1), dt.datetime(2100, 1, 1)  # noqa: DTZ001
moments = st.datetimes(FIRST, LAST, timezones=st.just(dt.UTC))
values = moments.flatmap(
    lambda moment: st.sampled_from(["%Y", "%Y-%m", "%Y-%m-%d", "%Y-%m-%dT%H:%MZ", "%Y-%m-%dT%H:%M:%SZ"]).map(
        moment.strftime
    )
)


def matches(value: str, moment: dt.datetime, zone: dt.tzinfo = dt.UTC) -> bool:
    return any(interval.contains(moment) for interval in parse_date(value, zone))


@pytest.mark.parametrize(
    ("value", "start", "end"),
    [
        ("2026", "2026-01-01T00:00:00", "2027-01-01T00:00:00"),
        ("2024-02", "2024-02-01T00:00:00", "2024-03-01T00:00:00"),
        ("2026-12", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        ("2026-11-20", "2026-11-20T00:00:00", "2026-11-21T00:00:00"),
        ("2026-11-20T10:30", "2026-11-20T10:30:00", "2026-11-20T10:31:00"),
        ("2026-11-20T10:30:05Z", "2026-11-20T10:30:05", "2026-11-20T10:30:06"),
        ("2026-11-20T10:30:05.25Z", "2026-11-20T10:30:05.25", "2026-11-20T10:30:05.26"),
        ("2026-11-20T10:30:00+01:00", "2026-11-20T09:30:00", "2026-11-20T09:30:01"),
        ("2026-11-20T10:30:00 01:00", "2026-11-20T09:30:00", "2026-11-20T09:30:01"),
        ("2026-11-20T10:30:00-05:30", "2026-11-20T16:00:00", "2026-11-20T16:00:01"),
    ],
)
def test_a_partial_date_is_the_span_that_it_could_mean(value: str, start: str, end: str) -> None:
    """Year, month, day, minute, second and fraction each span their own length."""
    (span,) = parse_date(value, dt.UTC)
    assert span == Interval(
        dt.datetime.fromisoformat(start).replace(tzinfo=dt.UTC), dt.datetime.fromisoformat(end).replace(tzinfo=dt.UTC)
    )


def test_a_day_without_zone_is_the_sites_day() -> None:
    """Half past one at night in Kolkata is the same calendar day there, though UTC has the day before."""
    moment = dt.datetime(2026, 11, 20, 1, 30, tzinfo=KOLKATA)
    assert matches("2026-11-20", moment, KOLKATA)
    assert not matches("2026-11-20", moment, dt.UTC)


def test_a_day_of_25_hours_is_one_day() -> None:
    """When clocks are set back, the day's last hour is still of that day."""
    (span,) = parse_date("2026-10-25", BERLIN)
    assert span.start is not None
    assert span.end is not None
    assert span.end - span.start == dt.timedelta(hours=25)


@given(values, moments)
def test_prefixes_part_time_as_the_standard_says(value: str, moment: dt.datetime) -> None:
    """eq, lt and gt exclude each other and leave nothing over; ne, ge, le, sa and eb follow from them."""
    eq, ne, gt, lt, ge, le, sa, eb = (
        matches(f"{prefix}{value}", moment) for prefix in ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb")
    )
    assert [eq, gt, lt].count(True) == 1
    assert ne is not eq
    assert ge is (eq or gt)
    assert le is (eq or lt)
    assert (sa, eb) == (gt, lt)
    assert matches(value, moment) is eq


@given(moments)
def test_every_precision_of_a_moment_finds_it(moment: dt.datetime) -> None:
    """A moment written shorter and shorter still spans itself."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S")
    for value in (text[:4], text[:7], text[:10], f"{text[:16]}Z", f"{text}Z", f"{text}.{moment.microsecond:06}Z"):
        assert matches(value, moment)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "20261120",
        "2026-13",
        "2026-02-30",
        "2026-11-20T10",
        "2026-11-20T25:00",
        "2026-11-20T10:30:60Z",
        "2026-11-20T10:30+01:99",
        "0000",
        "ap2026",
        "xx2026",
        "２０２６",
        "9999-12-31",
    ],
)
def test_what_is_no_date_is_an_error(value: str) -> None:
    """The caller is told, instead of being given everything or nothing."""
    with pytest.raises(QueryError):
        parse_date(value, dt.UTC)
