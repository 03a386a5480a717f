"""Work to be done later: one typed function a job, and the worker that does it.

Procrastinate lives here alone. A job's arguments are ids, never data: what a job works on is in the record, so that a
job can be run again, or twice, and a log of jobs names no patient. Enqueueing joins the caller's transaction.

Stalled jobs: a worker beats every `HEARTBEAT_S`; a job whose worker has been silent for `STALLED_S`, or whose worker's
row is gone, is put back by `sweep_stalled`, and given up after `MAX_WORKER_DEATHS`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, LiteralString

import procrastinate
import structlog
from procrastinate import SyncPsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.worker import Worker
from sqlalchemy import ColumnElement, Text, cast, column, literal, select, table, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import InstrumentedAttribute, Session

from fhir_records.database import Database
from fhir_records.errors import NotFound
from fhir_records.model import Priority, ReadState
from fhir_records.store import deliveries, forwards, report_classes, results, withdrawals

log = structlog.get_logger(__name__)

HEARTBEAT_S = 5.0
STALLED_S = 20.0
MAX_WORKER_DEATHS = 3
# Seconds that a job waits after the death of its worker, times 4 for each earlier death.
STALLED_BACKOFF_S = 2.0

Handler = Callable[..., None]

# As far as a query of ours looks into it; the table is procrastinate's.
_JOBS = table("procrastinate_jobs", column("task_name", Text), column("status"), column("args", JSONB))


class Job(StrEnum):
    """The names of all jobs. `deploy.wiring` has a handler for each."""

    ROUTE = "route_revision"
    READ = "read"
    RENDER = "render_result"
    DELIVER = "deliver"
    FORWARD = "forward"
    TRY_RULES = "try_rules"
    WITHDRAW = "withdraw"
    CONFIRM = "confirm"


class Queue(StrEnum):
    """Queues are worked apart: a silent PACS never holds up a read, nor a long read or many images a result."""

    STEPS = "steps"
    READS = "reads"
    DELIVERIES = "deliveries"
    FORWARDS = "forwards"


# How many jobs of a queue one worker process does at once. One read: the model's process takes one study at a time.
CONCURRENCY: Mapping[Queue, int] = {Queue.STEPS: 2, Queue.READS: 1, Queue.DELIVERIES: 4, Queue.FORWARDS: 2}

_RETRIED = frozenset({Job.ROUTE, Job.RENDER})

PRIORITIES: Mapping[Priority, int] = {Priority.STAT: 20, Priority.URGENT: 10, Priority.ROUTINE: 0}


def request_route(session: Session, revision_id: int, *, priority: Priority = Priority.ROUTINE) -> None:
    """Ask for the routing of a study's revision."""
    _enqueue(session, Job.ROUTE, Queue.STEPS, priority, revision_id=revision_id)


def request_read(session: Session, read_id: int, study_id: int, *, priority: Priority = Priority.ROUTINE) -> None:
    """Ask for a read. Reads of one study are done one after another."""
    _enqueue(session, Job.READ, Queue.READS, priority, lock=f"study:{study_id}", read_id=read_id)


def request_rendering(session: Session, result_id: int, *, priority: Priority = Priority.ROUTINE) -> None:
    """Ask for the renderings of a result."""
    _enqueue(session, Job.RENDER, Queue.STEPS, priority, result_id=result_id)


def request_delivery(session: Session, delivery_id: int, *, priority: Priority | None = None) -> None:
    """Ask for one attempt at a delivery; nothing happens where one is asked for already.

    Args:
        session: the caller's.
        delivery_id: number of the delivery.
        priority: None: that of the read whose result it brings.
    """
    if priority is None:
        priority = deliveries.priority_of(session, delivery_id)
    _enqueue_once(session, Job.DELIVER, Queue.DELIVERIES, priority, f"delivery:{delivery_id}", delivery_id=delivery_id)


def request_forward(session: Session, forward_id: int, *, priority: Priority | None = None) -> None:
    """Ask for the next images of a forward to be sent; nothing happens where that is asked for already.

    Two workers never send the same forward at once: the second waits for the first.

    Args:
        session: the caller's.
        forward_id: number of the forward.
        priority: None: the forward's own.
    """
    if priority is None:
        priority = forwards.priority_of(session, forward_id)
    key = f"forward:{forward_id}"
    _enqueue_once(session, Job.FORWARD, Queue.FORWARDS, priority, key, lock=key, forward_id=forward_id)


def request_withdrawal(session: Session, delivery_id: int, *, priority: Priority = Priority.ROUTINE) -> None:
    """Ask for one attempt at taking a delivered document back; nothing happens where one is asked for already."""
    key = f"withdraw:{delivery_id}"
    _enqueue_once(session, Job.WITHDRAW, Queue.DELIVERIES, priority, key, delivery_id=delivery_id)


def request_confirmation(session: Session, delivery_id: int) -> None:
    """Ask for one question to a destination whether it keeps what was delivered."""
    key = f"confirm:{delivery_id}"
    _enqueue_once(session, Job.CONFIRM, Queue.DELIVERIES, Priority.ROUTINE, key, delivery_id=delivery_id)


def request_rule_trial(session: Session, trial_id: int) -> None:
    """Ask for rules to be tried over past studies."""
    _enqueue(session, Job.TRY_RULES, Queue.STEPS, Priority.ROUTINE, trial_id=trial_id)


def _enqueue_once(
    session: Session, job: Job, queue: Queue, priority: Priority, key: str, *, lock: str | None = None, **ids: int
) -> None:
    # The lock's unique index fails inside our transaction, so that only a savepoint keeps the rest of it.
    savepoint = session.begin_nested()
    try:
        _enqueue(session, job, queue, priority, lock=lock, queueing_lock=key, **ids)
    except AlreadyEnqueued:
        savepoint.rollback()
    else:
        savepoint.commit()


def _enqueue(
    session: Session,
    job: Job,
    queue: Queue,
    priority: Priority,
    *,
    lock: str | None = None,
    queueing_lock: str | None = None,
    **ids: int,
) -> None:
    session.flush()
    connection = session.connection().connection.driver_connection
    _enqueuer().configure_task(
        job.value,
        connection=connection,
        queue=queue.value,
        priority=PRIORITIES[priority],
        lock=lock,
        queueing_lock=queueing_lock,
    ).defer(**ids)


@functools.cache
def _enqueuer() -> procrastinate.App:
    """An app that opens no connection of its own: every enqueueing brings the caller's."""
    return procrastinate.App(connector=SyncPsycopgConnector())


# --- what stands, and what fell -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FailedJob:
    """A job that was given up."""

    id: int
    name: str
    ids: Mapping[str, int]
    attempts: int


def failed_jobs(session: Session) -> tuple[FailedJob, ...]:
    """The jobs that were given up, newest first."""
    rows = session.execute(
        text(
            "SELECT id, task_name, args, attempts FROM procrastinate_jobs WHERE status = 'failed'"
            " ORDER BY id DESC LIMIT 500"
        )
    )
    return tuple(FailedJob(row.id, row.task_name, row.args, row.attempts) for row in rows)


def retry_job(session: Session, job_id: int) -> None:
    """Put a given-up job back into its queue.

    Raises:
        NotFound: no such job has failed.
    """
    found = session.execute(
        text(
            "UPDATE procrastinate_jobs SET status = 'todo', attempts = 0, scheduled_at = NULL, worker_id = NULL"
            " WHERE id = :id AND status = 'failed' RETURNING id"
        ),
        {"id": job_id},
    ).first()
    if found is None:
        raise NotFound(f"No failed job has the number {job_id}.")


def retry_read(session: Session, read_id: int) -> None:
    """Queue a failed read anew, with all its attempts before it.

    Raises:
        NotFound: no such read has failed.
    """
    row = results.read_row(session, read_id, lock=True)
    if row.state is not ReadState.FAILED:
        raise NotFound(f"The read with the number {read_id} has not failed.")
    row.state, row.attempts, row.next_attempt_at, row.finished_at = ReadState.QUEUED, 0, None, None
    request_read(session, row.id, row.study_id, priority=row.priority)


def retry_delivery(session: Session, delivery_id: int) -> None:
    """Attempt a waiting or refused delivery now; a report that was refused in every class, in the first one again.

    Raises:
        NotFound: there is no such delivery, or it has arrived.
    """
    first = report_classes.start_over(session, delivery_id)
    deliveries.try_again(session, first, dt.datetime.now(dt.UTC))
    request_delivery(session, first)


def retry_forward(session: Session, forward_id: int) -> None:
    """Send the waiting and the refused images of a forward now.

    Raises:
        NotFound: there is no such forward, or all of it has arrived.
    """
    forwards.try_again(session, forward_id, dt.datetime.now(dt.UTC))
    request_forward(session, forward_id)


def release_document(session: Session, document_id: int, *, by: str, reason: str) -> None:
    """Send an object that the conformance gate holds, on an administrator's word.

    Raises:
        NotFound: the gate holds no such object.
        NotAllowed: no reason is given.
    """
    now = dt.datetime.now(dt.UTC)
    for delivery_id in deliveries.release_held(session, document_id, by=by, reason=reason, now=now):
        request_delivery(session, delivery_id)


def retry_withdrawal(session: Session, delivery_id: int) -> None:
    """Attempt an open withdrawal now.

    Raises:
        NotFound: nothing is to be taken back there.
    """
    withdrawals.try_again(session, delivery_id, dt.datetime.now(dt.UTC))
    request_withdrawal(session, delivery_id)


def queue_depths(session: Session) -> Mapping[tuple[str, str], int]:
    """How many jobs stand in each queue, by (queue, status)."""
    rows = session.execute(
        text("SELECT queue_name, status::text AS status, count(*) AS jobs FROM procrastinate_jobs GROUP BY 1, 2")
    )
    return {(row.queue_name, row.status): row.jobs for row in rows}


def living_workers(session: Session) -> int:
    """How many workers' hearts have beaten lately, by queue loop."""
    found = session.execute(
        text(
            "SELECT count(*) FROM procrastinate_workers WHERE last_heartbeat > now() - make_interval(secs => :stalled)"
        ),
        {"stalled": STALLED_S},
    )
    return int(found.scalar_one())


def has_job(job: Job, key: str, row_id: InstrumentedAttribute[int], *, failed_too: bool = True) -> ColumnElement[bool]:
    """The condition that a job with this id is there: waiting, at work, or (``failed_too``) given up."""
    statuses = ["todo", "doing", "failed"] if failed_too else ["todo", "doing"]
    return (
        select(literal(1))
        .select_from(_JOBS)
        .where(
            _JOBS.c.task_name == job.value,
            cast(_JOBS.c.status, Text).in_(statuses),
            _JOBS.c.args[key].as_integer() == row_id,
        )
        .exists()
    )


GiveUp = Callable[[Session, str, Mapping[str, int]], None]


def sweep_stalled(session: Session, give_up: GiveUp) -> int:
    """Put back the jobs whose worker has died, and give up those that have cost too many workers.

    Args:
        session: a transaction; rows taken by another sweep are left to it.
        give_up: told of each job that is given up (its name and ids), to write it into the record.

    Returns:
        How many jobs were found.
    """
    stalled = session.execute(
        text(
            "SELECT job.id, job.task_name, job.args, job.attempts FROM procrastinate_jobs job"
            " LEFT JOIN procrastinate_workers worker ON worker.id = job.worker_id"
            " WHERE job.status = 'doing'"
            " AND (worker.id IS NULL OR worker.last_heartbeat < now() - make_interval(secs => :stalled))"
            " FOR UPDATE OF job SKIP LOCKED"
        ),
        {"stalled": STALLED_S},
    ).all()
    for job in stalled:
        deaths = job.attempts + 1
        if job.task_name in (Job.DELIVER, Job.FORWARD, Job.WITHDRAW, Job.CONFIRM):
            # The delivery's or forward's own row asks again when its time comes, and counts its attempts.
            session.execute(text("SELECT procrastinate_finish_job_v1(:id, 'failed', true)"), {"id": job.id})
        elif deaths >= MAX_WORKER_DEATHS:
            session.execute(text("SELECT procrastinate_finish_job_v1(:id, 'failed', false)"), {"id": job.id})
            give_up(session, job.task_name, job.args)
            log.error("job given up", job=job.task_name, job_id=job.id, worker_deaths=deaths)
            continue
        else:
            session.execute(
                text("SELECT procrastinate_retry_job_v2(:id, now() + make_interval(secs => :wait), NULL, NULL, NULL)"),
                {"id": job.id, "wait": STALLED_BACKOFF_S * 4**job.attempts},
            )
        log.warning("job put back", job=job.task_name, job_id=job.id, worker_deaths=deaths)
    return len(stalled)


# --- the worker ---------------------------------------------------------------------------------------------------


class JobWorker:
    """Does the jobs of all queues in threads of this process, until it is stopped.

    Args:
        database: where the jobs are.
        handlers: what to do for each job; called with the ids that the job was requested with.
    """

    def __init__(self, database: Database, handlers: Mapping[Job, Handler]) -> None:
        missing = set(Job) - set(handlers)
        if missing:
            raise ValueError(f"no handler for {sorted(missing)}")
        self._app = procrastinate.App(
            connector=procrastinate.PsycopgConnector(conninfo=database.conninfo, min_size=1, max_size=10),
        )
        for job, handler in handlers.items():
            # A failure that no handler foresaw is tried again a few times, later each time. Not so where a row of the
            # record says when to try again, or where a job that waits would block the others of its lock.
            retry = procrastinate.RetryStrategy(max_attempts=5, exponential_wait=4) if job in _RETRIED else False
            self._app.task(name=job.value, retry=retry)(handler)
        self._workers: list[Worker] = []
        self._running: set[int] = set()
        self._asked = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self) -> bool:
        """Work until `stop`. Jobs under way are finished first.

        Returns:
            True where it was asked to stop; False where the worker can go on no longer (its row in the database is
            gone, or the database went away), so that the process should exit and be started again.
        """
        return asyncio.run(self._run())

    def stop(self) -> None:
        """Ask the worker to finish what it does and to return from `run`. May be called from a signal handler."""
        self._asked = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop_workers)

    def _stop_workers(self) -> None:
        for worker in self._workers:
            worker.stop()  # type: ignore[no-untyped-call]

    async def _run(self) -> bool:
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(max_workers=sum(CONCURRENCY.values()) + 2))
        async with self._app.open_async():
            self._workers = [self._worker(queue, concurrency) for queue, concurrency in CONCURRENCY.items()]
            runs = [
                asyncio.create_task(worker.run())  # type: ignore[no-untyped-call]
                for worker in self._workers
            ]
            watch = asyncio.create_task(self._watch())
            if self._asked:
                self._stop_workers()
            await asyncio.wait([*runs, watch], return_when=asyncio.FIRST_COMPLETED)
            self._stop_workers()
            watch.cancel()
            outcomes = await asyncio.gather(*runs, watch, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                log.error("worker stopped", error=type(outcome).__name__)
        return self._asked

    def _worker(self, queue: Queue, concurrency: int) -> Worker:
        return Worker(
            app=self._app,
            queues=[queue.value],
            name=queue.value,
            concurrency=concurrency,
            fetch_job_polling_interval=2.0,
            abort_job_polling_interval=30.0,
            delete_jobs="successful",
            install_signal_handlers=False,
            update_heartbeat_interval=HEARTBEAT_S,
            stalled_worker_timeout=STALLED_S,
            worker_middleware=[self._note_running],
        )

    async def _note_running(
        self, call_next: Callable[[], Awaitable[Any]], context: procrastinate.JobContext, worker: Worker
    ) -> Any:
        job_id = context.job.id
        if job_id is not None:
            self._running.add(job_id)
        try:
            return await call_next()
        finally:
            self._running.discard(job_id or 0)

    async def _watch(self) -> None:
        """Free jobs whose end could not be written; return when a worker's row is gone.

        A worker that was taken for dead would work on without a heartbeat. And a job whose end fell into a moment
        without a database stays "doing" under a living worker, where no sweep for dead workers finds it.
        """
        lost: set[int] = set()
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            ids = [worker.worker_id for worker in self._workers if worker.worker_id is not None]
            try:
                rows = await self._query("SELECT id FROM procrastinate_workers WHERE id = ANY(%(ids)s)", ids=ids)
                if len(rows) < len(ids):
                    log.error("worker was taken for dead", workers=len(ids), rows=len(rows))
                    return
                rows = await self._query(
                    "SELECT id FROM procrastinate_jobs WHERE status = 'doing' AND worker_id = ANY(%(ids)s)", ids=ids
                )
                seen_before, lost = lost, {row["id"] for row in rows} - self._running
                for job_id in lost & seen_before:
                    log.warning("the end of a job was lost", job_id=job_id)
                    await self._query(
                        "UPDATE procrastinate_jobs SET worker_id = NULL"
                        " WHERE id = %(job_id)s AND status = 'doing' RETURNING id",
                        job_id=job_id,
                    )
            except ConnectorException:
                continue  # the workers' own side tasks notice a database that stays away

    async def _query(self, query: LiteralString, **arguments: Any) -> list[dict[str, Any]]:
        return await self._app.connector.execute_query_all_async(query, **arguments)
