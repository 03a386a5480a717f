"""The FHIR R4 REST API over HTTP (R4 3.1.0): read and search, for programs and for people logged in.

Every error is an OperationOutcome in words of our own; every read of patient data is a row of the audit trail, written
in the transaction that reads, so that no answer leaves without it.
"""

from __future__ import annotations

import datetime as dt
import traceback
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from email.utils import format_datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl

import structlog
from fastapi import APIRouter, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from starlette.responses import Response

from fhir_records import audit
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable, NotAllowed, NotFound, QueryError
from fhir_records.fhir_api.bundles import StoredResource, searchset
from fhir_records.fhir_api.capability import MEDIA_TYPE, capability_statement
from fhir_records.fhir_api.outcome import Issue, outcome
from fhir_records.fhir_api.parameters import PARAMETERS
from fhir_records.fhir_api.search import parse_query
from fhir_records.identities import log_id
from fhir_records.model import AuditEntry, User
from fhir_records.store import fhir as store
from fhir_records.store import tokens

log = structlog.get_logger(__name__)

PREFIX: Final = "/fhir"
_MAX_FORM_BYTES: Final = 64 * 1024
_MAX_PARAMETERS: Final = 100
_READ_METHODS: Final = ["GET", "HEAD"]
_OTHER_METHODS: Final = ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", *_READ_METHODS]

# R4 3.1.0.1.10: what a client may call JSON. A browser asks for text/html and gets JSON, too.
_JSON_WORDS: Final = frozenset(
    {"json", "application/json", MEDIA_TYPE, "text/json", "*/*", "application/*", "text/html", "text/*"}
)

_ISSUES: Final[Mapping[int, Issue]] = MappingProxyType(
    {
        400: Issue.INVALID,
        401: Issue.LOGIN,
        403: Issue.FORBIDDEN,
        404: Issue.NOT_FOUND,
        405: Issue.NOT_SUPPORTED,
        406: Issue.NOT_SUPPORTED,
        413: Issue.TOO_LONG,
        415: Issue.NOT_SUPPORTED,
        503: Issue.TRANSIENT,
    }
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what they may do."""

    name: str  # for the audit trail: "token:NAME" or "user:NAME"
    grant: tokens.TokenGrant | None  # None: a person, who may read everything

    def allows(self, type: str, interaction: str) -> bool:
        """Whether they may do this with resources of the type."""
        return self.grant is None or self.grant.allows(type, interaction)


class FhirRoute(APIRoute):
    """A route whose every error is answered with an OperationOutcome."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with its errors turned into answers."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                _check_format(request)
                return await handle(request)
            except Exception as error:  # boundary: an answer must not carry our internals
                return _answer_to(error)

        return guarded


class FhirService:
    """Answers FHIR requests from the record."""

    def __init__(
        self,
        database: Database,
        *,
        base_url: str,
        version: str,
        zone: dt.tzinfo,
        person: Callable[[Request], User | None] | None,
    ) -> None:
        self.database = database
        self.base_url = base_url
        self.zone = zone
        self.person = person
        self.statement = capability_statement(base_url, version)

    def read(self, request: Request, type: str, id: str) -> Response:
        """The current version of a resource, or 304 where the client has it."""
        caller = self._caller(request)
        self._require(caller, type, "read")
        try:
            with self.database.session() as session:
                found = store.get(session, type, id)
                audit.record(
                    session,
                    AuditEntry("fhir read", caller.name, study_uid=found.study_uid, detail={"type": type, "id": id}),
                )
        except NotFound:
            self._record(AuditEntry("fhir read", caller.name, "not found", detail={"type": type}))
            raise
        headers = {
            "ETag": f'W/"{found.version}"',
            "Last-Modified": format_datetime(found.last_updated.astimezone(dt.UTC), usegmt=True),
        }
        if _client_has(request, found):
            return Response(status_code=304, headers=headers | {"Cache-Control": "no-store"})
        return _answer(found.text, headers=headers)

    def search(self, request: Request, type: str, form: Sequence[tuple[str, str]] = ()) -> Response:
        """A searchset Bundle."""
        caller = self._caller(request)
        self._require(caller, type, "search-type")
        pairs = [*_pairs(request.url.query), *form]
        query = parse_query(type, pairs, base_url=self.base_url, zone=self.zone)
        if query.ignored and _is_strict(request):
            known = ", ".join(parameter.name for parameter in PARAMETERS[type])
            names = ", ".join(dict.fromkeys(query.ignored))
            raise QueryError(
                f"{type} is not searched by: {names}. It is by: {known}; and _count, _sort, _summary=count."
            )
        with self.database.session() as session:
            page = store.search(session, query)
            audit.record(
                session,
                AuditEntry(
                    "fhir search",
                    caller.name,
                    detail={
                        "type": type,
                        # Names alone: a value may be the patient's number. Whose records were seen, the ids say.
                        "parameters": [name for name, _ in query.used],
                        "total": page.total,
                        "ids": [resource.id for resource in page.resources],
                    },
                ),
            )
        return _answer(searchset(self.base_url, query, page))

    def _caller(self, request: Request) -> Caller:
        authorization = request.headers.get("authorization")
        if authorization is not None:
            scheme, _, token = authorization.partition(" ")
            grant = None
            if scheme.lower() == "bearer" and token.strip():
                with self.database.session() as session:
                    grant = tokens.check(session, token.strip())
            if grant is None:
                log.warning("FHIR token refused", address_id=log_id(request.client.host if request.client else ""))
                raise HTTPException(
                    401,
                    "This token is not valid: unknown, revoked or past its time.",
                    {"WWW-Authenticate": 'Bearer realm="Wetread FHIR", error="invalid_token"'},
                )
            return Caller(f"token:{grant.name}", grant)
        user = self.person(request) if self.person else None
        if user is None or not user.active:
            raise HTTPException(
                401,
                "A token is needed: Authorization: Bearer TOKEN. The site makes one with `wetread tokens create`.",
                {"WWW-Authenticate": 'Bearer realm="Wetread FHIR"'},
            )
        return Caller(f"user:{user.username}", None)

    def _require(self, caller: Caller, type: str, interaction: str) -> None:
        if type not in PARAMETERS:
            raise NotFound(f"This server has no such resource type. It has: {', '.join(PARAMETERS)}.")
        if not caller.allows(type, interaction):
            self._record(AuditEntry(f"fhir {interaction}", caller.name, "not allowed", detail={"type": type}))
            raise NotAllowed(f"The token's scope does not cover {interaction} of {type}.")

    def _record(self, entry: AuditEntry) -> None:
        with self.database.session() as session:
            audit.record(session, entry)


def fhir_router(
    database: Database,
    *,
    public_url: str,
    version: str,
    zone: dt.tzinfo = dt.UTC,
    person: Callable[[Request], User | None] | None = None,
) -> APIRouter:
    """The routes under /fhir.

    Args:
        database: the record.
        public_url: address of the site as clients reach it; links start with it.
        version: of Wetread, for the CapabilityStatement.
        zone: the site's time zone, meant by dates in searches that name none.
        person: finds the person who is logged in, for links from the pages; none: tokens only.
    """
    service = FhirService(
        database, base_url=f"{public_url.rstrip('/')}{PREFIX}", version=version, zone=zone, person=person
    )
    router = APIRouter(prefix=PREFIX, route_class=FhirRoute, include_in_schema=False)

    @router.api_route("/metadata", methods=_READ_METHODS)
    def metadata() -> Response:
        return _answer(service.statement)

    @router.post("/{type}/_search")
    async def search_by_form(request: Request, type: str) -> Response:
        form = await _form(request)
        return await run_in_threadpool(service.search, request, type, form)

    @router.api_route("/{type}/{id}", methods=_READ_METHODS)
    def read(request: Request, type: str, id: str) -> Response:
        return service.read(request, type, id)

    @router.api_route("/{type}", methods=_READ_METHODS)
    def search(request: Request, type: str) -> Response:
        return service.search(request, type)

    # Last, so that whatever else is asked of this address gets an answer that FHIR clients understand.
    @router.api_route("", methods=_OTHER_METHODS)
    @router.api_route("/{path:path}", methods=_OTHER_METHODS)
    def anything_else(request: Request) -> Response:
        if request.method in _READ_METHODS:
            raise NotFound("There is nothing here. See metadata for what this server has.")
        allow = {"Allow": ", ".join(_READ_METHODS)}
        raise HTTPException(405, "This server is read only: GET [type]/[id], GET [type], POST [type]/_search.", allow)

    return router


def _answer(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    media_type = f"{MEDIA_TYPE}; charset=utf-8"
    return Response(text, status, dict(headers or {}) | {"Cache-Control": "no-store"}, media_type=media_type)


def _error(status: int, words: str, headers: Mapping[str, str] | None = None) -> Response:
    return _answer(outcome(_ISSUES.get(status, Issue.EXCEPTION), words), status, headers)


def _answer_to(error: Exception) -> Response:
    """The OperationOutcome for what went wrong while a request was answered."""
    match error:
        case HTTPException():
            return _error(error.status_code, str(error.detail), error.headers)
        case QueryError():
            return _error(400, str(error))
        case NotAllowed():
            return _error(403, str(error), {"WWW-Authenticate": 'Bearer error="insufficient_scope"'})
        case NotFound():
            return _error(404, str(error))
        case DatabaseUnavailable():
            log.warning("database away while answering a FHIR request")
            return _error(503, "The record does not answer just now. Try again later.", {"Retry-After": "10"})
    # Where it happened, but neither message nor trace: they may quote the patient data that was at hand.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    log.error("FHIR request failed", error=type(error).__name__, file=Path(frame.filename).name, line=frame.lineno)
    return _error(500, "Something went wrong inside Wetread; its log says where.")


def _check_format(request: Request) -> None:
    """Refuse a client that takes no JSON, or another FHIR version (R4 3.1.0.1.10 and 3.1.0.1.11)."""
    asked = dict(_pairs(request.url.query)).get("_format") or request.headers.get("accept") or "*/*"
    # A "+" that nobody escaped arrives in _format as a space.
    choices = [choice.replace("fhir json", "fhir+json").lower().split(";") for choice in asked.split(",")]
    if not any(_takes(word.strip(), [part.strip() for part in parameters]) for word, *parameters in choices):
        raise HTTPException(406, f"This server speaks {MEDIA_TYPE} of FHIR 4.0 only.")


def _takes(word: str, parameters: Sequence[str]) -> bool:
    options = dict(part.split("=", 1) for part in parameters if "=" in part)
    return (
        word in _JSON_WORDS
        and options.get("fhirversion", "4.0").strip('"') == "4.0"
        and options.get("q", "1").rstrip("0.") != ""
    )


def _client_has(request: Request, found: StoredResource) -> bool:
    given = request.headers.get("if-none-match", "")
    tags = {tag.strip().removeprefix("W/") for tag in given.split(",")}
    return "*" in tags or f'"{found.version}"' in tags


def _is_strict(request: Request) -> bool:
    preferences = ",".join(request.headers.getlist("prefer")).replace(" ", "").lower()
    return "handling=strict" in preferences.replace(";", ",").split(",")


def _pairs(encoded: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(encoded, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError as error:
        raise QueryError(f"A search takes at most {_MAX_PARAMETERS} parameters.") from error


async def _form(request: Request) -> list[tuple[str, str]]:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        raise HTTPException(415, "A search by POST is sent as application/x-www-form-urlencoded.")
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise HTTPException(413, f"A search takes at most {_MAX_FORM_BYTES} bytes.")
    return _pairs(body.decode("utf-8", "replace"))
