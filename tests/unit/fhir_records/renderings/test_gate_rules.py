"""The gate, rule by rule: what breaks an object in one way is noticed, and there is no rule that nothing breaks."""

from __future__ import annotations

import ast
import re
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from fhir_records.renderings import conformance, kinds
from fhir_records.renderings.conformance import faults_of
from tests.conformance_matrix.written import Written
from tests.unit.fhir_records.renderings import test_conformance
from tests.unit.fhir_records.renderings.broken_objects import WAYS, whole_objects
from tests.unit.fhir_records.renderings.test_conformance import Change, changed, image, item, items, put_in

PACKAGE = Path(conformance.__file__).parent
EVERY = 6  # one broken object in so many is tried


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of the objects that were broken in one way."""

    count: int
    unnoticed: tuple[str, ...]
    faults: frozenset[str]


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> list[Written]:
    """Objects of every kind, in which nobody finds a fault."""
    made = whole_objects(tmp_path_factory.mktemp("images"))
    assert len({one.kind for one in made}) == 9
    assert [(one.kind, one.state, faults_of(one.content)) for one in made if faults_of(one.content)] == []
    return made


@pytest.fixture(scope="module")
def tried(objects: list[Written]) -> dict[str, Tried]:
    """Every sixth broken object before the gate, by the way in which they are broken."""
    found = {}
    for way, breaks in WAYS.items():
        broken = [(one, wrong) for one in objects for wrong in breaks(one.content)][::EVERY]
        faults = [faults_of(wrong.make()) for _, wrong in broken]
        unnoticed = [
            f"{one.kind} of a result that is {one.state}: {wrong.what}"
            for (one, wrong), said in zip(broken, faults, strict=True)
            if not said
        ]
        found[way] = Tried(len(broken), tuple(unnoticed), frozenset().union(*faults))
    return found


@pytest.mark.parametrize("way", WAYS)
def test_whatever_is_wrong_is_noticed(tried: dict[str, Tried], way: str) -> None:
    """Attributes missing or empty, values wrong or too many, strangers, and content items that fit no template."""
    assert tried[way].unnoticed == ()
    assert tried[way].count > 40


def own_image(ds: Dataset) -> None:
    """Let a key image be the document itself."""
    image(ds).ReferencedSOPInstanceUID = ds.SOPInstanceUID


def measure_nothing(ds: Dataset) -> None:
    """Leave the segment's volume away."""
    groups = [one for one in items(ds) if one.ValueType == "CONTAINER" and item_in(one, "121191")]
    groups[0].ContentSequence = [one for one in groups[0].ContentSequence if one.ValueType != "NUM"]


def say_presence_again(ds: Dataset) -> None:
    """Let the segment's group say what its finding's group says."""
    said = next(
        one for one in items(ds) if one.ValueType == "CODE" and one.ConceptCodeSequence[0].CodeValue == "52101004"
    )
    group = next(one for one in items(ds) if one.ValueType == "CONTAINER" and item_in(one, "121191"))
    group.ContentSequence.append(deepcopy(said))


def item_in(group: Dataset, code: str) -> bool:
    """Whether one of the group's own items has this concept."""
    children = group.get("ContentSequence") or ()
    return any(
        child.ConceptNameCodeSequence[0].CodeValue == code for child in children if "ConceptNameCodeSequence" in child
    )


def say_no_site(ds: Dataset) -> None:
    """Leave away where the finding is."""
    group = next(one for one in items(ds) if one.ValueType == "CONTAINER" and item_in(one, "363698007"))
    group.ContentSequence = [
        one for one in group.ContentSequence if one.ConceptNameCodeSequence[0].CodeValue != "363698007"
    ]


def observed_by_nobody(ds: Dataset) -> None:
    """Let a person have said it who has no name."""
    observer = deepcopy(item(ds, "121005"))
    observer.ConceptCodeSequence[0].CodeValue = "121006"
    group = next(one for one in items(ds) if one.ValueType == "CONTAINER" and item_in(one, "363698007"))
    group.ContentSequence = [observer, *group.ContentSequence]


def refer_by_reference(ds: Dataset) -> None:
    """Let an item stand in two places."""
    again = Dataset()
    again.RelationshipType, again.ReferencedContentItemIdentifier = "INFERRED FROM", [1, 1]
    next(one for one in items(ds) if one.ValueType == "NUM").ContentSequence = [again]


def observe_unsigned(ds: Dataset) -> None:
    """Name a verifying observer in a document that nobody has signed."""
    ds.VerifyingObserverSequence = [Dataset()]


OF_A_REPORT: list[tuple[Change, str]] = [
    (lambda ds: setattr(ds.file_meta, "TransferSyntaxUID", ImplicitVRLittleEndian), "not Explicit VR Little Endian"),
    (lambda ds: setattr(item(ds, "121005").ConceptCodeSequence[0], "CodeValue", "121006"), "observer has no name"),
    (lambda ds: setattr(item(ds, "121071").ConceptCodeSequence[0], "CodeMeaning", ""), "is not a whole code"),
    (lambda ds: setattr(item(ds, "126010"), "ContinuityOfContent", "NEITHER"), "separate or continuous"),
    (lambda ds: setattr(item(ds, "121012"), "UID", "2.25.4"), "names another algorithm than"),
    (lambda ds: ds.ContributingEquipmentSequence.clear(), "does not name the algorithm"),
    (lambda ds: delattr(ds.ContributingEquipmentSequence[0], "DeviceUID"), "does not say the algorithm's DeviceUID"),
    (own_image, "refers to itself"),
    (measure_nothing, "measures nothing"),
    (say_presence_again, "its own group does"),
    (observed_by_nobody, "the person observer of a measurement group has no name"),
    (say_no_site, "has no finding site"),
    (observe_unsigned, "in a document that is not verified"),
    (put_in("SpecificCharacterSet", "ISO_IR 999"), "none of the defined terms"),
]  # fmt: skip
OF_AN_ENHANCED_REPORT: list[tuple[Change, str]] = [(refer_by_reference, "relationships by value alone")]
OF_A_SEGMENTATION: list[tuple[Change, str]] = [
    (lambda ds: setattr(ds.SegmentSequence[0], "SegmentNumber", 7), "does not count the items"),
    (lambda ds: ds.SegmentSequence.pop(), "that SegmentSequence does not have"),
    (put_in("ImageType", ["DERIVED", "PRIMARY", "OTHER"]), "ImageType has not 2 values"),
]
BY_HAND = [
    *((kinds.SR, change, fault) for change, fault in OF_A_REPORT),
    *((f"{kinds.SR}_enhanced", change, fault) for change, fault in OF_AN_ENHANCED_REPORT),
    *((kinds.SEGMENTATION, change, fault) for change, fault in OF_A_SEGMENTATION),
]


def broken_by_hand(objects: list[Written], kind: str, change: Change) -> tuple[str, ...]:
    """What the gate finds in the outlined result's object of this kind after the change."""
    return faults_of(changed(next(one for one in objects if (one.kind, one.state) == (kind, "outlined")), change))


@pytest.mark.parametrize(("kind", "change", "fault"), BY_HAND)
def test_what_no_table_tells(objects: list[Written], kind: str, change: Change, fault: str) -> None:
    """Rules about what belongs together, each broken by hand."""
    found = broken_by_hand(objects, kind, change)
    assert any(fault in one for one in found), found


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
                words = [re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".*" for part in parts]
                found["".join(words)] = f"{path.name}:{node.lineno}"
    return found


def test_no_rule_is_untried(objects: list[Written], tried: dict[str, Tried]) -> None:
    """Each sentence that the gate has was said of an object that was broken here, or in the tests beside these."""
    said = set().union(*(one.faults for one in tried.values()))
    for kind, change, _ in BY_HAND:
        said.update(broken_by_hand(objects, kind, change))
    for kind, change, _ in test_conformance.BROKEN:
        said.update(faults_of(changed(test_conformance.objects()[kind], change)))
    assert len(rules()) > 60
    assert {where for rule, where in rules().items() if not any(re.fullmatch(rule, one) for one in said)} == set()
