"""Walks a document's content tree and holds it to a template: each item one row, each row as often as it may be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydicom.dataset import Dataset

from fhir_records.renderings.conformance.enumerated import ENUMERATED

CodePair = tuple[str, str]  # coding scheme designator, code value

# What an item of each value type must hold (PS3.3 sections C.17.3 and C.18).
_HOLDS: Final = {
    "TEXT": "TextValue",
    "CODE": "ConceptCodeSequence",
    "NUM": "MeasuredValueSequence",
    "UIDREF": "UID",
    "PNAME": "PersonName",
    "DATE": "Date",
    "TIME": "Time",
    "DATETIME": "DateTime",
    "IMAGE": "ReferencedSOPSequence",
    "COMPOSITE": "ReferencedSOPSequence",
    "SCOORD": "GraphicData",
    "CONTAINER": "ContinuityOfContent",
}
# What an item of any value type may have, what one of each type may have beside it, and what stands in their sequences.
_MAY_HOLD: Final = frozenset(
    {"RelationshipType", "ValueType", "ConceptNameCodeSequence", "ContentSequence", "ObservationDateTime"}
)
_MAY_HOLD_TOO: Final = {
    "CONTAINER": frozenset({"ContentTemplateSequence"}),
    "NUM": frozenset({"NumericValueQualifierCodeSequence"}),
    "SCOORD": frozenset({"GraphicType", "PixelOriginInterpretation", "FiducialUID"}),
}
_CODE: Final = frozenset(
    {"CodeValue", "LongCodeValue", "URNCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning"}
)
_IN_SEQUENCES: Final = {
    "ConceptNameCodeSequence": _CODE,
    "ConceptCodeSequence": _CODE,
    "MeasurementUnitsCodeSequence": _CODE,
    "NumericValueQualifierCodeSequence": _CODE,
    "MeasuredValueSequence": frozenset({"NumericValue", "FloatingPointValue", "MeasurementUnitsCodeSequence"}),
    "ContentTemplateSequence": frozenset({"MappingResource", "MappingResourceUID", "TemplateIdentifier"}),
    "ReferencedSOPSequence": frozenset(
        {"ReferencedSOPClassUID", "ReferencedSOPInstanceUID", "ReferencedFrameNumber", "ReferencedSegmentNumber"}
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a template (PS3.16 section 6.1): what may stand below an item, how often, and what below it."""

    name: str  # for people: "TID 1501, Tracking Identifier"
    relationship: str
    value_types: frozenset[str]
    concepts: frozenset[CodePair] | None = None  # None: any
    least: int = 0
    most: int | None = 1  # None: any number
    values: frozenset[CodePair] | None = None  # allowed answers of a CODE, None: any
    units: frozenset[CodePair] | None = None  # allowed units of a NUM, None: any
    children: tuple[Row, ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """A root template: the document's own container."""

    identifier: str
    titles: frozenset[CodePair] | None
    rows: tuple[Row, ...]
    some_of: tuple[frozenset[str], ...] = field(default=())  # of these rows, by name, at least one each


def pair(item: Dataset) -> CodePair:
    """The code of a code sequence's item."""
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue")
    return str(item.get("CodingSchemeDesignator") or ""), str(value or "")


def concept_of(item: Dataset) -> CodePair | None:
    """The concept name of a content item, None where it has none."""
    names = item.get("ConceptNameCodeSequence")
    return pair(names[0]) if names else None


def tree_faults(ds: Dataset, template: Template) -> Iterator[str]:
    """Where the document's tree is not as the template has it."""
    said = ds.get("ContentTemplateSequence") or [Dataset()]
    if said[0].get("TemplateIdentifier") != template.identifier or said[0].get("MappingResource") != "DCMR":
        yield f"ContentTemplateSequence does not name TID {template.identifier} of DCMR."
    if ds.get("ValueType") != "CONTAINER":
        yield "The root of the content tree is not a CONTAINER."
    if template.titles is not None and concept_of(ds) not in template.titles:
        yield f"TID {template.identifier}: the document's title is none that the template allows."
    yield from _children(ds, template.rows, "")
    present = {_row(item, template.rows) for item in ds.get("ContentSequence") or ()}
    names = {row.name for row in present if row is not None}
    for group in template.some_of:
        if not group & names:
            yield f"None of these is there: {', '.join(sorted(group))}."


def _children(item: Dataset, rows: Sequence[Row], path: str) -> Iterator[str]:
    counts: Counter[str] = Counter()
    for number, child in enumerate(item.get("ContentSequence") or (), start=1):
        place = f"{path}{number}"
        yield from _form(child, place)
        row = _row(child, rows)
        if row is None:
            yield f"Content item {place} fits no row of its template."
            continue
        counts[row.name] += 1
        yield from _answer(child, row, place)
        yield from _children(child, row.children, f"{place}.")
    for row in rows:
        count = counts[row.name]
        if count < row.least:
            yield f"{row.name}: there {'is' if count == 1 else 'are'} {count} of at least {row.least}{_below(path)}."
        if row.most is not None and count > row.most:
            yield f"{row.name}: there are {count} of at most {row.most}{_below(path)}."


def _below(path: str) -> str:
    return f" below content item {path.rstrip('.')}" if path else ""


def _row(item: Dataset, rows: Sequence[Row]) -> Row | None:
    concept = concept_of(item)
    for row in rows:
        fits = item.get("ValueType") in row.value_types and item.get("RelationshipType") == row.relationship
        if fits and (row.concepts is None or concept in row.concepts):
            return row
    return None


def _form(item: Dataset, place: str) -> Iterator[str]:
    """What every content item has, and nothing beside it (PS3.3 section C.17.3)."""
    kind = item.get("ValueType")
    holds = _HOLDS.get(str(kind))
    if holds is None:
        yield f"Content item {place} is of a value type that Wetread does not write."
    elif holds not in item or item[holds].is_empty:
        yield f"Content item {place} of type {kind} has no {holds}."
    allowed = _MAY_HOLD | _MAY_HOLD_TOO.get(str(kind), frozenset()) | ({holds} if holds else set())
    yield from _strangers(item, frozenset(allowed), place)
    names = item.get("ConceptNameCodeSequence")
    if not names:
        if kind not in ("IMAGE", "COMPOSITE") or "ConceptNameCodeSequence" in item:
            yield f"Content item {place} has no concept name."
    elif not _is_code(names[0]):
        yield f"The concept name of content item {place} is not a whole code."
    if kind == "CONTAINER" and item.get("ContinuityOfContent") not in ENUMERATED["ContinuityOfContent"]:
        yield f"Content item {place} does not say whether its content is separate or continuous."
    if kind in ("IMAGE", "COMPOSITE") and len(item.get("ReferencedSOPSequence") or ()) > 1:
        yield f"Content item {place} refers to several objects and may refer to one."
    if "ContentTemplateSequence" in item and not _names_template(item):
        yield f"Content item {place} does not name its template whole."
    answer = item.get("ConceptCodeSequence")
    if kind == "CODE" and answer and not _is_code(answer[0]):
        yield f"The answer of content item {place} is not a whole code."


def _strangers(item: Dataset, allowed: frozenset[str], place: str) -> Iterator[str]:
    for element in item:
        if element.keyword not in allowed:
            yield f"{element.keyword or element.tag} is not an attribute of content item {place}."
        elif element.VR == "SQ" and element.keyword != "ContentSequence":
            for inner in element.value or ():
                yield from _strangers(inner, _IN_SEQUENCES[element.keyword], place)


def _names_template(item: Dataset) -> bool:
    said = item.get("ContentTemplateSequence") or [Dataset()]
    return said[0].get("MappingResource") == "DCMR" and bool(said[0].get("TemplateIdentifier"))


def _is_code(item: Dataset) -> bool:
    return all(pair(item)) and 0 < len(str(item.get("CodeMeaning") or "")) <= 64


def _answer(item: Dataset, row: Row, place: str) -> Iterator[str]:
    codes, measured = item.get("ConceptCodeSequence"), item.get("MeasuredValueSequence")
    if row.values is not None and codes and pair(codes[0]) not in row.values:
        yield f"{row.name}: the answer of content item {place} is none that the template allows."
    if row.units is not None and measured:
        units = measured[0].get("MeasurementUnitsCodeSequence") or [Dataset()]
        if pair(units[0]) not in row.units:
            yield f"{row.name}: content item {place} is in a unit that the template does not allow."
