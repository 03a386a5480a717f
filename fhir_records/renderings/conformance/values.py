"""Whether every value has the form that its representation allows, and is there as often (PS3.5 sections 6.2, 6.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydicom import config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_has_tag, dictionary_VM
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
# UIDs that the source gave, at the root and where it is referred to.
_UIDS_OF_THE_SOURCE: Final = frozenset({"StudyInstanceUID", "FrameOfReferenceUID"})
_UIDS_OF_REFERENCES: Final = _UIDS_OF_THE_SOURCE | {"SeriesInstanceUID", "ReferencedSOPInstanceUID"}
# "Only a single Item shall be included in this Sequence", in each place where we write them (PS3.3).
_ONE_ITEM: Final = frozenset(
    {
        "ConceptCodeSequence", "ConceptNameCodeSequence", "ContentTemplateSequence", "DerivationCodeSequence",
        "FrameContentSequence", "FrameVOILUTSequence", "MeasuredValueSequence", "MeasurementUnitsCodeSequence",
        "ParametricMapFrameTypeSequence", "PixelMeasuresSequence", "PixelValueTransformationSequence",
        "PlaneOrientationSequence", "PlanePositionSequence", "PurposeOfReferenceCodeSequence",
        "SegmentIdentificationSequence", "SegmentedPropertyCategoryCodeSequence", "SegmentedPropertyTypeCodeSequence",
        "SharedFunctionalGroupsSequence",
    }
)  # fmt: skip
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
            if element.keyword in _ONE_ITEM and len(element.value or ()) > 1:
                yield f"{name} has several items and may have one."
            for number, item in enumerate(element.value or (), start=1):
                yield from value_faults(item, f"{name}[{number}].")
        elif path or element.keyword not in AS_IN_THE_SOURCE:
            yield from _multiplicity_faults(element, name)
            if element.VR in _CHECKED:
                yield from _faults(element, name)


def _multiplicity_faults(element: DataElement, name: str) -> Iterator[str]:
    """PS3.5 section 6.4, and PS3.6 for each attribute: "1", "2-n", "3-3n" and the like."""
    if element.is_empty or not dictionary_has_tag(element.tag):
        return  # that an attribute is none of this place is told by the IOD's table
    allowed, count = dictionary_VM(element.tag), element.VM
    least, _, most = allowed.partition("-")
    if not most.endswith("n"):
        right = int(least) <= count <= int(most or least)
    else:
        right = int(least) <= count and count % int(most[:-1] or 1) == 0
    if not right:
        yield f"{name} has not as many values as it must ({allowed})."


def _faults(element: DataElement, name: str) -> Iterator[str]:
    values = list(element.value) if isinstance(element.value, MultiValue | list | tuple) else [element.value]
    for value in values:
        if value in (None, ""):
            continue
        if element.VR == "UI":
            given = _UIDS_OF_REFERENCES if "." in name else _UIDS_OF_THE_SOURCE
            if not UID(str(value)).is_valid and element.keyword not in given:
                yield f"{name} is not a UID (PS3.5 section 9)."
            continue
        if element.keyword == "SpecificCharacterSet" and str(value) not in python_encoding:
            yield f"{name} is none of the defined terms (PS3.3 section C.12.1.1.2)."
        try:
            validate_value(element.VR, str(value) if element.VR == "PN" else _text(value), config.RAISE)
        except ValueError:
            yield f"{name} has not the form of its value representation {element.VR}."


def _text(value: object) -> str:
    original = getattr(value, "original_string", None)
    return str(original if original is not None else value)
