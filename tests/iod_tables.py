"""Makes the gate's tables of IODs from those that highdicom carries; `python -m tests.iod_tables` writes them.

The gate reads a table of our own, so that what may leave does not change with a library's update: a test compares the
two and says when they part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map

PATH = Path(__file__).parents[1] / "fhir_records/renderings/conformance/iod_tables.json"

# The objects that we write: SOP Class UID to the optional modules that they have, beside the mandatory ones.
WRITTEN: Mapping[str, tuple[str, ...]] = {
    "1.2.840.10008.5.1.4.1.1.88.34": ("patient-study",),
    "1.2.840.10008.5.1.4.1.1.88.33": ("patient-study",),
    "1.2.840.10008.5.1.4.1.1.88.22": ("patient-study",),
    "1.2.840.10008.5.1.4.1.1.7": ("patient-study", "general-equipment", "general-reference"),
    "1.2.840.10008.5.1.4.1.1.30": ("patient-study", "floating-point-image-pixel", "common-instance-reference"),
    "1.2.840.10008.5.1.4.1.1.88.59": ("patient-study",),
    "1.2.840.10008.5.1.4.1.1.104.1": ("patient-study",),
    "1.2.840.10008.5.1.4.1.1.66.4": ("patient-study", "frame-of-reference", "common-instance-reference"),
}
# Content items hold content items: the content tree has rules of its own, in `content_tree`.
_RECURSIVE = frozenset({"ContentSequence"})
# Of the root of a content tree, which is a container; what the other value types have stands below it.
_ROOT_ITEM = frozenset(
    {
        "ConceptNameCodeSequence",
        "ContentSequence",
        "ContentTemplateSequence",
        "ContinuityOfContent",
        "ObservationDateTime",
        "ObservationUID",
        "ValueType",
    }
)
# A functional group stands in one of these two, whatever its type: `pixels` sees to it.
_GROUPS = frozenset({"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"})


def tables() -> dict[str, Any]:
    """IODs by SOP Class UID, and the shapes of their items: keyword to type, with the items' shape for a sequence.

    Items of one shape are written once; a shape is named by its number.
    """
    iods, modules, attributes = get_sop_class_iod_map(), get_iod_module_map(), get_module_attribute_map()
    shapes: dict[str, int] = {}
    written = {}
    for uid, optional in WRITTEN.items():
        parts = {module["key"]: module["usage"] for module in modules[iods[uid]]}
        assert set(optional) <= set(parts), (uid, set(optional) - set(parts))
        chosen = [key for key, usage in parts.items() if usage == "M" or key in optional]
        tree: dict[str, Any] = {}
        for key in chosen:
            _merge(tree, _of_the_root(key, _tree(attributes[key])))
        written[uid] = {"iod": iods[uid], "modules": chosen, "shape": _shape(tree, shapes)}
    return {
        "source": f"PS3.3, as highdicom {version('highdicom')} has it",
        "iods": written,
        "shapes": [json.loads(shape) for shape in shapes],
    }


def _tree(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for row in sorted(rows, key=lambda row: len(row["path"])):
        if _RECURSIVE & set(row["path"]):
            continue
        place = tree
        for keyword in row["path"]:
            place = place.setdefault(keyword, ["3", {}])[1]
        in_a_group = len(row["path"]) == 1 and row["path"][0] in _GROUPS
        place.setdefault(row["keyword"], ["3" if in_a_group else row["type"], {}])
    return tree


def _of_the_root(module: str, tree: dict[str, Any]) -> dict[str, Any]:
    if module != "sr-document-content":
        return tree
    return {keyword: entry for keyword, entry in tree.items() if keyword in _ROOT_ITEM}


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    """The stricter type stands where two modules have one attribute."""
    for keyword, (kind, children) in more.items():
        known = into.setdefault(keyword, [kind, {}])
        known[0] = min(known[0], kind)
        _merge(known[1], children)


def _shape(tree: Mapping[str, Any], shapes: dict[str, int]) -> int:
    made = {
        keyword: [kind, _shape(children, shapes)] if children else kind
        for keyword, (kind, children) in sorted(tree.items())
    }
    return shapes.setdefault(json.dumps(made, separators=(",", ":")), len(shapes))


def text() -> str:
    """The file's text: a shape a line, so that a change of the tables can be read."""
    made = tables()
    lines = [json.dumps(shape, separators=(",", ":")) for shape in made["shapes"]]
    iods = json.dumps(made["iods"], indent=1)
    joined = ",\n".join(lines)
    return f'{{"source": {json.dumps(made["source"])},\n"iods": {iods},\n"shapes": [\n{joined}\n]}}\n'


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
