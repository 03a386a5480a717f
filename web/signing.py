"""Signing on the study page: a form each to accept, correct and reject, two clicks from finding to signature."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.responses import RedirectResponse, Response

from fhir_records import signing
from fhir_records.database import Database
from fhir_records.errors import QueryError
from fhir_records.model import Act, Region
from web.auth import Auth, person_of
from web.settings import WebSettings


class SigningForm(BaseModel):
    """The fields of the three forms; a number that is left empty is an empty text."""

    csrf_token: str
    version: int
    act: Act
    label: str = ""
    note: str = ""
    wrong_patient: bool = False
    sop_uid: str = ""
    frame: str = ""
    left: str = ""
    top: str = ""
    width: str = ""
    height: str = ""


def signing_router(auth: Auth, settings: WebSettings, database: Database) -> APIRouter:
    """The forms' address."""
    router = APIRouter(
        prefix="/studies/{study_uid}/reads/{read_id}",
        include_in_schema=False,
        dependencies=[Depends(auth.person), Depends(auth.csrf)],
    )

    @router.post("/sign")
    def sign(request: Request, study_uid: str, read_id: int, form: Annotated[SigningForm, Form()]) -> Response:
        signer = signing.signer_of(person_of(request).user, settings.organization, settings.identifier_scheme)
        correcting, rejecting = form.act is Act.CORRECT, form.act is Act.REJECT
        with database.session() as session:
            wanted = signing.SigningRequest(
                study_uid=study_uid,
                read_id=read_id,
                version=form.version,
                act=form.act,
                label=form.label if correcting else "",
                note=form.note,
                region=marked(session, read_id, form) if correcting else None,
                wrong_patient=form.wrong_patient and rejecting,
            )
            signing.sign(session, wanted, signer, dt.datetime.now(dt.UTC))
        return RedirectResponse(f"/studies/{study_uid}", status_code=303)

    return router


def marked(session: Session, read_id: int, form: SigningForm) -> Region | None:
    """The region that a form's fields give; None where its box is empty.

    Raises:
        NotFound: there is no such read.
        QueryError: the box is given in part, or not in numbers, or the image is not one of the read's.
    """
    box = (form.left, form.top, form.width, form.height)
    if not any(box):
        return None
    try:
        left, top, width, height = (float(value) for value in box)
        frame = int(form.frame) if form.frame else None
    except ValueError as error:
        raise QueryError("A marked region needs left, top, width and height, each a number of pixels.") from error
    return signing.region_on(session, read_id, form.sop_uid, frame, (left, top, width, height))
