"""The web application: every page and interface put together, guarded the same way."""

from __future__ import annotations

import secrets
import traceback
from pathlib import Path

import structlog
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable, NotAllowed, NotFound, Outdated, QueryError, WetreadError
from web.admin import admin_router
from web.agreement import agreement_router
from web.auth import Auth, LogInNeeded, SameOriginOnly, ask_to_log_in, log_in_router
from web.consent import consent_router
from web.dicomweb_http import dicomweb_router
from web.dicomweb_store import store_router
from web.fhir_http import fhir_router
from web.health import health_router
from web.outlines import outlines_router
from web.overlays import overlays_router
from web.pages import STATIC, Pages, SecurityHeaders, VersionedStaticFiles
from web.routing import routing_router
from web.settings import WebSettings
from web.signing import signing_router
from web.signing_api import signing_api
from web.study import study_router
from web.study_objects import study_objects_router
from web.worklist import worklist_router

log = structlog.get_logger(__name__)

PROGRAM_PATHS = ("/api", "/dicom-web", "/fhir", "/health", "/metrics")

# What each of our errors is to a browser: status and title.
ERROR_PAGES: tuple[tuple[type[WetreadError], int, str], ...] = (
    (NotFound, 404, "Not found"),
    (NotAllowed, 403, "Not allowed"),
    (QueryError, 400, "Not understood"),
    (Outdated, 409, "Somebody was faster"),
    (DatabaseUnavailable, 503, "The database does not answer"),
)
HTTP_WORDS = {
    401: ("Log-in needed", "A valid token is needed: Authorization: Bearer TOKEN."),
    403: ("Not allowed", "Your account may not do this."),
    404: ("Not found", "There is no such page. It may have been moved, or the link may be incomplete."),
    405: ("Not possible", "This address cannot be used like this."),
}


def create_app(settings: WebSettings, database: Database) -> FastAPI:
    """The application, on a database whose schema is current. Nothing is connected or read before a request comes."""
    app = FastAPI(title="Wetread", version=settings.version, docs_url=None, redoc_url=None, openapi_url=None)
    pages = Pages(settings)
    auth = Auth(settings, database)
    app.include_router(log_in_router(auth, pages))
    app.include_router(worklist_router(auth, pages, database))
    app.include_router(study_router(auth, pages, database))
    app.include_router(overlays_router(auth, settings, database))
    app.include_router(outlines_router(auth, settings, database))
    app.include_router(study_objects_router(auth, pages, database))
    app.include_router(signing_router(auth, settings, database))
    app.include_router(signing_api(auth, settings, database))
    app.include_router(consent_router(auth, pages, settings, database))
    app.include_router(admin_router(auth, pages, database))
    app.include_router(agreement_router(auth, pages, database))
    app.include_router(routing_router(auth, pages, database))
    app.include_router(health_router(settings, database))
    _add_program_interfaces(app, settings, database, auth)
    app.mount("/static", VersionedStaticFiles(directory=STATIC), name="static")
    _add_error_pages(app, pages)
    app.add_middleware(SameOriginOnly, settings=settings)
    app.add_middleware(LastResort, pages=pages)
    app.add_middleware(SecurityHeaders)
    return app


def _add_program_interfaces(app: FastAPI, settings: WebSettings, database: Database, auth: Auth) -> None:
    """DICOMweb and FHIR; both know the log-in of a person too, for the viewer and for links."""
    may_see_images = Depends(auth.images)
    app.include_router(
        dicomweb_router(
            database,
            settings.spool_root,
            settings.timezone,
            [may_see_images],
            public_url=settings.public_url,
            version=settings.version,
        ),
        prefix="/dicom-web",
    )
    app.include_router(store_router(settings, database, auth.store), prefix="/dicom-web")
    app.include_router(
        fhir_router(
            database,
            public_url=settings.public_url,
            version=settings.version,
            zone=settings.timezone,
            person=auth.user,
        )
    )


def _add_error_pages(app: FastAPI, pages: Pages) -> None:
    """Answer every error with a page in words, or for programs with a JSON message; never with internals."""
    app.add_exception_handler(LogInNeeded, ask_to_log_in)

    def answer(request: Request, status: int, title: str, text: str) -> Response:
        if request.url.path.startswith(PROGRAM_PATHS):
            return JSONResponse({"message": text}, status_code=status)
        return pages.message(request, status, title, text)

    async def ours(request: Request, error: Exception) -> Response:
        for kind, status, title in ERROR_PAGES:
            if isinstance(error, kind):
                return answer(request, status, title, str(error))
        raise error

    async def http(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        title, text = HTTP_WORDS.get(status, ("Not possible", "This cannot be done."))
        response = answer(request, status, title, text)
        response.headers.update((error.headers if isinstance(error, HTTPException) else None) or {})
        return response

    async def not_understood(request: Request, error: Exception) -> Response:
        if any(part["loc"][0] == "path" for part in getattr(error, "errors", list)()):
            return await http(request, HTTPException(404))
        return answer(request, 400, "Not understood", "The address or the form has a value that is not allowed.")

    for kind, _, _ in ERROR_PAGES:
        app.add_exception_handler(kind, ours)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, not_understood)


class LastResort:
    """Answers what nothing else caught, with a reference that is in the log too, and without a word about the cause."""

    def __init__(self, app: ASGIApp, pages: Pages) -> None:
        self.app = app
        self.pages = pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and answer 500 where that failed before an answer had begun."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception as error:  # boundary: one failed request is logged, and harms no other
            reference = secrets.token_hex(4)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            log.error(
                "request failed",
                error=type(error).__name__,
                at=f"{Path(frame.filename).name}:{frame.lineno}",
                method=scope["method"],
                reference=reference,
            )
            if not begun:
                await self._answer(Request(scope), reference)(scope, receive, send)

    def _answer(self, request: Request, reference: str) -> Response:
        text = "Something went wrong on our side, and it was written to the log. Nothing was changed."
        if request.url.path.startswith(PROGRAM_PATHS):
            return JSONResponse({"message": text, "reference": reference}, status_code=500)
        return self.pages.message(request, 500, "That did not work", text, reference=reference)
