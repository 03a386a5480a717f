"""The worklist: what came, where it stands, what was found."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from fhir_records.database import Database
from fhir_records.errors import QueryError
from fhir_records.model import (
    Act,
    Delivery,
    DeliveryState,
    Priority,
    ReadState,
    Result,
    ResultStatus,
    Role,
    StudyState,
)
from fhir_records.renderings import plain_words
from fhir_records.store import attention
from fhir_records.store.worklist import ReadLine, WorklistPage, WorklistQuery, WorklistRow, worklist, worklist_stamp
from web.auth import Auth, person_of
from web.pages import Pages
from web.words import status_words

HELD = "held"
# Worst first: one word stands for all deliveries of a study.
DELIVERY_ORDER = (
    DeliveryState.REFUSED,
    DeliveryState.WITHDRAWAL_OPEN,
    DeliveryState.WAITING,
    DeliveryState.DELIVERED,
    DeliveryState.CONFIRMED,
    DeliveryState.WITHDRAWN,
    DeliveryState.FILTERED,
)


@dataclass(frozen=True, slots=True)
class FindingCell:
    """A read in a line of the worklist."""

    text: str
    tone: str  # CSS class: present, absent, refused, failed, pending, in-error
    probability: float | None  # of the answer, 0 to 1
    probability_text: str
    earlier: bool  # the finding is of an earlier revision; newer images are not read yet
    standing: str = ""  # how far it stands, and who says so; "" where nothing is said


def worklist_router(auth: Auth, pages: Pages, database: Database) -> APIRouter:
    """The worklist's page and the part of it that refreshes itself."""
    router = APIRouter(include_in_schema=False, dependencies=[Depends(auth.person), Depends(auth.csrf)])

    @router.get("/")
    def page(request: Request, q: str = "", state: str = "", before: str = "") -> Response:
        query = _query(q, state, before)
        with database.session() as session:
            stamp = worklist_stamp(session, query)
            content = worklist(session, query)
            admin = person_of(request).user.role is Role.ADMIN
            counts = attention.counts(session) if admin else None
        context = _context(request, content, etag(stamp, pages.settings.version), q, state, before)
        return pages.page(request, "worklist.html", counts=counts, **context)

    @router.get("/worklist/rows")
    def rows(request: Request, q: str = "", state: str = "", before: str = "") -> Response:
        query = _query(q, state, before)
        with database.session() as session:
            # The stamp first: what changes in between is then shown at once, and once more by the next refreshing.
            tag = etag(worklist_stamp(session, query), pages.settings.version)
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers={"ETag": tag})
            content = worklist(session, query)
        response = pages.page(request, "worklist_rows.html", **_context(request, content, tag, q, state, before))
        response.headers["ETag"] = tag
        return response

    def _context(request: Request, content: WorklistPage, tag: str, q: str, state: str, before: str) -> dict[str, Any]:
        filters = {"q": q, "state": state}
        return {
            "rows": content.rows,
            "tag": tag,
            "rows_url": f"/worklist/rows?{_encode({**filters, 'before': before})}",
            "older_url": f"/?{_encode({**filters, 'before': content.older})}" if content.older else "",
            "newest_url": f"/?{_encode(filters)}" if before else "",
            "q": q,
            "state": state,
            "states": [*(word.value for word in StudyState), HELD],
            "filtered": bool(q.strip() or state or before),
            "cells": finding_cells,
            "delivery": delivery_words,
            "host": request.url.hostname or "localhost",
            "Priority": Priority,
        }

    return router


def etag(content: object, version: str) -> str:
    """An entity tag of what a part of a page shows (RFC 9110 section 8.8.3)."""
    return f'"{hashlib.sha256(f"{version} {content!r}".encode()).hexdigest()[:32]}"'


def finding_cells(row: WorklistRow) -> Sequence[FindingCell]:
    """What the line of a study says of each of its reads."""
    return [finding_cell(line, row.study.revision) for line in row.reads]


def finding_cell(line: ReadLine, revision: int) -> FindingCell:
    """One read in a line of the worklist."""
    earlier = line.read.revision < revision
    if line.result is not None:
        words = plain_words.headline(line.result)
        finding, standing = line.result.finding, standing_words(line.result)
        if line.result.status is ResultStatus.ENTERED_IN_ERROR:
            return FindingCell(words, "in-error", None, "", earlier, standing)
        if finding is None:
            return FindingCell(words, "refused", None, "", earlier, standing)
        probability = finding.probability
        said = "" if probability is None else plain_words.probability_words(probability)
        return FindingCell(words, finding.presence.value, probability, said, earlier, standing)
    if line.read.state is ReadState.FAILED:
        return FindingCell(f"Not read yet: {line.read.error or 'the read failed'}", "failed", None, "", earlier)
    return FindingCell("", "pending", None, "", earlier)


def standing_words(result: Result) -> str:
    """How far a result stands: "preliminary", or which person did what to it; "" for a refusal that nobody signed."""
    if result.signature is None:
        return status_words(result.status) if result.finding is not None else ""
    return f"{_ACT[result.signature.act]} by {result.signature.signer.display_name}"


_ACT = {Act.ACCEPT: "signed", Act.CORRECT: "corrected and signed", Act.REJECT: "rejected"}


def delivery_words(deliveries: Sequence[Delivery]) -> tuple[str, str]:
    """Where the results of a study are, in words, and the state to colour them by ("" where none is sent)."""
    for state in DELIVERY_ORDER:
        names = sorted({delivery.destination for delivery in deliveries if delivery.state is state})
        if names:
            return f"{_VERB[state]} {', '.join(names)}", state.value
    return "", ""


_VERB = {
    DeliveryState.REFUSED: "refused by",
    DeliveryState.WAITING: "waiting for",
    DeliveryState.DELIVERED: "delivered to",
    DeliveryState.CONFIRMED: "confirmed by",
    DeliveryState.FILTERED: "not meant for",
    DeliveryState.WITHDRAWAL_OPEN: "to be taken back from",
    DeliveryState.WITHDRAWN: "taken back from",
}


def _query(q: str, state: str, before: str) -> WorklistQuery:
    if state and state != HELD and state not in set(StudyState):
        raise QueryError(f"There is no such state. Allowed: {', '.join([*StudyState, HELD])}.")
    return WorklistQuery(
        words=q[:200], state=StudyState(state) if state and state != HELD else None, held=state == HELD, before=before
    )


def _encode(parameters: dict[str, str]) -> str:
    return urlencode({name: value for name, value in parameters.items() if value})
