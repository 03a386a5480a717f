"""When a study is complete: a pure judgement, and the transaction that acts on it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import structlog
from sqlalchemy.orm import Session

from fhir_records.identities import log_id
from fhir_records.store import arrivals as store
from fhir_records.store.arrivals import FrozenRevision, OpenStudy

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CompletionRules:
    """How long to wait for the rest of a study."""

    idle_seconds: float = 60.0  # nothing arrived for so long, and no association that sent it is open
    max_seconds: float = 3600.0  # so long after its first new image, whatever is open


def judge(study: OpenStudy, rules: CompletionRules, now: dt.datetime) -> str | None:
    """Why the study is complete ``now``; None: it is not."""
    if now - study.open_since >= dt.timedelta(seconds=rules.max_seconds):
        return f"open for {rules.max_seconds:g} s"
    quiet = now - study.last_arrival_at >= dt.timedelta(seconds=rules.idle_seconds)
    if quiet and study.open_associations == 0:
        return f"nothing arrived for {rules.idle_seconds:g} s"
    return None


def complete_due_studies(session: Session, now: dt.datetime, rules: CompletionRules) -> list[FrozenRevision]:
    """Make a revision of every study that is complete, in the caller's transaction, which should ask for what follows.

    Two processes that judge at once make one revision: each leaves out what the other has locked.
    """
    revisions = []
    quiet_since = now - dt.timedelta(seconds=rules.idle_seconds)
    open_since = now - dt.timedelta(seconds=rules.max_seconds)
    for study in store.due_studies(session, now, quiet_since, open_since):
        reason = judge(study, rules, now)
        if reason is None:
            continue
        revision = store.complete_study(session, study.id, reason)
        if revision is not None:
            log.info(
                "study complete",
                study=log_id(study.study_uid),
                revision=revision.number,
                images=revision.images,
                reason=reason,
            )
            revisions.append(revision)
    return revisions
