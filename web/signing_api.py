"""Signing for programs: the same as on the page, by a token that speaks for a person, or by that person's log-in."""

from __future__ import annotations

import datetime as dt
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from fhir_records import signing
from fhir_records.database import Database
from fhir_records.errors import NotAllowed, NotFound
from fhir_records.model import Act, Result, User
from fhir_records.renderings import plain_words
from fhir_records.store import results
from fhir_records.store.study_page import read_in_study
from fhir_records.store.tokens import SIGNING_SCOPE
from web.auth import Auth, LogInNeeded, person_of, token_grant
from web.settings import WebSettings

_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="Wetread"'}  # RFC 6750 section 3


class RegionBody(BaseModel):
    """A rectangle in pixels of the frame, from its top left corner."""

    model_config = ConfigDict(extra="forbid")

    sop_instance_uid: str = Field(max_length=64)
    frame: int | None = Field(None, ge=1)
    left: float = Field(ge=0)
    top: float = Field(ge=0)
    width: float = Field(gt=0)
    height: float = Field(gt=0)


class SignatureBody(BaseModel):
    """What a person does with a result."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1)  # the document version that the person saw
    act: Act
    label: str = Field("", max_length=200)
    note: str = Field("", max_length=signing.MAX_NOTE)
    region: RegionBody | None = None
    wrong_patient: bool = False


def signing_api(auth: Auth, settings: WebSettings, database: Database) -> APIRouter:
    """`/api/studies/{study_uid}/reads/{read_id}/signature`: what stands, and signing it."""
    router = APIRouter(prefix="/api", include_in_schema=False)

    async def signer(request: Request) -> User:
        """Dependency: a person who signs, by a token made for them, or by their log-in with its CSRF token."""
        if "authorization" in request.headers:
            with database.session() as session:
                grant = token_grant(request, session)
            if grant is None:
                raise HTTPException(401, headers=_CHALLENGE)
            if grant.user is None or not grant.may_sign:
                raise NotAllowed(f"Signing needs a token that is made for an account, with the scope {SIGNING_SCOPE}.")
            return grant.user
        try:
            auth.person(request)
        except LogInNeeded:
            raise HTTPException(401, headers=_CHALLENGE) from None
        await auth.csrf(request)
        return person_of(request).user

    by_person = Depends(signer)
    path = "/studies/{study_uid}/reads/{read_id}/signature"

    @router.get(path)
    def stands(study_uid: str, read_id: int, person: User = by_person) -> dict[str, Any]:
        signing.signer_of(person, settings.organization, settings.identifier_scheme)
        with database.session() as session:
            versions = results.versions_of(session, read_in_study(session, study_uid, read_id).id)
        if not versions:
            raise NotFound("There is no result to sign yet.")
        return _shown(versions[-1]) | {"answers": [answer.label for answer in signing.answers(versions[0])]}

    @router.post(path, status_code=201)
    def sign(study_uid: str, read_id: int, body: SignatureBody, person: User = by_person) -> dict[str, Any]:
        by = signing.signer_of(person, settings.organization, settings.identifier_scheme)
        with database.session() as session:
            read_in_study(session, study_uid, read_id)
            region = None
            if body.region is not None:
                box = (body.region.left, body.region.top, body.region.width, body.region.height)
                region = signing.region_on(session, read_id, body.region.sop_instance_uid, body.region.frame, box)
            wanted = signing.SigningRequest(
                study_uid, read_id, body.version, body.act, body.label, body.note, region, body.wrong_patient
            )
            return _shown(signing.sign(session, wanted, by, dt.datetime.now(dt.UTC)))

    return router


def _shown(result: Result) -> dict[str, Any]:
    finding, signature = result.finding, result.signature
    return {
        "version": result.version,
        "status": result.status.value,
        "headline": plain_words.headline(result),
        "label": finding.label if finding else None,
        "presence": finding.presence.value if finding else None,
        "signed_by": signature.signer.username if signature else None,
        "signed_at": signature.signed_at.isoformat() if signature else None,
        "act": signature.act.value if signature else None,
    }
