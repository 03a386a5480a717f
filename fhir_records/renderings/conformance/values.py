"""Whether every value has the form that its representation allows (PS3.5 section 6.2)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID
from pydicom.valuerep import validate_value

# What the source says of patient and study is passed on as it is, faults included: a corrected Patient ID would be
# another one, and the PACS files by it.
AS_IN_THE_SOURCE: Final = frozenset(
    {
        "PatientName",
        "PatientID",
        "IssuerOfPatientID",
        "ReferringPhysicianName",
        "StudyID",
        "AccessionNumber",
        "StudyDescription",
        "DeidentificationMethod",
        "StudyInstanceUID",
    }
)
_UID_OF_THE_SOURCE: Final = frozenset(
    {"StudyInstanceUID", "SeriesInstanceUID", "ReferencedSOPInstanceUID", "FrameOfReferenceUID"}
)
# Binary values have no form to check.
_CHECKED: Final = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
)


def value_faults(ds: Dataset, path: str = "") -> Iterator[str]:
    """The attributes whose value has not the form of their representation; the value itself is not repeated."""
    for element in ds:
        name = f"{path}{element.keyword or element.tag}"
        if element.tag.is_private:
            yield f"{name} is a private attribute."
        elif element.VR == "SQ":
            for number, item in enumerate(element.value or (), start=1):
                yield from value_faults(item, f"{name}[{number}].")
        elif element.VR in _CHECKED and not (not path and element.keyword in AS_IN_THE_SOURCE):
            yield from _faults(element, name)


def _faults(element: DataElement, name: str) -> Iterator[str]:
    values = list(element.value) if isinstance(element.value, MultiValue | list | tuple) else [element.value]
    for value in values:
        if value in (None, ""):
            continue
        if element.VR == "UI":
            if not UID(str(value)).is_valid and element.keyword not in _UID_OF_THE_SOURCE:
                yield f"{name} is not a UID (PS3.5 section 9)."
            continue
        try:
            validate_value(element.VR, str(value) if element.VR == "PN" else _text(value), config.RAISE)
        except ValueError:
            yield f"{name} has not the form of its value representation {element.VR}."


def _text(value: object) -> str:
    original = getattr(value, "original_string", None)
    return str(original if original is not None else value)
