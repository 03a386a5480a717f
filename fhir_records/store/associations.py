"""Associations that are open now, as leased rows, so that any process can judge whether a study is complete.

Every function takes the caller's session and leaves committing to it. A listener that dies stops renewing, and its
leases run out. Leases are written and judged by the database's clock alone.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    Uuid,
    any_,
    delete,
    exists,
    func,
    literal,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from fhir_records import tables

LEASE: Final = dt.timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class OpenAssociation:
    """An association that a listener holds open."""

    id: uuid.UUID
    caller: str  # calling AE title
    address: str
    opened_at: dt.datetime


def renew_leases(session: Session, associations: Iterable[OpenAssociation]) -> frozenset[uuid.UUID]:
    """Let the leases of these associations run for `LEASE` from now; returns those that had none."""
    # In one order, so that two that renew the same leases do not wait for each other in a circle.
    rows = [
        {
            "id": association.id,
            "caller": association.caller,
            "address": association.address,
            "opened_at": association.opened_at,
            "expires_at": _end(),
        }
        for association in sorted(associations, key=lambda association: association.id)
    ]
    if not rows:
        return frozenset()
    statement = insert(tables.AssociationLease).values(rows)
    renewed: Iterable[tuple[uuid.UUID, bool]] = session.execute(
        statement.on_conflict_do_update(
            index_elements=["id"], set_={"expires_at": statement.excluded.expires_at}
        ).returning(tables.AssociationLease.id, literal_column("xmax = 0", Boolean))
    ).tuples()
    return frozenset(lease_id for lease_id, made in renewed if made)


def note_studies(session: Session, sent: Sequence[tuple[uuid.UUID, str]], now: dt.datetime) -> None:
    """Write down that associations sent objects of studies, the last sent last; one without a lease leaves no note."""
    # A microsecond apart, so that it can be told which study an association sent last.
    latest: Mapping[tuple[uuid.UUID, str], dt.datetime] = {
        key: now + dt.timedelta(microseconds=place) for place, key in enumerate(sent)
    }
    if not latest:
        return
    leased = set(
        session.execute(
            select(tables.AssociationLease.id)
            .where(_among({association_id for association_id, _ in latest}))
            .order_by(tables.AssociationLease.id)
            .with_for_update(read=True)
        ).scalars()
    )
    rows = [
        {"association_id": association_id, "study_uid": study_uid, "last_sent_at": at}
        for (association_id, study_uid), at in sorted(latest.items())
        if association_id in leased
    ]
    if rows:
        statement = insert(tables.AssociationStudy).values(rows)
        session.execute(
            statement.on_conflict_do_update(
                index_elements=["association_id", "study_uid"], set_={"last_sent_at": statement.excluded.last_sent_at}
            )
        )


def end_leases(session: Session, association_ids: Iterable[uuid.UUID]) -> None:
    """The associations were released, aborted or lost."""
    session.execute(delete(tables.AssociationLease).where(_among(association_ids)))


def drop_expired_leases(session: Session) -> None:
    """Forget the associations of listeners that died, also of those that died before the clock was set back."""
    lease = tables.AssociationLease
    session.execute(update(lease).where(lease.expires_at > _end() + LEASE).values(expires_at=_end()))
    session.execute(delete(lease).where(lease.expires_at < func.now()))


def senders_still_open(session: Session, study_uid: str, since: dt.datetime, now: dt.datetime) -> int:
    """How many associations that are open ``now`` sent objects of this study since ``since``, and nothing else after.

    One that went on to another study has moved on: a router whose association never closes holds back what it sent
    last alone.
    """
    sent, later = tables.AssociationStudy, aliased(tables.AssociationStudy)
    moved_on = exists().where(later.association_id == sent.association_id, later.last_sent_at > sent.last_sent_at)
    return session.execute(
        select(func.count())
        .select_from(sent)
        .join(tables.AssociationLease)
        .where(
            sent.study_uid == study_uid,
            sent.last_sent_at >= since,
            tables.AssociationLease.expires_at > now,
            ~moved_on,
        )
    ).scalar_one()


def _end() -> ColumnElement[dt.datetime]:
    return func.now() + literal(LEASE)


def _among(association_ids: Iterable[uuid.UUID]) -> ColumnElement[bool]:
    return tables.AssociationLease.id == any_(literal(list(association_ids), ARRAY(Uuid())))
