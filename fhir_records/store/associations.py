"""Associations that are open now, as leased rows, so that any process can judge whether a study is complete.

Every function takes the caller's session and leaves committing to it. A listener that dies stops renewing, and its
leases run out.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import DateTime, delete, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fhir_records import tables


@dataclass(frozen=True, slots=True)
class OpenAssociation:
    """An association that a listener holds open."""

    id: uuid.UUID
    caller: str  # calling AE title
    address: str
    opened_at: dt.datetime


def renew_leases(session: Session, associations: Iterable[OpenAssociation], expires_at: dt.datetime) -> None:
    """Let the leases of these associations run until ``expires_at``; rows that are missing are made."""
    rows = [
        {
            "id": association.id,
            "caller": association.caller,
            "address": association.address,
            "opened_at": association.opened_at,
            "expires_at": expires_at,
        }
        for association in associations
    ]
    if not rows:
        return
    statement = insert(tables.AssociationLease).values(rows)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["id"],
            set_={"expires_at": func.greatest(tables.AssociationLease.expires_at, statement.excluded.expires_at)},
        )
    )


def note_study(session: Session, association_id: uuid.UUID, study_uid: str, now: dt.datetime) -> None:
    """Write down that an association sent an object of a study; one without a lease leaves no note."""
    sent = select(tables.AssociationLease.id, literal(study_uid), literal(now, DateTime(timezone=True)))
    statement = insert(tables.AssociationStudy).from_select(
        ["association_id", "study_uid", "last_sent_at"], sent.where(tables.AssociationLease.id == association_id)
    )
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["association_id", "study_uid"], set_={"last_sent_at": statement.excluded.last_sent_at}
        )
    )


def end_lease(session: Session, association_id: uuid.UUID) -> None:
    """The association was released, aborted or lost."""
    session.execute(delete(tables.AssociationLease).where(tables.AssociationLease.id == association_id))


def drop_expired_leases(session: Session, now: dt.datetime) -> None:
    """Forget the associations of listeners that died."""
    session.execute(delete(tables.AssociationLease).where(tables.AssociationLease.expires_at < now))


def senders_still_open(session: Session, study_uid: str, since: dt.datetime, now: dt.datetime) -> int:
    """How many associations that are open ``now`` sent objects of this study since ``since``."""
    return session.execute(
        select(func.count())
        .select_from(tables.AssociationStudy)
        .join(tables.AssociationLease)
        .where(
            tables.AssociationStudy.study_uid == study_uid,
            tables.AssociationStudy.last_sent_at >= since,
            tables.AssociationLease.expires_at > now,
        )
    ).scalar_one()
