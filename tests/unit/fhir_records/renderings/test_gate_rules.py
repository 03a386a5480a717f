"""The gate, rule by rule: what breaks an object in one way is noticed, and there is no rule that nothing breaks."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fhir_records.renderings import conformance
from fhir_records.renderings.conformance import faults_of
from fhir_records.renderings.conformance.values import AS_IN_THE_SOURCE
from tests.conformance_matrix.written import Written
from tests.unit.fhir_records.renderings.broken_objects import (
    Broken,
    whole_objects,
    with_other_trees,
    with_strangers,
    with_values_twice,
    with_wrong_values,
    without_attributes,
)

EVERY = 4
PACKAGE = Path(conformance.__file__).parent
FOUND: set[str] = set()  # every fault that the tests here have brought about


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Written]:
    """Objects of every kind, in which nobody finds a fault."""
    made = whole_objects(tmp_path_factory.mktemp("images"))
    assert len({one.kind for one in made}) == 7
    assert [(one.kind, one.state, faults_of(one.content)) for one in made if faults_of(one.content)] == []
    return made


def unnoticed(objects: list[Written], breaks: Callable[[bytes], Iterator[Broken]]) -> tuple[list[str], int]:
    """Which broken objects pass, and how many were tried: every fourth, the rest is the matrix's long run."""
    passed, tried = [], 0
    for one in objects:
        for broken in itertools.islice(breaks(one.content), 1, None, EVERY):
            tried += 1
            found = faults_of(broken.content)
            FOUND.update(found)
            if not found:
                passed.append(f"{one.kind} of a result that is {one.state}: {broken.what}")
    return passed, tried


def test_whatever_must_be_there_is_missed(objects: list[Written]) -> None:
    """Every attribute of type 1 or 2, at any depth, and every value of type 1."""
    passed, tried = unnoticed(objects, without_attributes)
    assert passed == [] and tried > 200


def test_wrong_values_are_noticed(objects: list[Written]) -> None:
    """Every coded, dated or numbered value, but those that come from the source."""
    from_the_source = AS_IN_THE_SOURCE | {"ReferencedSOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"}
    passed, tried = unnoticed(objects, lambda content: with_wrong_values(content, from_the_source))
    assert passed == [] and tried > 70


def test_too_many_values_and_items_are_noticed(objects: list[Written]) -> None:
    """Every value that may stand once, and every sequence of one item."""
    passed, tried = unnoticed(objects, lambda content: with_values_twice(content, AS_IN_THE_SOURCE))
    assert passed == [] and tried > 70


def test_what_has_no_place_is_noticed(objects: list[Written]) -> None:
    """An attribute that is none of the IOD's, or a private one, in the object or any of its items."""
    passed, tried = unnoticed(objects, with_strangers)
    assert passed == [] and tried > 70


def test_every_row_of_the_templates_is_held_to(objects: list[Written]) -> None:
    """Content items that are missing, doubled, related otherwise, of another type, or without a name."""
    passed, tried = unnoticed(objects, with_other_trees)
    assert passed == [] and tried > 70


def rules() -> dict[str, str]:
    """Every sentence that the gate has for a fault, as a pattern, with where it stands."""
    found = {}
    for path in sorted(PACKAGE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            said = node.value if isinstance(node, ast.Yield) else None
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "append":
                said = node.args[0]
            if isinstance(said, ast.Constant | ast.JoinedStr):
                parts = said.values if isinstance(said, ast.JoinedStr) else [said]
                pattern = "".join(
                    re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".*" for part in parts
                )
                found[pattern] = f"{path.name}:{node.lineno}"
    return found
