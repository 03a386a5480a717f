"""Documents that may not be sent any more, and what has to be taken back from where."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.errors import NotFound
from fhir_records.model import DeliveryState, Document, Withdrawal
from fhir_records.store.deliveries import ATTEMPT_LEASE, document_record, lease_due, wait_after

# What a rejection note is, among the kinds of documents: never withdrawn itself.
REJECTION_NOTE = "rejection_note"

_WORDS = {
    Withdrawal.REJECTED: "Not sent: a person rejected the result.",
    Withdrawal.SUPERSEDED: "Not sent: a newer version goes instead.",
    Withdrawal.WRONG_PATIENT: "Not sent: it is about another patient.",
}
_THERE = (DeliveryState.DELIVERED, DeliveryState.CONFIRMED)


@dataclass(frozen=True, slots=True)
class OpenWithdrawal:
    """A document that is to be taken back from a destination."""

    delivery_id: int
    destination: str
    study_uid: str
    document: Document
    attempts: int  # to take it back, in vain


@dataclass(frozen=True, slots=True)
class WithdrawalLine:
    """The same without the document's bytes, for a list."""

    delivery_id: int
    destination: str
    study_uid: str
    kind: str
    sop_class_uid: str
    sop_uid: str
    why: str  # a `Withdrawal`
    since: dt.datetime | None
    words: str  # why it is not yet taken back


def withdraw(session: Session, result_ids: Iterable[int], why: Withdrawal, now: dt.datetime) -> tuple[int, ...]:
    """Let none of these results' documents be sent any more, and open what has to be taken back.

    Returns:
        The deliveries that are now to be withdrawn; the caller asks for that in the same transaction.
    """
    documents = session.scalars(
        select(tables.Document)
        .where(
            tables.Document.result_id.in_(list(result_ids)),
            tables.Document.kind != REJECTION_NOTE,
            tables.Document.withdrawn_at.is_(None),
        )
        .order_by(tables.Document.id)
        # Whoever sets the document on another way holds its key and a delivery: that must not wait for this.
        .with_for_update(key_share=True)
    ).all()
    opened: list[int] = []
    for document in documents:
        document.withdrawn_at, document.withdrawal = now, why.value
        rows = session.scalars(
            select(tables.Delivery)
            .where(tables.Delivery.document_id == document.id)
            .order_by(tables.Delivery.id)
            .with_for_update()
            .execution_options(populate_existing=True)
        )
        opened += [row.id for row in rows if _close(row, why, now)]
    return tuple(opened)


def _close(row: tables.Delivery, why: Withdrawal, now: dt.datetime) -> bool:
    """End a delivery on its way; whether it has to be taken back now."""
    if row.sending_since is not None and row.state in (DeliveryState.WAITING, *_THERE):
        # An attempt is under way, or its worker died in it. Its end decides (`deliveries.note_attempt`); without one,
        # the object may be there, and is taken back when the attempt is surely over.
        open_withdrawal(row, row.sending_since)
        return False
    if row.state in _THERE or row.maybe_there:
        open_withdrawal(row, now)
        return True
    if row.state is DeliveryState.WAITING:
        row.state, row.next_attempt_at, row.last_error = DeliveryState.FILTERED, None, _WORDS[why]
    return False


def close_waiting(session: Session, delivery_id: int, now: dt.datetime) -> bool:
    """End a delivery that waits although its document is withdrawn: it was set on its way at the same moment.

    Returns:
        Whether it has to be taken back; the caller asks for that in the same transaction.
    """
    row = session.scalar(select(tables.Delivery).where(tables.Delivery.id == delivery_id).with_for_update())
    if row is None or row.state is not DeliveryState.WAITING or row.document.withdrawn_at is None:
        return False
    return _close(row, Withdrawal(row.document.withdrawal), now)


def open_withdrawal(row: tables.Delivery, now: dt.datetime) -> None:
    """A document that is, or may be, there is to be taken back; it comes due by itself after a lease."""
    row.state, row.attempts, row.last_error = DeliveryState.WITHDRAWAL_OPEN, 0, None
    row.next_attempt_at = now + ATTEMPT_LEASE


def find_open(session: Session, delivery_id: int) -> OpenWithdrawal | None:
    """What is to be taken back, or None where that is done, or never was to be."""
    row = session.get(tables.Delivery, delivery_id)
    if row is None or row.state is not DeliveryState.WITHDRAWAL_OPEN:
        return None
    return _record(row)


def take_due(session: Session, now: dt.datetime, limit: int = 100) -> tuple[int, ...]:
    """The open withdrawals whose time has come, leased for one attempt. The caller asks for the attempts."""
    return lease_due(session, DeliveryState.WITHDRAWAL_OPEN, tables.Delivery.next_attempt_at, now, limit)


def note_done(session: Session, delivery_id: int, now: dt.datetime, *, by: str | None = None) -> None:
    """The document is taken back from there; ``by`` is the person who says so, where one does.

    Raises:
        NotFound: nothing is to be taken back there.
    """
    row = _open_row(session, delivery_id)
    row.state, row.next_attempt_at, row.last_error = DeliveryState.WITHDRAWN, None, None
    row.withdrawn_at, row.withdrawn_by = now, by


def note_in_vain(session: Session, delivery_id: int, words: str, now: dt.datetime) -> None:
    """An attempt to take it back failed; it is made again, later each time."""
    row = _open_row(session, delivery_id)
    row.attempts += 1
    row.last_error, row.next_attempt_at = words, now + wait_after(row.attempts)


def link_note(session: Session, note_delivery_id: int, delivery_id: int) -> None:
    """The delivery of a rejection note takes back what another delivery brought."""
    session.get_one(tables.Delivery, note_delivery_id).withdraws = delivery_id


def send_note_again(session: Session, note_id: int, destination: str, delivery_id: int, now: dt.datetime) -> int | None:
    """Set a rejection note on its way once more where it was refused, or came before what it takes back.

    Returns:
        The number of its delivery, where that did not wait already. The caller asks for an attempt.
    """
    note = session.scalars(
        select(tables.Delivery)
        .where(tables.Delivery.document_id == note_id, tables.Delivery.destination == destination)
        .with_for_update()
    ).one()
    note.withdraws = delivery_id
    if note.state is DeliveryState.WAITING:
        return None
    note.state, note.next_attempt_at = DeliveryState.WAITING, now + ATTEMPT_LEASE
    note.delivered_at, note.confirm_at, note.not_kept = None, None, 0
    return note.id


def follow_note(session: Session, note_delivery_id: int, state: DeliveryState, words: str, now: dt.datetime) -> None:
    """What became of a rejection note decides whether what it rejects is taken back; of other deliveries, nothing."""
    note = session.get(tables.Delivery, note_delivery_id)
    if note is None or note.withdraws is None:
        return
    row = session.scalar(select(tables.Delivery).where(tables.Delivery.id == note.withdraws).with_for_update())
    if row is None or row.state is not DeliveryState.WITHDRAWAL_OPEN:
        return
    if state in _THERE:
        row.state, row.next_attempt_at, row.last_error, row.withdrawn_at = DeliveryState.WITHDRAWN, None, None, now
    else:
        row.last_error = f"The rejection note has not arrived there: {words}"


def note_waits(session: Session, delivery_id: int, words: str) -> None:
    """Nothing more is done by itself: a person, or the arrival of a rejection note, ends it."""
    row = _open_row(session, delivery_id)
    row.last_error, row.next_attempt_at = words, None


def all_open(session: Session, limit: int = 100) -> tuple[WithdrawalLine, ...]:
    """What is still to be taken back, the oldest first."""
    delivery, document = tables.Delivery, tables.Document
    rows = session.execute(
        select(
            delivery.id,
            delivery.destination,
            tables.Study.study_uid,
            document.kind,
            document.sop_class_uid,
            document.sop_uid,
            document.withdrawal,
            document.withdrawn_at,
            delivery.last_error,
        )
        .join(document, document.id == delivery.document_id)
        .join(tables.Result, tables.Result.id == document.result_id)
        .join(tables.Read, tables.Read.id == tables.Result.read_id)
        .join(tables.Study, tables.Study.id == tables.Read.study_id)
        .where(delivery.state == DeliveryState.WITHDRAWAL_OPEN)
        .order_by(delivery.id)
        .limit(limit)
    )
    return tuple(WithdrawalLine(*row[:-1], row[-1] or "") for row in rows)


def try_again(session: Session, delivery_id: int, now: dt.datetime) -> None:
    """Make an open withdrawal due at once.

    Raises:
        NotFound: nothing is to be taken back there.
    """
    _open_row(session, delivery_id).next_attempt_at = now + ATTEMPT_LEASE


def _open_row(session: Session, delivery_id: int) -> tables.Delivery:
    row = session.scalar(select(tables.Delivery).where(tables.Delivery.id == delivery_id).with_for_update())
    if row is None or row.state is not DeliveryState.WITHDRAWAL_OPEN:
        raise NotFound("Nothing is to be taken back there.")
    return row


def _record(row: tables.Delivery) -> OpenWithdrawal:
    return OpenWithdrawal(
        delivery_id=row.id,
        destination=row.destination,
        study_uid=row.document.result.read.study.study_uid,
        document=document_record(row.document),
        attempts=row.attempts,
    )
