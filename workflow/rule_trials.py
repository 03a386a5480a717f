"""Rules tried over past studies, before they are put to use: what would go elsewhere than it went."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import select

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.errors import SettingsError
from fhir_records.model import Instance
from fhir_records.store import results, routing_decisions, studies
from workflow.facts import facts_of
from workflow.headers import ReadHeaders
from workflow.router import Decision, Router
from workflow.routing import Look, some_images

log = structlog.get_logger(__name__)

_MOST_SHOWN = 100  # studies that would go elsewhere, of which the outcome keeps the details


@dataclass(frozen=True, slots=True)
class Gone:
    """Where a study goes: the models that read it, and the nodes that get its images."""

    models: tuple[str, ...]
    forwards: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"models": list(self.models), "forwards": list(self.forwards)}


@dataclass(frozen=True, slots=True)
class PastStudy:
    """One study under the rules that are tried."""

    study_uid: str
    accession_number: str
    revision: int
    source: str
    at: dt.datetime  # the instant that the rules saw
    instances: Sequence[Instance]
    before: Gone
    decision: Decision

    @property
    def after(self) -> Gone:
        """Where it would go."""
        return Gone(
            tuple(sorted(read.model.name for read in self.decision.reads)),
            tuple(sorted(forward.destination for forward in self.decision.forwards)),
        )


@dataclass(frozen=True, slots=True)
class Replay:
    """Decides again on past studies, as of the instant when they were routed.

    Attributes:
        look: tells what images show; asked only where a rule asks and nobody looked before.
        headers: reads what the index does not know.
    """

    database: Database
    router: Router
    look: Look
    headers: ReadHeaders
    zone: dt.tzinfo

    def newest(self, count: int) -> Sequence[int]:
        """Numbers of the newest complete studies."""
        with self.database.session() as session:
            return session.scalars(
                select(tables.Study.id)
                .where(tables.Study.revision > 0)
                .order_by(tables.Study.first_seen_at.desc(), tables.Study.id.desc())
                .limit(count)
            ).all()

    def study(self, study_id: int, at: dt.datetime | None = None) -> PastStudy:
        """One study's newest revision.

        Args:
            study_id: its number.
            at: the instant to decide as of; None: when it was routed, or else when it was complete.
        """
        with self.database.session() as session:
            row = session.get_one(tables.Study, study_id)
            study = studies.study_record(session, row)
            instances = studies.revision_instances(session, row, row.revision)
            decided = session.execute(
                select(tables.RoutingDecision.decided_at, tables.RoutingDecision.explanation).where(
                    tables.RoutingDecision.study_id == study_id, tables.RoutingDecision.revision == row.revision
                )
            ).one_or_none()
            complete_at = session.scalar(
                select(tables.Revision.created_at).where(
                    tables.Revision.study_id == study_id, tables.Revision.number == row.revision
                )
            )
            reads = [read for read in results.reads_of(session, study_id) if read.revision == row.revision]
            caller = row.caller
        explanation: Mapping[str, Any] = decided.explanation if decided else {}
        before = Gone(
            tuple(sorted({read.model for read in reads})),
            tuple(sorted(forward["destination"] for forward in explanation.get("forwards", ()))),
        )
        now = (at or (decided.decided_at if decided else complete_at) or study.last_arrival_at).astimezone(self.zone)
        anatomy = ""
        if self.router.asks_for_pixels:
            anatomy = explanation.get("facts", {}).get("image", {}).get("anatomy") or self.look(some_images(instances))
        headers = self.headers(instances)
        facts = facts_of(study, caller, instances, anatomy, headers=headers, now=now)
        decision = self.router.decide(facts, headers.order_priority)
        return PastStudy(
            study_uid=study.study_uid,
            accession_number=study.accession_number,
            revision=study.revision,
            source=study.source,
            at=now,
            instances=instances,
            before=before,
            decision=decision,
        )


def summary(tried: Sequence[PastStudy]) -> dict[str, Any]:
    """What the rules did over all the studies, as JSON values."""
    routes: dict[str, Counter[str]] = {}
    for study in tried:
        for verdict in study.decision.verdicts:
            word = {True: "holds", False: "does_not_hold", None: "broken"}[verdict.holds]
            routes.setdefault(verdict.route.name, Counter())[word] += 1
    changed = [study for study in tried if study.before != study.after]
    return {
        "studies": len(tried),
        "routes": [
            {"name": name, **{word: counted[word] for word in ("holds", "does_not_hold", "broken")}}
            for name, counted in routes.items()
        ],
        "models": _compared(tried, lambda gone: gone.models),
        "forwards": _compared(tried, lambda gone: gone.forwards),
        "nowhere": sum(not study.after.models and not study.after.forwards for study in tried),
        "changed": len(changed),
        "changes": [
            {
                "study_uid": study.study_uid,
                "accession_number": study.accession_number,
                "revision": study.revision,
                "before": study.before.to_json(),
                "after": study.after.to_json(),
                "explanation": study.decision.to_json(),
            }
            for study in changed[:_MOST_SHOWN]
        ],
    }


def _compared(tried: Sequence[PastStudy], of: Callable[[Gone], Sequence[str]]) -> list[dict[str, Any]]:
    before = Counter(name for study in tried for name in of(study.before))
    after = Counter(name for study in tried for name in of(study.after))
    return [{"name": name, "before": before[name], "after": after[name]} for name in sorted({*before, *after})]


@dataclass(frozen=True, slots=True)
class TryRules:
    """The job: try rules over past studies, and keep what came of it. Nothing is queued, nothing is sent.

    Attributes:
        make_router: makes a router of a text of `[[route]]` tables. Raises SettingsError.
    """

    database: Database
    make_router: Callable[[str], Router]
    look: Look
    headers: ReadHeaders
    zone: dt.tzinfo
    now: Callable[[], dt.datetime]

    def __call__(self, trial_id: int) -> None:
        """Try the rules of this trial; nothing happens where that is done."""
        with self.database.session() as session:
            trial = routing_decisions.trial(session, trial_id)
        if trial.finished_at is not None:
            return
        try:
            replay = Replay(self.database, self.make_router(trial.rules), self.look, self.headers, self.zone)
            outcome = summary([replay.study(study_id) for study_id in replay.newest(trial.studies)])
        except SettingsError as error:
            self._finish(trial_id, error=str(error))
        except Exception:  # boundary: whoever waits before the page for these rules is told that they broke
            log.exception("rules could not be tried", trial=trial_id)
            self._finish(trial_id, error="An unexpected error stopped the trial; the log has the details.")
        else:
            self._finish(trial_id, outcome=outcome)
            log.info("rules tried", trial=trial_id, studies=outcome["studies"], changed=outcome["changed"])

    def _finish(self, trial_id: int, **came: Any) -> None:
        with self.database.session() as session:
            routing_decisions.finish_trial(session, trial_id, self.now(), **came)
