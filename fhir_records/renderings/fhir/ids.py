"""The logical ids and identifier systems of what we write: derived from natural keys, never from database numbers."""

from __future__ import annotations

import re

from fhir_records.identities import name_uid, name_uuid
from fhir_records.model import Installation, Read, Report, Signer, Study

_OID = re.compile(r"[0-2](\.(0|[1-9]\d*))+")
# R4 2.24.0.9: the URI of a scheme of people's numbers (PS3.16 section 8).
_PERSON_SCHEMES = {"NPI": "http://hl7.org/fhir/sid/us-npi"}
_URI = re.compile(r"(https?|urn):\S+", re.IGNORECASE)


def patient_id(installation: Installation, patient_uid: str) -> str:
    """Id of the Patient with this Patient UID."""
    return str(name_uuid(installation.namespace, "fhir", "Patient", patient_uid))


def imaging_study_id(installation: Installation, study_uid: str) -> str:
    """Id of the ImagingStudy of this Study Instance UID."""
    return str(name_uuid(installation.namespace, "fhir", "ImagingStudy", study_uid))


def device_id(installation: Installation, device_uid: str) -> str:
    """Id of the Device of a model version, by its Device UID."""
    return str(name_uuid(installation.namespace, "fhir", "Device", device_uid))


def observation_id(installation: Installation, study: Study, read: Read) -> str:
    """Id of the Observation that says what a read found; the same for all its document versions."""
    return _of_read(installation, "Observation", study, read)


def diagnostic_report_id(installation: Installation, study: Study, read: Read) -> str:
    """Id of the DiagnosticReport of a read; the same for all its document versions."""
    return _of_read(installation, "DiagnosticReport", study, read)


def provenance_id(report: Report) -> str:
    """Id of the Provenance of one document version: who made it, and when, does not change afterwards."""
    return _of_read(report.installation, "Provenance", report.study, report.read, report.result.version)


def patient_uid_system(installation: Installation) -> str:
    """The identifier system of this installation's Patient UIDs."""
    return f"urn:oid:{name_uid(installation.namespace, 'fhir', 'system', 'Patient UID')}"


def issuer_system(installation: Installation, issuer: str) -> str:
    """The identifier system of an issuer of patient ids: its own where it is a URI or an OID, else one that we derive.

    A derived system keeps two hospitals' equal numbers apart; the issuer's name stands beside it as the assigner.
    """
    if _URI.fullmatch(issuer):
        return issuer
    if _OID.fullmatch(issuer):
        return f"urn:oid:{issuer}"
    return f"urn:oid:{name_uid(installation.namespace, 'fhir', 'system', 'issuer', issuer)}"


def signer_identifier(installation: Installation, signer: Signer) -> tuple[str, str]:
    """System and value of a signer's identifier: the person's own number where there is one, else the username."""
    code = signer.identification
    if code is None:
        return f"urn:oid:{name_uid(installation.namespace, 'fhir', 'system', 'username')}", signer.username
    known = _PERSON_SCHEMES.get(code.scheme)
    return known or f"urn:oid:{name_uid(installation.namespace, 'fhir', 'system', 'person', code.scheme)}", code.value


def _of_read(installation: Installation, type: str, study: Study, read: Read, *more: int) -> str:
    key: tuple[str | int, ...] = (study.study_uid, read.revision, read.model, read.model_version, *more)
    return str(name_uuid(installation.namespace, "fhir", type, *key))
