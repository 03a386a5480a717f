"""A search (R4 3.1.1) as data: parameters parsed and checked, ready for the store.

Repeats of a parameter are all to hold (AND), values parted by commas are choices (OR). What the server does not know is
listed in `Query.ignored`; whether that is an error is for the caller's ``Prefer: handling`` to say. A modifier that is
not served is always an error, as the standard demands: to leave it out would answer another question.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fhir_records.errors import QueryError
from fhir_records.fhir_api.dates import Interval, parse_date
from fhir_records.fhir_api.parameters import Column, Kind, Parameter, find_parameter

DEFAULT_COUNT: Final = 50
MAX_COUNT: Final = 200
MAX_VALUES: Final = 200  # of one parameter, parted by commas

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_NOT_SEARCHING: Final = frozenset({"_format", "_pretty"})  # how to answer, not what to find


@dataclass(frozen=True, slots=True)
class Token:
    """A value of a token parameter (R4 3.1.1.4.10)."""

    system: str | None  # None: any; "": it has none
    value: str | None  # None: any of the system


@dataclass(frozen=True, slots=True)
class TokenClause:
    """One of the codes or identifiers is there."""

    column: Column
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class WordClause:
    """Id or status is one of these words. None at all: nothing matches."""

    column: Column
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PatientClause:
    """The resource is about one of these patients, given by the ids of their Patient resources."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DateClause:
    """The date lies in one of the intervals."""

    column: Column
    intervals: tuple[Interval, ...]


Clause = TokenClause | WordClause | PatientClause | DateClause


@dataclass(frozen=True, slots=True)
class Sort:
    """The order of the answer; the id decides between equals."""

    name: str  # of the search parameter
    column: Column
    descending: bool = False

    @property
    def word(self) -> str:
        """As in ``_sort``."""
        return f"-{self.name}" if self.descending else self.name


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where the last page ended: sort key and id of its last resource."""

    key: str
    id: str


# Oldest change first, the default: what changes while a client is paging moves to the end, so the client may meet it
# twice but never misses it.
BY_CHANGE: Final = Sort("_lastUpdated", Column.LAST_UPDATED)


@dataclass(frozen=True, slots=True)
class Query:
    """A search of one resource type."""

    type: str
    clauses: tuple[Clause, ...] = ()  # all must hold
    count: int = DEFAULT_COUNT  # resources a page; 0: the total only
    sort: Sort = BY_CHANGE
    cursor: Cursor | None = None
    used: tuple[tuple[str, str], ...] = ()  # the parameters that were understood, as given: for the links
    ignored: tuple[str, ...] = ()  # names of those that were not


def parse_query(type: str, pairs: Sequence[tuple[str, str]], *, base_url: str = "", zone: dt.tzinfo = dt.UTC) -> Query:
    """The search that the parameters ask for.

    Args:
        type: a resource type in `PARAMETERS`.
        pairs: names and values, decoded, in the order of the request.
        base_url: our FHIR base, for references given as absolute URLs.
        zone: the site's time zone, meant by dates that name none.

    Raises:
        QueryError: a value cannot be understood, or a modifier is not served.
    """
    clauses: list[Clause] = []
    used: list[tuple[str, str]] = []
    ignored: list[str] = []
    count, sort, cursor_text = DEFAULT_COUNT, BY_CHANGE, None
    for name, value in pairs:
        if _CONTROL.search(value):
            raise QueryError("A search value has a control character in it.")
        if name in _NOT_SEARCHING or not value:
            continue
        if name == "_count":
            count = _count(value)
        elif name == "_summary" and value == "count":
            count = 0
        elif name == "_cursor":
            cursor_text = value
        elif name == "_sort" and (wanted := _sort(type, value)):
            sort = wanted
        elif clause := _clause(type, name, value, base_url, zone):
            clauses.append(clause)
        else:
            ignored.append(name)
            continue
        if name != "_cursor":
            used.append((name, value))
    cursor = _read_cursor(cursor_text, sort) if cursor_text else None
    return Query(type, tuple(clauses), count, sort, cursor, tuple(used), tuple(ignored))


def write_cursor(sort: Sort, key: str, id: str) -> str:
    """The opaque value of ``_cursor`` in a next link."""
    return base64.urlsafe_b64encode(json.dumps([sort.word, key, id]).encode()).decode().rstrip("=")


def _read_cursor(text: str, sort: Sort) -> Cursor:
    try:
        decoded = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        word, key, id = decoded
        if word != sort.word or not isinstance(key, str) or not isinstance(id, str) or _CONTROL.search(key + id):
            raise ValueError("cursor of another search")
        if sort.column is not Column.ID and dt.datetime.fromisoformat(key).tzinfo is None:
            raise ValueError("sort key without zone")
    except (ValueError, TypeError, binascii.Error, RecursionError) as error:
        raise QueryError("_cursor comes from a next link and fits only the search that gave it.") from error
    return Cursor(key, id)


def _count(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 9):
        raise QueryError(f"_count is a whole number from 0 to {MAX_COUNT}.")
    return min(int(value), MAX_COUNT)


def _sort(type: str, value: str) -> Sort | None:
    name = value.removeprefix("-")
    parameter = find_parameter(type, name)
    if parameter is None or parameter.column not in {Column.LAST_UPDATED, Column.DATE, Column.ID}:
        return None
    return Sort(name, parameter.column, descending=value.startswith("-"))


def _clause(type: str, name: str, value: str, base_url: str, zone: dt.tzinfo) -> Clause | None:
    """The clause that a parameter stands for; None where the type has no such parameter."""
    base, _, modifier = name.partition(":")
    parameter = find_parameter(type, base)
    if parameter is None:
        return None
    if modifier and not (parameter.kind is Kind.REFERENCE and modifier == "Patient"):
        raise QueryError(f"The parameter {base} is not served with the modifier :{modifier}.")
    values = [part for part in _split(value, ",") if part]
    if not values or len(values) > MAX_VALUES:
        raise QueryError(f"{base} takes 1 to {MAX_VALUES} values, parted by commas.")
    match parameter.kind:
        case Kind.DATE:
            spans = [span for part in values for span in parse_date(part, zone)]
            return DateClause(parameter.column, tuple(spans))
        case Kind.REFERENCE:
            return PatientClause(tuple(_patient(_unescape(part), base, base_url) for part in values))
        case Kind.TOKEN:
            return _tokens(parameter, [_token(part, base) for part in values])


def _tokens(parameter: Parameter, tokens: list[Token]) -> Clause:
    if parameter.column not in {Column.ID, Column.STATUS}:
        return TokenClause(parameter.column, tuple(tokens))
    # The element is a bare code or id: the system is known beforehand, and naming another one finds nothing.
    words = [token.value for token in tokens if token.system in {None, parameter.system} and token.value]
    return WordClause(parameter.column, tuple(words))


def _token(text: str, name: str) -> Token:
    first, *rest = _split(text, "|")
    if not rest:
        return Token(None, _unescape(first))
    system, value = _unescape(first), _unescape("|".join(rest))
    if not system and not value:
        raise QueryError(f"{name} takes VALUE, SYSTEM|VALUE, |VALUE or SYSTEM|.")
    return Token(system, value or None)


def _patient(text: str, name: str, base_url: str) -> str:
    relative = text.removeprefix(f"{base_url}/") if base_url else text
    id = relative.removeprefix("Patient/")
    if not id or "/" in id:
        raise QueryError(f"{name} takes ID, Patient/ID or the Patient's address on this server.")
    return id


def _split(text: str, separator: str) -> list[str]:
    """Split at the separator where no backslash stands before it (R4 3.1.1.4.0.2)."""
    parts, current, position = [], "", 0
    while position < len(text):
        if text[position] == "\\" and position + 1 < len(text):
            current += text[position : position + 2]
            position += 2
            continue
        if text[position] == separator:
            parts.append(current)
            current = ""
        else:
            current += text[position]
        position += 1
    return [*parts, current]


def _unescape(text: str) -> str:
    return re.sub(r"\\([\\,$|])", r"\1", text)
