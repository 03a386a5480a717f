"""STOW-RS (PS3.18 section 10.5): objects come in over HTTP, by the same door as with C-STORE.

The body is taken apart while it comes, and nothing of it is held in memory; `store_objects` says how each object goes
to the disk and into the index. A request that is cut off has stored what was complete. Sent again, it changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fhir_records import audit
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable, OutOfSpace, QueryError
from fhir_records.model import AuditEntry
from web.auth import Sender
from web.dicomweb_attributes import as_text
from web.dicomweb_requests import UID, DicomwebRoute, base_of, need
from web.dicomweb_xml import as_xml
from web.media_types import DICOM, DICOM_JSON, DICOM_XML, JSON, MULTIPART, media_type
from web.settings import WebSettings
from web.store_answer import StoreResult, response_module
from web.store_objects import Arrivals, StoreDoor
from web.store_parts import PartReader

log = structlog.get_logger(__name__)

CHUNK_BYTES = 1 << 20  # of the body, handled at once
STALL_SECONDS = 60.0  # without a byte of the body
RETRY_SECONDS = 60  # after which it may be tried again when the disk is full, or the database away


def store_router(settings: WebSettings, database: Database, may_store: Callable[[Request], Sender]) -> APIRouter:
    """The routes, to be mounted below `/dicom-web`.

    Args:
        settings: limits, and where the spool is.
        database: the record.
        may_store: tells who sends, and raises where they may not store.
    """
    router = APIRouter(route_class=DicomwebRoute, include_in_schema=False)
    door = StoreDoor(settings, database)
    sender_of_request = Depends(may_store)

    @router.post("/studies")
    @router.post("/studies/{study_uid}")
    async def store(request: Request, sender: Sender = sender_of_request) -> Response:
        study_uid = request.path_params.get("study_uid", "")
        if study_uid and not UID.fullmatch(study_uid):
            raise QueryError("A UID has at most 64 digits and dots.")
        kind = need(request, DICOM_JSON, JSON, DICOM_XML)
        address = request.client.host if request.client else ""
        arrivals = Arrivals(door, f"stow:{sender.name}", address, study_uid)
        boundary, part_kind = boundary_of(request)
        reader = PartReader(boundary, arrivals.begin, part_kind)
        await run_in_threadpool(_check_space, door, _length(request))
        problem = await _read(request, reader)
        await run_in_threadpool(arrivals.finish)
        await run_in_threadpool(_note, database, arrivals.result, sender, address, problem)
        if problem:
            raise problem
        return answer(arrivals.result, base_of(request, settings.public_url), kind)

    return router


def boundary_of(request: Request) -> tuple[str | None, str]:
    """The boundary of the request's body, None where it is one object alone, and that one's media type.

    Raises:
        HTTPException: 415, it is something else than DICOM objects.
        QueryError: there is no boundary.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "The body may not have a Content-Encoding.")
    kind, parameters = media_type(request.headers.get("content-type", ""))
    if kind == DICOM:
        return None, DICOM
    if kind != MULTIPART or parameters.get("type", DICOM).lower() != DICOM:
        raise HTTPException(
            415,
            f'Objects are stored as {MULTIPART}; type="{DICOM}", each a DICOM file in a part of its own. '
            "Metadata with bulk data apart are not taken.",
            headers={"Accept": f'{MULTIPART}; type="{DICOM}"'},
        )
    if not parameters.get("boundary"):
        raise QueryError("The Content-Type names no boundary.")
    return parameters["boundary"], ""


def answer(result: StoreResult, base: str, kind: str) -> Response:
    """The Store Instances Response of what became of the parts."""
    module = response_module(result, base)
    words = result.words()
    headers = {"Warning": f'299 wetread "{words}"'} if words else {}
    if result.status == 503:
        headers["Retry-After"] = str(RETRY_SECONDS)
    content = as_xml(module) if kind == DICOM_XML else as_text(module).encode()
    return Response(content, result.status, headers=headers, media_type=kind)


def _check_space(door: StoreDoor, size: int) -> None:
    """See that the disk can take a body of ``size`` bytes, before it is read.

    Raises:
        HTTPException: 503, it cannot.
    """
    try:
        door.spool.check_space(size)
    except OutOfSpace as error:
        log.error("the disk of the spool is too full to take objects", reason=str(error))
        retry = {"Retry-After": str(RETRY_SECONDS)}
        raise HTTPException(503, "The disk is too full to store this. Tell the administrator.", retry) from error


def _note(database: Database, result: StoreResult, sender: Sender, address: str, problem: Exception | None) -> None:
    """Write down in the audit trail what was stored, for each study.

    Raises:
        HTTPException: 503, that cannot be written; nothing may be stored untold, so the sender must come again.
    """
    entries = []
    uids: list[str | None] = [*result.study_uids]
    if result.failed or not uids:
        uids.append(None)
    for uid in uids:
        stored = sum(one.offered.study_uid == uid for one in result.kept)
        failures = [one.failure.name.lower() for one in result.failed] if uid is None else []
        detail: dict[str, Any] = {"door": "stow", "address": address, "objects": stored}
        if failures or (problem is not None and uid is None):
            detail["failures"] = {name: failures.count(name) for name in sorted(set(failures))}
        outcome = "success" if stored else "failure"
        entries.append(AuditEntry("store", sender.actor, outcome, uid, detail))
    try:
        with database.session() as session:
            for entry in entries:
                audit.record(session, entry)
    except DatabaseUnavailable as error:
        retry = {"Retry-After": str(RETRY_SECONDS)}
        raise HTTPException(503, "The database does not answer. Send the objects again.", retry) from error


async def _read(request: Request, reader: PartReader) -> Exception | None:
    """Read the body to its end; what ended it before."""
    try:
        async for chunk in _chunks(request):
            await run_in_threadpool(reader.write, chunk)
        await run_in_threadpool(reader.finish)
    except (HTTPException, QueryError) as error:
        return error
    except TimeoutError:
        return HTTPException(408, f"Nothing of the body came for {STALL_SECONDS:g} seconds.")
    except ClientDisconnect:
        return HTTPException(400, "The connection ended before the body did.")
    finally:
        reader.close()
    return None


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    """The body in pieces worth a thread's while.

    Raises:
        TimeoutError: it does not go on.
        ClientDisconnect: the connection ended.
    """
    stream, gathered = aiter(request.stream()), bytearray()
    broken: Exception | None = None
    while True:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                gathered += await anext(stream)
        except StopAsyncIteration:
            break
        except (TimeoutError, ClientDisconnect) as error:
            broken = error  # what came before may hold whole objects
            break
        if len(gathered) >= CHUNK_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)
    if broken is not None:
        raise broken


def _length(request: Request) -> int:
    value = request.headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else 0
