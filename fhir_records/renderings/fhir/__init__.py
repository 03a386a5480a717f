"""A study and its results as FHIR R4 (4.0.1) resources.

Pure: no clock, no chance, so the same record gives the same text. Everything that comes out has been validated.

Ids are UUIDv5 of natural keys in the installation's namespace (`ids`). An Observation and its DiagnosticReport belong
to one read, that is to (study, revision, model, model version), whatever the document's version: signing or amending a
result is a new version of the *same* FHIR resource, so that links hold and a stale `preliminary` never stands beside a
`final`. Images that arrive later make a new read, and with it a new Observation; the tracking identifier ties the two
together.
"""

from fhir_records.renderings.fhir.ids import (
    device_id,
    diagnostic_report_id,
    imaging_study_id,
    observation_id,
    patient_id,
    provenance_id,
)
from fhir_records.renderings.fhir.report import render_report
from fhir_records.renderings.fhir.study import render_study

__all__ = [
    "device_id",
    "diagnostic_report_id",
    "imaging_study_id",
    "observation_id",
    "patient_id",
    "provenance_id",
    "render_report",
    "render_study",
]
