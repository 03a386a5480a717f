"""A structured report as a page: the content tree walked, nothing added and nothing left out (PS3.3 section C.17.3)."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_listener.characters import settle
from fhir_records.errors import RenderingError
from web.words import person_name


@dataclass(frozen=True, slots=True)
class ContentItem:
    """One content item, as people read it."""

    relationship: str  # "CONTAINS", "HAS OBS CONTEXT", …; "" for the root
    name: str  # meaning of the concept name
    value: str
    value_type: str
    children: tuple[ContentItem, ...]


@dataclass(frozen=True, slots=True)
class ReportText:
    """A structured report, its header in words and its content tree."""

    header: tuple[tuple[str, str], ...]
    root: ContentItem


def read_report(content: bytes) -> ReportText:
    """The report in the bytes of a PS3.10 file.

    Raises:
        RenderingError: the bytes are no structured report.
    """
    try:
        ds = pydicom.dcmread(io.BytesIO(content))
        settle(ds)
        if ds.get("ValueType") != "CONTAINER":
            raise RenderingError("The stored report has no content tree.")
        return ReportText(header=tuple((name, value) for name, value in _header(ds) if value), root=_item(ds))
    except RenderingError:
        raise
    except Exception as error:  # boundary: pydicom raises whatever a broken report of another maker brings about
        raise RenderingError("The stored report cannot be read.") from error


def _header(ds: Dataset) -> list[tuple[str, str]]:
    return [
        ("Document", UID(str(ds.get("SOPClassUID", ""))).name),
        ("Title", _meaning(ds, "ConceptNameCodeSequence")),
        ("Series", str(ds.get("SeriesDescription", ""))),
        ("Completion", str(ds.get("CompletionFlag", "")).lower()),
        ("Verification", str(ds.get("VerificationFlag", "")).lower()),
        ("Standing", str(ds.get("PreliminaryFlag", "")).lower()),
        ("SOP Instance UID", str(ds.get("SOPInstanceUID", ""))),
    ]


def _item(ds: Dataset) -> ContentItem:
    return ContentItem(
        relationship=str(ds.get("RelationshipType", "")),
        name=_meaning(ds, "ConceptNameCodeSequence"),
        value=_value(ds),
        value_type=str(ds.get("ValueType", "")),
        children=tuple(_item(child) for child in ds.get("ContentSequence") or ()),
    )


def _value(ds: Dataset) -> str:  # noqa: PLR0911  # one line for each value type reads as the table does
    """What a content item says, by its value type (PS3.3 table C.17.3.2.1)."""
    match ds.get("ValueType"):
        case "CODE":
            return _meaning(ds, "ConceptCodeSequence")
        case "NUM":
            return _measured(ds)
        case "IMAGE" | "COMPOSITE" | "WAVEFORM":
            return ", ".join(_reference(item) for item in ds.get("ReferencedSOPSequence") or ())
        case "TEXT":
            return str(ds.get("TextValue", ""))
        case "PNAME":
            return person_name(str(ds.get("PersonName", "")))
        case "UIDREF" | "DATE" | "TIME" | "DATETIME" as kind:
            keyword = {"UIDREF": "UID", "DATE": "Date", "TIME": "Time", "DATETIME": "DateTime"}[kind]
            return str(ds.get(keyword, ""))
        case "SCOORD" | "SCOORD3D":
            return f"{ds.get('GraphicType', '')} {list(ds.get('GraphicData', []))}"
        case _:
            return ""


def _measured(ds: Dataset) -> str:
    for measured in ds.get("MeasuredValueSequence") or ():
        unit = (measured.get("MeasurementUnitsCodeSequence") or [Dataset()])[0]
        shown = "" if unit.get("CodeValue") == "1" else str(unit.get("CodeValue", ""))
        return f"{measured.get('NumericValue', '')} {shown}".strip()
    return ""


def _reference(item: Dataset) -> str:
    frames = item.get("ReferencedFrameNumber")
    return str(item.get("ReferencedSOPInstanceUID", "")) + (f", frame {frames}" if frames else "")


def _meaning(ds: Dataset, keyword: str) -> str:
    codes = ds.get(keyword) or ()
    return str(codes[0].get("CodeMeaning", "")) if codes else ""
