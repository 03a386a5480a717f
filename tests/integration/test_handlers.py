"""Every job that can be asked for has a handler that takes what it was asked for with."""

from __future__ import annotations

import inspect
from pathlib import Path

from sqlalchemy import text

from deploy.settings import load
from deploy.work import WorkerParts, handlers
from fhir_records import jobs
from fhir_records.database import Database
from fhir_records.model import Priority
from inference.live_models import LiveModels
from inference.registry import Registry
from inference.runner import ModelRunner


def test_every_job_has_a_handler_for_its_ids(database: Database, tmp_path: Path) -> None:
    """The ids that a job is enqueued with are the parameters of its handler."""
    settings = load(None, {"WETREAD_HOME": str(tmp_path)})
    made = handlers(WorkerParts(database, settings, LiveModels(Registry(settings.models)), ModelRunner(), {}))
    with database.session() as session:
        jobs.request_route(session, 1)
        jobs.request_read(session, 1, 1)
        jobs.request_rendering(session, 1)
        jobs.request_delivery(session, 1)
        jobs.request_forward(session, 1, priority=Priority.ROUTINE)
        jobs.request_rule_trial(session, 1)
        jobs.request_withdrawal(session, 1)
        jobs.request_confirmation(session, 1)
    with database.session() as session:
        asked = {row.task_name: set(row.args) for row in session.execute(text("SELECT * FROM procrastinate_jobs"))}
    assert asked == {job.value: set(inspect.signature(handler).parameters) for job, handler in made.items()}
    assert set(made) == set(jobs.Job)
