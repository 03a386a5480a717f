"""A study's revision is routed: what reads it, where its images go, and why, written down with it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy.orm import Session

from fhir_records import audit, tables
from fhir_records.database import Database
from fhir_records.identities import log_id
from fhir_records.jobs import PRIORITIES, request_forward, request_read
from fhir_records.model import AuditEntry, Installation, Instance
from fhir_records.renderings.fhir import render_study
from fhir_records.store import fhir, forwards, results, routing_decisions, steps, studies
from workflow.facts import Headers, by_series, facts_of
from workflow.headers import ReadHeaders
from workflow.router import Decision, PlannedForward, PlannedRead, Router

log = structlog.get_logger(__name__)

# Images of a series that are looked at to tell what it shows.
_LOOKED_AT = 12

# Tells what these images show, by their pixels; "" where it cannot.
Look = Callable[[Sequence[Instance]], str]


def some_images(instances: Sequence[Instance]) -> list[Instance]:
    """Images spread evenly over the longest series: enough to tell what it shows."""
    longest = max(by_series(instances), key=len, default=[])
    count = min(_LOOKED_AT, len(longest))
    return [longest[(2 * number + 1) * len(longest) // (2 * count)] for number in range(count)]


@dataclass(frozen=True, slots=True)
class Known:
    """What files say beyond the index."""

    headers: Headers = field(default_factory=Headers)
    anatomy: str = ""  # what the pixels show


@dataclass(frozen=True, slots=True)
class RouteRevision:
    """The job: decide on a revision, once, and queue the reads and forwards that the rules ask for.

    Attributes:
        look: tells what images show; asked only where a rule asks.
        headers: reads what the index does not know.
        clock: gives the instant, in the site's zone.
        sources: of each node, as whose images' source it is known; what came from a node does not go back to it.
    """

    database: Database
    router: Router
    installation: Installation
    look: Look
    headers: ReadHeaders
    clock: Callable[[], dt.datetime]
    sources: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __call__(self, revision_id: int) -> None:
        """Route the revision with this number; nothing happens where that is done."""
        known = self._known(revision_id)
        now = self.clock()
        with self.database.session() as session:
            revision = studies.revision_row(session, revision_id)
            row = revision.study
            if not steps.finish(session, f"study:{row.id}", revision.number, "route"):
                return
            study = studies.study_record(session, row)
            instances = studies.revision_instances(session, row, revision.number)
            row.routed_revision = max(row.routed_revision, revision.number)
            if revision.number < row.revision:
                return  # newer images are there already, and their revision is routed by itself
            resources = render_study(self.installation, study, instances)
            fhir.put(session, resources, patient_id=study.patient.id, study_id=study.id)
            facts = facts_of(study, row.caller, instances, known.anatomy, headers=known.headers, now=now)
            decision = self.router.decide(facts, known.headers.order_priority)
            for read in decision.reads:
                self._queue(session, row, read)
            sent_on = [self._forward(session, revision, forward, now) for forward in decision.forwards]
            routing_decisions.record_decision(session, row.id, revision.number, now, _explained(decision, sent_on))
            audit.record(
                session,
                AuditEntry(
                    action="route",
                    actor="wetread",
                    study_uid=row.study_uid,
                    detail={
                        "revision": revision.number,
                        "reads": [read.model.name for read in decision.reads],
                        "forwards": [forward.destination for forward in decision.forwards],
                    },
                ),
            )
            log.info(
                "study routed",
                study=log_id(row.study_uid),
                revision=revision.number,
                reads=len(decision.reads),
                forwards=len(decision.forwards),
            )

    def _known(self, revision_id: int) -> Known:
        """What the files say, found out before the study's row is locked: images of it may be arriving."""
        with self.database.session() as session:
            revision = studies.revision_row(session, revision_id)
            if steps.is_finished(session, f"study:{revision.study_id}", revision.number, "route"):
                return Known()
            instances = studies.revision_instances(session, revision.study, revision.number)
        anatomy = self.look(some_images(instances)) if self.router.asks_for_pixels else ""
        return Known(self.headers(instances), anatomy)

    def _queue(self, session: Session, row: tables.Study, read: PlannedRead) -> None:
        priority = max(row.priority, read.priority, key=PRIORITIES.__getitem__)
        row.priority = priority
        read_id = results.queue_read(
            session,
            row,
            model=read.model.name,
            model_version=read.model.version,
            routes=read.routes,
            results_to=(*read.results_to, *home(row.source)),
            priority=priority,
        )
        if read_id is not None:
            request_read(session, read_id, row.id, priority=priority)

    def _forward(
        self, session: Session, revision: tables.Revision, forward: PlannedForward, now: dt.datetime
    ) -> Mapping[str, Any]:
        """Set the images on their way; how many they are, for the explanation."""
        planned = forwards.plan(
            session,
            revision,
            destination=forward.destination,
            routes=forward.routes,
            priority=forward.priority,
            not_from=self.sources.get(forward.destination, frozenset()),
            now=now,
        )
        if planned.forward_id is not None:
            request_forward(session, planned.forward_id, priority=forward.priority)
        return {
            "images": planned.images,
            "had_already": planned.had_already,
            "came_from_there": planned.came_from_there,
        }


def _explained(decision: Decision, sent_on: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    explanation = decision.to_json()
    for forward, counts in zip(explanation["forwards"], sent_on, strict=True):
        forward.update(counts)
    return explanation


def home(source: str) -> tuple[str, ...]:
    """The Orthanc that a study was fetched from: its results go back there, whatever the routes say."""
    door, _, name = source.partition(":")
    return (name,) if door == "orthanc" else ()
