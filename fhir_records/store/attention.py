"""What needs an administrator: what failed, what was refused, what was kept apart, and who did what."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.model import DeliveryState, ReadState, Standing

LINES = 100  # of each list; the counts tell of the rest


@dataclass(frozen=True, slots=True)
class FailedRead:
    """A read that came to no answer."""

    read_id: int
    study_uid: str
    model: str
    model_version: str
    error: str
    attempts: int
    next_attempt_at: dt.datetime | None
    finished_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class StuckDelivery:
    """A delivery that was refused, or that waits after an attempt in vain."""

    delivery_id: int
    study_uid: str
    destination: str
    kind: str
    sop_class_uid: str
    state: DeliveryState
    error: str
    attempts: int
    next_attempt_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class HeldObject:
    """An object of ours that the conformance gate holds."""

    document_id: int
    study_uid: str
    kind: str
    sop_class_uid: str
    destinations: tuple[str, ...]  # that would get it
    faults: tuple[str, ...]
    created_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Bytes that came and could not be stored as an object."""

    id: int
    reason: str
    caller: str
    size: int  # bytes
    received_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Conflict:
    """An object that came under the UID of another one."""

    instance_id: int
    study_uid: str
    sop_uid: str
    source: str
    received_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Missing:
    """An object whose file is not where it should be."""

    instance_id: int
    study_uid: str
    sop_uid: str
    source: str
    missing_since: dt.datetime


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far an Orthanc has been followed."""

    name: str
    last_change: int
    error: str | None
    updated_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is of what a person should look at."""

    failed_reads: int
    refused: int  # deliveries, and images sent on
    waiting: int  # those that have failed at least once
    quarantined: int
    conflicts: int
    held: int
    held_objects: int  # by the conformance gate
    withdrawals: int  # objects that are still to be taken back
    missing: int  # instances whose file is not in the spool

    @property
    def total(self) -> int:
        """All of it."""
        inbound = self.quarantined + self.conflicts + self.held + self.missing
        outbound = self.refused + self.waiting + self.held_objects + self.withdrawals
        return self.failed_reads + inbound + outbound


@dataclass(frozen=True, slots=True)
class AuditLine:
    """One line of the audit trail."""

    id: int
    at: dt.datetime
    actor: str
    action: str
    outcome: str
    study_uid: str | None
    detail: Mapping[str, Any]


# An object is counted where the gate holds it, and not again for each destination that does not get it.
_HELD = (func.cardinality(tables.Document.faults) > 0) & tables.Document.released_at.is_(None)
_HELD_DOCUMENTS = select(tables.Document.id).where(_HELD)
_REFUSED = (tables.Delivery.state == DeliveryState.REFUSED) & tables.Delivery.document_id.not_in(_HELD_DOCUMENTS)
_IN_VAIN = (tables.Delivery.state == DeliveryState.WAITING) & (tables.Delivery.attempts > 0)


def counts(session: Session) -> Counts:
    """How much needs a person."""

    def number(column: Any, *where: Any) -> Any:
        return select(func.count(column)).where(*where).scalar_subquery()

    row = session.execute(
        select(
            number(tables.Read.id, tables.Read.state == ReadState.FAILED),
            number(tables.Delivery.id, _REFUSED)
            + number(tables.Forward.id, tables.Forward.state == DeliveryState.REFUSED),
            number(tables.Delivery.id, _IN_VAIN)
            + number(
                tables.Forward.id, (tables.Forward.state == DeliveryState.WAITING) & (tables.Forward.attempts > 0)
            ),
            number(tables.QuarantinedObject.id),
            number(tables.Instance.id, tables.Instance.standing == Standing.CONFLICT),
            number(tables.Study.id, tables.Study.hold_reason.is_not(None)),
            number(tables.Document.id, _HELD),
            number(tables.Delivery.id, tables.Delivery.state == DeliveryState.WITHDRAWAL_OPEN),
            number(tables.Instance.id, tables.Instance.missing_since.is_not(None)),
        )
    ).one()
    return Counts(*row)


def failed_reads(session: Session) -> tuple[FailedRead, ...]:
    """The reads that failed, newest first."""
    rows = session.execute(
        select(tables.Read, tables.Study.study_uid)
        .join(tables.Read.study)
        .where(tables.Read.state == ReadState.FAILED)
        .order_by(tables.Read.id.desc())
        .limit(LINES)
    )
    return tuple(
        FailedRead(
            read_id=read.id,
            study_uid=study_uid,
            model=read.model,
            model_version=read.model_version,
            error=read.error or "",
            attempts=read.attempts,
            next_attempt_at=read.next_attempt_at,
            finished_at=read.finished_at,
        )
        for read, study_uid in rows
    )


def stuck_deliveries(session: Session) -> tuple[StuckDelivery, ...]:
    """Refused deliveries, and those that wait after an attempt in vain; the newest first."""
    rows = session.execute(
        select(tables.Delivery, tables.Document.kind, tables.Document.sop_class_uid, tables.Study.study_uid)
        .join(tables.Delivery.document)
        .join(tables.Document.result)
        .join(tables.Result.read)
        .join(tables.Read.study)
        .where(_REFUSED | _IN_VAIN)
        .order_by(tables.Delivery.id.desc())
        .limit(LINES)
    )
    return tuple(
        StuckDelivery(
            delivery_id=delivery.id,
            study_uid=study_uid,
            destination=delivery.destination,
            kind=kind,
            sop_class_uid=sop_class_uid,
            state=delivery.state,
            error=delivery.last_error or "",
            attempts=delivery.attempts,
            next_attempt_at=delivery.next_attempt_at,
        )
        for delivery, kind, sop_class_uid, study_uid in rows
    )


def held_objects(session: Session) -> tuple[HeldObject, ...]:
    """What the conformance gate holds, newest first."""
    document, delivery = tables.Document, tables.Delivery
    rows = session.execute(
        select(document, tables.Study.study_uid, func.array_remove(func.array_agg(delivery.destination), None))
        .join(document.result)
        .join(tables.Result.read)
        .join(tables.Read.study)
        .outerjoin(delivery, (delivery.document_id == document.id) & (delivery.state == DeliveryState.REFUSED))
        .where(_HELD)
        .group_by(document.id, tables.Study.study_uid)
        .order_by(document.id.desc())
        .limit(LINES)
    )
    return tuple(
        HeldObject(
            row.id, study_uid, row.kind, row.sop_class_uid, tuple(sorted(names)), tuple(row.faults), row.created_at
        )
        for row, study_uid, names in rows
    )


def quarantined(session: Session) -> tuple[Quarantined, ...]:
    """What could not be stored, newest first."""
    rows = session.scalars(select(tables.QuarantinedObject).order_by(tables.QuarantinedObject.id.desc()).limit(LINES))
    return tuple(Quarantined(row.id, row.reason, row.caller, row.size, row.received_at) for row in rows)


def conflicts(session: Session) -> tuple[Conflict, ...]:
    """Objects kept apart because another one has their UID, newest first."""
    rows = session.execute(
        select(tables.Instance, tables.Study.study_uid)
        .join(tables.Instance.study)
        .where(tables.Instance.standing == Standing.CONFLICT)
        .order_by(tables.Instance.id.desc())
        .limit(LINES)
    )
    return tuple(Conflict(row.id, uid, row.sop_uid, row.source, row.received_at) for row, uid in rows)


def missing(session: Session) -> tuple[Missing, ...]:
    """Objects whose files were looked for and not found, newest first."""
    rows = session.execute(
        select(tables.Instance, tables.Study.study_uid)
        .join(tables.Instance.study)
        .where(tables.Instance.missing_since.is_not(None))
        .order_by(tables.Instance.id.desc())
        .limit(LINES)
    )
    return tuple(
        Missing(row.id, uid, row.sop_uid, row.source, row.missing_since) for row, uid in rows if row.missing_since
    )


def cursors(session: Session) -> tuple[Cursor, ...]:
    """Every Orthanc that is followed."""
    rows = session.scalars(select(tables.OrthancCursor).order_by(tables.OrthancCursor.name))
    return tuple(Cursor(row.name, row.last_change, row.error, row.updated_at) for row in rows)


def audit_trail(session: Session, *, before: int | None = None, size: int = LINES) -> tuple[AuditLine, ...]:
    """Lines of the audit trail older than line ``before``, newest first."""
    query = select(tables.AuditEvent).order_by(tables.AuditEvent.id.desc()).limit(size)
    if before is not None:
        query = query.where(tables.AuditEvent.id < before)
    return tuple(
        AuditLine(row.id, row.at, row.actor, row.action, row.outcome, row.study_uid, row.detail)
        for row in session.scalars(query)
    )
