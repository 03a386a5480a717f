"""Jobs: enqueued with their effect, done at least once, with steps that are done exactly once, whatever dies."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import text
from sqlalchemy.orm import Session

from dicom_listener.arrivals import CompletionRules
from fhir_records import jobs, tables
from fhir_records.database import Database
from fhir_records.errors import NotFound
from fhir_records.model import DeliveryState, Priority, ReadState
from tests import seed
from workflow.sweeps import Sweeper

REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def worker(url: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.job_worker", url],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


def noted(database: Database, action: str) -> list[int]:
    with database.session() as session:
        rows = session.execute(
            text("SELECT outcome FROM audit_event WHERE action = :action ORDER BY id"), {"action": action}
        )
        return [int(row.outcome) for row in rows]


def until(condition: Callable[[], bool], seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)


def nobody(_session: Session, _job: str, _ids: Mapping[str, int]) -> None:
    pass


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that takes a worker for dead at once, and puts its jobs back without delay."""
    monkeypatch.setattr(jobs, "STALLED_S", 6.0)
    monkeypatch.setattr(jobs, "STALLED_BACKOFF_S", 0.01)


def test_a_job_is_enqueued_with_its_effect_or_not_at_all(database: Database) -> None:
    """A transaction that is rolled back takes its jobs with it; one that commits brings them."""

    def count() -> int:
        with database.session() as session:
            return sum(jobs.queue_depths(session).values())

    with pytest.raises(RuntimeError), database.session() as session:
        jobs.request_route(session, 1)
        raise RuntimeError
    assert count() == 0
    with database.session() as session:
        jobs.request_route(session, 1)
    assert count() == 1


def test_a_delivery_is_asked_for_once(database: Database) -> None:
    """A second request for the same delivery is no second job, and does not spoil the caller's transaction."""
    with database.session() as session:
        jobs.request_delivery(session, 7)
        jobs.request_delivery(session, 7)
        jobs.request_route(session, 1)
    with database.session() as session:
        assert jobs.queue_depths(session) == {("deliveries", "todo"): 1, ("steps", "todo"): 1}


def test_what_is_urgent_overtakes(database: Database) -> None:
    """Reads, deliveries and forwards that wait are done by priority, then in their order: a stat one comes first."""
    with database.session() as session:
        for number, priority in enumerate((Priority.ROUTINE,) * 6 + (Priority.URGENT, Priority.STAT)):
            jobs.request_read(session, number, number, priority=priority)
            jobs.request_forward(session, number, priority=priority)
            jobs.request_delivery(session, number, priority=priority)
    with worker(database.url):
        until(lambda: all(len(noted(database, action)) == 8 for action in ("read", "forward", "deliver")))
    assert noted(database, "read") == [7, 6, 0, 1, 2, 3, 4, 5]
    # Several of these are done at once, so that the first ones may end in any order.
    assert set(noted(database, "forward")[:2]) == {7, 6}
    assert set(noted(database, "deliver")[:4]) >= {7, 6}


def test_what_is_tried_again_keeps_its_priority(database: Database) -> None:
    """A delivery and a forward that come due are asked for with the priority of their study's read or route."""
    with database.session() as session:
        study = seed.add_study(session, 1, priority=Priority.STAT)
        result = seed.add_result(session, seed.add_read(session, study, ReadState.READ), finding=seed.glioma(study))
        delivery = seed.add_delivery(session, result, DeliveryState.WAITING)
        forward = tables.Forward(study_id=study.id, revision=1, destination="pacs", priority=Priority.URGENT)
        forward.next_attempt_at = seed.NOW
        session.add(forward)
        session.flush()
        assert delivery.next_attempt_at == seed.NOW
    Sweeper(database, CompletionRules(60, 3600), lambda: seed.NOW).sweep()
    with database.session() as session:
        rows = session.execute(text("SELECT task_name, priority FROM procrastinate_jobs ORDER BY task_name"))
        assert [tuple(row) for row in rows] == [("deliver", 20), ("forward", 10)]


def test_one_forward_is_never_sent_by_two(database: Database) -> None:
    """While a forward is under way it can be asked for once more, and that waits until the first has ended."""
    with database.session() as session:
        jobs.request_forward(session, 5)
        jobs.request_forward(session, 5)
        assert jobs.queue_depths(session) == {("forwards", "todo"): 1}
        session.execute(text("UPDATE procrastinate_jobs SET status = 'doing'"))
        jobs.request_forward(session, 5)
        fetched = session.execute(
            text("SELECT id FROM procrastinate_fetch_job_v2(ARRAY['forwards']::varchar[], NULL)")
        ).scalar()
        assert fetched is None


def test_jobs_are_done_and_the_worker_stops_cleanly(database: Database) -> None:
    """A worker does what waits and what comes, and ends with status 0 on SIGTERM."""
    with database.session() as session:
        for number in range(5):
            jobs.request_route(session, number)
    with worker(database.url) as process:
        until(lambda: sorted(noted(database, "done")) == list(range(5)))
        with database.session() as session:
            jobs.request_read(session, 9, 1)
            jobs.request_delivery(session, 8)
        until(lambda: noted(database, "read") == [9] and noted(database, "deliver") == [8])
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0


def test_killed_workers_lose_nothing_and_do_nothing_twice(database: Database, impatient: None) -> None:
    """Workers killed at random moments leave every step done exactly once."""
    numbers = list(range(120))
    with database.session() as session:
        for number in numbers:
            jobs.request_route(session, number)
    chance = random.Random(7)
    for _ in range(4):
        with worker(database.url) as process:
            time.sleep(chance.uniform(0.3, 1.2))
            process.kill()
    assert len(noted(database, "done")) < len(numbers), "the workers were too fast to be killed at work"
    with worker(database.url):

        def swept() -> bool:
            with database.session() as session:
                jobs.sweep_stalled(session, nobody)
            return len(noted(database, "done")) == len(numbers)

        until(swept)
    assert sorted(noted(database, "done")) == numbers
    assert len(noted(database, "started")) >= len(numbers)


def test_a_job_that_costs_three_workers_is_given_up(database: Database, impatient: None) -> None:
    """A job under which workers keep dying ends as failed, is told of, and can be tried again."""
    given_up: list[tuple[str, int]] = []
    with database.session() as session:
        jobs.request_route(session, 1000)
    for deaths in range(1, 4):
        with worker(database.url) as process:
            until(lambda: len(noted(database, "started")) == deaths)  # noqa: B023 -- waited for within the loop
            process.kill()

        def swept() -> bool:
            with database.session() as session:
                return jobs.sweep_stalled(session, lambda _s, job, ids: given_up.append((job, ids["revision_id"]))) > 0

        until(swept)
    assert given_up == [("route_revision", 1000)]
    with database.session() as session:
        (failed,) = jobs.failed_jobs(session)
        assert (failed.name, failed.ids) == ("route_revision", {"revision_id": 1000})
        jobs.retry_job(session, failed.id)
    with database.session() as session:
        assert jobs.queue_depths(session) == {("steps", "todo"): 1}
        with pytest.raises(NotFound):
            jobs.retry_job(session, failed.id)


def test_a_live_workers_jobs_are_left_alone(database: Database) -> None:
    """A sweep while a worker's heart beats finds nothing, however long the job takes."""
    with database.session() as session:
        jobs.request_route(session, 1000)
    with worker(database.url):
        until(lambda: noted(database, "started") == [1000])
        time.sleep(1)
        with database.session() as session:
            assert jobs.sweep_stalled(session, nobody) == 0


def test_a_worker_whose_row_is_gone_exits(database: Database) -> None:
    """A worker that was taken for dead does not work on without a heartbeat: it ends, to be started again."""
    with worker(database.url) as process:
        until(lambda: _workers(database) == len(jobs.CONCURRENCY))
        with database.session() as session:
            session.execute(text("DELETE FROM procrastinate_workers"))
        assert process.wait(90) == 1


def test_a_job_whose_end_was_not_written_is_put_back(database: Database, impatient: None) -> None:
    """A job that stays "doing" under a living worker that no longer does it is found and done again."""
    with worker(database.url):
        until(lambda: _workers(database) == len(jobs.CONCURRENCY))
        with database.session() as session:
            jobs.request_route(session, 3)
            # As if the database had been away at the moment of its end.
            session.execute(
                text(
                    "UPDATE procrastinate_jobs SET status = 'doing',"
                    " worker_id = (SELECT min(id) FROM procrastinate_workers)"
                )
            )

        def swept() -> bool:
            with database.session() as session:
                jobs.sweep_stalled(session, nobody)
            return noted(database, "done") == [3]

        until(swept)


def test_a_worker_whose_connections_are_cut_goes_on_or_exits(database: Database, impatient: None) -> None:
    """When the database drops all connections, what was asked for is done in the end, by it or by its successor."""
    with database.session() as session:
        for number in range(60):
            jobs.request_route(session, number)
    with worker(database.url) as first:
        until(lambda: len(noted(database, "done")) > 5)
        _cut_others(database)
        while first.poll() is None and len(noted(database, "done")) < 60:
            with database.session() as session:
                jobs.sweep_stalled(session, nobody)
            time.sleep(0.2)
        with worker(database.url):

            def swept() -> bool:
                with database.session() as session:
                    jobs.sweep_stalled(session, nobody)
                return len(noted(database, "done")) == 60

            until(swept)


def test_a_handler_without_a_name_is_refused(database: Database) -> None:
    """A worker that lacks a job's handler does not start."""
    with pytest.raises(ValueError, match="no handler for"):
        jobs.JobWorker(database, {})


def _workers(database: Database) -> int:
    with database.session() as session:
        return int(session.execute(text("SELECT count(*) FROM procrastinate_workers")).scalar_one())


def _cut_others(database: Database) -> None:
    with suppress(sqlalchemy.exc.DBAPIError), database.session() as session:
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        )
