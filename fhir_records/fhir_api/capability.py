"""The CapabilityStatement (R4): what this server really does, told from the table that the search itself uses."""

from __future__ import annotations

import json
from typing import Any, Final

from fhir_records.fhir_api.parameters import PARAMETERS, Parameter
from fhir_records.fhir_api.search import MAX_COUNT

FHIR_VERSION: Final = "4.0.1"
MEDIA_TYPE: Final = "application/fhir+json"

# When what the statement says last changed; R4 demands a date, and a clock's would be a lie.
_CHANGED: Final = "2026-11-20"

_SECURITY: Final = (
    "Every request but this one needs a bearer token, made by the site with `wetread tokens create`, with SMART App "
    "Launch v2 scopes (system/*.rs, system/Observation.r, …), or the session of a person who is logged in. Every read "
    "is audited."
)
_DOCUMENTATION: Final = (
    "Read only. Results are preliminary AI findings, not radiology reports. Unknown search parameters are left out of "
    "the search and of the self link; with Prefer: handling=strict they are an error. Pages are sorted by _lastUpdated "
    f"unless _sort names _lastUpdated, _id or the type's date; _count is at most {MAX_COUNT}, and 0 asks for the total."
)


def capability_statement(base_url: str, software_version: str) -> str:
    """The text of the CapabilityStatement that ``[base]/metadata`` answers with."""
    return json.dumps(
        {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": _CHANGED,
            "kind": "instance",
            "software": {"name": "Wetread", "version": software_version},
            "implementation": {"description": "Wetread: preliminary AI reads of imaging studies", "url": base_url},
            "fhirVersion": FHIR_VERSION,
            "format": [MEDIA_TYPE, "json"],
            "rest": [
                {
                    "mode": "server",
                    "documentation": _DOCUMENTATION,
                    "security": {"cors": False, "description": _SECURITY},
                    "resource": [_resource(type, parameters) for type, parameters in PARAMETERS.items()],
                }
            ],
        },
        ensure_ascii=False,
    )


def _resource(type: str, parameters: tuple[Parameter, ...]) -> dict[str, Any]:
    return {
        "type": type,
        "interaction": [{"code": "read"}, {"code": "search-type"}],
        "versioning": "versioned",
        "readHistory": False,
        "updateCreate": False,
        "conditionalCreate": False,
        "conditionalRead": "not-match",
        "conditionalUpdate": False,
        "conditionalDelete": "not-supported",
        "searchParam": [_search_param(parameter) for parameter in parameters],
    }


def _search_param(parameter: Parameter) -> dict[str, str]:
    told = {"name": parameter.name, "definition": parameter.definition, "type": parameter.kind.value}
    return told | ({"documentation": parameter.documentation} if parameter.documentation else {})
