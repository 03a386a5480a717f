"""Whether destinations keep what was delivered: asked for, reported, and what follows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.model import Delivery, DeliveryState, Document
from fhir_records.store.deliveries import ATTEMPT_LEASE, delivery_record, document_record, lease_due, wait_after

# Without a report for so long, commitment is asked for again, under a new transaction.
REPORT_WAIT = dt.timedelta(hours=1)
LONGEST_REPORT_WAIT = dt.timedelta(hours=24)
# A destination that loses the same object so often is not sent it again by itself.
MOST_LOST = 3
# A destination that is asked by C-FIND or QIDO may list what it took a while later; what it does not list so long after
# it took it, it has lost.
LISTED_WITHIN = dt.timedelta(hours=1)


def ask_later(session: Session, delivery_id: int, now: dt.datetime) -> None:
    """A delivery has arrived, and its destination is to be asked whether it keeps it."""
    row = session.get(tables.Delivery, delivery_id)
    if row is not None and row.state is DeliveryState.DELIVERED:
        row.confirm_at, row.confirm_attempts = now + ATTEMPT_LEASE, 0


def take_due(session: Session, now: dt.datetime, limit: int = 100) -> tuple[int, ...]:
    """The delivered documents whose destination is to be asked now, leased for one attempt."""
    return lease_due(session, DeliveryState.DELIVERED, tables.Delivery.confirm_at, now, limit)


def unconfirmed(session: Session, delivery_id: int) -> tuple[Delivery, Document] | None:
    """The delivery and its document, where it is delivered and its destination is still to be asked."""
    row = session.get(tables.Delivery, delivery_id)
    if row is None or row.state is not DeliveryState.DELIVERED or row.confirm_at is None:
        return None
    return delivery_record(row), document_record(row.document)


def requested(session: Session, delivery_id: int, transaction_uid: str, now: dt.datetime) -> None:
    """Commitment is about to be asked for; written first, so that a report that comes at once is understood."""
    session.add(tables.StorageCommitment(transaction_uid=transaction_uid, delivery_id=delivery_id, requested_at=now))


def wait_for_report(session: Session, delivery_id: int, now: dt.datetime) -> None:
    """The destination took the request; its report may come later, and is asked for again where it does not."""
    row = _delivered(session, delivery_id)
    if row is not None:
        row.confirm_attempts += 1
        row.last_error = None
        row.confirm_at = now + min(LONGEST_REPORT_WAIT, REPORT_WAIT * (1 << min(row.confirm_attempts - 1, 8)))


def in_vain(session: Session, delivery_id: int, words: str, now: dt.datetime) -> None:
    """The destination could not be asked: it is asked again, later each time."""
    row = _delivered(session, delivery_id)
    if row is not None:
        row.confirm_attempts += 1
        row.last_error, row.confirm_at = words, now + wait_after(row.confirm_attempts)


def unlisted(session: Session, delivery_id: int, now: dt.datetime) -> None:
    """The destination answers that it does not have it: it is asked again, and in the end the object is sent again."""
    row = _delivered(session, delivery_id)
    if row is None:
        return
    if row.delivered_at is not None and now - row.delivered_at > LISTED_WITHIN:
        _lost(row, "it does not list it", now)
        return
    row.confirm_attempts += 1
    row.last_error, row.confirm_at = "Delivered, but not found there.", now + wait_after(row.confirm_attempts)


def confirm(session: Session, delivery_id: int) -> None:
    """The destination keeps it."""
    row = _delivered(session, delivery_id)
    if row is not None:
        row.state, row.confirm_at, row.last_error = DeliveryState.CONFIRMED, None, None


def note_report(
    session: Session,
    transaction_uid: str,
    committed: Sequence[str],
    failed: Mapping[str, str],
    reasons: Mapping[str, int],
    *,
    from_destinations: Sequence[str],
    now: dt.datetime,
) -> bool:
    """Write a report of storage commitment down, once, and draw the consequence.

    Args:
        session: the caller's.
        transaction_uid: of the report.
        committed: SOP Instance UIDs that are kept.
        failed: SOP Instance UIDs that are not, with why in words.
        reasons: the same with the Failure Reason.
        from_destinations: names of the destinations that the reporting node is.
        now: the instant.

    Returns:
        Whether it is the report of a transaction of ours with this node; one that was reported before changes nothing.
    """
    asked = session.get(tables.StorageCommitment, transaction_uid)
    if asked is None:
        return False
    # Its lock stands for all of its transactions: one report may end others.
    row = session.get_one(tables.Delivery, asked.delivery_id, with_for_update=True)
    session.refresh(asked)
    if row.destination not in from_destinations:
        return False
    if asked.reported_at is not None:
        return True
    sop_uid = row.document.sop_uid
    if sop_uid in failed:
        asked.reported_at, asked.failure_reason = now, reasons[sop_uid]
        _lost(row, failed[sop_uid], now)
        _end_transactions(session, row, now)
    elif sop_uid in committed:
        asked.reported_at = now
        if row.state is DeliveryState.DELIVERED:
            row.state, row.confirm_at, row.last_error = DeliveryState.CONFIRMED, None, None
    else:
        return False  # it says nothing of the object that was asked about
    return True


def _end_transactions(session: Session, row: tables.Delivery, now: dt.datetime) -> None:
    """What was asked before an object was lost is about the lost one: its report says nothing of the one sent again."""
    if row.state in (DeliveryState.WAITING, DeliveryState.REFUSED):
        session.execute(
            update(tables.StorageCommitment)
            .where(tables.StorageCommitment.delivery_id == row.id, tables.StorageCommitment.reported_at.is_(None))
            .values(reported_at=now)
        )


def _lost(row: tables.Delivery, words: str, now: dt.datetime) -> None:
    """The destination took it, and does not keep it: it is sent again, the same bytes, a few times."""
    if row.state is not DeliveryState.DELIVERED or row.document.withdrawn_at is not None:
        return
    row.not_kept += 1
    row.maybe_there = True  # it took it once: where it is withdrawn it is taken back, whatever was said since
    row.confirm_at, row.delivered_at = None, None
    row.last_error = f"{row.destination} took it and does not keep it: {words}."
    if row.not_kept >= MOST_LOST:
        row.state, row.next_attempt_at = DeliveryState.REFUSED, None
    else:
        row.state, row.next_attempt_at = DeliveryState.WAITING, now + wait_after(row.not_kept)


def _delivered(session: Session, delivery_id: int) -> tables.Delivery | None:
    row = session.scalar(select(tables.Delivery).where(tables.Delivery.id == delivery_id).with_for_update())
    return row if row is not None and row.state is DeliveryState.DELIVERED else None
