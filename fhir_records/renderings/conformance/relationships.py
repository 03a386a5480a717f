"""Which content items a document of each SR class may relate to which, and what a class cannot hold.

The classes are narrower from Comprehensive 3D SR to Enhanced SR: an item with coordinates in the patient stands in the
first alone, a relationship by reference not in the last. Tables A.35.2-2, A.35.3-2 and A.35.13-2 of PS3.3; where its
editions differ, what every one of them allows, for a peer of any age is to read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

Types = frozenset[str]
# Relationship type to pairs of what may be its source and what its target.
Relationships = Mapping[str, tuple[tuple[Types, Types], ...]]


def _types(words: str) -> Types:
    return frozenset(words.split())


_VALUES: Final = _types("TEXT CODE NUM DATETIME DATE TIME UIDREF PNAME")
_SAYING: Final = _types("TEXT CODE NUM")
_CONTAINER: Final = _types("CONTAINER")
_ACQUIRED: Final = _types("CONTAINER IMAGE WAVEFORM COMPOSITE")
_OBJECTS: Final = _types("COMPOSITE IMAGE WAVEFORM")
_PLANE: Final = _types("SCOORD TCOORD")
_SPACE: Final = _types("SCOORD3D")
_EVERY: Final = _VALUES | _OBJECTS | _PLANE | _SPACE | _CONTAINER


def _relationships(coordinates: Types, observed: Types, nested: Types) -> Relationships:
    """The table of a class.

    Args:
        coordinates: the value types of coordinates that the class knows.
        observed: what may have an observation context of its own.
        nested: whether a container may be the acquisition context, a property, or what something is inferred from.
    """
    related = _VALUES | _OBJECTS | coordinates | nested
    return MappingProxyType(
        {
            "CONTAINS": ((_CONTAINER, _VALUES | _OBJECTS | coordinates | _CONTAINER),),
            "HAS OBS CONTEXT": ((observed, _VALUES | _types("COMPOSITE")),),
            "HAS ACQ CONTEXT": ((_ACQUIRED, _VALUES | nested),),
            "HAS CONCEPT MOD": ((_EVERY, _types("TEXT CODE")),),
            "HAS PROPERTIES": ((_SAYING, related),),
            "INFERRED FROM": ((_SAYING, related),),
            "SELECTED FROM": (
                (_types("SCOORD"), _types("IMAGE")),
                (_types("TCOORD"), _types("IMAGE WAVEFORM") | (coordinates - _types("TCOORD"))),
            ),
        }
    )


ALLOWED: Final[Mapping[str, Relationships]] = MappingProxyType(
    {
        str(EnhancedSRStorage): _relationships(_PLANE, _CONTAINER, frozenset()),
        str(ComprehensiveSRStorage): _relationships(_PLANE, _CONTAINER | _SAYING, _CONTAINER),
        str(Comprehensive3DSRStorage): _relationships(_PLANE | _SPACE, _CONTAINER | _SAYING, _CONTAINER),
    }
)
# Sections A.35.2.3.1.2, A.35.3.3.1.2 and A.35.13.3.1.2.
_BY_REFERENCE: Final = frozenset({str(ComprehensiveSRStorage), str(Comprehensive3DSRStorage)})


def relation_faults(ds: Dataset, sop_class_uid: str | None = None) -> Iterator[str]:
    """Where the document's content is not what its SR class holds, or another one where it is given."""
    uid = str(sop_class_uid or ds.get("SOPClassUID"))
    yield from _faults(ds, ALLOWED[uid], uid in _BY_REFERENCE, "")


def _faults(item: Dataset, allowed: Relationships, by_reference: bool, path: str) -> Iterator[str]:
    for number, child in enumerate(item.get("ContentSequence") or (), start=1):
        place = f"{path}{number}"
        if "ReferencedContentItemIdentifier" in child:
            if not by_reference:
                yield f"Content item {place} is referred to; the SR class has relationships by value alone."
            continue
        source, relationship, target = item.get("ValueType"), child.get("RelationshipType"), child.get("ValueType")
        pairs = allowed.get(str(relationship), ())
        if not any(source in sources and target in targets for sources, targets in pairs):
            yield f"Content item {place}: in this SR class no {source} {relationship} a {target}."
        yield from _faults(child, allowed, by_reference, f"{place}.")
