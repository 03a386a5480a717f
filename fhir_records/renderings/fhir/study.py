"""Patient and ImagingStudy: who was scanned and what was taken, written whether or not anything reads it."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

from fhir_records.model import FhirResource, Identifier, Installation, Instance, Patient, Study
from fhir_records.renderings.fhir.datatypes import (
    DCM,
    URI,
    Json,
    clean,
    clean_code,
    human_names,
    identifier_type,
    instant,
    narrative,
    present,
    reference,
    token,
    uid_identifier,
    unsigned,
)
from fhir_records.renderings.fhir.ids import imaging_study_id, issuer_system, patient_id, patient_uid_system
from fhir_records.renderings.fhir.validation import finished

# PS3.3 C.7.1.1 PatientSex → http://hl7.org/fhir/ValueSet/administrative-gender. "" stays unsaid.
_GENDERS: Final = MappingProxyType({"M": "male", "F": "female", "O": "other"})

_UNKNOWN_MODALITY: Final = "OT"  # PS3.3 C.7.3.1.1.1, Other: ImagingStudy.series.modality must be there


def render_study(
    installation: Installation, study: Study, instances: Sequence[Instance]
) -> tuple[FhirResource, FhirResource]:
    """Patient and ImagingStudy of a study.

    Args:
        installation: whose namespace the ids come from.
        study: the study.
        instances: its image instances, of the revision that is told.

    Raises:
        RenderingError: what the scan says does not fit into valid FHIR.
    """
    return _patient(installation, study.patient), _imaging_study(installation, study, instances)


def subject(installation: Installation, patient: Patient) -> Json:
    """The reference to the patient that everything about the study carries."""
    return reference("Patient", patient_id(installation, patient.patient_uid))


def _patient(installation: Installation, patient: Patient) -> FhirResource:
    names = human_names(patient.name)
    born = patient.birth_date.isoformat() if patient.birth_date else None
    said = [
        ", ".join(name["text"] for name in names),
        f"Patient UID {patient.patient_uid}",
        f"Born {born}" if born else "",
    ]
    return finished(
        present(
            resourceType="Patient",
            id=patient_id(installation, patient.patient_uid),
            text=narrative(said),
            identifier=[
                {
                    "use": "official",
                    "type": identifier_type("PI", "Patient internal identifier"),
                    "system": patient_uid_system(installation),
                    "value": patient.patient_uid,
                    "assigner": {"display": clean(installation.organization) or "Wetread"},
                },
                *(_outside_identifier(installation, entry) for entry in patient.identifiers if clean(entry.value)),
            ],
            name=names,
            gender=_GENDERS.get(patient.sex),
            birthDate=born,
        )
    )


def _outside_identifier(installation: Installation, identifier: Identifier) -> Json:
    issuer = clean(identifier.issuer)
    return present(
        use="usual",
        system=issuer_system(installation, issuer) if issuer else None,
        value=clean(identifier.value),
        assigner={"display": issuer} if issuer else None,
    )


def _imaging_study(installation: Installation, study: Study, instances: Sequence[Instance]) -> FhirResource:
    accession = clean(study.accession_number)
    modalities = [code for modality in study.modalities if (code := clean_code(modality))]
    description = clean(study.description)
    series = [_series(members) for members in _by_series(instances)]
    identifiers = [{"use": "official", **uid_identifier(study.study_uid)}]
    if accession:
        # Nothing says who gave the number, so it carries no system.
        identifiers.append({"type": identifier_type("ACSN", "Accession ID"), "value": accession})
    return finished(
        present(
            resourceType="ImagingStudy",
            id=imaging_study_id(installation, study.study_uid),
            text=narrative([f"Imaging study: {', '.join(modalities)} {description}", f"Images: {len(instances)}"]),
            identifier=identifiers,
            status="available",
            modality=[{"system": DCM, "code": modality} for modality in modalities],
            subject=subject(installation, study.patient),
            started=instant(study.started_at) if study.started_at else None,
            numberOfSeries=len(series),
            numberOfInstances=len(instances),
            description=description,
            series=series,
        ),
        status="available",
        codes=tuple(token(DCM, modality) for modality in modalities),
        date=study.started_at,
    )


def _by_series(instances: Sequence[Instance]) -> list[list[Instance]]:
    """The instances by series, both in the order of their numbers; UIDs decide where numbers are equal or missing."""
    series: dict[str, list[Instance]] = {}
    for instance in sorted(instances, key=lambda instance: (instance.instance_number or 0, instance.sop_uid)):
        series.setdefault(instance.series_uid, []).append(instance)
    return sorted(series.values(), key=lambda members: (members[0].series_number or 0, members[0].series_uid))


def _series(instances: Sequence[Instance]) -> Json:
    first = instances[0]
    return present(
        uid=first.series_uid,
        number=unsigned(first.series_number),
        modality={"system": DCM, "code": clean_code(first.modality) or _UNKNOWN_MODALITY},
        description=clean(first.series_description),
        numberOfInstances=len(instances),
        instance=[
            present(
                uid=instance.sop_uid,
                sopClass={"system": URI, "code": f"urn:oid:{instance.sop_class_uid}"},
                number=unsigned(instance.instance_number),
            )
            for instance in instances
        ],
    )
