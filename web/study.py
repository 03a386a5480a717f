"""The page of one study: what was found beside the images it was found in, and where it went."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from fhir_records import audit, completion, jobs, signing
from fhir_records.database import Database
from fhir_records.model import AuditEntry, DeliveryState, Role
from fhir_records.renderings import kinds, plain_words
from fhir_records.store.study_objects import StudyObjects
from fhir_records.store.study_page import (
    StudyPage,
    delivery_in_study,
    read_in_study,
    study_document,
    study_page,
)
from web.auth import Auth, person_of, require_role
from web.kinds import shown_object
from web.outlines import laid_segments, segment_key
from web.overlays import key_images, region_numbers
from web.pages import VIEWER_POLICY, Pages
from web.places import place_of
from web.sr_text import read_report
from web.study_objects import objects_of
from web.worklist import etag

SR = kinds.SR
MAY_RETRY = (Role.RADIOLOGIST, Role.ADMIN)
STUCK = (DeliveryState.WAITING, DeliveryState.REFUSED)


def study_router(auth: Auth, pages: Pages, database: Database) -> APIRouter:
    """The study page, its refreshing part, its structured reports, "read it now", and "try again"."""
    router = APIRouter(
        prefix="/studies/{study_uid}",
        include_in_schema=False,
        dependencies=[Depends(auth.person), Depends(auth.csrf)],
    )

    @router.get("")
    def page(request: Request, study_uid: str) -> Response:
        with database.session() as session:
            content, objects = study_page(session, study_uid), objects_of(session, study_uid)
            audit.record(session, _entry(request, "study viewed", study_uid))
        response = pages.page(request, "study.html", **_context(request, content, objects))
        response.headers["Content-Security-Policy"] = VIEWER_POLICY
        return response

    @router.get("/finding")
    def finding(request: Request, study_uid: str) -> Response:
        # Part of a page whose viewing was written down when it was opened.
        with database.session() as session:
            content, objects = study_page(session, study_uid), objects_of(session, study_uid)
        tag = etag((content, objects), pages.settings.version)
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        response = pages.page(request, "finding.html", **_context(request, content, objects))
        response.headers["ETag"] = tag
        return response

    @router.get("/sr/{document_id}")
    def report(request: Request, study_uid: str, document_id: int) -> Response:
        with database.session() as session:
            document = study_document(session, study_uid, document_id, SR)
            audit.record(session, _entry(request, "report downloaded", study_uid, document_id=document_id))
        name = f"wetread-sr-{document.id}.dcm"
        return Response(
            document.content,
            media_type="application/dicom",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    @router.get("/sr/{document_id}/text")
    def report_text(request: Request, study_uid: str, document_id: int) -> Response:
        with database.session() as session:
            content = study_page(session, study_uid)
            document = study_document(session, study_uid, document_id, SR)
            audit.record(session, _entry(request, "report viewed", study_uid, document_id=document_id))
        text = read_report(document.content)
        return pages.page(request, "sr.html", study=content.study, document=document, report=text)

    @router.post("/read-now")
    def read_now(request: Request, study_uid: str) -> Response:
        require_role(person_of(request), *MAY_RETRY)
        with database.session() as session:
            completion.read_now(session, study_uid, person_of(request).user.username)
        return RedirectResponse(f"/studies/{study_uid}", status_code=303)

    @router.post("/reads/{read_id}/retry")
    def retry_read(request: Request, study_uid: str, read_id: int) -> Response:
        require_role(person_of(request), *MAY_RETRY)
        with database.session() as session:
            jobs.retry_read(session, read_in_study(session, study_uid, read_id).id)
            audit.record(session, _entry(request, "read tried again", study_uid, read_id=read_id))
        return RedirectResponse(f"/studies/{study_uid}", status_code=303)

    @router.post("/deliveries/{delivery_id}/retry")
    def retry_delivery(request: Request, study_uid: str, delivery_id: int) -> Response:
        require_role(person_of(request), *MAY_RETRY)
        with database.session() as session:
            jobs.retry_delivery(session, delivery_in_study(session, study_uid, delivery_id).id)
            audit.record(session, _entry(request, "delivery tried again", study_uid, delivery_id=delivery_id))
        return RedirectResponse(f"/studies/{study_uid}", status_code=303)

    def _context(request: Request, content: StudyPage, objects: StudyObjects) -> dict[str, Any]:
        person = person_of(request)
        keys = key_images(content)
        return {
            "content": content,
            "study": content.study,
            "objects": objects,
            "shown_objects": [shown_object(instance) for instance in objects.first],
            "tag": etag((content, objects), pages.settings.version),
            "positions": {image.sop_uid: image for image in content.key_images},
            "key_images": json.dumps([asdict(place) for place in keys]),
            "key_number": lambda ref: keys[place_of(ref)],
            "region_numbers": region_numbers(content),
            "headline": plain_words.headline,
            "probability_words": plain_words.probability_words,
            "segments": laid_segments(content),
            "segment_key": segment_key,
            "may_retry": person.user.role in MAY_RETRY,
            "SR": SR,
            "stuck": STUCK,
            "may_sign": person.user.role in signing.MAY_SIGN,
            "answers": signing.answers,
            "signed_by": plain_words.signed_by,
        }

    return router


def _entry(request: Request, action: str, study_uid: str, **detail: int) -> AuditEntry:
    return AuditEntry(action=action, actor=person_of(request).user.username, study_uid=study_uid, detail=detail)
