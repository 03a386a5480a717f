"""A result as Observation, DiagnosticReport, Device and Provenance.

Nothing here claims a profile that demands a human interpreter: no performer, no resultsInterpreter. What the machine
asserts carries the security label AIAST.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from fhir_records.errors import RenderingError
from fhir_records.model import (
    Algorithm,
    ClassProbability,
    Code,
    FhirResource,
    Finding,
    ImageRef,
    Installation,
    Presence,
    Report,
    ResultStatus,
)
from fhir_records.renderings import plain_words
from fhir_records.renderings.codes import PRESENCE, PROBABILITY
from fhir_records.renderings.fhir.datatypes import (
    UCUM,
    Json,
    clean,
    concept,
    instant,
    narrative,
    present,
    reference,
    tokens,
    uid_identifier,
)
from fhir_records.renderings.fhir.ids import (
    device_id,
    diagnostic_report_id,
    imaging_study_id,
    observation_id,
    provenance_id,
)
from fhir_records.renderings.fhir.study import render_study, subject
from fhir_records.renderings.fhir.validation import finished

NOT_THE_REPORT: Final = "AI finding, not the radiology report."

_TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem"

# The label of what a machine asserts. R4's own copy of the code system is older than the code; the binding is
# extensible.
AI_ASSERTED: Final = MappingProxyType(
    {"system": f"{_TERMINOLOGY}/v3-ObservationValue", "code": "AIAST", "display": "Artificial Intelligence asserted"}
)

_CATEGORY_IMAGING: Final = MappingProxyType(
    {"system": f"{_TERMINOLOGY}/observation-category", "code": "imaging", "display": "Imaging"}
)
_SECTION_RADIOLOGY: Final = MappingProxyType(
    {"system": f"{_TERMINOLOGY}/v2-0074", "code": "RAD", "display": "Radiology"}
)
# "The value is not available because the observation procedure (test, etc.) was not performed."
_NOT_PERFORMED: Final = MappingProxyType(
    {"system": f"{_TERMINOLOGY}/data-absent-reason", "code": "not-performed", "display": "Not Performed"}
)
# "A device that operates independently of an author …": http://hl7.org/fhir/ValueSet/provenance-agent-type
_ASSEMBLER: Final = MappingProxyType(
    {"system": f"{_TERMINOLOGY}/provenance-participant-type", "code": "assembler", "display": "Assembler"}
)
_AUTHOR: Final = MappingProxyType(
    {"system": f"{_TERMINOLOGY}/v3-ParticipationType", "code": "AUT", "display": "author (originator)"}
)

_STUDY_REPORT: Final = Code("LN", "18748-4", "Diagnostic imaging study")
_ARTIFICIAL_INTELLIGENCE: Final = Code("DCM", "123110", "Artificial Intelligence")  # PS3.16 Annex D

# observation-status and diagnostic-report-status share these words (R4).
_STATUSES: Final = MappingProxyType(
    {ResultStatus.PRELIMINARY: "preliminary", ResultStatus.ENTERED_IN_ERROR: "entered-in-error"}
)


def render_report(report: Report) -> tuple[FhirResource, ...]:
    """Patient, ImagingStudy, Device, Observation, DiagnosticReport and Provenance of one result.

    A refusal is an Observation and a DiagnosticReport with status `cancelled` (R4: "the measurement was not started or
    not completed"), the Observation with a dataAbsentReason.

    Raises:
        RenderingError: the result is signed (its signer would have to stand in it, and the record names none), or
            something in it does not fit into valid FHIR.
    """
    return (
        *render_study(report.installation, report.study, report.instances),
        _device(report.installation, report.result.algorithm),
        _observation(report),
        _diagnostic_report(report),
        _provenance(report),
    )


def _status(report: Report) -> str:
    result = report.result
    if result.status not in _STATUSES:
        raise RenderingError(f"A {result.status} result is not written as FHIR: the record does not name its signer.")
    if result.refusal is not None and result.status is ResultStatus.PRELIMINARY:
        return "cancelled"
    return _STATUSES[result.status]


def _observation(report: Report) -> FhirResource:
    installation, study, result = report.installation, report.study, report.result
    finding, refusal = result.finding, result.refusal
    status = _status(report)
    if finding is not None:
        code, site = concept(finding.code), concept(finding.site)
        said = _finding_fields(finding)
    elif refusal is not None:
        code, site = concept(refusal.question), concept(refusal.site)
        said = {"dataAbsentReason": {"coding": [dict(_NOT_PERFORMED)], "text": clean(refusal.sentence)}}
    else:
        raise RenderingError("A result has either a finding or a refusal.")
    notes = [*(finding.limits if finding else ()), NOT_THE_REPORT, installation.statement]
    return finished(
        present(
            resourceType="Observation",
            id=observation_id(installation, study, report.read),
            meta={"security": [dict(AI_ASSERTED)]},
            text=narrative([NOT_THE_REPORT, *plain_words.sentences(result), installation.statement]),
            # Stable across revisions (PS3.16 TID 4108), unlike the id.
            identifier=[uid_identifier(finding.tracking_uid)] if finding else None,
            status=status,
            category=[{"coding": [dict(_CATEGORY_IMAGING)]}],
            code=code,
            subject=subject(installation, study.patient),
            effectiveDateTime=instant(study.started_at) if study.started_at else None,
            issued=instant(result.created_at),
            bodySite=site,
            note=[{"text": clean(note)} for note in notes if clean(note)],
            device=reference(
                "Device", device_id(installation, result.algorithm.device_uid), clean(result.algorithm.title)
            ),
            derivedFrom=[reference("ImagingStudy", imaging_study_id(installation, study.study_uid))],
            **said,
        ),
        status=status,
        codes=tokens(code),
        date=study.started_at,
    )


def _finding_fields(finding: Finding) -> Json:
    """The answer, said once, and the probabilities."""
    components: list[Json] = []
    if finding.probability is not None:
        components.append(
            {
                "code": concept(PROBABILITY, f"Probability {plain_words.about(finding)}"),
                "valueQuantity": _probability(finding.probability),
            }
        )
    for alternative in finding.alternatives:
        if (alternative.code, alternative.presence) != (finding.code, finding.presence):
            components.append(_alternative(finding, alternative))
    return present(valueCodeableConcept=concept(PRESENCE[finding.presence]), component=components)


def _alternative(finding: Finding, alternative: ClassProbability) -> Json:
    """The probability of another answer.

    Only a "present" one is coded by the thing itself. The probability that there is *no* neoplasm under the code of
    neoplasm would be read as its opposite, and a component under the Observation's own code is forbidden (R4 obs-7):
    those are text.
    """
    name = clean(alternative.code.meaning)
    text = f"Probability of no {name}" if alternative.presence is Presence.ABSENT else f"Probability of {name}"
    coded = alternative.presence is Presence.PRESENT and alternative.code != finding.code
    code = concept(alternative.code, text) if coded else {"text": text}
    return {"code": code, "valueQuantity": _probability(alternative.probability)}


def _probability(probability: float) -> Json:
    # As percent, because systems show value and unit as they come.
    return {"value": plain_words.percent(probability), "unit": "%", "system": UCUM, "code": "%"}


def _diagnostic_report(report: Report) -> FhirResource:
    installation, study, result = report.installation, report.study, report.result
    status = _status(report)
    code = concept(_STUDY_REPORT)
    conclusion = [NOT_THE_REPORT, *plain_words.sentences(result)]
    return finished(
        present(
            resourceType="DiagnosticReport",
            id=diagnostic_report_id(installation, study, report.read),
            meta={"security": [dict(AI_ASSERTED)]},
            text=narrative([*conclusion, installation.statement]),
            status=status,
            category=[{"coding": [dict(_SECTION_RADIOLOGY)]}],
            code=code,
            subject=subject(installation, study.patient),
            effectiveDateTime=instant(study.started_at) if study.started_at else None,
            issued=instant(result.created_at),
            result=[
                reference(
                    "Observation",
                    observation_id(installation, study, report.read),
                    clean(plain_words.headline(result)),
                )
            ],
            imagingStudy=[reference("ImagingStudy", imaging_study_id(installation, study.study_uid))],
            conclusion=clean(" ".join((*conclusion, installation.statement))),
        ),
        status=status,
        codes=tokens(code),
        date=study.started_at,
    )


def _device(installation: Installation, algorithm: Algorithm) -> FhirResource:
    kind = concept(_ARTIFICIAL_INTELLIGENCE)
    version = f"version {algorithm.version}"
    return finished(
        present(
            resourceType="Device",
            id=device_id(installation, algorithm.device_uid),
            text=narrative([f"{algorithm.title}, {version}", algorithm.manufacturer, installation.statement]),
            identifier=[uid_identifier(algorithm.device_uid)],
            status="active",
            manufacturer=clean(algorithm.manufacturer),
            deviceName=[
                {"name": clean(algorithm.title), "type": "user-friendly-name"},
                {"name": clean(algorithm.name), "type": "model-name"},
            ],
            type=kind,
            version=[
                {"type": {"text": "Model version"}, "value": clean(algorithm.version)},
                {"type": {"text": "SHA-256 of the weights"}, "value": clean(algorithm.weights_sha256)},
            ],
            note=[{"text": clean(installation.statement)}] if clean(installation.statement) else None,
        ),
        status="active",
        codes=tokens(kind),
    )


def _provenance(report: Report) -> FhirResource:
    installation, study, result = report.installation, report.study, report.result
    algorithm = result.algorithm
    maker = reference("Device", device_id(installation, algorithm.device_uid), clean(algorithm.title))
    key_images = set(result.finding.key_images) if result.finding else set()
    recorded = instant(result.created_at)
    return finished(
        present(
            resourceType="Provenance",
            id=provenance_id(report),
            text=narrative(
                [
                    f"Made by {algorithm.title}, version {algorithm.version}, at {recorded}, without a person.",
                    f"Images shown to it: {len(result.images_read)}",
                ]
            ),
            target=[
                reference("Observation", observation_id(installation, study, report.read)),
                reference("DiagnosticReport", diagnostic_report_id(installation, study, report.read)),
            ],
            occurredDateTime=recorded,
            recorded=recorded,
            agent=[{"type": {"coding": [dict(_ASSEMBLER)]}, "role": [{"coding": [dict(_AUTHOR)]}], "who": maker}],
            entity=[
                {
                    "role": "source",
                    "what": reference("ImagingStudy", imaging_study_id(installation, study.study_uid)),
                },
                *(_image_entity(image, key=image in key_images) for image in result.images_read),
            ],
        ),
        date=result.created_at,
    )


def _image_entity(image: ImageRef, *, key: bool) -> Json:
    frame = f"frame {image.frame}" if image.frame is not None else ""
    display = ", ".join(part for part in ("key image" if key else "image", frame) if part)
    return {"role": "source", "what": {"identifier": uid_identifier(image.sop_uid), "display": display}}
