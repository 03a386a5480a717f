"""Where a document version comes from: the model that made it, and the person who signed, corrected or rejected it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from fhir_records.model import Act, FhirResource, ImageRef, Installation, Report, Result, Signature, Signer
from fhir_records.renderings.fhir.datatypes import Json, clean, instant, narrative, present, reference, uid_identifier
from fhir_records.renderings.fhir.ids import (
    device_id,
    diagnostic_report_id,
    imaging_study_id,
    observation_id,
    provenance_id,
    signer_identifier,
)
from fhir_records.renderings.fhir.validation import finished

_TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem"
_PARTICIPANT: Final = f"{_TERMINOLOGY}/provenance-participant-type"

# "A device that operates independently of an author …": http://hl7.org/fhir/ValueSet/provenance-agent-type
_ASSEMBLER: Final = MappingProxyType({"system": _PARTICIPANT, "code": "assembler", "display": "Assembler"})
_AUTHOR: Final = MappingProxyType(
    {"system": f"{_TERMINOLOGY}/v3-ParticipationType", "code": "AUT", "display": "author (originator)"}
)
_PERSON_TYPES: Final[Mapping[Act, Mapping[str, str]]] = MappingProxyType(
    {
        Act.ACCEPT: {"system": _PARTICIPANT, "code": "verifier", "display": "Verifier"},
        Act.CORRECT: {"system": _PARTICIPANT, "code": "author", "display": "Author"},
        Act.REJECT: {"system": _PARTICIPANT, "code": "verifier", "display": "Verifier"},
    }
)
# http://hl7.org/fhir/ValueSet/provenance-activity-type
_ACTIVITIES: Final[Mapping[Act, Mapping[str, str]]] = MappingProxyType(
    {
        Act.ACCEPT: {
            "system": f"{_TERMINOLOGY}/v3-DocumentCompletion",
            "code": "AU",
            "display": "authenticated",
        },
        Act.CORRECT: {"system": f"{_TERMINOLOGY}/v3-DataOperation", "code": "UPDATE", "display": "revise"},
        Act.REJECT: {"system": f"{_TERMINOLOGY}/v3-DataOperation", "code": "NULLIFY", "display": "nullify"},
    }
)
_DONE: Final[Mapping[Act, str]] = MappingProxyType(
    {Act.ACCEPT: "Accepted", Act.CORRECT: "Corrected", Act.REJECT: "Rejected"}
)


def practitioner(installation: Installation, signer: Signer) -> Json:
    """The reference to a person who signed: by identifier, for this server keeps no Practitioner."""
    system, value = signer_identifier(installation, signer)
    identifier = {"system": system, "value": clean(value)}
    return {"type": "Practitioner", "identifier": identifier, "display": clean(signer.display_name)}


def render_provenance(report: Report) -> FhirResource:
    """The Provenance of one document version.

    Raises:
        RenderingError: something in it does not fit into valid FHIR.
    """
    installation, study, result = report.installation, report.study, report.result
    signature = result.signature
    recorded = instant(result.created_at)
    key_images = set(result.finding.key_images) if result.finding else set()
    return finished(
        present(
            resourceType="Provenance",
            id=provenance_id(report),
            text=narrative(_words(result, recorded)),
            target=[
                reference("Observation", observation_id(installation, study, report.read)),
                reference("DiagnosticReport", diagnostic_report_id(installation, study, report.read)),
            ],
            occurredDateTime=recorded,
            recorded=recorded,
            activity={"coding": [dict(_ACTIVITIES[signature.act])]} if signature else None,
            agent=[*([_person(installation, signature)] if signature else ()), _model(report)],
            entity=[
                {
                    "role": "source",
                    "what": reference("ImagingStudy", imaging_study_id(installation, study.study_uid)),
                },
                *(_image_entity(image, key=image in key_images) for image in result.images_read),
                *(
                    {"role": "revision", "what": {"identifier": uid_identifier(earlier.sop_uid)}}
                    for earlier in report.replaces
                ),
            ],
        ),
        date=result.created_at,
    )


def _words(result: Result, recorded: str) -> list[str]:
    maker = f"{result.algorithm.title}, version {result.algorithm.version}"
    images = f"Images shown to it: {len(result.images_read)}"
    if result.signature is None:
        return [f"Made by {maker}, at {recorded}, without a person.", images]
    return [
        f"{_DONE[result.signature.act]} by {result.signature.signer.display_name}, at {recorded}.",
        f"Made by {maker}.",
        images,
    ]


def _person(installation: Installation, signature: Signature) -> Json:
    who = practitioner(installation, signature.signer)
    organization = clean(signature.signer.organization)
    return present(
        type={"coding": [dict(_PERSON_TYPES[signature.act])]},
        who=who,
        onBehalfOf={"type": "Organization", "display": organization} if organization else None,
    )


def _model(report: Report) -> Json:
    algorithm = report.result.algorithm
    maker = reference("Device", device_id(report.installation, algorithm.device_uid), clean(algorithm.title))
    return {"type": {"coding": [dict(_ASSEMBLER)]}, "role": [{"coding": [dict(_AUTHOR)]}], "who": maker}


def _image_entity(image: ImageRef, *, key: bool) -> Json:
    frame = f"frame {image.frame}" if image.frame is not None else ""
    display = ", ".join(part for part in ("key image" if key else "image", frame) if part)
    return {"role": "source", "what": {"identifier": uid_identifier(image.sop_uid), "display": display}}
