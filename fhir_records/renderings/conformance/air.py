"""What IHE AI Results demands of what a model makes beyond its templates, and what we demand of ourselves.

IHE Radiology, AI Results (AIR), revision 1.3, trial implementation: results are TID 1500 documents in the study that
they are about; each says which algorithm made it, which images it rests on, and has an identity by which it is followed
over time. Every object names its algorithm in Contributing Equipment Sequence, in the same words as its content tree
(RAD TF-3 section 6.5.3.1 and table 6.5.3.1-1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from pydicom.dataset import Dataset

from fhir_records.renderings.conformance.content_tree import CodePair, concept_of, pair
from fhir_records.renderings.dicom_file import lo

_OBSERVER_TYPE: Final = ("DCM", "121005")
_DEVICE: Final = ("DCM", "121007")
_PERSON: Final = ("DCM", "121006")
_PRESENCE: Final = {("SCT", "52101004"), ("SCT", "272519000"), ("SCT", "373068000")}  # PS3.16 CID 240


# What an item of Contributing Equipment Sequence says of an algorithm, beside its purpose.
_OF_AN_ALGORITHM: Final = ("Manufacturer", "ManufacturerModelName", "SoftwareVersions", "DeviceUID")
_PROCESSING: Final = ("DCM", "109102")
# Content items that say the same: those of TID 1004 stand at the root, those of TID 4019 in a measurement group.
_SAME_WORDS: Final = {
    ("DCM", "121014"): ("TextValue", "Manufacturer"),
    ("DCM", "121015"): ("TextValue", "ManufacturerModelName"),
    ("DCM", "121012"): ("UID", "DeviceUID"),
    ("DCM", "111001"): ("TextValue", "ManufacturerModelName"),
    ("DCM", "111003"): ("TextValue", "SoftwareVersions"),
}


def equipment_faults(ds: Dataset) -> Iterator[str]:
    """Where an object does not name the algorithm that made it (RAD TF-3 section 6.5.3.1)."""
    items = [item for item in ds.get("ContributingEquipmentSequence") or () if _purpose(item) == _PROCESSING]
    if not items:
        yield "AIR: ContributingEquipmentSequence does not name the algorithm (109102, DCM)."
        return
    for item in items:
        for keyword in _OF_AN_ALGORITHM:
            if not item.get(keyword):
                yield f"AIR: ContributingEquipmentSequence does not say the algorithm's {keyword}."
    for item in _walk(ds.get("ContentSequence") or ()):
        where, keyword = _SAME_WORDS.get(concept_of(item) or ("", ""), ("", ""))
        # An attribute has 64 characters and no backslash, a content item may have more.
        if where and lo(str(item.get(where))) not in {str(one.get(keyword)) for one in items}:
            yield f"AIR: a content item names another algorithm than ContributingEquipmentSequence's {keyword}."


def _purpose(item: Dataset) -> CodePair | None:
    codes = item.get("PurposeOfReferenceCodeSequence")
    return pair(codes[0]) if codes else None


def _walk(items: Iterable[Dataset]) -> Iterator[Dataset]:
    for item in items:
        yield item
        yield from _walk(item.get("ContentSequence") or ())


def air_faults(ds: Dataset) -> Iterator[str]:
    """Where the document is not what AIR asks for."""
    root = list(ds.get("ContentSequence") or ())
    observers = {_answer(item) for item in root if concept_of(item) == _OBSERVER_TYPE}
    names = {concept_of(item) for item in root}
    if not observers & {_DEVICE, _PERSON}:
        yield "AIR: the document does not say whether a device or a person observed."
    if _DEVICE in observers and ("DCM", "121012") not in names:
        yield "AIR: the device observer has no Device Observer UID."
    if _PERSON in observers and ("DCM", "121008") not in names:
        yield "AIR: the person observer has no name."
    if not ds.get("CurrentRequestedProcedureEvidenceSequence"):
        yield "AIR: the document lists no evidence."
    if ds.get("CompletionFlag") != "COMPLETE":
        yield "CompletionFlag is not COMPLETE."
    yield from _signature_faults(ds)
    for group in _groups(root):
        yield from _group_faults(group)


def _signature_faults(ds: Dataset) -> Iterator[str]:
    """A document says that it is signed exactly where it names who signed, of which organization, and when."""
    verified, observers = ds.get("VerificationFlag") == "VERIFIED", ds.get("VerifyingObserverSequence") or ()
    if not verified and observers:
        yield "A verifying observer is named in a document that is not verified."
    if not verified and ds.get("PreliminaryFlag") == "FINAL":
        yield "PreliminaryFlag is FINAL in a document that nobody has signed."
    for observer in observers:
        for keyword in ("VerifyingObserverName", "VerifyingOrganization", "VerificationDateTime"):
            if not observer.get(keyword):
                yield f"A verifying observer has no {keyword}."


def _groups(root: list[Dataset]) -> Iterator[Dataset]:
    for item in root:
        if concept_of(item) == ("DCM", "126010"):
            yield from (child for child in item.get("ContentSequence") or () if concept_of(child) == ("DCM", "125007"))


def _group_faults(group: Dataset) -> Iterator[str]:
    items = list(group.get("ContentSequence") or ())
    names = [concept_of(item) for item in items]
    by_person = any(concept_of(item) == _OBSERVER_TYPE and _answer(item) == _PERSON for item in items)
    if by_person and ("DCM", "121008") not in names:
        yield "AIR: the person observer of a measurement group has no name."
    for code, words in ((("DCM", "111001"), "name"), (("DCM", "111003"), "version")):
        # What a person says, no algorithm does.
        if code not in names and not by_person:
            yield f"AIR: a measurement group does not say its algorithm's {words} (TID 4019)."
    if ("SCT", "363698007") not in names:
        yield "AIR: a measurement group has no finding site."
    if ("DCM", "121191") in names:
        yield from _volume_faults(items)
        return
    presence = [item for item in items if item.get("ValueType") == "CODE" and _answer(item) in _PRESENCE]
    if len(presence) != 1:
        yield "A measurement group does not say exactly once whether its finding is present."
    finding = next((_answer(item) for item in items if concept_of(item) == ("DCM", "121071")), None)
    if any(concept_of(item) != finding for item in presence):
        yield "A measurement group answers another question than its finding asks."


def _volume_faults(items: list[Dataset]) -> Iterator[str]:
    """A group about a segment measures it, says in which images it lies, and leaves presence to the finding's group."""
    names = [concept_of(item) for item in items]
    if ("DCM", "121233") not in names and ("DCM", "121232") not in names:
        yield "TID 1411: a measurement group does not say which images its segment was found in."
    if not any(item.get("ValueType") == "NUM" for item in items):
        yield "A measurement group about a segment measures nothing."
    if any(item.get("ValueType") == "CODE" and _answer(item) in _PRESENCE for item in items):
        yield "A measurement group about a segment says whether a finding is present; its own group does."


def _answer(item: Dataset) -> CodePair | None:
    codes = item.get("ConceptCodeSequence")
    return pair(codes[0]) if codes else None
