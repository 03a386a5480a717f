"""Whether what a document or a derived image refers to is what it says that it refers to, and lies in its own study."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydicom.dataset import Dataset


def reference_faults(ds: Dataset) -> Iterator[str]:
    """PS3.3 sections C.17.2 and C.12.2: every object that is referred to stands in the object's own list."""
    listed = set(_listed(ds))
    named = set(_named(ds.get("ContentSequence") or ()))
    for group in ds.get("PerFrameFunctionalGroupsSequence") or ():
        for derivation in group.get("DerivationImageSequence") or ():
            sources = derivation.get("SourceImageSequence") or ()
            if not sources:
                yield "A frame is derived from an image that it does not name."
            named.update(str(item.get("ReferencedSOPInstanceUID")) for item in sources)
    if not named <= listed:
        yield "An object is referred to that the object's own list of references does not have."
    for study in ds.get("CurrentRequestedProcedureEvidenceSequence") or ():
        if study.get("StudyInstanceUID") != ds.get("StudyInstanceUID"):
            yield "CurrentRequestedProcedureEvidenceSequence names another study."
    if str(ds.get("SOPInstanceUID")) in listed | named:
        yield "The object refers to itself."


def _listed(ds: Dataset) -> Iterator[str]:
    for study in ds.get("CurrentRequestedProcedureEvidenceSequence") or ():
        for series in study.get("ReferencedSeriesSequence") or ():
            for item in series.get("ReferencedSOPSequence") or ():
                yield str(item.get("ReferencedSOPInstanceUID"))
    for series in ds.get("ReferencedSeriesSequence") or ():
        for item in series.get("ReferencedInstanceSequence") or ():
            yield str(item.get("ReferencedSOPInstanceUID"))


def _named(items: Iterable[Dataset]) -> Iterator[str]:
    for item in items:
        for reference in item.get("ReferencedSOPSequence") or ():
            yield str(reference.get("ReferencedSOPInstanceUID"))
        yield from _named(item.get("ContentSequence") or ())
