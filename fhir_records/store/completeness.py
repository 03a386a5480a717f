"""Which studies may be complete, and the revision that is made of them.

Every function takes the caller's session and leaves committing to it. All instants are the database's own, so that
several machines judge by one clock.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.errors import NotFound
from fhir_records.model import InstanceKind, Standing
from fhir_records.store.associations import senders_still_open
from fhir_records.store.expected import Expectation, expectations_of

# An instant so far ahead of the database's clock was written before that clock was set back.
CLOCK_SLACK = dt.timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class OpenStudy:
    """What decides whether a study is complete."""

    id: int
    study_uid: str
    open_since: dt.datetime  # when the first image that no revision holds came
    last_arrival_at: dt.datetime
    open_associations: int  # that sent this study since, sent nothing else after it, and are open
    callers: tuple[str, ...] = ()  # that sent the images since
    expectation: Expectation | None = None  # None: nobody said a number


@dataclass(frozen=True, slots=True)
class FrozenRevision:
    """A revision that was made."""

    id: int
    study_id: int
    number: int
    images: int


def database_now(session: Session) -> dt.datetime:
    """The database's clock, by which arrivals and leases are written."""
    return session.execute(select(func.now())).scalar_one()


def due_studies(
    session: Session, now: dt.datetime, quiet_since: dt.datetime, open_since: dt.datetime
) -> Sequence[OpenStudy]:
    """The studies that may be complete, their rows locked; those that another transaction holds are left out.

    Args:
        session: the caller's.
        now: leases that ran out before do not count.
        quiet_since: nothing arrived after this, or …
        open_since: … the first new image came before this, or a number is expected.
    """
    study = tables.Study
    rows = session.execute(
        select(study.id, study.study_uid, study.open_since, study.last_arrival_at, study.open_callers)
        .where(
            study.open_since.is_not(None),
            or_(
                study.last_arrival_at <= quiet_since,
                study.open_since <= open_since,
                exists().where(tables.ExpectedNumber.study_id == study.id),
            ),
        )
        .order_by(study.open_since)
        .with_for_update(skip_locked=True, of=study)
    ).all()
    expectations = expectations_of(session, [row.id for row in rows])
    return [
        OpenStudy(
            id=row.id,
            study_uid=row.study_uid,
            open_since=row.open_since,
            last_arrival_at=row.last_arrival_at,
            open_associations=senders_still_open(session, row.study_uid, row.open_since, now),
            callers=tuple(row.open_callers),
            expectation=expectations.get(row.id),
        )
        for row in rows
    ]


def mend_future(session: Session, now: dt.datetime) -> int:
    """Bring instants ahead of ``now`` back to it, after the clock was set back; returns how many studies it was.

    Otherwise nobody would read them until the clock had caught up.
    """
    ahead = now + CLOCK_SLACK
    study = tables.Study
    found = session.execute(
        update(study)
        .where(study.open_since.is_not(None), or_(study.last_arrival_at > ahead, study.open_since > ahead))
        .values(last_arrival_at=func.least(study.last_arrival_at, now), open_since=func.least(study.open_since, now))
        .returning(study.id)
        .execution_options(synchronize_session=False)
    )
    return len(found.all())


def complete_study(session: Session, study_id: int, reason: str) -> FrozenRevision | None:
    """Freeze the study's current images as its next revision; None where no image is new since the last one."""
    study = session.execute(
        select(tables.Study).where(tables.Study.id == study_id).with_for_update(of=tables.Study)
    ).scalar_one()
    if study.open_since is None:
        return None
    study.open_since, study.open_callers = None, []
    images = set(_current_images(session, study_id))
    if images <= _frozen_images(session, study_id):
        return None
    expectation = expectations_of(session, [study_id]).get(study_id)
    # What comes later is counted anew.
    session.execute(delete(tables.ExpectedNumber).where(tables.ExpectedNumber.study_id == study_id))
    study.revision += 1
    revision = tables.Revision(
        study_id=study_id,
        number=study.revision,
        reason=reason,
        arrived=expectation.arrived if expectation else None,
        expected=expectation.expected if expectation else None,
    )
    session.add(revision)
    session.flush()
    session.execute(
        insert(tables.RevisionInstance),
        [{"revision_id": revision.id, "instance_id": instance_id} for instance_id in sorted(images)],
    )
    return FrozenRevision(revision.id, study_id, study.revision, len(images))


def study_to_complete(session: Session, study_uid: str) -> int:
    """The number of the study that somebody wants to be read now, its row locked.

    Raises:
        NotFound: there is no such study.
    """
    found = session.execute(
        select(tables.Study.id).where(tables.Study.study_uid == study_uid).with_for_update(of=tables.Study)
    ).scalar_one_or_none()
    if found is None:
        raise NotFound("There is no such study.")
    return found


def _current_images(session: Session, study_id: int) -> Sequence[int]:
    return (
        session.execute(
            select(tables.Instance.id).where(
                tables.Instance.study_id == study_id,
                tables.Instance.kind == InstanceKind.IMAGE,
                tables.Instance.standing == Standing.CURRENT,
            )
        )
        .scalars()
        .all()
    )


def _frozen_images(session: Session, study_id: int) -> set[int]:
    return set(
        session.execute(
            select(tables.RevisionInstance.instance_id)
            .join(tables.Revision)
            .where(tables.Revision.study_id == study_id)
        ).scalars()
    )
