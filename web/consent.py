"""The page on which an administrator records whether a patient's cases may train models, and sees what has left."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from fhir_records import audit
from fhir_records.database import Database
from fhir_records.model import AuditEntry, Consent
from fhir_records.store import consent
from fhir_records.store.study_page import study_page
from web.auth import Auth, person_of
from web.pages import Pages
from web.settings import WebSettings


def consent_router(auth: Auth, pages: Pages, settings: WebSettings, database: Database) -> APIRouter:
    """The page and its form, for administrators."""
    router = APIRouter(
        prefix="/studies/{study_uid}/consent",
        include_in_schema=False,
        dependencies=[Depends(auth.admin), Depends(auth.csrf)],
    )

    @router.get("")
    def page(request: Request, study_uid: str) -> Response:
        with database.session() as session:
            content = study_page(session, study_uid)
            stands = consent.patient_consent(session, content.study.patient.patient_uid)
            entry = AuditEntry("consent viewed", person_of(request).user.username, study_uid=study_uid)
            audit.record(session, entry)
        return pages.page(
            request,
            "consent.html",
            study=content.study,
            provisional=content.provisional,
            consent=stands,
            may_train=settings.training_policy.allows(stands.state),
            policy=settings.training_policy.value,
            max_said_by=consent.MAX_SAID_BY,
        )

    @router.post("")
    def record(
        request: Request, study_uid: str, state: Annotated[Consent, Form()], said_by: Annotated[str, Form()] = ""
    ) -> Response:
        with database.session() as session:
            patient_uid = study_page(session, study_uid).study.patient.patient_uid
            by = person_of(request).user.username
            consent.record_consent(session, patient_uid, state, said_by=said_by, recorded_by=by)
        return RedirectResponse(f"/studies/{study_uid}/consent", status_code=303)

    return router
