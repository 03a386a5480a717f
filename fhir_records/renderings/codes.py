"""The codes that the renderings use, each with its place in the standard.

The codes of findings and sites are not here: they belong to the model's own contract and come with the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from fhir_records.model import Code, Presence

# PS3.16 CID 240
PRESENCE: Final[Mapping[Presence, Code]] = MappingProxyType(
    {
        Presence.PRESENT: Code("SCT", "52101004", "Present"),
        Presence.ABSENT: Code("SCT", "272519000", "Absent"),
        Presence.UNDETERMINED: Code("SCT", "373068000", "Undetermined"),
    }
)

SOURCE_IMAGE: Final = Code("DCM", "121322", "Source image for image processing operation")  # CID 7202
OF_INTEREST: Final = Code("DCM", "113000", "Of Interest")  # PS3.16 CID 7010
KEY_OBJECT_DESCRIPTION: Final = Code("DCM", "113012", "Key Object Description")  # PS3.16 TID 2010
CLASS_ACTIVATION: Final = Code("DCM", "130402", "Class activation")  # PS3.16 CID 217
SEGMENTATION_DERIVATION: Final = Code("DCM", "113076", "Segmentation")  # PS3.16 CID 7203
QUANTITY: Final = Code("SCT", "246205007", "Quantity")  # PS3.3 section C.7.6.16.2.11
NO_UNITS: Final = Code("UCUM", "1", "no units")  # PS3.16 CID 7181
CUBIC_MILLIMETER: Final = Code("UCUM", "mm3", "cubic millimeter")  # PS3.16 CID 7462
VOLUME: Final = Code("SCT", "118565006", "Volume")  # PS3.16 CID 7472
RADIOLOGY_REPORT: Final = Code("LN", "18748-4", "Diagnostic imaging study")  # PS3.16 CID 7020

# PS3.16 annex L: Body Part Examined of the sites that models name; a paired organ by the unpaired part that holds it,
# for a read of both sides has no laterality.
BODY_PARTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "12738006": "BRAIN",
        "69536005": "HEAD",
        "774007": "HEADNECK",
        "45048000": "NECK",
        "56329008": "BRAIN",  # pituitary
        "51185008": "CHEST",
        "43799004": "CHEST",
        "816094009": "CHEST",
        "39607008": "CHEST",  # lung
        "80891009": "HEART",
        "818981001": "ABDOMEN",
        "818983003": "ABDOMEN",
        "10200004": "LIVER",
        "78961009": "SPLEEN",
        "15776009": "PANCREAS",
        "64033007": "ABDOMEN",  # kidney
        "41216001": "PROSTATE",
        "816092008": "PELVIS",
        "421060004": "SPINE",
    }
)

PROBABILITY: Final = Code("DCM", "122157", "Probability")  # PS3.16 Annex D
PERCENT: Final = Code("UCUM", "%", "Percent")  # PS3.16 CID 7181
PIXELS: Final = Code("UCUM", "{pixels}", "pixels")  # PS3.16 TID 1602, Pixel Data Rows and Columns
MILLIMETER: Final = Code("UCUM", "mm", "mm")  # PS3.16 CID 7181

COMMENT: Final = Code("DCM", "121106", "Comment")  # PS3.16 Annex D; TID 1501, evaluations said as text
DEVICE: Final = Code("DCM", "121007", "Device")  # PS3.16 CID 270
OBSERVER_TYPE: Final = Code("DCM", "121005", "Observer Type")  # PS3.16 TID 1002
PERSON: Final = Code("DCM", "121006", "Person")  # PS3.16 CID 270
PERSON_OBSERVER_NAME: Final = Code("DCM", "121008", "Person Observer Name")  # PS3.16 TID 1003
PERSON_OBSERVER_ORGANIZATION: Final = Code("DCM", "121009", "Person Observer's Organization Name")  # TID 1003
PROCESSING_EQUIPMENT: Final = Code("DCM", "109102", "Processing Equipment")  # PS3.16 CID 7005

IMAGING_MEASUREMENT_REPORT: Final = Code("DCM", "126000", "Imaging Measurement Report")  # PS3.16 CID 7021

# PS3.16 CID 7010, titles of rejection notes (IHE RAD TF-3, IOCM)
REJECTED_FOR_QUALITY: Final = Code("DCM", "113001", "Rejected for Quality Reasons")
REJECTED_FOR_SAFETY: Final = Code("DCM", "113037", "Rejected for Patient Safety Reasons")
INCORRECT_WORKLIST_ENTRY: Final = Code("DCM", "113038", "Incorrect Modality Worklist Entry")
DOCUMENT_TITLE_MODIFIER: Final = Code("DCM", "113011", "Document Title Modifier")  # PS3.16 TID 2010

# PS3.16 CID 7011, why something is rejected for quality reasons: those that can be meant of an algorithm's answer
QUALITY_REASONS: Final[Mapping[str, Code]] = MappingProxyType(
    {
        "111218": Code("DCM", "111218", "Software failure"),
        "111219": Code("DCM", "111219", "Inappropriate image processing"),
        "111220": Code("DCM", "111220", "Other failure"),
        "111221": Code("DCM", "111221", "Unknown failure"),
    }
)

# PS3.16 TID 1600 and TID 1602
IMAGE_LIBRARY: Final = Code("DCM", "111028", "Image Library")
IMAGE_LIBRARY_GROUP: Final = Code("DCM", "126200", "Image Library Group")
MODALITY: Final = Code("DCM", "121139", "Modality")
FRAME_OF_REFERENCE_UID: Final = Code("DCM", "112227", "Frame of Reference UID")
PIXEL_DATA_ROWS: Final = Code("DCM", "110910", "Pixel Data Rows")
PIXEL_DATA_COLUMNS: Final = Code("DCM", "110911", "Pixel Data Columns")
HORIZONTAL_PIXEL_SPACING: Final = Code("DCM", "111026", "Horizontal Pixel Spacing")  # PS3.16 TID 1604
VERTICAL_PIXEL_SPACING: Final = Code("DCM", "111066", "Vertical Pixel Spacing")  # PS3.16 TID 1604
SOURCE: Final = Code("SCT", "260753009", "Source")  # PS3.16 TID 1601 leaves the name free

# PS3.16 CID 33: the value of the attribute Modality is the code.
_MODALITY_MEANINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CR": "Computed Radiography",
        "CT": "Computed Tomography",
        "DX": "Digital Radiography",
        "ES": "Endoscopy",
        "GM": "General Microscopy",
        "IO": "Intra-oral Radiography",
        "MG": "Mammography",
        "MR": "Magnetic Resonance",
        "NM": "Nuclear Medicine",
        "OCT": "Optical Coherence Tomography",
        "OP": "Ophthalmic Photography",
        "OPT": "Ophthalmic Tomography",
        "OT": "Other",
        "PT": "Positron emission tomography",
        "PX": "Panoramic X-Ray",
        "RF": "Radiofluoroscopy",
        "RG": "Radiographic imaging",
        "RTIMAGE": "RT Image",
        "SM": "Slide Microscopy",
        "US": "Ultrasound",
        "XA": "X-Ray Angiography",
        "XC": "External-camera Photography",
    }
)

# PS3.16 CID 100: what was done to the patient, where the source does not say it in a standard code.
_XR: Final = Code("LN", "43468-8", "XR unspecified body region")
_PROCEDURES: Final[Mapping[str, Code]] = MappingProxyType(
    {
        "MR": Code("LN", "25056-3", "MRI unspecified body region"),
        "CT": Code("LN", "25045-6", "CT unspecified body region"),
        "PT": Code("LN", "44136-0", "PET unspecified body region"),
        "NM": Code("LN", "49118-3", "NM unspecified body region"),
        "CR": _XR,
        "DX": _XR,
        "RG": _XR,
        "XA": Code("SCT", "77343006", "Angiography"),
    }
)
_IMAGING_PROCEDURE: Final = Code("SCT", "363679005", "Imaging procedure")

# PS3.16 section 8: schemes whose codes mean the same everywhere. SRT is left out: DICOM has replaced it by SCT.
STANDARD_SCHEMES: Final = frozenset({"SCT", "DCM", "LN", "RADLEX", "C4", "I10P"})


def modality(value: str) -> Code:
    """The code of a value of the attribute Modality; "Other" for one that CID 33 does not have."""
    value = value if value in _MODALITY_MEANINGS else "OT"
    return Code("DCM", value, _MODALITY_MEANINGS[value])


def imaging_procedure(modality_value: str) -> Code:
    """The procedure that images of this modality come from, no nearer than the modality tells (CID 100)."""
    return _PROCEDURES.get(modality_value, _IMAGING_PROCEDURE)
