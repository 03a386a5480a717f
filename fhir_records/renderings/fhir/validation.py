"""The one gate through which a resource leaves: validated, written as JSON once, never serialised again.

`fhir.resources` has models of R4B (4.3.0), not of 4.0.1. For the types written here the two are the same, element by
element (R4B changed evidence and medicines). Its models leave required value sets unchecked (`status: "nonsense"`
passes), so those stand in a table of our own.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import pydantic
from fhir.resources.R4B.device import Device
from fhir.resources.R4B.diagnosticreport import DiagnosticReport
from fhir.resources.R4B.imagingstudy import ImagingStudy
from fhir.resources.R4B.observation import Observation
from fhir.resources.R4B.patient import Patient
from fhir.resources.R4B.provenance import Provenance

from fhir_records.errors import RenderingError
from fhir_records.model import FhirResource
from fhir_records.renderings.fhir.datatypes import Json

_PARSERS: Final[Mapping[str, Callable[[str], pydantic.BaseModel]]] = MappingProxyType(
    {
        model.__name__: model.model_validate_json
        for model in (Patient, ImagingStudy, Observation, DiagnosticReport, Device, Provenance)
    }
)

_OBSERVATION_STATUS = "registered preliminary final amended corrected cancelled entered-in-error unknown"

# Required bindings of the elements that we write. A path ends there, whatever it starts with; the resource's type
# comes first.
REQUIRED_VALUE_SETS: Final[Mapping[tuple[str, str], tuple[str, frozenset[str]]]] = MappingProxyType(
    {
        (type, path): (f"http://hl7.org/fhir/ValueSet/{value_set}", frozenset(codes.split()))
        for type, path, value_set, codes in (
            ("", "identifier.use", "identifier-use", "usual official temp secondary old"),
            ("", "text.status", "narrative-status", "generated extensions additional empty"),
            ("Patient", "gender", "administrative-gender", "male female other unknown"),
            ("Patient", "name.use", "name-use", "usual official temp nickname anonymous old maiden"),
            (
                "ImagingStudy",
                "status",
                "imagingstudy-status",
                "registered available cancelled entered-in-error unknown",
            ),
            ("Observation", "status", "observation-status", _OBSERVATION_STATUS),
            (
                "DiagnosticReport",
                "status",
                "diagnostic-report-status",
                "registered partial preliminary final amended corrected appended cancelled entered-in-error unknown",
            ),
            ("Device", "status", "device-status", "active inactive entered-in-error unknown"),
            (
                "Device",
                "deviceName.type",
                "device-nametype",
                "udi-label-name user-friendly-name patient-reported-name manufacturer-name model-name other",
            ),
            ("Provenance", "entity.role", "provenance-entity-role", "derivation revision quotation source removal"),
        )
    }
)


def finished(
    resource: Json,
    *,
    status: str = "",
    codes: tuple[str, ...] = (),
    date: dt.datetime | None = None,
) -> FhirResource:
    """The validated resource as stored text, with what it can be searched by.

    Raises:
        RenderingError: it is not valid R4; the message names the path and the rule. It names the value only where a
            value set is to blame, for every other value may tell who the patient is.
    """
    text = json.dumps(resource, ensure_ascii=False, separators=(",", ":"))
    validate(resource, text)
    return FhirResource(
        type=resource["resourceType"],
        id=resource["id"],
        text=text,
        status=status,
        codes=codes,
        identifiers=tuple(f"{entry.get('system', '')}|{entry['value']}" for entry in resource.get("identifier", ())),
        date=date,
    )


def validate(resource: Json, text: str) -> None:
    """Check a resource against the models and the required value sets.

    Raises:
        RenderingError: it is not valid.
    """
    kind = resource["resourceType"]
    if kind not in _PARSERS:
        raise RenderingError(f"Wetread writes no FHIR {kind}.")
    try:
        _PARSERS[kind](text)
    except pydantic.ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        path = ".".join(str(step) for step in first["loc"])
        # `from None`: the error's own text quotes the value.
        raise RenderingError(f"{kind}.{path} is not valid FHIR R4 ({first['type']}).") from None
    for path, value in _strings(resource):
        value_set = REQUIRED_VALUE_SETS.get((kind, path)) or REQUIRED_VALUE_SETS.get(("", path))
        if value_set and value not in value_set[1]:
            allowed = ", ".join(sorted(value_set[1]))
            raise RenderingError(f"{kind}.{path} is {value!r}, which is not in {value_set[0]}; allowed: {allowed}.")


def _strings(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every string below ``node`` with its path; repeats of an element share one path."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _strings(value, f"{path}.{name}" if path else name)
    elif isinstance(node, list):
        for value in node:
            yield from _strings(value, path)
    elif isinstance(node, str):
        yield path, node
