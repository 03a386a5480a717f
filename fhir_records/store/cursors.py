"""Where the next page of a list begins that is ordered by an instant and a number, the newest first."""

from __future__ import annotations

import datetime as dt

from fhir_records.errors import QueryError


def cursor(at: dt.datetime, number: int) -> str:
    """The last line of a page, as an address names it."""
    return f"{at.astimezone(dt.UTC):%Y%m%dT%H%M%S.%f}-{number}"


def position(text: str) -> tuple[dt.datetime, int]:
    """The line that a cursor names.

    Raises:
        QueryError: it is none of ours.
    """
    time, _, number = text.partition("-")
    try:
        at, line = dt.datetime.strptime(time, "%Y%m%dT%H%M%S.%f").replace(tzinfo=dt.UTC), int(number)
    except ValueError as error:
        raise QueryError("The page asked for does not exist; start again from the newest.") from error
    if not -(2**63) <= line < 2**63:
        raise QueryError("The page asked for does not exist; start again from the newest.")
    return at, line
