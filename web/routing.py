"""Why studies went where they went, rules tried before they are put to use, and images sent on to other nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from fhir_records import audit, jobs
from fhir_records.database import Database
from fhir_records.model import AuditEntry
from fhir_records.store import forwards, routing_decisions
from fhir_records.store.studies import study_by_uid
from web.auth import Auth, person_of
from web.pages import Pages

LONGEST_RULES = 50_000  # characters


def routing_router(auth: Auth, pages: Pages, database: Database) -> APIRouter:
    """The administrators' pages about routing."""
    router = APIRouter(
        prefix="/admin/routing", include_in_schema=False, dependencies=[Depends(auth.admin), Depends(auth.csrf)]
    )

    @router.get("")
    def page(request: Request) -> Response:
        with database.session() as session:
            decisions = routing_decisions.newest_decisions(session)
            trials = routing_decisions.newest_trials(session)
        return pages.page(
            request,
            "routing.html",
            decisions=decisions,
            trials=trials,
            rules=trials[0].rules if trials else _rules(decisions[0].explanation["routes"] if decisions else ()),
            most=routing_decisions.MOST_STUDIES,
        )

    @router.get("/studies/{study_uid}")
    def study(request: Request, study_uid: str) -> Response:
        with database.session() as session:
            content = study_by_uid(session, study_uid)
            decisions = routing_decisions.decisions_of(session, study_uid)
            sent_on = forwards.forwards_of(session, content.id)
            audit.record(session, _entry(request, "routing viewed", study_uid))
        return pages.page(request, "routing_study.html", study=content, decisions=decisions, forwards=sent_on)

    @router.post("/trials")
    def ask(
        request: Request,
        rules: Annotated[str, Form(max_length=LONGEST_RULES)],
        studies: Annotated[int, Form(ge=1, le=routing_decisions.MOST_STUDIES)],
    ) -> Response:
        with database.session() as session:
            actor = person_of(request).user.username
            trial_id = routing_decisions.ask_trial(session, rules.replace("\r\n", "\n"), studies, actor)
            jobs.request_rule_trial(session, trial_id)
            audit.record(session, AuditEntry("rules tried", actor, detail={"trial": trial_id, "studies": studies}))
        return RedirectResponse(f"/admin/routing/trials/{trial_id}", status_code=303)

    @router.get("/trials/{trial_id}")
    def trial(request: Request, trial_id: int) -> Response:
        with database.session() as session:
            return pages.page(request, "routing_trial.html", trial=routing_decisions.trial(session, trial_id))

    @router.post("/forwards/{forward_id}/retry")
    def retry(request: Request, forward_id: int) -> Response:
        with database.session() as session:
            jobs.retry_forward(session, forward_id)
            audit.record(session, _entry(request, "images sent on again", forward_id=forward_id))
        return RedirectResponse("/admin#forwards", status_code=303)

    return router


def _entry(request: Request, action: str, study_uid: str | None = None, **detail: int) -> AuditEntry:
    return AuditEntry(action, person_of(request).user.username, study_uid=study_uid, detail=detail)


def _rules(routes: Sequence[Mapping[str, Any]]) -> str:
    """Routes as the `[[route]]` tables that they were, to be changed and tried."""
    return "\n".join("\n".join(_table(route)) for route in routes)


def _table(route: Mapping[str, Any]) -> Sequence[str]:
    def written(key: str) -> str:
        # JSON's texts and lists of texts are TOML's.
        return f"{key} = {json.dumps(route[key], ensure_ascii=False)}"

    when = route["when"]
    literal = f"when = '''\n{when}'''" if "\n" in when else f"when = '{when}'"
    quotes = "'''" if "\n" in when else "'"
    lists = [written(key) for key in ("models", "results_to", "forward_to") if route[key]]
    return [
        "[[route]]",
        written("name"),
        written("when") if quotes in when else literal,
        *lists,
        *([written("priority")] if route["priority"] != "routine" else []),
        "",
    ]
