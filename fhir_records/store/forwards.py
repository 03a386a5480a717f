"""Images sent on to other nodes: which ones, how far, and what they were answered.

A `Forward` is one revision's way to one node. Each image has a row of its own for each node, so that it goes there
once, whatever later revisions hold, and so that a forward that is cut off goes on where it stopped.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import func, insert, literal, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.errors import NotFound
from fhir_records.model import DeliveryState, Forward, Priority
from fhir_records.store.deliveries import ATTEMPT_LEASE, wait_after

BATCH = 100  # images that a worker takes at once; a more urgent forward overtakes between two batches


@dataclass(frozen=True, slots=True)
class PlannedImages:
    """How many of a revision's images go to a node."""

    forward_id: int | None  # None: none does
    images: int
    had_already: int  # sent there before, or on their way
    came_from_there: int


@dataclass(frozen=True, slots=True)
class ImageToSend:
    """An image of a batch."""

    instance_id: int
    file_key: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Images that are to be sent now."""

    forward_id: int
    destination: str
    priority: Priority
    study_uid: str
    images: tuple[ImageToSend, ...]


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """What became of one image."""

    instance_id: int
    state: DeliveryState  # delivered or refused
    status: int | None
    detail: str


def plan(
    session: Session,
    revision: tables.Revision,
    *,
    destination: str,
    routes: Sequence[str],
    priority: Priority,
    not_from: Collection[str],
    now: dt.datetime,
) -> PlannedImages:
    """Set a revision's images on their way to a node: those that it has not had, and that did not come from it.

    Args:
        session: the caller's, who asks for the sending in the same transaction.
        revision: the revision.
        destination: name of the node.
        routes: names of the routes that ask for it.
        priority: how urgent it is.
        not_from: sources whose images stay, "dicom:AE" or "orthanc:NAME": the node itself.
        now: the instant.
    """
    image, line = tables.Instance, tables.RevisionInstance
    of_revision = select(image.id).join(line, line.instance_id == image.id).where(line.revision_id == revision.id)
    total = session.execute(select(func.count()).select_from(of_revision.subquery())).scalar_one()
    others = of_revision.where(image.source.not_in(list(not_from)))
    allowed = session.execute(select(func.count()).select_from(others.subquery())).scalar_one()
    forward_id = session.execute(
        insert(tables.Forward)
        .values(
            study_id=revision.study_id,
            revision=revision.number,
            destination=destination,
            routes=list(routes),
            priority=priority,
            state=DeliveryState.WAITING,
            attempts=0,
            next_attempt_at=now + ATTEMPT_LEASE,
        )
        .returning(tables.Forward.id)
    ).scalar_one()
    rows = others.add_columns(
        literal(destination), literal(forward_id), literal(DeliveryState.WAITING.value), literal("")
    )
    columns = ["instance_id", "destination", "forward_id", "state", "detail"]
    added = session.execute(
        upsert(tables.ForwardedImage)
        .from_select(columns, rows)
        .on_conflict_do_nothing(index_elements=["instance_id", "destination"])
        .returning(tables.ForwardedImage.instance_id)
    ).all()
    if not added:
        session.execute(tables.Forward.__table__.delete().where(tables.Forward.id == forward_id))  # type: ignore[attr-defined]
    return PlannedImages(forward_id if added else None, len(added), allowed - len(added), total - allowed)


def priority_of(session: Session, forward_id: int) -> Priority:
    """How urgent a forward is."""
    found = session.scalar(select(tables.Forward.priority).where(tables.Forward.id == forward_id))
    return found or Priority.ROUTINE


def take_batch(session: Session, forward_id: int, now: dt.datetime, limit: int = BATCH) -> Batch | None:
    """The next images of a forward, leased for sending, in the order of series and image; None: nothing waits."""
    row = session.execute(
        select(tables.Forward).where(tables.Forward.id == forward_id).with_for_update()
    ).scalar_one_or_none()
    if row is None or row.state is not DeliveryState.WAITING:
        return None
    row.next_attempt_at = now + ATTEMPT_LEASE
    image = tables.Instance
    found = session.execute(
        select(image.id, image.file_key)
        .join(tables.ForwardedImage, tables.ForwardedImage.instance_id == image.id)
        .where(tables.ForwardedImage.forward_id == forward_id, tables.ForwardedImage.state == DeliveryState.WAITING)
        .order_by(image.series_number.nulls_last(), image.series_uid, image.instance_number.nulls_last(), image.id)
        .limit(limit)
    )
    images = tuple(ImageToSend(*line) for line in found)
    return Batch(row.id, row.destination, row.priority, row.study.study_uid, images)


def note_images(session: Session, forward_id: int, outcomes: Sequence[ImageOutcome], now: dt.datetime) -> None:
    """Write down what became of some images, and hold the lease: the node answers."""
    for outcome in outcomes:
        session.execute(
            update(tables.ForwardedImage)
            .where(
                tables.ForwardedImage.instance_id == outcome.instance_id,
                tables.ForwardedImage.forward_id == forward_id,
            )
            .values(state=outcome.state, status=outcome.status, detail=outcome.detail, sent_at=now)
        )
    session.execute(
        update(tables.Forward)
        .where(tables.Forward.id == forward_id, tables.Forward.state == DeliveryState.WAITING)
        .values(attempts=0, last_error=None, next_attempt_at=now + ATTEMPT_LEASE)
    )


def note_pause(session: Session, forward_id: int, why: str, now: dt.datetime) -> None:
    """Write down that the node took nothing: it is tried again later, and later each time."""
    row = session.get_one(tables.Forward, forward_id, with_for_update=True)
    if row.state is DeliveryState.WAITING:
        row.attempts += 1
        row.last_error = why
        row.next_attempt_at = now + wait_after(row.attempts)


def settle(session: Session, forward_id: int, now: dt.datetime) -> DeliveryState:
    """The state of a forward now: waiting while an image waits, refused where the node refused one."""
    row = session.get_one(tables.Forward, forward_id, with_for_update=True)
    if row.state is not DeliveryState.WAITING:
        return row.state
    counted = _counts(session, [forward_id])[forward_id]
    if counted[DeliveryState.WAITING]:
        return row.state
    refused = counted[DeliveryState.REFUSED]
    row.next_attempt_at = None
    if refused:
        row.state = DeliveryState.REFUSED
        row.last_error = f"{refused} of {sum(counted.values())} images were refused. {_first_refusal(session, row)}"
    else:
        row.state, row.last_error, row.delivered_at = DeliveryState.DELIVERED, None, now
    return row.state


def take_due(session: Session, now: dt.datetime, limit: int = 100) -> tuple[int, ...]:
    """The forwards whose time has come, leased. The caller asks for the sending."""
    rows = session.execute(
        select(tables.Forward)
        .where(tables.Forward.state == DeliveryState.WAITING, tables.Forward.next_attempt_at <= now)
        .order_by(tables.Forward.next_attempt_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).scalars()
    due = []
    for row in rows:
        row.next_attempt_at = now + ATTEMPT_LEASE
        due.append(row.id)
    return tuple(due)


def try_again(session: Session, forward_id: int, now: dt.datetime) -> None:
    """Make a waiting or refused forward due at once, with the images that were refused.

    Raises:
        NotFound: there is no such forward, or all of it has arrived.
    """
    row = session.execute(
        select(tables.Forward).where(tables.Forward.id == forward_id).with_for_update()
    ).scalar_one_or_none()
    if row is None or row.state not in (DeliveryState.WAITING, DeliveryState.REFUSED):
        raise NotFound("No such images wait or were refused.")
    session.execute(
        update(tables.ForwardedImage)
        .where(tables.ForwardedImage.forward_id == forward_id, tables.ForwardedImage.state == DeliveryState.REFUSED)
        .values(state=DeliveryState.WAITING)
    )
    row.state, row.next_attempt_at, row.last_error = DeliveryState.WAITING, now, None


def forwards_of(session: Session, study_id: int) -> tuple[Forward, ...]:
    """Every forward of a study, the newest first."""
    return _records(
        session,
        session.scalars(
            select(tables.Forward).where(tables.Forward.study_id == study_id).order_by(tables.Forward.id.desc())
        ).all(),
    )


def stuck(session: Session, limit: int = 100) -> tuple[tuple[Forward, str], ...]:
    """The forwards that were refused, or wait after an attempt in vain, each with its Study Instance UID."""
    rows = session.scalars(
        select(tables.Forward)
        .where(
            (tables.Forward.state == DeliveryState.REFUSED)
            | ((tables.Forward.state == DeliveryState.WAITING) & (tables.Forward.attempts > 0))
        )
        .order_by(tables.Forward.id.desc())
        .limit(limit)
    ).all()
    uids = {row.id: row.study.study_uid for row in rows}
    return tuple((record, uids[record.id]) for record in _records(session, rows))


def _records(session: Session, rows: Sequence[tables.Forward]) -> tuple[Forward, ...]:
    counts = _counts(session, [row.id for row in rows])
    return tuple(
        Forward(
            id=row.id,
            study_id=row.study_id,
            revision=row.revision,
            destination=row.destination,
            routes=tuple(row.routes),
            priority=row.priority,
            state=row.state,
            attempts=row.attempts,
            next_attempt_at=row.next_attempt_at,
            last_error=row.last_error,
            delivered_at=row.delivered_at,
            images=sum(counts[row.id].values()),
            arrived=counts[row.id][DeliveryState.DELIVERED],
            refused=counts[row.id][DeliveryState.REFUSED],
        )
        for row in rows
    )


def _counts(session: Session, forward_ids: Sequence[int]) -> dict[int, dict[DeliveryState, int]]:
    """How many images of each forward are in each state."""
    counts = {forward_id: dict.fromkeys(DeliveryState, 0) for forward_id in forward_ids}
    image = tables.ForwardedImage
    for forward_id, state, number in session.execute(
        select(image.forward_id, image.state, func.count())
        .where(image.forward_id.in_(forward_ids))
        .group_by(image.forward_id, image.state)
    ):
        counts[forward_id][state] = number
    return counts


def _first_refusal(session: Session, row: tables.Forward) -> str:
    return session.execute(
        select(tables.ForwardedImage.detail)
        .where(tables.ForwardedImage.forward_id == row.id, tables.ForwardedImage.state == DeliveryState.REFUSED)
        .order_by(tables.ForwardedImage.instance_id)
        .limit(1)
    ).scalar_one()
