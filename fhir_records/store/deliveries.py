"""Documents and their way to the destinations."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from fhir_records import tables
from fhir_records.errors import NotAllowed, NotFound
from fhir_records.model import Delivery, DeliveryState, Document, Priority

# An attempt that has not come to an end by then, say because its worker died, is made again.
ATTEMPT_LEASE = dt.timedelta(minutes=3)
FIRST_WAIT = dt.timedelta(seconds=5)
LONGEST_WAIT = dt.timedelta(minutes=15)

# PS3.7 Annex C, Duplicate SOP Instance: some archives answer a second C-STORE of the same object so.
_DUPLICATE_SOP_INSTANCE = 0x0111
_THERE = (DeliveryState.DELIVERED, DeliveryState.CONFIRMED)


def wait_after(attempts: int) -> dt.timedelta:
    """How long a delivery waits after so many attempts in vain: 5 s, doubled each time, 15 minutes at most.

    There is no last attempt: a PACS may be away for days.
    """
    doublings = max(0, min(attempts - 1, 16))
    return min(LONGEST_WAIT, FIRST_WAIT * (1 << doublings))


def add_document(
    session: Session,
    result_id: int,
    *,
    kind: str,
    variant: str,
    sop_uid: str,
    sop_class_uid: str,
    content: bytes,
    faults: Sequence[str] = (),
) -> int:
    """Store what was rendered, and what the conformance gate found in it. The bytes first stored are those that stay.

    Returns:
        The document's number.
    """
    session.execute(
        insert(tables.Document)
        .values(
            result_id=result_id,
            kind=kind,
            variant=variant,
            sop_uid=sop_uid,
            sop_class_uid=sop_class_uid,
            content=content,
            sha256=hashlib.sha256(content).hexdigest(),
            faults=list(faults),
        )
        .on_conflict_do_nothing(index_elements=["result_id", "kind", "variant"])
    )
    return session.execute(
        select(tables.Document.id).where(
            tables.Document.result_id == result_id, tables.Document.kind == kind, tables.Document.variant == variant
        )
    ).scalar_one()


def find_document(session: Session, result_id: int, kind: str, variant: str) -> Document | None:
    """The document of this kind that was rendered from a result, or None."""
    row = session.scalar(
        select(tables.Document).where(
            tables.Document.result_id == result_id, tables.Document.kind == kind, tables.Document.variant == variant
        )
    )
    return document_record(row) if row else None


def add_deliveries(
    session: Session, document_id: int, destinations: Sequence[str], now: dt.datetime
) -> tuple[int, ...]:
    """One waiting delivery for each destination; those that are there already are left as they are.

    Returns:
        The numbers of the new ones. The caller asks for their first attempt in the same transaction.
    """
    return _add(session, document_id, destinations, DeliveryState.WAITING, next_attempt_at=now + ATTEMPT_LEASE)


def add_held(session: Session, document_id: int, destinations: Sequence[str]) -> None:
    """Deliveries that wait for a person's signature: no time is set for them, so none is attempted."""
    _add(session, document_id, destinations, DeliveryState.WAITING, last_error="Waits for a person's signature.")


def priority_of(session: Session, delivery_id: int) -> Priority:
    """The priority of the read whose result a delivery brings."""
    found = session.execute(
        select(tables.Read.priority)
        .join(tables.Result, tables.Result.read_id == tables.Read.id)
        .join(tables.Document, tables.Document.result_id == tables.Result.id)
        .join(tables.Delivery, tables.Delivery.document_id == tables.Document.id)
        .where(tables.Delivery.id == delivery_id)
    ).scalar_one_or_none()
    return found or Priority.ROUTINE


def add_refused(session: Session, document_id: int, destinations: Sequence[str]) -> None:
    """Deliveries of an object that the conformance gate holds: none is attempted before an administrator lets it go."""
    faults = session.get_one(tables.Document, document_id).faults
    _add(session, document_id, destinations, DeliveryState.REFUSED, last_error=held_words(faults))


def held_words(faults: Sequence[str]) -> str:
    """Why the gate holds an object, in one line: the first fault, and how many more there are."""
    more = f" And {len(faults) - 1} more." if len(faults) > 1 else ""
    return f"Held by the conformance gate: {faults[0]}{more}"


def is_held(session: Session, document_id: int) -> bool:
    """Whether the conformance gate keeps the object from leaving."""
    return document_record(session.get_one(tables.Document, document_id)).is_held


def hold(session: Session, delivery_id: int) -> None:
    """Refuse a waiting delivery whose object the gate holds, by whatever way it came to be due."""
    row = session.execute(
        select(tables.Delivery).where(tables.Delivery.id == delivery_id).with_for_update()
    ).scalar_one()
    if row.state is DeliveryState.WAITING:
        row.state, row.next_attempt_at = DeliveryState.REFUSED, None
        row.last_error = held_words(row.document.faults)


def release_held(session: Session, document_id: int, *, by: str, reason: str, now: dt.datetime) -> tuple[int, ...]:
    """Let an object go that the conformance gate holds; the caller writes it into the audit trail.

    Returns:
        The deliveries that are due now. The caller asks for their attempts.

    Raises:
        NotFound: the gate holds no such object.
        NotAllowed: no reason is given.
    """
    if not reason.strip():
        raise NotAllowed("Say why this object may be sent although the conformance gate holds it.")
    row = session.execute(
        select(tables.Document).where(tables.Document.id == document_id).with_for_update()
    ).scalar_one_or_none()
    if row is None or not document_record(row).is_held:
        raise NotFound("The conformance gate holds no such object.")
    row.released_by, row.release_reason, row.released_at = by, reason.strip(), now
    due = session.scalars(
        select(tables.Delivery)
        .where(tables.Delivery.document_id == document_id, tables.Delivery.state == DeliveryState.REFUSED)
        .order_by(tables.Delivery.id)
        .with_for_update()
    ).all()
    for delivery in due:
        delivery.state, delivery.next_attempt_at = DeliveryState.WAITING, now + ATTEMPT_LEASE
    return tuple(delivery.id for delivery in due)


def add_filtered(session: Session, document_id: int, destinations: Sequence[str]) -> None:
    """Deliveries that are not made, because the destination is configured not to get objects of this kind."""
    _add(session, document_id, destinations, DeliveryState.FILTERED)


def _add(
    session: Session,
    document_id: int,
    destinations: Sequence[str],
    state: DeliveryState,
    *,
    next_attempt_at: dt.datetime | None = None,
    last_error: str | None = None,
) -> tuple[int, ...]:
    """One delivery for each destination, in this state; the numbers of those that were not there already."""
    added: list[int] = []
    for destination in dict.fromkeys(destinations):
        delivery_id = session.execute(
            insert(tables.Delivery)
            .values(
                document_id=document_id,
                destination=destination,
                state=state,
                attempts=0,
                next_attempt_at=next_attempt_at,
                last_error=last_error,
            )
            .on_conflict_do_nothing(index_elements=["document_id", "destination"])
            .returning(tables.Delivery.id)
        ).scalar_one_or_none()
        if delivery_id is not None:
            added.append(delivery_id)
    return tuple(added)


def take_due(session: Session, now: dt.datetime, limit: int = 100) -> tuple[int, ...]:
    """The deliveries whose time has come, leased for one attempt. The caller asks for the attempts."""
    return lease_due(session, DeliveryState.WAITING, tables.Delivery.next_attempt_at, now, limit)


def lease_due(
    session: Session,
    state: DeliveryState,
    due_at: InstrumentedAttribute[dt.datetime | None],
    now: dt.datetime,
    limit: int,
) -> tuple[int, ...]:
    """The deliveries in this state whose time in this column has come, leased for one attempt, the oldest first."""
    due = session.scalars(
        select(tables.Delivery)
        .where(tables.Delivery.state == state, due_at <= now)
        .order_by(due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    for row in due:
        setattr(row, due_at.key, now + ATTEMPT_LEASE)
    return tuple(row.id for row in due)


def waiting(session: Session, delivery_id: int) -> tuple[Delivery, Document] | None:
    """The delivery and its document, or None where it waits no longer, or waits for a person's signature."""
    row = session.get(tables.Delivery, delivery_id)
    if row is None or row.state is not DeliveryState.WAITING or row.document.withdrawn_at is not None:
        return None
    if delivery_record(row).is_held:
        return None
    return delivery_record(row), document_record(row.document)


def is_there_already(session: Session, delivery_id: int, status: int | None) -> bool:
    """Whether a destination says that it has the object, which an earlier attempt brought without an answer."""
    return status == _DUPLICATE_SOP_INSTANCE and session.get_one(tables.Delivery, delivery_id).maybe_there


def note_attempt(
    session: Session,
    delivery_id: int,
    *,
    started_at: dt.datetime,
    finished_at: dt.datetime,
    state: DeliveryState,
    status: int | None,
    detail: str,
    maybe_there: bool = False,
) -> bool:
    """Write down what one attempt came to, and when the next is due.

    Args:
        session: the caller's.
        delivery_id: number of the delivery.
        started_at: when the attempt began.
        finished_at: when it came to its end.
        state: what it came to; WAITING: it is made again.
        status: the peer's.
        detail: the same in words.
        maybe_there: the object was sent, and no answer came.

    Returns:
        Whether the document was withdrawn while it was being sent, so that it is to be taken back now; the caller asks
        for that in the same transaction.
    """
    row = session.execute(
        select(tables.Delivery).where(tables.Delivery.id == delivery_id).with_for_update()
    ).scalar_one()
    session.add(
        tables.DeliveryAttempt(
            delivery_id=delivery_id,
            started_at=started_at,
            finished_at=finished_at,
            outcome=state.value if state is not DeliveryState.WAITING else "unavailable",
            status=status,
            detail=detail,
        )
    )
    delivered = state is DeliveryState.DELIVERED
    row.maybe_there = row.maybe_there or maybe_there
    if row.document.withdrawn_at is not None and row.state not in _THERE:
        return _ended_too_late(row, delivered, maybe_there, finished_at)
    row.attempts += 1
    if row.state is not DeliveryState.WAITING and not (delivered and row.state is DeliveryState.REFUSED):
        return False  # another attempt has settled it meanwhile; what it found stands
    row.state = state
    row.last_error = None if delivered else detail
    row.delivered_at = finished_at if delivered else None
    row.next_attempt_at = finished_at + wait_after(row.attempts) if state is DeliveryState.WAITING else None
    return False


def _ended_too_late(row: tables.Delivery, delivered: bool, maybe_there: bool, finished_at: dt.datetime) -> bool:
    """The document was withdrawn while it was being sent; whether it is to be taken back."""
    brought = delivered or maybe_there
    if not brought and row.state is not DeliveryState.WITHDRAWAL_OPEN:
        return False  # what was taken back stays so, and what was not there is not there
    if not (brought or row.maybe_there or row.delivered_at is not None):
        row.state, row.next_attempt_at = DeliveryState.FILTERED, None
        row.last_error = "Withdrawn while it was being sent; it did not arrive."
        return False
    row.state, row.attempts, row.last_error = DeliveryState.WITHDRAWAL_OPEN, 0, None
    row.withdrawn_at, row.withdrawn_by = None, None
    if delivered:
        row.delivered_at = finished_at
    row.next_attempt_at = finished_at + ATTEMPT_LEASE
    return True


def try_again(session: Session, delivery_id: int, now: dt.datetime) -> None:
    """Make a waiting or refused delivery due at once.

    Raises:
        NotFound: there is no such delivery, or it has arrived, or it waits for a person's signature.
    """
    row = session.execute(
        select(tables.Delivery).where(tables.Delivery.id == delivery_id).with_for_update()
    ).scalar_one_or_none()
    if row is None or row.state not in (DeliveryState.WAITING, DeliveryState.REFUSED):
        raise NotFound("No such delivery waits or was refused.")
    if row.document.withdrawn_at is not None:
        raise NotFound("This document was withdrawn; it is never sent again.")
    if delivery_record(row).is_held:
        raise NotFound("This delivery waits for a person's signature; nothing unsigned goes to its destination.")
    if document_record(row.document).is_held:
        raise NotFound("The conformance gate holds this object; an administrator can send it all the same.")
    row.state = DeliveryState.WAITING
    row.next_attempt_at = now


def deliveries_of(session: Session, result_id: int) -> tuple[tuple[Document, Delivery], ...]:
    """Every delivery of a result's documents."""
    rows = session.execute(
        select(tables.Delivery)
        .join(tables.Document)
        .where(tables.Document.result_id == result_id)
        .order_by(tables.Delivery.id)
    ).scalars()
    return tuple((document_record(row.document), delivery_record(row)) for row in rows)


def document_record(row: tables.Document) -> Document:
    """The frozen record of a document's row."""
    return Document(
        id=row.id,
        result_id=row.result_id,
        kind=row.kind,
        variant=row.variant,
        sop_uid=row.sop_uid,
        sop_class_uid=row.sop_class_uid,
        content=row.content,
        sha256=row.sha256,
        faults=tuple(row.faults),
        released=row.released_at is not None,
        withdrawn_at=row.withdrawn_at,
        withdrawal=row.withdrawal,
    )


def delivery_record(row: tables.Delivery) -> Delivery:
    """The frozen record of a delivery's row."""
    return Delivery(
        id=row.id,
        document_id=row.document_id,
        destination=row.destination,
        state=row.state,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        last_error=row.last_error,
        delivered_at=row.delivered_at,
        withdrawn_at=row.withdrawn_at,
    )
