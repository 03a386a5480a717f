"""The audit trail: rows written in the caller's transaction, so that what is done and what is told agree."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable

from sqlalchemy import insert
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.model import AuditEntry


def record(session: Session, entry: AuditEntry) -> None:
    """Write one line of the audit trail; it stands if and only if the caller's transaction does."""
    session.add(tables.AuditEvent(**_values(entry)))


def record_past(session: Session, entries: Iterable[tuple[dt.datetime, AuditEntry]]) -> None:
    """Write lines of the audit trail for what happened at those instants, before this transaction."""
    rows = [{"at": at, **_values(entry)} for at, entry in entries]
    if rows:
        session.execute(insert(tables.AuditEvent), rows)


def _values(entry: AuditEntry) -> dict[str, object]:
    return {
        "actor": entry.actor,
        "action": entry.action,
        "outcome": entry.outcome,
        "study_uid": entry.study_uid,
        "detail": dict(entry.detail),
    }
