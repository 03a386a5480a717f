from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_records.errors import QueryError
from fhir_records.fhir_api.parameters import PARAMETERS, Column
from fhir_records.fhir_api.search import (
    BY_CHANGE,
    DateClause,
    PatientClause,
    Sort,
    Token,
    TokenClause,
    WordClause,
    parse_query,
    write_cursor,
)

BASE = "http://wetread.example/fhir"
words = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)


def escaped(text: str) -> str:
    for character in "\\,|$":
        text = text.replace(character, f"\\{character}")
    return text


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("A1", Token(None, "A1")),
        ("urn:oid:1.2|A1", Token("urn:oid:1.2", "A1")),
        ("|A1", Token("", "A1")),
        ("urn:oid:1.2|", Token("urn:oid:1.2", None)),
        (r"a\|b", Token(None, "a|b")),
        (r"a\,b", Token(None, "a,b")),
        (r"a\\", Token(None, "a\\")),
        ("s|a|b", Token("s", "a|b")),
    ],
)
def test_a_token_is_read_in_each_of_its_forms(value: str, token: Token) -> None:
    """VALUE, SYSTEM|VALUE, |VALUE, SYSTEM| and escaped separators."""
    assert parse_query("Patient", [("identifier", value)]).clauses == (TokenClause(Column.IDENTIFIERS, (token,)),)


@given(st.lists(st.tuples(st.none() | words, words), min_size=1, max_size=4))
def test_escaped_tokens_come_back_as_they_were(tokens: list[tuple[str | None, str]]) -> None:
    """Whatever is in system and value, escaping it carries it through commas and bars."""
    value = ",".join(
        escaped(code) if system is None else f"{escaped(system)}|{escaped(code)}" for system, code in tokens
    )
    (clause,) = parse_query("Observation", [("code", value)]).clauses
    assert clause == TokenClause(Column.CODES, tuple(Token(system, code) for system, code in tokens))


def test_repeats_are_and_and_commas_are_or() -> None:
    """Two parameters make two clauses; two values make one clause with a choice."""
    query = parse_query("Observation", [("code", "a,b"), ("code", "c"), ("status", "final,preliminary")])
    assert query.clauses == (
        TokenClause(Column.CODES, (Token(None, "a"), Token(None, "b"))),
        TokenClause(Column.CODES, (Token(None, "c"),)),
        WordClause(Column.STATUS, ("final", "preliminary")),
    )


def test_a_status_may_name_its_own_system_and_no_other() -> None:
    """The system of a `code` element is known; another one finds nothing."""
    own, other = (
        parse_query("Observation", [("status", f"{system}|final")]).clauses
        for system in ("http://hl7.org/fhir/observation-status", "http://example.org")
    )
    assert own == (WordClause(Column.STATUS, ("final",)),)
    assert other == (WordClause(Column.STATUS, ()),)


@pytest.mark.parametrize("value", ["p1", "Patient/p1", f"{BASE}/Patient/p1"])
@pytest.mark.parametrize("name", ["patient", "subject", "subject:Patient"])
def test_a_patient_is_given_by_id_reference_or_address(name: str, value: str) -> None:
    """All forms of a reference to a Patient of this server mean the same."""
    assert parse_query("Observation", [(name, value)], base_url=BASE).clauses == (PatientClause(("p1",)),)


@pytest.mark.parametrize(
    ("type", "name", "value"),
    [
        ("Observation", "patient", "Group/1"),
        ("Observation", "patient", "http://elsewhere.example/fhir/Patient/1"),
        ("Observation", "date", "yesterday"),
        ("Observation", "code", "|"),
        ("Observation", "code", ",,"),
        ("Observation", "code:not", "a"),
        ("Observation", "code", "a\x00b"),
        ("Observation", "code", ",".join("x" * 201)),
        ("Observation", "_count", "-1"),
        ("Observation", "_count", "many"),
        ("Observation", "_count", "²"),
        ("Observation", "_cursor", "!!"),
        ("Observation", "_cursor", base64.urlsafe_b64encode(b"[1,2,3]").decode()),
        ("Observation", "_cursor", base64.urlsafe_b64encode(b'["_lastUpdated","now","x"]').decode()),
        ("Observation", "_cursor", base64.urlsafe_b64encode(b'["_lastUpdated","2026-01-01","x"]').decode()),
        (
            "Observation",
            "_cursor",
            base64.urlsafe_b64encode(b'["_lastUpdated","2026-01-01T00:00Z","\\u0000"]').decode(),
        ),
    ],
)
def test_a_value_that_cannot_be_understood_is_an_error(type: str, name: str, value: str) -> None:
    """Neither everything nor nothing answers a question that was not understood; the value is not quoted."""
    with pytest.raises(QueryError) as caught:
        parse_query(type, [(name, value)])
    assert len(value) < 4 or value not in str(caught.value)


def test_unknown_parameters_are_listed_and_left_out_of_the_links() -> None:
    """The caller's Prefer decides what they mean."""
    query = parse_query("Device", [("colour", "red"), ("status", "active"), ("_sort", "colour"), ("patient", "1")])
    assert query.ignored == ("colour", "_sort", "patient")
    assert query.used == (("status", "active"),)


def test_formats_and_empty_values_do_not_search() -> None:
    """_format, _pretty and a parameter without value neither search nor count as unknown."""
    query = parse_query("Patient", [("_format", "json"), ("_pretty", "true"), ("identifier", "")])
    assert (query.clauses, query.used, query.ignored) == ((), (), ())


@pytest.mark.parametrize(("value", "count"), [("0", 0), ("7", 7), ("200", 200), ("100000", 200)])
def test_count_is_capped(value: str, count: int) -> None:
    """No page holds more than 200 resources; 0 asks for the total only."""
    assert parse_query("Patient", [("_count", value)]).count == count


def test_summary_count_is_the_same_as_count_0() -> None:
    """R4 3.1.1.5.6."""
    assert parse_query("Patient", [("_summary", "count")]).count == 0


def test_a_cursor_fits_only_its_own_order() -> None:
    """A cursor of one order is refused in another."""
    cursor = write_cursor(BY_CHANGE, "2026-01-01T00:00:00+00:00", "x")
    found = parse_query("Observation", [("_cursor", cursor)]).cursor
    assert found is not None
    assert (found.key, found.id) == ("2026-01-01T00:00:00+00:00", "x")
    with pytest.raises(QueryError):
        parse_query("Observation", [("_cursor", cursor), ("_sort", "-_lastUpdated")])


def test_sorts_by_what_can_be_sorted() -> None:
    """Time of change, date and id, up and down."""
    assert parse_query("Observation", [("_sort", "-date")]).sort == Sort("date", Column.DATE, descending=True)
    assert parse_query("ImagingStudy", [("_sort", "started")]).sort == Sort("started", Column.DATE)
    assert parse_query("Patient", [("_sort", "_id")]).sort == Sort("_id", Column.ID)


@given(
    st.lists(st.tuples(st.sampled_from(["code", "date", "_count", "_sort", "_cursor", "_id", "x"]), words), max_size=4)
)
def test_any_query_is_understood_or_refused(pairs: list[tuple[str, str]]) -> None:
    """Nothing that a client sends makes the parser fail otherwise."""
    try:
        query = parse_query("Observation", pairs)
    except QueryError:
        return
    assert json.dumps(query.used)


@pytest.mark.parametrize("type", PARAMETERS)
def test_every_parameter_of_the_table_can_be_parsed(type: str) -> None:
    """What the CapabilityStatement tells, the parser understands."""
    samples = {"token": "a", "date": "2026", "reference": "1"}
    for parameter in PARAMETERS[type]:
        query = parse_query(type, [(parameter.name, samples[parameter.kind])])
        assert len(query.clauses) == 1
        assert not query.ignored
        assert isinstance(query.clauses[0], DateClause | PatientClause | TokenClause | WordClause)
