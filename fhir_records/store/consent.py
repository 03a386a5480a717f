"""Whether a patient's images and answers may train models: who said so, when, and what had left before.

Statements are append-only; the newest one counts. A patient without any is `unasked`, and the site's policy decides.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from fhir_records import audit, tables
from fhir_records.errors import NotFound, QueryError
from fhir_records.identities import log_id
from fhir_records.model import AuditEntry, Consent
from fhir_records.store.review_exports import ReviewExport, exports_with_patient

MAX_SAID_BY = 200  # characters
# Any number will do that no other lock of this database has: consent and exports wait for each other.
_LOCK = 7_731_116


class ConsentPolicy(StrEnum):
    """What a site does with patients who were not asked."""

    OPT_IN = "opt_in"  # only who said yes
    OPT_OUT = "opt_out"  # everybody but who said no

    def allows(self, consent: Consent) -> bool:
        """Whether such a patient's cases may train models."""
        return consent is Consent.GIVEN or (self is ConsentPolicy.OPT_OUT and consent is Consent.UNASKED)


@dataclass(frozen=True, slots=True)
class ConsentStatement:
    """What was recorded once."""

    state: Consent
    said_by: str  # the patient, or who speaks for the patient
    recorded_by: str  # username, or "command line"
    recorded_at: dt.datetime


@dataclass(frozen=True, slots=True)
class PatientConsent:
    """Where a patient stands, how it came to that, and what of the patient has left in exports."""

    patient_uid: str
    statements: tuple[ConsentStatement, ...]  # newest first
    exports: tuple[ReviewExport, ...]  # newest first

    @property
    def state(self) -> Consent:
        """What counts now."""
        return self.statements[0].state if self.statements else Consent.UNASKED

    @property
    def is_to_be_followed(self) -> bool:
        """Whether the patient has refused and exports hold cases: whoever has those must be told."""
        return self.state is Consent.REFUSED and bool(self.exports)


def patient_consent(session: Session, patient_uid: str) -> PatientConsent:
    """Where the patient stands.

    Raises:
        NotFound: there is no such patient.
    """
    patient = _patient(session, patient_uid)
    rows = session.scalars(
        select(tables.ConsentStatement)
        .where(tables.ConsentStatement.patient_id == patient.id)
        .order_by(tables.ConsentStatement.id.desc())
    )
    return PatientConsent(
        patient_uid=patient_uid,
        statements=tuple(ConsentStatement(row.state, row.said_by, row.recorded_by, row.recorded_at) for row in rows),
        exports=exports_with_patient(session, patient.id),
    )


def record_consent(
    session: Session, patient_uid: str, state: Consent, *, said_by: str, recorded_by: str
) -> PatientConsent:
    """Write down what a patient said, in the caller's transaction, with its line in the audit trail.

    Args:
        session: the caller's.
        patient_uid: the patient's.
        state: given or refused.
        said_by: who said so: the patient, or who speaks for the patient.
        recorded_by: username, or "command line".

    Returns:
        Where the patient stands now; after a refusal its exports are those that the patient is in.

    Raises:
        NotFound: there is no such patient.
        QueryError: a value is not allowed, or nobody knows yet who the patient is.
    """
    said_by = said_by.strip()
    if state is Consent.UNASKED:
        raise QueryError("Consent is given or refused; that nobody asked cannot be recorded.")
    if not 1 <= len(said_by) <= MAX_SAID_BY:
        raise QueryError(f"Say who said so, in 1 to {MAX_SAID_BY} characters; {len(said_by)} were given.")
    lock_consent(session)
    patient = _patient(session, patient_uid)
    if patient.provisional:
        raise QueryError("It is not settled who this patient is, so nobody's consent can be recorded here.")
    session.add(tables.ConsentStatement(patient_id=patient.id, state=state, said_by=said_by, recorded_by=recorded_by))
    session.flush()
    now = patient_consent(session, patient_uid)
    audit.record(
        session,
        AuditEntry(
            action=f"consent to training {state.value}",
            actor=recorded_by,
            detail={"patient": log_id(patient_uid), "exports": [str(export.export_uid) for export in now.exports]},
        ),
    )
    return now


def consents(session: Session, patient_ids: Collection[int]) -> Mapping[int, Consent]:
    """Where each of these patients stands, by the row's number."""
    rows = session.execute(
        select(tables.ConsentStatement.patient_id, tables.ConsentStatement.state)
        .where(tables.ConsentStatement.patient_id.in_(patient_ids))
        .distinct(tables.ConsentStatement.patient_id)
        .order_by(tables.ConsentStatement.patient_id, tables.ConsentStatement.id.desc())
    )
    said = {row.patient_id: row.state for row in rows}
    return {patient_id: said.get(patient_id, Consent.UNASKED) for patient_id in patient_ids}


def lock_consent(session: Session) -> None:
    """Until the transaction ends, nobody else records consent or finishes an export."""
    session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})


def _patient(session: Session, patient_uid: str) -> tables.Patient:
    row = session.scalar(select(tables.Patient).where(tables.Patient.patient_uid == patient_uid))
    if row is None:
        raise NotFound("There is no patient with this Patient UID.")
    return row
