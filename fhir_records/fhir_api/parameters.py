"""Which resource types are served, and what each can be searched by.

One table: the search parses by it, the store finds by it and the CapabilityStatement tells it, so that the three
cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

_DEFINITIONS: Final = "http://hl7.org/fhir/SearchParameter"


class Kind(StrEnum):
    """Type of a search parameter (R4 search-param-type)."""

    TOKEN = "token"  # noqa: S105 - the standard's word, no secret
    DATE = "date"
    REFERENCE = "reference"


class Column(StrEnum):
    """What is searched: the columns of the stored resource."""

    ID = "id"
    IDENTIFIERS = "identifiers"
    CODES = "codes"
    STATUS = "status"
    DATE = "date"
    LAST_UPDATED = "last_updated"
    PATIENT = "patient_id"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A search parameter of one resource type."""

    name: str
    kind: Kind
    column: Column
    definition: str  # canonical URL of the standard's SearchParameter
    system: str = ""  # code system of a `code` element, which the element itself does not say
    documentation: str = ""


def _standard(
    name: str, kind: Kind, column: Column, owner: str, *, system: str = "", documentation: str = ""
) -> Parameter:
    return Parameter(name, kind, column, f"{_DEFINITIONS}/{owner}-{name.lstrip('_')}", system, documentation)


def _status(type: str, system: str) -> Parameter:
    return _standard("status", Kind.TOKEN, Column.STATUS, type, system=f"http://hl7.org/fhir/{system}")


_EVERY: Final = (
    _standard("_id", Kind.TOKEN, Column.ID, "Resource"),
    _standard("_lastUpdated", Kind.DATE, Column.LAST_UPDATED, "Resource"),
)
_IDENTIFIER: Final = _standard("identifier", Kind.TOKEN, Column.IDENTIFIERS, "clinical")
_PATIENT: Final = _standard("patient", Kind.REFERENCE, Column.PATIENT, "clinical")
_CODE: Final = _standard("code", Kind.TOKEN, Column.CODES, "clinical")
_DATE: Final = _standard("date", Kind.DATE, Column.DATE, "clinical")


def _subject(type: str) -> Parameter:
    return _standard("subject", Kind.REFERENCE, Column.PATIENT, type)


# R4, "Search Parameters" of each resource's page.
PARAMETERS: Final[Mapping[str, tuple[Parameter, ...]]] = MappingProxyType(
    {
        "Patient": (
            *_EVERY,
            _standard("identifier", Kind.TOKEN, Column.IDENTIFIERS, "Patient"),
        ),
        "ImagingStudy": (
            *_EVERY,
            _IDENTIFIER,
            _PATIENT,
            _subject("ImagingStudy"),
            _status("ImagingStudy", "imagingstudy-status"),
            _standard("modality", Kind.TOKEN, Column.CODES, "ImagingStudy"),
            _standard("started", Kind.DATE, Column.DATE, "ImagingStudy"),
        ),
        "Observation": (
            *_EVERY,
            _IDENTIFIER,
            _PATIENT,
            _subject("Observation"),
            _status("Observation", "observation-status"),
            _CODE,
            _DATE,
        ),
        "DiagnosticReport": (
            *_EVERY,
            _IDENTIFIER,
            _PATIENT,
            _subject("DiagnosticReport"),
            _status("DiagnosticReport", "diagnostic-report-status"),
            _CODE,
            _DATE,
        ),
        "Device": (
            *_EVERY,
            _standard("identifier", Kind.TOKEN, Column.IDENTIFIERS, "Device"),
            _status("Device", "device-status"),
            _standard("type", Kind.TOKEN, Column.CODES, "Device"),
        ),
        "Provenance": (
            *_EVERY,
            _standard(
                "patient",
                Kind.REFERENCE,
                Column.PATIENT,
                "Provenance",
                documentation="The patient whose results the targets are, not only a target that is itself a Patient.",
            ),
            _standard("recorded", Kind.DATE, Column.DATE, "Provenance"),
        ),
    }
)


def find_parameter(type: str, name: str) -> Parameter | None:
    """The search parameter ``name`` of a resource type that is served, if it has it."""
    return next((parameter for parameter in PARAMETERS[type] if parameter.name == name), None)
