"""How destinations are doing: how many deliveries at once, which is left alone or paused, who stands in for whom."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.errors import NotFound
from fhir_records.model import DeliveryState
from fhir_records.store.deliveries import ATTEMPT_LEASE, add_deliveries, wait_after

# After so many failures in a row the destination as a whole is left alone, later each time, a minute at most.
FAILURES_ALLOWED = 3
LONGEST_REST = dt.timedelta(minutes=1)
ROOM_WAIT = dt.timedelta(seconds=2)  # until it is looked again whether there is room
PAUSE_WAIT = dt.timedelta(days=365)  # resuming makes everything due


@dataclass(frozen=True, slots=True)
class Fallback:
    """Who gets what does not arrive."""

    destination: str
    after: dt.timedelta  # since the delivery was made


@dataclass(frozen=True, slots=True)
class DestinationLine:
    """One destination, for a page."""

    name: str
    waiting: int  # deliveries that have not arrived, held ones left out
    oldest: dt.datetime | None  # when the oldest of them was made
    paused_at: dt.datetime | None
    paused_by: str | None
    failures: int  # in a row
    not_before: dt.datetime | None
    last_error: str | None


def begin(session: Session, delivery_id: int, limit: int, now: dt.datetime) -> bool:
    """Take the right to make one attempt: not while the destination is paused, left alone, or has ``limit`` under way.

    Returns:
        Whether the attempt may be made; else the delivery comes due again by itself, or waits no longer.
    """
    delivery, queue = _locked(session, delivery_id)
    if delivery.state is not DeliveryState.WAITING:
        return False
    if queue.paused_at is not None:
        delivery.next_attempt_at = now + PAUSE_WAIT
        delivery.last_error = f"Deliveries to {queue.name} are paused."
        return False
    if queue.not_before is not None and queue.not_before > now:
        delivery.next_attempt_at = queue.not_before
        delivery.last_error = queue.last_error
        return False
    under_way = session.scalar(
        select(func.count())
        .select_from(tables.Delivery)
        .where(
            tables.Delivery.destination == delivery.destination,
            tables.Delivery.id != delivery_id,
            # An attempt whose worker died is over after the lease.
            tables.Delivery.sending_since > now - ATTEMPT_LEASE,
        )
    )
    if (under_way or 0) >= limit:
        delivery.next_attempt_at = now + ROOM_WAIT
        return False
    if delivery.sending_since is not None:
        # An earlier attempt never came to its end, or has not yet: nobody can say whether it brought the object there.
        delivery.maybe_there = True
    delivery.sending_since = now
    delivery.next_attempt_at = now + ATTEMPT_LEASE
    return True


def end(session: Session, delivery_id: int, *, began: dt.datetime, away: bool, words: str, now: dt.datetime) -> None:
    """An attempt is over; ``away``: the destination gave no answer, and in the end is left alone as a whole.

    To be called before anything else about the delivery in its transaction.
    """
    delivery, queue = _locked(session, delivery_id)
    if delivery.sending_since == began:  # else another attempt is under way
        delivery.sending_since = None
    if away:
        queue.failures += 1
        queue.last_error = words
        if queue.failures >= FAILURES_ALLOWED:
            queue.not_before = now + min(LONGEST_REST, wait_after(queue.failures - FAILURES_ALLOWED + 1))
        return
    was_away = queue.failures >= FAILURES_ALLOWED
    queue.failures, queue.not_before, queue.last_error = 0, None, None
    if was_away:
        _make_due(session, queue.name, now)


def pause(session: Session, name: str, by: str, now: dt.datetime) -> None:
    """Send nothing more to a destination until somebody resumes it; what is under way comes to its end."""
    queue = _queue(session, name)
    queue.paused_at, queue.paused_by = now, by


def resume(session: Session, name: str, now: dt.datetime) -> None:
    """Go on with a destination; everything that waits for it is due.

    Raises:
        NotFound: it is not paused.
    """
    queue = _queue(session, name)
    if queue.paused_at is None:
        raise NotFound(f"Deliveries to {name} are not paused.")
    queue.paused_at, queue.paused_by, queue.failures, queue.not_before = None, None, 0, None
    _make_due(session, name, now)


def fall_back(session: Session, fallbacks: Mapping[str, Fallback], now: dt.datetime) -> tuple[int, ...]:
    """Set on their way to the fallback what has waited too long for its destination; it goes on waiting there, too.

    Returns:
        The numbers of the new deliveries. The caller asks for their first attempt in the same transaction.
    """
    added: list[int] = []
    for name, fallback in fallbacks.items():
        rows = session.scalars(
            select(tables.Delivery)
            .where(
                tables.Delivery.destination == name,
                tables.Delivery.state == DeliveryState.WAITING,
                tables.Delivery.next_attempt_at.is_not(None),  # else it waits for a signature
                tables.Delivery.created_at < now - fallback.after,
                tables.Delivery.fell_back_at.is_(None),
                tables.Delivery.withdraws.is_(None),  # a rejection note is for its destination alone
            )
            .order_by(tables.Delivery.id)
            .limit(100)
            .with_for_update(skip_locked=True)
        )
        for row in rows:
            row.fell_back_at = now
            if row.document.withdrawn_at is None:
                added += add_deliveries(session, row.document_id, [fallback.destination], now)
    return tuple(added)


def lines(session: Session) -> tuple[DestinationLine, ...]:
    """Every destination that anything was ever to be delivered to, by name."""
    delivery, queue = tables.Delivery, tables.DestinationQueue
    waits = (delivery.state == DeliveryState.WAITING) & delivery.next_attempt_at.is_not(None)
    counted = (
        select(
            delivery.destination.label("name"),
            func.count().filter(waits).label("waiting"),
            func.min(delivery.created_at).filter(waits).label("oldest"),
        )
        .group_by(delivery.destination)
        .subquery()
    )
    rows = session.execute(
        select(
            counted.c.name,
            counted.c.waiting,
            counted.c.oldest,
            queue.paused_at,
            queue.paused_by,
            func.coalesce(queue.failures, 0),
            queue.not_before,
            queue.last_error,
        )
        .outerjoin(queue, queue.name == counted.c.name)
        .order_by(counted.c.name)
    )
    return tuple(DestinationLine(*row) for row in rows)


def _queue(session: Session, name: str) -> tables.DestinationQueue:
    """The destination's row, locked: whoever decides about it decides alone."""
    session.execute(insert(tables.DestinationQueue).values(name=name).on_conflict_do_nothing())
    return session.get_one(tables.DestinationQueue, name, with_for_update=True, populate_existing=True)


def _locked(session: Session, delivery_id: int) -> tuple[tables.Delivery, tables.DestinationQueue]:
    """A delivery and its destination's row: the destination first, always, lest two wait for each other."""
    delivery = session.get_one(tables.Delivery, delivery_id)
    queue = _queue(session, delivery.destination)
    return session.get_one(tables.Delivery, delivery_id, with_for_update=True, populate_existing=True), queue


def _make_due(session: Session, name: str, now: dt.datetime) -> None:
    rows = session.scalars(
        select(tables.Delivery.id)
        .where(
            tables.Delivery.destination == name,
            tables.Delivery.state == DeliveryState.WAITING,
            tables.Delivery.next_attempt_at > now,
            # What is being sent comes due within its lease; what a dead worker left may have been put off for a pause.
            or_(tables.Delivery.sending_since.is_(None), tables.Delivery.next_attempt_at > now + ATTEMPT_LEASE),
        )
        .order_by(tables.Delivery.id)  # the order in which a withdrawal locks them
        .with_for_update()
    ).all()
    session.execute(update(tables.Delivery).where(tables.Delivery.id.in_(rows)).values(next_attempt_at=now))
