"""Signing on the study page: a form each to accept, correct and reject, two clicks from the finding to the signature."""

from __future__ import annotations

import datetime as dt

from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy.orm import Session
from starlette.responses import RedirectResponse, Response

from fhir_records import signing
from fhir_records.database import Database
from fhir_records.errors import QueryError
from fhir_records.model import Act, Region
from web.auth import Auth, person_of
from web.settings import WebSettings


def signing_router(auth: Auth, settings: WebSettings, database: Database) -> APIRouter:
    """The forms' address."""
    router = APIRouter(
        prefix="/studies/{study_uid}/reads/{read_id}",
        include_in_schema=False,
        dependencies=[Depends(auth.person), Depends(auth.csrf)],
    )

    @router.post("/sign")
    def sign(  # noqa: PLR0913  # the form's fields
        request: Request,
        study_uid: str,
        read_id: int,
        version: int = Form(),
        act: Act = Form(),
        label: str = Form(""),
        note: str = Form(""),
        wrong_patient: bool = Form(False),
        sop_uid: str = Form(""),
        frame: str = Form(""),
        left: str = Form(""),
        top: str = Form(""),
        width: str = Form(""),
        height: str = Form(""),
    ) -> Response:
        signer = signing.signer_of(person_of(request).user, settings.organization, settings.identifier_scheme)
        with database.session() as session:
            region = (
                marked(session, read_id, sop_uid, frame, (left, top, width, height)) if act is Act.CORRECT else None
            )
            wanted = signing.SigningRequest(
                study_uid=study_uid,
                read_id=read_id,
                version=version,
                act=act,
                label=label if act is Act.CORRECT else "",
                note=note,
                region=region,
                wrong_patient=wrong_patient and act is Act.REJECT,
            )
            signing.sign(session, wanted, signer, dt.datetime.now(dt.UTC))
        return RedirectResponse(f"/studies/{study_uid}", status_code=303)

    return router


def marked(session: Session, read_id: int, sop_uid: str, frame: str, box: tuple[str, ...]) -> Region | None:
    """The region that a form's fields give; None where its box is empty.

    Raises:
        NotFound: there is no such read.
        QueryError: the box is given in part, or not in numbers, or the image is not one of the read's.
    """
    if not any(box):
        return None
    try:
        numbers = tuple(float(value) for value in box)
        wanted = int(frame) if frame else None
    except ValueError as error:
        raise QueryError("A marked region needs left, top, width and height, each a number of pixels.") from error
    return signing.region_on(session, read_id, sop_uid, wanted, numbers)
