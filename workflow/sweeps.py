"""What has come due without anybody asking: complete studies, deliveries, retries, and the work of dead workers.

Any number of processes may sweep at once: each takes the rows that no other holds. Nothing here is kept in memory, so
a sweep goes on where the last one stopped, whatever died in between.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from dicom_listener.arrivals import CompletionRules, Judge
from fhir_records import jobs, tables
from fhir_records.database import Database
from fhir_records.model import ReadState
from fhir_records.store import (
    confirmations,
    deliveries,
    destinations,
    forwards,
    results,
    routing_decisions,
    withdrawals,
)

log = structlog.get_logger(__name__)

Found = TypeVar("Found")

# A row that should have a job and has none is left alone for so long: its job may have ended a moment ago.
ORPHAN_AGE = dt.timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Looks what is due, and asks for it. Each look is one short transaction."""

    database: Database
    rules: CompletionRules
    now: Callable[[], dt.datetime]
    fallbacks: Mapping[str, destinations.Fallback] = field(default_factory=dict)  # by name of the destination
    _judge: Judge = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_judge", Judge(self.rules))

    def sweep(self) -> int:
        """Look once for everything that comes due by time.

        Returns:
            How much was found due.

        Raises:
            DatabaseUnavailable: the database is away; the next sweep finds the same.
        """
        due = self._complete_studies() + self._due_reads() + self._due_deliveries() + self._due_forwards()
        return due + self._due_by_destination() + self.stalled()

    def stalled(self) -> int:
        """Put back the jobs of dead workers. The supervisor does this too, for there may be no worker left."""
        with self.database.session() as session:
            return jobs.sweep_stalled(session, self._given_up)

    def reconcile(self) -> int:
        """Ask again for what has lost its job: a repair, for which there should never be a need.

        Returns:
            How many jobs were asked for.
        """
        with self.database.session() as session:
            asked = _unrouted(session, self.now()) + _unread(session, self.now()) + _unrendered(session, self.now())
        if asked:
            log.warning("work without a job was found", jobs=asked)
        return asked

    def _complete_studies(self) -> int:
        with self.database.session() as session:
            revisions = self._judge.complete(session)
            for revision in revisions:
                jobs.request_route(session, revision.id)
        return len(revisions)

    def _due_reads(self) -> int:
        with self.database.session() as session:
            rows = (
                session.execute(
                    select(tables.Read)
                    .where(tables.Read.state == ReadState.QUEUED, tables.Read.next_attempt_at <= self.now())
                    .with_for_update(skip_locked=True)
                )
                .scalars()
                .all()
            )
            for row in rows:
                row.next_attempt_at = None
                jobs.request_read(session, row.id, row.study_id, priority=row.priority)
        return len(rows)

    def _due_deliveries(self) -> int:
        with self.database.session() as session:
            due = deliveries.take_due(session, self.now())
            for delivery_id in due:
                jobs.request_delivery(session, delivery_id)
        return len(due)

    def _due_forwards(self) -> int:
        with self.database.session() as session:
            due = forwards.take_due(session, self.now())
            for forward_id in due:
                jobs.request_forward(session, forward_id)
        return len(due)

    def _due_by_destination(self) -> int:
        with self.database.session() as session:
            withdrawn = withdrawals.take_due(session, self.now())
            for delivery_id in withdrawn:
                jobs.request_withdrawal(session, delivery_id)
            confirmed = confirmations.take_due(session, self.now())
            for delivery_id in confirmed:
                jobs.request_confirmation(session, delivery_id)
            diverted = destinations.fall_back(session, self.fallbacks, self.now())
            for delivery_id in diverted:
                jobs.request_delivery(session, delivery_id)
        return len(withdrawn) + len(confirmed) + len(diverted)

    def _given_up(self, session: Session, job: str, ids: Mapping[str, int]) -> None:
        if job == jobs.Job.READ:
            words = f"The worker died {jobs.MAX_WORKER_DEATHS} times while it read this study."
            results.note_failure(session, ids["read_id"], words, self.now(), final=True)
        elif job == jobs.Job.TRY_RULES:
            words = f"The worker died {jobs.MAX_WORKER_DEATHS} times while it tried these rules."
            routing_decisions.finish_trial(session, ids["trial_id"], self.now(), error=words)


def _unrouted(session: Session, now: dt.datetime) -> int:
    rows = session.execute(
        select(tables.Revision.id, tables.Study.priority)
        .join(tables.Study)
        .where(
            tables.Revision.number > tables.Study.routed_revision,
            tables.Revision.created_at < now - ORPHAN_AGE,
            ~jobs.has_job(jobs.Job.ROUTE, "revision_id", tables.Revision.id),
        )
    )
    return _ask(rows, lambda row: jobs.request_route(session, row.id, priority=row.priority))


def _unread(session: Session, now: dt.datetime) -> int:
    rows = session.execute(
        select(tables.Read.id, tables.Read.study_id, tables.Read.priority).where(
            tables.Read.state.in_([ReadState.QUEUED, ReadState.READING]),
            tables.Read.next_attempt_at.is_(None),
            func.coalesce(tables.Read.started_at, tables.Read.queued_at) < now - ORPHAN_AGE,
            ~jobs.has_job(jobs.Job.READ, "read_id", tables.Read.id, failed_too=False),
        )
    )
    return _ask(rows, lambda row: jobs.request_read(session, row.id, row.study_id, priority=row.priority))


def _unrendered(session: Session, now: dt.datetime) -> int:
    rows = session.execute(
        select(tables.Result.id, tables.Read.priority)
        .join(tables.Result.read)
        .where(
            tables.Result.created_at < now - ORPHAN_AGE,
            # A rejected result has no document, but its step is finished all the same.
            ~exists().where(
                tables.Step.subject == func.concat("result:", tables.Result.id), tables.Step.name == "render"
            ),
            ~jobs.has_job(jobs.Job.RENDER, "result_id", tables.Result.id),
        )
    )
    return _ask(rows, lambda row: jobs.request_rendering(session, row.id, priority=row.priority))


def _ask(found: Iterable[Found], request: Callable[[Found], None]) -> int:
    waiting = list(found)
    for entry in waiting:
        request(entry)
    return len(waiting)
