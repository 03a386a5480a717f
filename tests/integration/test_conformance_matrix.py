"""The conformance matrix, as much of it as is quick: every kind of source, each with one or two states of a result."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from pydicom import dcmread

from fhir_records.renderings import kinds
from tests.conformance_matrix.checkers import Verdict, verdict_of, verdicts_of
from tests.conformance_matrix.ledger import Judged, Ledger
from tests.conformance_matrix.sources import FAULTY, GROUPS, KINDS, Source, files, made_up, some_of
from tests.conformance_matrix.table import NAMES
from tests.conformance_matrix.written import NOTE, STATES, states_of, written
from tests.unit.markdown import section

DOCS = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
MOST = 8  # sources of a group


@pytest.fixture(scope="module")
def sources(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    """Every source of the whole matrix."""
    return [*files(test_data), *made_up(tmp_path_factory.mktemp("images"))]


@pytest.mark.parametrize("group", GROUPS)
def test_every_kind_of_source(sources: list[Source], tmp_path: Path, group: str) -> None:
    """Every object about it is faultless in the eyes of dciodvfy, DCMTK, highdicom, pydicom and our own gate."""
    wrong, written_as = [], set()
    few = group in ("files of sr_tid1500", "whole series")
    for number, source in enumerate(some_of([one for one in sources if one.group == group], MOST)):
        known, like = source.known(), source.evidence()[0]
        for one in written(source, states_of(number, 1)):
            written_as.add(one.kind)
            verdict = verdict_of(one.content, tmp_path, known, like)
            if not verdict.is_clean:
                wrong.append((source.name, one.kind, one.state, verdict))
    assert wrong == []
    assert len(written_as) >= (3 if few else 6)


def test_the_sources_are_many(sources: list[Source]) -> None:
    """Every modality, script and gap is among them, and every file of the test data that is an image."""
    assert {one.group for one in sources} == set(GROUPS)
    names = {one.name for one in sources}
    assert {*KINDS, *FAULTY} <= names
    scripts = {name.split(",")[0] for name in names}
    assert {"Latin", "Cyrillic", "Greek", "Arabic", "Hebrew", "Thai", "Japanese", "Korean", "Chinese"} <= scripts


def test_each_object_gets_its_own_verdict(sources: list[Source], tmp_path: Path) -> None:
    """Of several objects that DCMTK is shown at once, what it says of one is held against that one alone."""
    source = next(one for one in sources if one.name == "MR")
    good = next(one.content for one in written(source, ("absent",)) if one.kind == kinds.SR)
    ds = dcmread(io.BytesIO(good))
    del ds.ContentSequence[0].ValueType
    with io.BytesIO() as file:
        ds.save_as(file)
        bad = file.getvalue()
    first, second, third = verdicts_of([good, bad, good], tmp_path, source.known(), source.evidence()[0])
    assert first.is_clean and third.is_clean
    assert any("ValueType" in line for line in second.dcmtk), second


def test_a_name_that_is_wrong_in_the_source_is_passed_on(sources: list[Source], tmp_path: Path) -> None:
    """Who the patient is stays as it came: what DCMTK says of a name with too many parts is the source's."""
    source = next(one for one in sources if one.name == "name with too many parts")
    content = next(one.content for one in written(source, ("absent",)) if one.kind == kinds.SR)
    verdict = verdict_of(content, tmp_path, source.known(), source.evidence()[0])
    assert verdict.is_clean and any("PatientName" in line for line in verdict.passed_on)
    # Of a source that has it right, the same is a fault of ours.
    assert verdict_of(content, tmp_path, frozenset(), source.evidence()[0]).dcmtk


def test_a_run_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """What is whole in the ledger is done; a last line that was cut off is not, and does not spoil the next."""
    ledger = Ledger(tmp_path / "ledger")
    clean, faulty = (Verdict((), (), (), faults, (), (), ()) for faults in ((), ("a fault",)))
    found = [Judged("modalities", "MR", "dicom_sr", "absent", clean), Judged("modalities", "MR", "x", "y", faulty)]
    ledger.add("modalities", "MR", ("absent",), found)
    ledger.add("modalities", "CT", ("absent",), [])
    text = (tmp_path / "ledger").read_text(encoding="utf-8")
    (tmp_path / "ledger").write_text(text[:-5], encoding="utf-8")
    assert ledger.found() == {("modalities", "MR", ("absent",)): found}
    ledger.add("modalities", "CR", ("absent",), [])
    assert set(ledger.found()) == {("modalities", "MR", ("absent",)), ("modalities", "CR", ("absent",))}
    assert Ledger(None).found() == {}


def test_the_documented_matrix_is_this_one(sources: list[Source]) -> None:
    """The tables of the conformance statement have every kind, state and group, as many sources, and no fault."""
    text = section(DOCS.read_text(encoding="utf-8"), "9.5 How the objects were tried")
    by_kind, by_group = tables_of(text)
    rows = {(row[0], row[1]) for row in by_kind[:-1]}
    assert {kind for kind, _ in rows} == set(NAMES.values())
    assert {state for kind, state in rows if kind != NAMES[NOTE]} == set(STATES)
    for row in by_group[:-1]:
        tried, there_are = map(int, row[1].split(" of "))
        assert there_are == sum(one.group == row[0] for one in sources)
        assert min(MOST, there_are) <= tried <= there_are
    assert [row[0] for row in by_group[:-1]] == list(GROUPS)
    for row in (*by_kind, *by_group):
        objects, errors, warnings, _, *others = (int(cell.replace(",", "")) for cell in row[2:])
        assert objects > 0 and not errors and not warnings and not any(others), row
    assert by_kind[-1][2:] == by_group[-1][2:]


def tables_of(text: str) -> list[list[list[str]]]:
    """The rows of each table in the text."""
    found: list[list[list[str]]] = []
    for block in re.split(r"\n\n+", text):
        if block.startswith("|"):
            found.append([[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()[2:]])
    return found
