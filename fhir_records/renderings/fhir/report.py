"""A result as Observation, DiagnosticReport and Device; `provenance` says where it comes from.

Nothing unsigned claims a profile that demands a human interpreter: performer and resultsInterpreter are whoever signed.
What the machine asserts carries the security label AIAST, what a person put in its place CLINAST.
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
    Installation,
    Presence,
    Report,
    Result,
    ResultStatus,
    SegmentVolume,
)
from fhir_records.renderings import plain_words
from fhir_records.renderings.codes import PRESENCE, PROBABILITY, VOLUME
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
)
from fhir_records.renderings.fhir.provenance import practitioner, render_provenance
from fhir_records.renderings.fhir.study import render_study, subject
from fhir_records.renderings.fhir.validation import finished

NOT_THE_REPORT: Final = "AI finding, not the radiology report."
PERSONS_FINDING: Final = "A person's finding made on an AI's, not the radiology report."

_TERMINOLOGY: Final = "http://terminology.hl7.org/CodeSystem"

# The label of what a machine asserts. R4's own copy of the code system is older than the code; the binding is
# extensible.
AI_ASSERTED: Final = MappingProxyType(
    {"system": f"{_TERMINOLOGY}/v3-ObservationValue", "code": "AIAST", "display": "Artificial Intelligence asserted"}
)

# The label of what a clinician asserts, in place of the machine's answer.
CLINICIAN_ASSERTED: Final = MappingProxyType(
    {"system": f"{_TERMINOLOGY}/v3-ObservationValue", "code": "CLINAST", "display": "clinician asserted"}
)
# "This Act instance has been replaced by a new instance."
OBSOLETE: Final = MappingProxyType(
    {"system": f"{_TERMINOLOGY}/v3-ActStatus", "code": "obsolete", "display": "obsolete"}
)
_REPLACES: Final = "http://hl7.org/fhir/StructureDefinition/observation-replaces"

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
_STUDY_REPORT: Final = Code("LN", "18748-4", "Diagnostic imaging study")
_ARTIFICIAL_INTELLIGENCE: Final = Code("DCM", "123110", "Artificial Intelligence")  # PS3.16 Annex D


def render_report(report: Report) -> tuple[FhirResource, ...]:
    """Patient, ImagingStudy, Device, Observation, DiagnosticReport and Provenance of one result.

    A refusal is an Observation and a DiagnosticReport with status `cancelled` (R4: "the measurement was not started or
    not completed"), the Observation with a dataAbsentReason.

    Raises:
        RenderingError: the result is signed or rejected, and names nobody who did so, or something in it does not fit
            into valid FHIR.
    """
    result = report.result
    if result.status is not ResultStatus.PRELIMINARY and result.signature is None:
        raise RenderingError(f"A {result.status} result is not written as FHIR without its signer.")
    return (
        *render_study(report.installation, report.study, report.instances),
        _device(report.installation, result.algorithm),
        _observation(report),
        _diagnostic_report(report),
        render_provenance(report),
    )


def _status(result: Result) -> str:
    """The status, for observation-status and diagnostic-report-status alike: they share these words (R4)."""
    if result.status is ResultStatus.ENTERED_IN_ERROR:
        return "entered-in-error"
    if result.refusal is not None:
        return "cancelled"
    if result.status is ResultStatus.AMENDED and result.signature is not None and result.signature.changed:
        return "corrected"
    return result.status.value


def _meta(report: Report) -> Json:
    asserted = AI_ASSERTED if report.result.author is None else CLINICIAN_ASSERTED
    return present(security=[dict(asserted)], tag=[dict(OBSOLETE)] if report.superseded_at else None)


def _caveat(result: Result) -> str:
    return NOT_THE_REPORT if result.author is None else PERSONS_FINDING


def _people(report: Report) -> list[Json] | None:
    """Who answers for a signed result."""
    signature = report.result.signature
    return [practitioner(report.installation, signature.signer)] if signature and report.result.is_signed else None


def _replaced(report: Report) -> list[Json]:
    """The Observations of earlier reads that this one takes the place of."""
    ids = (
        observation_id(report.installation, report.study, earlier.read)
        for earlier in report.replaces
        if earlier.read.id != report.read.id
    )
    return [{"url": _REPLACES, "valueReference": reference("Observation", id)} for id in dict.fromkeys(ids)]


def _observation(report: Report) -> FhirResource:
    installation, study, result = report.installation, report.study, report.result
    finding, refusal = result.finding, result.refusal
    status, superseded = _status(result), report.superseded_at is not None
    if finding is not None:
        code, site = concept(finding.code), concept(finding.site)
        said = _finding_fields(finding)
    elif refusal is not None:
        code, site = concept(refusal.question), concept(refusal.site)
        said = {"dataAbsentReason": {"coding": [dict(_NOT_PERFORMED)], "text": clean(refusal.sentence)}}
    else:
        raise RenderingError("A result has either a finding or a refusal.")
    region = finding.region if finding else None
    notes = [
        *((plain_words.region_words(region),) if region else ()),
        *(finding.limits if finding else ()),
        *(plain_words.standing(result, superseded=superseded) if result.signature or superseded else ()),
        _caveat(result),
        installation.statement,
    ]
    return finished(
        present(
            resourceType="Observation",
            id=observation_id(installation, study, report.read),
            meta=_meta(report),
            text=narrative(
                [_caveat(result), *plain_words.sentences(result, superseded=superseded), installation.statement]
            ),
            extension=_replaced(report),
            # Stable across revisions (PS3.16 TID 4108), unlike the id.
            identifier=[uid_identifier(finding.tracking_uid)] if finding else None,
            status=status,
            category=[{"coding": [dict(_CATEGORY_IMAGING)]}],
            code=code,
            subject=subject(installation, study.patient),
            effectiveDateTime=instant(study.started_at) if study.started_at else None,
            issued=instant(result.created_at),
            performer=_people(report),
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
    components.extend(_volume(segment) for segment in finding.segments)
    return present(valueCodeableConcept=concept(PRESENCE[finding.presence]), component=components)


def _volume(segment: SegmentVolume) -> Json:
    """The volume of what the model outlined, in mL; which thing that is, the text says."""
    return {
        "code": concept(VOLUME, f"Volume of {plain_words.segment_name(segment)}"),
        "valueQuantity": {
            "value": round(segment.volume_mm3 / 1000, 4),
            "unit": "mL",
            "system": UCUM,
            "code": "mL",
        },
    }


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
    status = _status(result)
    code = concept(_STUDY_REPORT)
    superseded = report.superseded_at is not None
    conclusion = [_caveat(result), *plain_words.sentences(result, superseded=superseded)]
    return finished(
        present(
            resourceType="DiagnosticReport",
            id=diagnostic_report_id(installation, study, report.read),
            meta=_meta(report),
            text=narrative([*conclusion, installation.statement]),
            status=status,
            category=[{"coding": [dict(_SECTION_RADIOLOGY)]}],
            code=code,
            subject=subject(installation, study.patient),
            effectiveDateTime=instant(study.started_at) if study.started_at else None,
            issued=instant(result.created_at),
            resultsInterpreter=_people(report),
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
