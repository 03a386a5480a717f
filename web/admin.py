"""What an administrator looks after: what failed, what was kept apart, who may log in, who did what."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from fhir_records import audit, jobs
from fhir_records.database import Database
from fhir_records.model import AuditEntry
from fhir_records.store import attention, models, users
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

    return router


def _entry(request: Request, action: str, **detail: int) -> AuditEntry:
    return AuditEntry(action=action, actor=person_of(request).user.username, detail=detail)
