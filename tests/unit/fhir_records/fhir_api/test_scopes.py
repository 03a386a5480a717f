from __future__ import annotations

import pytest

from fhir_records.errors import QueryError
from fhir_records.store.tokens import allows, check_scope


@pytest.mark.parametrize(
    "scope",
    ["system/*.rs", "system/Observation.r", "system/Patient.s system/Observation.rs", "  system/*.r   system/*.s "],
)
def test_scopes_of_smart_v2_are_taken(scope: str) -> None:
    """Levels, types and rights as SMART writes them, several parted by spaces."""
    assert check_scope(scope) == " ".join(scope.split())


@pytest.mark.parametrize(
    ("scope", "word"),
    [
        ("", "needs a scope"),
        ("system/*.read", "SMART v1"),
        ("system/*.*", "SMART v1"),
        ("user/*.rs", "person"),
        ("patient/*.rs", "person"),
        ("launch/*.rs", "level"),
        ("system/*.cruds", "change or delete"),
        ("system/*.sr", "order"),
        ("system/*.rr", "order"),
        ("system/*.", "not one"),
        ("system/*", "not one"),
        ("openid", "not one"),
        ("system/Observation.rs?category=imaging", "narrows"),
        ("system/Medication.rs", "not served"),
        ("system/*.rs, system/Patient.r", "not one"),
    ],
)
def test_other_scopes_are_refused_in_words(scope: str, word: str) -> None:
    """Nothing is granted by guess."""
    with pytest.raises(QueryError, match=word):
        check_scope(scope)


@pytest.mark.parametrize(
    ("scope", "type", "interaction", "answer"),
    [
        ("system/*.rs", "Patient", "read", True),
        ("system/*.rs", "Patient", "search-type", True),
        ("system/*.rs", "Patient", "update", False),
        ("system/Observation.r", "Observation", "read", True),
        ("system/Observation.r", "Observation", "search-type", False),
        ("system/Observation.r", "Patient", "read", False),
        ("system/Patient.s system/Observation.r", "Patient", "search-type", True),
        ("user/*.rs", "Patient", "read", False),
        ("", "Patient", "read", False),
    ],
)
def test_a_scope_covers_what_it_says(scope: str, type: str, interaction: str, answer: bool) -> None:
    """Type and interaction must both be covered, by one part of the scope."""
    assert allows(scope, type, interaction) is answer
