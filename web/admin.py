"""What an administrator looks after: what failed, what was kept apart, who may log in, who did what."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy.orm import Session
from starlette.responses import RedirectResponse, Response

from fhir_records import audit, jobs
from fhir_records.database import Database
from fhir_records.errors import NotFound
from fhir_records.model import AuditEntry
from fhir_records.store import attention, destinations, forwards, models, report_classes, users, withdrawals
from web.auth import Auth, person_of
from web.pages import Pages


def admin_router(auth: Auth, pages: Pages, database: Database) -> APIRouter:
    """The administrators' pages."""
    router = APIRouter(prefix="/admin", include_in_schema=False, dependencies=[Depends(auth.admin), Depends(auth.csrf)])

    @router.get("")
    def page(request: Request) -> Response:
        with database.session() as session:
            return pages.page(
                request,
                "admin.html",
                counts=attention.counts(session),
                jobs=jobs.failed_jobs(session),
                reads=attention.failed_reads(session),
                deliveries=attention.stuck_deliveries(session),
                forwards=forwards.stuck(session),
                held_objects=attention.held_objects(session),
                destinations=destinations.lines(session),
                refused_classes=report_classes.lines(session),
                withdrawals=withdrawals.all_open(session),
                quarantined=attention.quarantined(session),
                conflicts=attention.conflicts(session),
                missing=attention.missing(session),
                cursors=attention.cursors(session),
                users=users.list_users(session),
                trials=models.shadow_summary(session),
            )

    @router.get("/audit")
    def audit_page(request: Request, before: int | None = None) -> Response:
        with database.session() as session:
            lines = attention.audit_trail(session, before=before)
        older = lines[-1].id if len(lines) == attention.LINES else None
        return pages.page(request, "audit.html", lines=lines, older=older, before=before)

    @router.post("/jobs/{job_id}/retry")
    def retry_job(request: Request, job_id: int) -> Response:
        with database.session() as session:
            jobs.retry_job(session, job_id)
            audit.record(session, _entry(request, "job tried again", job_id=job_id))
        return RedirectResponse("/admin", status_code=303)

    @router.post("/reads/{read_id}/retry")
    def retry_read(request: Request, read_id: int) -> Response:
        with database.session() as session:
            jobs.retry_read(session, read_id)
            audit.record(session, _entry(request, "read tried again", read_id=read_id))
        return RedirectResponse("/admin", status_code=303)

    @router.post("/deliveries/{delivery_id}/retry")
    def retry_delivery(request: Request, delivery_id: int) -> Response:
        with database.session() as session:
            jobs.retry_delivery(session, delivery_id)
            audit.record(session, _entry(request, "delivery tried again", delivery_id=delivery_id))
        return RedirectResponse("/admin", status_code=303)

    @router.post("/documents/{document_id}/send")
    def send_held(request: Request, document_id: int, reason: Annotated[str, Form(max_length=500)] = "") -> Response:
        by = person_of(request).user.username
        with database.session() as session:
            jobs.release_document(session, document_id, by=by, reason=reason)
            entry = _entry(request, "held object sent", document_id=document_id, reason=reason.strip())
            audit.record(session, entry)
        return RedirectResponse("/admin", status_code=303)

    @router.post("/withdrawals/{delivery_id}/done")
    def withdrawal_done(request: Request, delivery_id: int) -> Response:
        with database.session() as session:
            by = person_of(request).user.username
            withdrawals.note_done(session, delivery_id, dt.datetime.now(dt.UTC), by=by)
            audit.record(session, _entry(request, "object withdrawn", delivery_id=delivery_id))
        return RedirectResponse("/admin", status_code=303)

    @router.post("/withdrawals/{delivery_id}/retry")
    def retry_withdrawal(request: Request, delivery_id: int) -> Response:
        with database.session() as session:
            jobs.retry_withdrawal(session, delivery_id)
            audit.record(session, _entry(request, "withdrawal tried again", delivery_id=delivery_id))
        return RedirectResponse("/admin", status_code=303)

    @router.post("/destinations/{name}/pause")
    def pause(request: Request, name: str) -> Response:
        with database.session() as session:
            known(session, name)
            destinations.pause(session, name, person_of(request).user.username, dt.datetime.now(dt.UTC))
            audit.record(session, _entry(request, "destination paused", destination=name))
        return RedirectResponse("/admin", status_code=303)

    @router.post("/destinations/{name}/resume")
    def resume(request: Request, name: str) -> Response:
        with database.session() as session:
            known(session, name)
            destinations.resume(session, name, dt.datetime.now(dt.UTC))
            audit.record(session, _entry(request, "destination resumed", destination=name))
        return RedirectResponse("/admin", status_code=303)

    def known(session: Session, name: str) -> None:
        if name not in {line.name for line in destinations.lines(session)}:
            raise NotFound("Nothing was ever to be delivered to a destination of this name.")

    return router


def _entry(request: Request, action: str, **detail: int | str) -> AuditEntry:
    return AuditEntry(action=action, actor=person_of(request).user.username, detail=detail)
