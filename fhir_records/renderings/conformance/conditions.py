"""When the attributes of types 1C and 2C must be there, for those that our objects can have (PS3.3, each clause named).

A conditional attribute without an entry is never demanded; where it is there, type 1C must have a value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from fhir_records.renderings.codes import BODY_PARTS

_UNPAIRED: Final = frozenset(BODY_PARTS.values())
_TEXT_VRS: Final = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where in an object a rule is looked at."""

    root: Dataset
    item: Dataset
    path: str  # of the item, "" for the root

    def name(self, keyword: str) -> str:
        """The attribute's name for people: "SourceImageSequence[1].ReferencedSOPClassUID"."""
        return f"{self.path}.{keyword}" if self.path else keyword

    @property
    def at_root(self) -> bool:
        """Whether the item is the object itself."""
        return not self.path


def _needs_character_set(place: Place) -> bool:
    return place.at_root and any(
        not str(element.value).isascii() for element in place.root.iterall() if element.VR in _TEXT_VRS
    )


def _has_long_code(place: Place) -> bool:
    return "LongCodeValue" in place.item or "URNCodeValue" in place.item


def _has_code(place: Place) -> bool:
    return "CodeValue" in place.item or "LongCodeValue" in place.item


def _refers_to_frames(place: Place) -> bool:
    groups = place.root.get("PerFrameFunctionalGroupsSequence") or ()
    return any("DerivationImageSequence" in group for group in groups)


def _names_images(place: Place) -> bool:
    return place.at_root and any(element.keyword == "ReferencedSOPSequence" for element in _content(place.root))


def _content(ds: Dataset) -> list[DataElement]:
    return [element for item in ds.get("ContentSequence") or () for element in item.iterall()]


def _is(keyword: str, *values: object) -> Callable[[Place], bool]:
    return lambda place: place.item.get(keyword) in values


def _in(sequence: str, without: str = "") -> Callable[[Place], bool]:
    """In an item of this sequence that has not the attribute which would stand for it."""
    return lambda place: place.path.rsplit("[", 1)[0].endswith(sequence) and not (without and without in place.item)


def _at_root(place: Place) -> bool:
    return place.at_root


CONDITIONS: Final[Mapping[str, Callable[[Place], bool]]] = MappingProxyType(
    {
        "SpecificCharacterSet": _needs_character_set,  # C.12.1.1.2
        "CodeValue": lambda place: not _has_long_code(place),  # section 8.8
        "CodingSchemeDesignator": _has_code,  # section 8.8
        "DeidentificationMethod": lambda place: (  # C.7.1.1
            place.at_root
            and place.item.get("PatientIdentityRemoved") == "YES"
            and "DeidentificationMethodCodeSequence" not in place.item
        ),
        # C.7.3.1: where no body part is said that is surely unpaired, nobody can tell that it is not paired.
        "Laterality": lambda place: place.at_root and place.item.get("BodyPartExamined") not in _UNPAIRED,
        "PatientOrientation": lambda place: (  # C.7.6.1
            place.at_root and "ImageOrientationPatient" not in place.item and "NumberOfFrames" not in place.item
        ),
        "PlanarConfiguration": lambda place: int(place.item.get("SamplesPerPixel") or 1) > 1,  # C.7.6.3
        "PixelData": _at_root,  # C.7.6.3
        "FrameOfReferenceUID": _at_root,  # C.7.4.1
        "PerFrameFunctionalGroupsSequence": _at_root,  # C.7.6.16
        "DimensionIndexSequence": _at_root,  # C.7.6.17
        "FunctionalGroupPointer": _is("DimensionIndexPointer", 0x00200032, 0x0062000B),  # C.7.6.17
        "ReferencedSeriesSequence": lambda place: place.at_root and _refers_to_frames(place),  # C.12.2
        "CurrentRequestedProcedureEvidenceSequence": _names_images,  # C.17.2, C.17.6.2
        "VerifyingObserverSequence": lambda place: place.item.get("VerificationFlag") == "VERIFIED",  # C.17.2
        "ConceptNameCodeSequence": lambda place: place.at_root and place.item.get("ValueType") == "CONTAINER",  # C.18.1
        "ContinuityOfContent": _is("ValueType", "CONTAINER"),  # C.18.8
        "ContentTemplateSequence": lambda place: place.at_root and "ContentSequence" in place.item,  # C.18.8
        "WindowCenter": _in("FrameVOILUTSequence", without="VOILUTSequence"),  # C.7.6.16.2.10
        "WindowWidth": lambda place: "WindowCenter" in place.item,  # C.11.2
        # C.7.6.16.2.11: floating point pixels are mapped linearly, over a range of floating point values.
        "DoubleFloatRealWorldValueFirstValueMapped": _in("RealWorldValueMappingSequence"),
        "DoubleFloatRealWorldValueLastValueMapped": _in("RealWorldValueMappingSequence"),
        "RealWorldValueSlope": _in("RealWorldValueMappingSequence", without="RealWorldValueLUTData"),
        "RealWorldValueIntercept": _in("RealWorldValueMappingSequence", without="RealWorldValueLUTData"),
        "ConceptCodeSequence": _is("ValueType", "CODE"),  # table 10-2
        "DerivationCodeSequence": _in("DerivationImageSequence"),  # C.7.6.16.2.6
        "PurposeOfReferenceCodeSequence": _in("SourceImageSequence"),  # C.7.6.16.2.6
        # C.7.6.16.2.1, .3 and .4: all of our frames lie in a volume.
        "PixelSpacing": _in("PixelMeasuresSequence"),
        "SliceThickness": _in("PixelMeasuresSequence"),
        "ImagePositionPatient": _in("PlanePositionSequence"),
        "ImageOrientationPatient": _in("PlaneOrientationSequence"),
        "TrackingID": lambda place: "TrackingUID" in place.item,  # C.8.20.4
        "TrackingUID": lambda place: "TrackingID" in place.item,  # C.8.20.4
        "SegmentAlgorithmName": lambda place: (
            place.item.get("SegmentAlgorithmType") not in (None, "MANUAL")
        ),  # C.8.20.4
    }
)
