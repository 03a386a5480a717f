"""A worker process for tests: its handlers write down what they did, and can be told to take long.

Run as ``python -m tests.integration.job_worker URL``. Effects go into the table `audit_event`.
"""

from __future__ import annotations

import signal
import sys
import time

from sqlalchemy import text

from fhir_records.database import Database
from fhir_records.jobs import Job, JobWorker
from fhir_records.store import steps


def main(url: str) -> int:
    """Work until SIGTERM; the exit status tells whether that was what ended it."""
    database = Database(url)

    def note(action: str, number: int) -> None:
        with database.session() as session:
            session.execute(
                text("INSERT INTO audit_event (actor, action, outcome, detail) VALUES ('test', :a, :n, '{}')"),
                {"a": action, "n": str(number)},
            )

    def route(revision_id: int) -> None:
        """Note the start, take a while, then note the end once, with its step."""
        note("started", revision_id)
        time.sleep(0.05 if revision_id < 1000 else 600)
        with database.session() as session:
            if steps.finish(session, f"test:{revision_id}", 1, "route"):
                session.execute(
                    text("INSERT INTO audit_event (actor, action, outcome, detail) VALUES ('test','done',:n,'{}')"),
                    {"n": str(revision_id)},
                )

    def fail(result_id: int) -> None:
        note("failing", result_id)
        raise ValueError("on purpose")

    worker = JobWorker(
        database,
        {
            Job.ROUTE: route,
            Job.READ: lambda read_id: note("read", read_id),
            Job.RENDER: fail,
            Job.DELIVER: lambda delivery_id: note("deliver", delivery_id),
            Job.FORWARD: lambda forward_id: note("forward", forward_id),
            Job.TRY_RULES: lambda trial_id: note("try", trial_id),
            Job.WITHDRAW: lambda delivery_id: note("withdraw", delivery_id),
            Job.CONFIRM: lambda delivery_id: note("confirm", delivery_id),
        },
    )
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    print("ready", flush=True)
    return 0 if worker.run() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
