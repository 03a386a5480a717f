"""What a stored object is, in words, and what can be done with it on a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pydicom.uid import UID

from dicom_listener.transfer_syntaxes import Way, transfer_syntax
from fhir_records.model import Instance, InstanceKind
from fhir_records.renderings import kinds
from fhir_records.store.withdrawals import REJECTION_NOTE
from web.words import plain_name

_ROOT: Final = "1.2.840.10008.5.1.4.1.1."
ENCAPSULATED_PDF: Final = _ROOT + "104.1"

# PS3.4 section B.5, those that a reader of a study meets most; what follows the root.
_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "9.1.1": "12-lead ECG",
        "9.1.2": "General ECG",
        "9.1.3": "Ambulatory ECG",
        "9.1.4": "General ECG, 32 bits",
        "9.2.1": "Hemodynamic waveform",
        "9.3.1": "Cardiac electrophysiology waveform",
        "9.4.1": "Voice recording",
        "9.4.2": "Audio recording",
        "9.5.1": "Arterial pulse waveform",
        "9.6.1": "Respiratory waveform",
        "11.1": "Presentation state (greyscale)",
        "11.2": "Presentation state (colour)",
        "11.3": "Presentation state (pseudo-colour)",
        "11.4": "Presentation state (blending)",
        "66": "Raw data of the scanner",
        "66.1": "Spatial registration",
        "66.2": "Spatial fiducials",
        "66.3": "Deformable spatial registration",
        "66.4": "Segmentation",
        "66.5": "Surface segmentation",
        "66.7": "Segmentation (label map)",
        "67": "Real world value mapping",
        "30": "Parametric map",
        "88.11": "Structured report (basic text)",
        "88.22": "Structured report (enhanced)",
        "88.33": "Structured report (comprehensive)",
        "88.34": "Structured report (comprehensive 3D)",
        "88.50": "Mammography CAD report",
        "88.59": "Key object selection",
        "88.65": "Chest CAD report",
        "88.67": "Radiation dose report",
        "88.68": "Radiopharmaceutical dose report",
        "104.1": "PDF document",
        "104.2": "Clinical document (CDA)",
        "104.3": "3D model (STL)",
        "104.4": "3D model (OBJ)",
        "481.2": "Radiotherapy dose",
        "481.3": "Radiotherapy structure set",
        "481.4": "Radiotherapy treatment record",
        "481.5": "Radiotherapy plan",
        "481.8": "Radiotherapy ion plan",
    }
)
# What Wetread writes, by the record's word for its kind.
_DOCUMENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        kinds.SR: "Structured report",
        kinds.SECONDARY_CAPTURE: "Page as an image",
        kinds.PARAMETRIC_MAP: "Map of where the model looked",
        kinds.KEY_OBJECTS: "Key images",
        kinds.ENCAPSULATED_PDF: "Page as a PDF",
        kinds.SEGMENTATION: "Outlines",
        REJECTION_NOTE: "Rejection note",
    }
)
_REPORT_CLASSES: Final = _ROOT + "88."


@dataclass(frozen=True, slots=True)
class ShownObject:
    """A stored object as the study page lists it."""

    id: int
    kind: str  # what it is
    what: str  # series, number
    note: str  # why there is no picture, who wrote it; "" where that is plain
    size: int  # bytes
    is_report: bool  # has a content tree to read
    is_pdf: bool


def kind_words(sop_class_uid: str) -> str:
    """What objects of a SOP class are: "PDF document"; the standard's own name for the rarer ones."""
    if sop_class_uid.startswith(_ROOT) and sop_class_uid.removeprefix(_ROOT) in _WORDS:
        return _WORDS[sop_class_uid.removeprefix(_ROOT)]
    name = str(UID(sop_class_uid).name)
    if name == sop_class_uid:  # not in the dictionary
        return "Object of a private or newer kind"
    return name.split(" - ", maxsplit=1)[0].removesuffix(" Storage")


def document_words(kind: str, sop_class_uid: str = "") -> str:
    """What an object that Wetread wrote is: "Structured report (Enhanced SR)", the class where it is given."""
    words = _DOCUMENTS.get(kind) or plain_name(kind).capitalize()
    sr_class = kinds.SR_CLASS_NAMES.get(sop_class_uid) if kind == kinds.SR else None
    return f"{words} ({sr_class})" if sr_class else words


def sr_class_words(sop_class_uid: str) -> str:
    """What people call an SR class: "Comprehensive 3D SR"."""
    return kinds.SR_CLASS_NAMES.get(sop_class_uid, sop_class_uid)


def shown_object(instance: Instance) -> ShownObject:
    """The line about a stored object."""
    syntax = transfer_syntax(instance.transfer_syntax_uid)
    kind = kind_words(instance.sop_class_uid)
    if instance.kind is InstanceKind.IMAGE and syntax.way is Way.VIDEO:
        kind = f"Video ({kind.removesuffix(' Image').removeprefix('Video ')})"
    return ShownObject(
        id=instance.id,
        kind=kind,
        what=_place(instance),
        note=_note(instance, "" if instance.rows is None else syntax.why_not),
        size=instance.size,
        is_report=instance.sop_class_uid.startswith(_REPORT_CLASSES),
        is_pdf=instance.sop_class_uid == ENCAPSULATED_PDF,
    )


def _place(instance: Instance) -> str:
    words = []
    if instance.series_description:
        words.append(instance.series_description)
    if instance.series_number is not None:
        words.append(f"series {instance.series_number}")
    if instance.instance_number is not None:
        words.append(f"object {instance.instance_number}")
    return ", ".join(words)


def _note(instance: Instance, why_not: str) -> str:
    if instance.kind is InstanceKind.OWN:
        return "Written by Wetread, and sent back to it."
    return why_not
