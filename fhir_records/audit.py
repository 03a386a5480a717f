"""The audit trail: rows written in the caller's transaction, so that what is done and what is told agree."""

from __future__ import annotations

from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.model import AuditEntry


def record(session: Session, entry: AuditEntry) -> None:
    """Write one line of the audit trail; it stands if and only if the caller's transaction does."""
    session.add(
        tables.AuditEvent(
            actor=entry.actor,
            action=entry.action,
            outcome=entry.outcome,
            study_uid=entry.study_uid,
            detail=dict(entry.detail),
        )
    )
