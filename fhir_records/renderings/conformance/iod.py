"""Whether an object has the attributes of its IOD: all that must be there, with a value where one must be, no others.

The tables are made from PS3.3 (`iod_tables.json`): for each SOP class that we write the mandatory modules and the
optional ones that we fill, with each attribute's type. The conditions of types 1C and 2C stand in `conditions`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from fhir_records.renderings.conformance.conditions import CONDITIONS, Place
from fhir_records.renderings.conformance.enumerated import ENUMERATED, MODALITY

# Items of these hold themselves again; the content tree is walked by `content_tree`, with the templates' rules.
_OWN_RULES: Final = frozenset({"ContentSequence"})

Shape = Mapping[str, Any]


@functools.cache
def _tables() -> Mapping[str, Any]:
    text = (files(__package__) / "iod_tables.json").read_text(encoding="utf-8")
    tables: Mapping[str, Any] = json.loads(text)
    return tables


def written_classes() -> frozenset[str]:
    """The SOP classes that the gate knows; nothing of another class leaves."""
    return frozenset(_tables()["iods"])


def iod_faults(ds: Dataset) -> Iterator[str]:
    """What the object lacks, or has too much of (PS3.3 annex A; types by PS3.5 section 7.4)."""
    entry = _tables()["iods"].get(str(ds.get("SOPClassUID")))
    if entry is None:
        yield "SOPClassUID is not of a class that Wetread writes."
        return
    yield from _item_faults(Place(ds, ds, ""), _tables()["shapes"][entry["shape"]])
    expected = MODALITY[str(ds.SOPClassUID)]
    if ds.get("Modality") != expected:
        yield f"Modality is not {expected}."


def _item_faults(place: Place, shape: Shape) -> Iterator[str]:
    ds = place.item
    for element in ds:
        if element.keyword not in shape and element.keyword != "SpecificCharacterSet":
            yield f"{place.name(element.keyword or str(element.tag))} is not an attribute of this place in the IOD."
    for keyword, entry in shape.items():
        kind, children = (entry[0], _tables()["shapes"][entry[1]]) if isinstance(entry, list) else (entry, None)
        yield from _attribute_faults(place, keyword, kind)
        if children is None or keyword in _OWN_RULES or keyword not in ds:
            continue
        for number, item in enumerate(ds[keyword].value or (), start=1):
            yield from _item_faults(Place(place.root, item, f"{place.name(keyword)}[{number}]"), children)


def _attribute_faults(place: Place, keyword: str, kind: str) -> Iterator[str]:
    ds, name = place.item, place.name(keyword)
    condition = CONDITIONS.get(keyword)
    must = kind in ("1", "2") or (kind in ("1C", "2C") and condition is not None and condition(place))
    if keyword not in ds:
        if must:
            yield f"{name} is missing; its type is {kind}."
        return
    empty = ds[keyword].is_empty
    if empty and kind in ("1", "1C"):
        yield f"{name} is empty; its type is {kind}."
    elif empty and kind == "3" and ds[keyword].VR == "SQ":
        yield f"{name} has no item; where it is there, it has at least one."
    allowed = ENUMERATED.get(keyword)
    if allowed is not None and not empty:
        values = ds[keyword].value
        for value in values if isinstance(values, MultiValue) else [values]:
            if str(value) not in allowed:
                yield f"{name} has a value that is not allowed; allowed are {', '.join(sorted(allowed))}."
