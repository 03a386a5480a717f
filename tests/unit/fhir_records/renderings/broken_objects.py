"""Faultless objects of every kind, each broken in one way after another, as a gate must notice it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydicom import config, dcmread
from pydicom.datadict import dictionary_VM
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from fhir_records.renderings.conformance.content_tree import Row, Template, concept_of
from fhir_records.renderings.conformance.enumerated import ENUMERATED
from fhir_records.renderings.conformance.iod import _tables
from fhir_records.renderings.conformance.key_object_template import TID_2010
from fhir_records.renderings.conformance.report_template import TID_1500
from fhir_records.renderings.conformance.values import _ONE_ITEM, AS_IN_THE_SOURCE
from tests.conformance_matrix.sources import made_up
from tests.conformance_matrix.written import Written, written

Step = str | int
Way = tuple[Step, ...]  # to an attribute: keywords, and indices of items

WRONG: Mapping[str, str] = {"CS": "no word!", "UI": "2.25.x", "DA": "2026-1-1", "TM": "25h", "DT": "now", "IS": "x"}


@dataclass(frozen=True, slots=True)
class Broken:
    """An object with one thing wrong."""

    what: str
    make: Callable[[], bytes]  # its file; it is made only where somebody looks


def whole_objects(folder: Path) -> list[Written]:
    """An object of each kind about one image, unsigned, outlined, corrected and refused."""
    source = next(one for one in made_up(folder) if one.name == "MR")
    found = written(source, ("outlined", "marked", "refused"))
    return [one for one in found if one.state == "outlined" or "dicom_sr" in (one.kind, one.state.split(",")[0][3:])]


def parsed(content: bytes) -> Dataset:
    """The object as a data set."""
    return dcmread(io.BytesIO(content))


def saved(ds: Dataset) -> bytes:
    """The data set as a file, whatever is wrong with it."""
    buffer = io.BytesIO()
    with config.disable_value_validation():
        ds.save_as(buffer, enforce_file_format=False)
    return buffer.getvalue()


def at(ds: Dataset, way: Way) -> Dataset:
    """The item that the way's last step is an attribute of."""
    item: Any = ds
    for step in way[:-1]:
        item = item[step].value if isinstance(step, str) else item[step]
    return item  # type: ignore[no-any-return]


def attributes(ds: Dataset, above: Way = ()) -> Iterator[tuple[Way, DataElement]]:
    """Every attribute, in the first and last item of each sequence."""
    for element in ds:
        yield (*above, element.keyword), element
        if element.VR == "SQ":
            for number in sorted({0, len(element.value) - 1} if element.value else ()):
                yield from attributes(element.value[number], (*above, element.keyword, number))


def type_of(ds: Dataset, way: Way) -> str:
    """The type of the attribute in the IOD's table; "" below the content tree, which has rules of its own."""
    if "ContentSequence" in way[:-1]:
        return ""
    tables = _tables()
    shape = tables["shapes"][tables["iods"][str(ds.SOPClassUID)]["shape"]]
    kind = ""
    for step in way:
        if isinstance(step, str):
            entry = shape.get(step, "")
            kind, inner = (entry[0], entry[1]) if isinstance(entry, list) else (entry, None)
            shape = tables["shapes"][inner] if inner is not None else {}
    return str(kind)


def changed(base: Dataset, way: Way, value: object = None, *, gone: bool = False) -> bytes:
    """The object with another value there, or none; `base` is left as it was."""
    item, keyword = at(base, way), way[-1]
    before = item[keyword]
    del item[keyword]
    if not gone:
        item[keyword] = DataElement(before.tag, before.VR, [] if before.VR == "SQ" else None)
        item[keyword]._value = Items(value or []) if before.VR == "SQ" else value  # type: ignore[call-overload]
    content = saved(base)
    item[keyword] = before
    return content


def without_attributes(content: bytes) -> Iterator[Broken]:
    """Each attribute of type 1 or 2 taken away, and each of type 1 left empty."""
    base = parsed(content)
    for way, element in list(attributes(base)):
        kind, name = type_of(base, way), ".".join(map(str, way))
        if kind in ("1", "2") and way != ("SOPClassUID",):
            yield Broken(f"{name}, type {kind}, is missing", partial(changed, base, way, gone=True))
        if kind in ("1", "1C") or (kind == "3" and element.VR == "SQ"):
            yield Broken(f"{name}, type {kind}, is empty", partial(changed, base, way))


def with_wrong_values(content: bytes, but: frozenset[str]) -> Iterator[Broken]:
    """Each value in a form that its representation does not allow; `but` are those that come from the source."""
    base = parsed(content)
    for way, element in list(attributes(base)):
        if element.VR in WRONG and element.keyword not in but and not element.is_empty:
            yield Broken(
                f"{'.'.join(map(str, way))} is wrong for {element.VR}", partial(changed, base, way, WRONG[element.VR])
            )
        if element.keyword in ENUMERATED and not element.is_empty:
            wrong = 77 if element.VR == "US" else "NONSENSE"
            yield Broken(
                f"{'.'.join(map(str, way))} is none of the enumerated values", partial(changed, base, way, wrong)
            )


def with_values_twice(content: bytes, but: frozenset[str]) -> Iterator[Broken]:
    """Each value of multiplicity 1 twice, and each sequence of one item with two."""
    base = parsed(content)
    for way, element in list(attributes(base)):
        single = element.VR in ("CS", "LO", "SH", "UI", "DA", "TM", "DT", "DS", "IS") and element.VM == 1
        if single and dictionary_VM(element.tag) == "1" and element.keyword not in but:
            twice: list[object] = [str(element.value)] * 2
        elif element.keyword in _ONE_ITEM or (element.keyword == "ReferencedSOPSequence" and "ContentSequence" in way):
            twice = [*element.value, *deepcopy(list(element.value))]
        else:
            continue
        yield Broken(f"{'.'.join(map(str, way))} is there twice", partial(changed, base, way, twice))


def with_strangers(content: bytes) -> Iterator[Broken]:
    """In the object and in each of its items an attribute that has no place there, and a private one."""
    base = parsed(content)
    ways = [(), *(way for way, element in attributes(base) if element.VR == "SQ" and element.value)]
    for way in ways:
        for tag in (0x00184000, 0x00091010):
            where = ".".join(map(str, way)) or "the object"
            yield Broken(f"an attribute {tag:08x} in {where}", partial(_with, base, way, tag))


def _with(base: Dataset, way: Way, tag: int) -> bytes:
    item = at(base, (*way, 0, "")) if way else base
    item.add_new(tag, "LT", "x")
    content = saved(base)
    del item[tag]
    return content


def with_other_trees(content: bytes) -> Iterator[Broken]:
    """A document's content items each taken away, doubled, related otherwise, of another type, of another concept."""
    base = parsed(content)
    if "ContentSequence" not in base:
        return
    template = TID_1500 if concept_of(base) in (TID_1500.titles or ()) else TID_2010
    for way, row, alone in _placed(base, template):
        for what, broken in _changes(base, way, row, alone):
            yield Broken(f"content item {'.'.join(map(str, way[1::2]))} {what}", broken)


def _placed(ds: Dataset, template: Template) -> Iterator[tuple[Way, Row, int]]:
    """Each content item's way, its row, and how many of the same row stand beside it."""

    def below(item: Dataset, rows: tuple[Row, ...], way: Way) -> Iterator[tuple[Way, Row, int]]:
        children = list(item.get("ContentSequence") or ())
        found = [next(row for row in rows if _fits(child, row)) for child in children]
        for number, (child, row) in enumerate(zip(children, found, strict=True)):
            here = (*way, "ContentSequence", number)
            yield here, row, found.count(row)
            yield from below(child, row.children, here)

    yield from below(ds, template.rows, ())


def _fits(item: Dataset, row: Row) -> bool:
    return (
        item.ValueType in row.value_types
        and item.RelationshipType == row.relationship
        and (row.concepts is None or concept_of(item) in row.concepts)
    )


def _changes(base: Dataset, way: Way, row: Row, alone: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
    index = way[-1]
    assert isinstance(index, int)

    items = list(at(base, way[:-1]).ContentSequence)

    def change(edit: str) -> bytes:
        item, others = deepcopy(items[index]), list(items)
        if edit == "missing":
            others.pop(index)
            return changed(base, way[:-1], others)
        if edit == "related":
            item.RelationshipType = "SUMMARIZES"
        elif edit == "typed":
            item.ValueType = "WAVEFORM"
        elif edit == "unnamed":
            item.ConceptNameCodeSequence = []
        elif edit == "half":
            item.ConceptNameCodeSequence[0].CodeValue = ""
        others[index : index + 1] = [items[index], item] if edit == "doubled" else [item]
        return changed(base, way[:-1], others)

    if alone == row.least:
        yield f"({row.name}) is missing", partial(change, "missing")
    if row.most is not None and alone == row.most:
        yield f"({row.name}) is there once too often", partial(change, "doubled")
    yield f"({row.name}) is related otherwise", partial(change, "related")
    yield f"({row.name}) is of another type", partial(change, "typed")
    if "ConceptNameCodeSequence" in at(base, (*way, "")):
        yield f"({row.name}) has an empty name", partial(change, "unnamed")
        yield f"({row.name}) has half a name", partial(change, "half")


# Every way of breaking an object; what the source says of patient and study, the gate lets be.
_GIVEN = AS_IN_THE_SOURCE | {"ReferencedSOPInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"}
WAYS: Mapping[str, Callable[[bytes], Iterator[Broken]]] = {
    "missing or empty": without_attributes,
    "wrong": lambda content: with_wrong_values(content, _GIVEN),
    "twice": lambda content: with_values_twice(content, AS_IN_THE_SOURCE),
    "out of place": with_strangers,
    "no template": with_other_trees,
}
