"""Steps: what has been done once and must not be done again."""

from __future__ import annotations

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fhir_records import tables


def finish(session: Session, subject: str, revision: int, name: str) -> bool:
    """Note that a step is done, in the transaction of its effect.

    Two workers that do the same step at once meet here: the second waits for the first's transaction and then learns
    that there is nothing left to do.

    Returns:
        False where the step was done already; the caller then returns without any effect.
    """
    done = session.execute(
        insert(tables.Step)
        .values(subject=subject, revision=revision, name=name)
        .on_conflict_do_nothing()
        .returning(tables.Step.name)
    ).first()
    return done is not None


def is_finished(session: Session, subject: str, revision: int, name: str) -> bool:
    """Whether the step is done, for work too dear to do in vain."""
    return session.get(tables.Step, (subject, revision, name)) is not None
