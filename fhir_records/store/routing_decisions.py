"""Why a study went where it went, and rules that were tried over past studies."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.errors import NotFound

MOST_STUDIES = 500  # over which rules are tried at once


@dataclass(frozen=True, slots=True)
class DecisionLine:
    """Where one revision went, and why."""

    study_uid: str
    accession_number: str
    revision: int
    decided_at: dt.datetime
    explanation: Mapping[str, Any]  # `workflow.router.Decision.to_json`


@dataclass(frozen=True, slots=True)
class RuleTrial:
    """Rules tried over past studies."""

    id: int
    rules: str  # TOML: `[[route]]` tables
    studies: int  # the newest so many
    asked_by: str
    asked_at: dt.datetime
    finished_at: dt.datetime | None
    error: str | None
    outcome: Mapping[str, Any] | None


def record_decision(
    session: Session, study_id: int, revision: int, decided_at: dt.datetime, explanation: Mapping[str, Any]
) -> None:
    """Keep why a revision goes where it goes; the first decision stands."""
    session.execute(
        insert(tables.RoutingDecision)
        .values(study_id=study_id, revision=revision, decided_at=decided_at, explanation=dict(explanation))
        .on_conflict_do_nothing(index_elements=["study_id", "revision"])
    )


def decisions_of(session: Session, study_uid: str) -> tuple[DecisionLine, ...]:
    """The decisions on a study, the newest revision first.

    Raises:
        NotFound: there is no such study.
    """
    study_id = session.scalar(select(tables.Study.id).where(tables.Study.study_uid == study_uid))
    if study_id is None:
        raise NotFound("There is no such study.")
    rows = session.scalars(
        select(tables.RoutingDecision)
        .where(tables.RoutingDecision.study_id == study_id)
        .order_by(tables.RoutingDecision.revision.desc())
    )
    return tuple(_line(row) for row in rows)


def newest_decisions(session: Session, limit: int = 50) -> tuple[DecisionLine, ...]:
    """The newest decisions on any study."""
    rows = session.scalars(select(tables.RoutingDecision).order_by(tables.RoutingDecision.id.desc()).limit(limit))
    return tuple(_line(row) for row in rows)


def ask_trial(session: Session, rules: str, studies: int, asked_by: str) -> int:
    """Note that rules are to be tried over the newest studies; the caller asks for the job."""
    row = tables.RuleTrial(rules=rules, studies=max(1, min(studies, MOST_STUDIES)), asked_by=asked_by)
    session.add(row)
    session.flush()
    return row.id


def trial(session: Session, trial_id: int) -> RuleTrial:
    """A trial of rules.

    Raises:
        NotFound: there is none of this number.
    """
    row = session.get(tables.RuleTrial, trial_id)
    if row is None:
        raise NotFound("There is no such trial.")
    return _trial(row)


def newest_trials(session: Session, limit: int = 10) -> tuple[RuleTrial, ...]:
    """The newest trials of rules."""
    rows = session.scalars(select(tables.RuleTrial).order_by(tables.RuleTrial.id.desc()).limit(limit))
    return tuple(_trial(row) for row in rows)


def finish_trial(
    session: Session,
    trial_id: int,
    now: dt.datetime,
    *,
    outcome: Mapping[str, Any] | None = None,
    error: str | None = None,
) -> None:
    """Write what came of a trial; what is written first stands."""
    row = session.get(tables.RuleTrial, trial_id, with_for_update=True)
    if row is not None and row.finished_at is None:
        row.finished_at, row.error = now, error
        row.outcome = dict(outcome) if outcome is not None else None


def _line(row: tables.RoutingDecision) -> DecisionLine:
    study = row.study
    return DecisionLine(study.study_uid, study.accession_number, row.revision, row.decided_at, row.explanation)


def _trial(row: tables.RuleTrial) -> RuleTrial:
    return RuleTrial(
        row.id, row.rules, row.studies, row.asked_by, row.asked_at, row.finished_at, row.error, row.outcome
    )
