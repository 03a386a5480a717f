"""For supervisors and monitoring: does the process answer, can the service work, and its figures."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from dicom_listener.certificates import expiries
from fhir_records import metrics, migrations
from fhir_records.database import Database
from fhir_records.errors import NotAllowed, OutOfSpace, SettingsError, WetreadError
from fhir_records.metrics import CertificateEnd
from web.auth import token_grant
from web.settings import WebSettings, is_loopback


def health_router(settings: WebSettings, database: Database) -> APIRouter:
    """`/health/live`, `/health/ready` and `/metrics`. None of them shows anything about a patient."""
    router = APIRouter(include_in_schema=False)

    @router.get("/health/live")
    def live() -> Response:
        return JSONResponse({"status": "live", "version": settings.version})

    @router.get("/health/ready")
    def ready() -> Response:
        checks: dict[str, Callable[[], None]] = {
            "database": database.ping,
            "schema": lambda: migrations.check(database),
            "spool": lambda: check_spool(settings),
        }
        faults = {name: fault for name, check in checks.items() if (fault := _fault(check))}
        status = "not ready" if faults else "ready"
        return JSONResponse({"status": status, "faults": faults}, status_code=503 if faults else 200)

    @router.get("/metrics")
    def figures(request: Request) -> Response:
        with database.session() as session:
            if not (_from_this_machine(request) or _has_token(request, session)):
                raise NotAllowed("The figures are for this machine, or for a token with the scope system/*.rs.")
            text = metrics.exposition(session, certificate_ends(settings))
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def certificate_ends(settings: WebSettings) -> Iterator[CertificateEnd]:
    """When the files of TLS end; what cannot be read here has no end that we know of."""
    for use, files in settings.tls_files:
        with suppress(SettingsError):
            for end in expiries(files):
                yield CertificateEnd(use, end.part, end.at)


def check_spool(settings: WebSettings) -> None:
    """See that the spool can be written to and that its disk is above the watermark.

    Raises:
        OutOfSpace: it is not.
    """
    _check_writable(settings.spool_root)
    free, needed = shutil.disk_usage(settings.spool_root).free, settings.min_free_bytes
    if free < needed:
        raise OutOfSpace(f"The spool's disk has {free // 10**6} MB free; {needed // 10**6} MB are needed.")


def _check_writable(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"ready?")
    except OSError as error:
        raise OutOfSpace(f"The spool cannot be written to: {error.strerror}.") from error


def _fault(check: Callable[[], None]) -> str:
    try:
        check()
    except WetreadError as error:
        return str(error)
    return ""


def _from_this_machine(request: Request) -> bool:
    # A proxy on this machine speaks for somebody else, and says so.
    forwarded = {"forwarded", "x-forwarded-for"} & set(request.headers)
    return request.client is not None and is_loopback(request.client.host) and not forwarded


def _has_token(request: Request, session: Session) -> bool:
    grant = token_grant(request, session)
    return grant is not None and all(grant.allows("*", interaction) for interaction in ("read", "search-type"))
