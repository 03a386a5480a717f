"""Which SOP classes of reports destinations take, and what stands in for a report in a class that one does not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.model import DeliveryState, Document
from fhir_records.store.deliveries import ATTEMPT_LEASE, document_record

# PS3.7 annex C: the status that says that it is the SOP class which is not taken.
SOP_CLASS_NOT_SUPPORTED = 0x0122
# A class that was refused is offered again after so long: a PACS learns new ones.
LOOK_AGAIN = dt.timedelta(days=1)

_GOT_THERE = (
    DeliveryState.DELIVERED,
    DeliveryState.CONFIRMED,
    DeliveryState.WITHDRAWAL_OPEN,
    DeliveryState.WITHDRAWN,
)


@dataclass(frozen=True, slots=True)
class RefusedClassLine:
    """A class that a destination does not take, for a page."""

    destination: str
    sop_class_uid: str
    refused_at: dt.datetime


def note_refused(session: Session, destination: str, sop_class_uid: str, now: dt.datetime) -> None:
    """The destination said that it does not take this class."""
    session.execute(
        insert(tables.RefusedClass)
        .values(destination=destination, sop_class_uid=sop_class_uid, refused_at=now)
        .on_conflict_do_update(index_elements=["destination", "sop_class_uid"], set_={"refused_at": now})
    )


def note_taken(session: Session, destination: str, sop_class_uid: str) -> None:
    """The destination took an object of this class: what it said of it before is forgotten."""
    session.execute(
        delete(tables.RefusedClass).where(
            tables.RefusedClass.destination == destination, tables.RefusedClass.sop_class_uid == sop_class_uid
        )
    )


def forget(session: Session, destination: str) -> None:
    """Whatever the destination refused, it is offered again with the next report."""
    session.execute(delete(tables.RefusedClass).where(tables.RefusedClass.destination == destination))


def refused(session: Session, destination: str, now: dt.datetime) -> frozenset[str]:
    """The SOP Class UIDs that the destination refused lately."""
    rows = session.scalars(
        select(tables.RefusedClass.sop_class_uid).where(
            tables.RefusedClass.destination == destination, tables.RefusedClass.refused_at > now - LOOK_AGAIN
        )
    )
    return frozenset(rows)


def lines(session: Session) -> tuple[RefusedClassLine, ...]:
    """Every class that a destination does not take, as far as is known."""
    row = tables.RefusedClass
    rows = session.execute(
        select(row.destination, row.sop_class_uid, row.refused_at).order_by(row.destination, row.sop_class_uid.desc())
    )
    return tuple(RefusedClassLine(*entry) for entry in rows)


def may_change(row: tables.Delivery) -> bool:
    """Whether nothing of the report can be at the destination yet: only then it may go there as another object."""
    settled = row.maybe_there or row.sending_since is not None or row.not_kept > 0
    return not settled and row.document.withdrawn_at is None


def offered_before(session: Session, row: tables.Delivery) -> frozenset[str]:
    """The SOP classes of the deliveries that this one stands in for."""
    classes: set[str] = set()
    seen: set[int] = set()
    while row.instead_of is not None and row.instead_of not in seen:
        seen.add(row.instead_of)
        row = session.get_one(tables.Delivery, row.instead_of)
        classes.add(row.document.sop_class_uid)
    return frozenset(classes)


def there_instead(session: Session, destination: str, sop_uids: Sequence[str], kind: str) -> Mapping[str, Document]:
    """What a destination got in the place of these documents, by their SOP Instance UIDs.

    A document that it got itself is left out, and so is one of whose result it got none of this kind.
    """
    instead: dict[str, Document] = {}
    named = session.execute(
        select(tables.Document.sop_uid, tables.Document.result_id).where(tables.Document.sop_uid.in_(sop_uids))
    )
    for sop_uid, result_id in named:
        got = session.scalars(
            select(tables.Document)
            .join(tables.Delivery, tables.Delivery.document_id == tables.Document.id)
            .where(
                tables.Document.result_id == result_id,
                tables.Document.kind == kind,
                tables.Delivery.destination == destination,
                tables.Delivery.state.in_(_GOT_THERE),
            )
            .order_by(tables.Delivery.id.desc())
        ).all()
        if got and sop_uid not in {document.sop_uid for document in got}:
            instead[sop_uid] = document_record(got[0])
    return instead


def stand_in(
    session: Session, delivery_id: int, document_id: int, words: str, now: dt.datetime, *, held: str = ""
) -> int:
    """Let another document go where this delivery's was to go, and end this delivery.

    Args:
        session: the caller's.
        delivery_id: the delivery that is not made.
        document_id: the same report in another class.
        words: why, for whoever looks at it.
        now: the instant.
        held: why the conformance gate holds that document; "": it may leave.

    Returns:
        The number of its delivery, which comes due by itself; one that stood in before, and arrived, stays as it is.
    """
    row = session.get_one(tables.Delivery, delivery_id, with_for_update=True)
    row.state, row.next_attempt_at, row.last_error = DeliveryState.FILTERED, None, words
    state = DeliveryState.REFUSED if held else DeliveryState.WAITING
    due = None if held else now + ATTEMPT_LEASE
    values = {
        "state": state,
        "attempts": 0,
        "next_attempt_at": due,
        "last_error": held or None,
        "instead_of": delivery_id,
    }
    inserted: int | None = session.scalar(
        insert(tables.Delivery)
        .values(
            document_id=document_id,
            destination=row.destination,
            # It waits since the report does, whatever it waits as.
            created_at=row.created_at,
            fell_back_at=row.fell_back_at,
            **values,
        )
        .on_conflict_do_nothing(index_elements=["document_id", "destination"])
        .returning(tables.Delivery.id)
    )
    if inserted is not None:
        return inserted
    theirs = (tables.Delivery.document_id == document_id) & (tables.Delivery.destination == row.destination)
    # One that was filtered for another reason, because the destination wants no reports, say, stays so.
    again = (tables.Delivery.state == DeliveryState.REFUSED) | (
        (tables.Delivery.state == DeliveryState.FILTERED) & tables.Delivery.instead_of.is_not(None)
    )
    session.execute(update(tables.Delivery).where(theirs, again).values(**values))
    return session.execute(select(tables.Delivery.id).where(theirs)).scalar_one()


def start_over(session: Session, delivery_id: int) -> int:
    """Where every class was refused, begin again with the first one; the number of the delivery to attempt.

    Whatever the destination refused is forgotten. A delivery that failed for another reason is left as it is.
    """
    row = session.get(tables.Delivery, delivery_id, with_for_update=True)
    if row is None or row.state is not DeliveryState.REFUSED or not may_change(row):
        return delivery_id
    last = session.scalar(
        select(tables.DeliveryAttempt.status)
        .where(tables.DeliveryAttempt.delivery_id == delivery_id)
        .order_by(tables.DeliveryAttempt.id.desc())
        .limit(1)
    )
    if last != SOP_CLASS_NOT_SUPPORTED:
        return delivery_id
    forget(session, row.destination)
    first, seen = row, {row.id}
    while first.instead_of is not None and first.instead_of not in seen:
        seen.add(first.instead_of)
        first = session.get_one(tables.Delivery, first.instead_of, with_for_update=True)
    if first is not row and may_change(first):
        row.state, row.next_attempt_at = DeliveryState.FILTERED, None
        first.state = DeliveryState.REFUSED
        return first.id
    return delivery_id
