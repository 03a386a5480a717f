"""How far people agree with a model: by week, answer and scanner, and the studies of which they said another thing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from fhir_records import weeks
from fhir_records.agreement import Agreement, AgreementQuery, Outcome, Tally
from fhir_records.database import Database
from fhir_records.errors import NotFound, QueryError
from fhir_records.model import Role
from fhir_records.store.agreement import agreement, disagreements, models_with_answers
from fhir_records.store.cursors import cursor
from fhir_records.weeks import week_words
from web.agreement_plot import plot
from web.auth import Auth, require_role
from web.pages import Pages

MAY_LOOK = (Role.RADIOLOGIST, Role.ADMIN)
WEEKS = 26  # that the page shows where no day is asked for
LINES = 50  # disagreements of a page
_LEVELS = 5  # shades of a cell


@dataclass(frozen=True, slots=True)
class Asked:
    """What the page's form says."""

    model: str
    version: str
    since: dt.date | None
    until: dt.date | None  # that day is in
    machine: str = ""  # only disagreements with this answer of the model's
    person: str = ""  # … and this one of the person's
    rejected: bool = False
    before: str = ""  # only disagreements behind this one: the pages after the first

    def query(self, zone: ZoneInfo) -> AgreementQuery:
        """The same in instants."""
        return AgreementQuery(
            model=self.model,
            version=self.version,
            zone=zone,
            since=weeks.start_of(self.since, zone) if self.since else None,
            until=weeks.start_of(self.until + weeks.DAY, zone) if self.until else None,
        )

    def address(self, machine: str = "", person: str | None = "", before: str = "") -> str:
        """The page with only these disagreements listed, from ``before`` on; ``person`` None: the rejected ones."""
        told = {"model": self.model, "version": self.version, "from": self.since or "", "to": self.until or ""}
        cell = {"machine": machine, "person": person or "", "rejected": "true" if person is None else ""}
        cell["before"] = before
        return f"/admin/agreement?{urlencode({**told, **{key: value for key, value in cell.items() if value}})}"

    def page(self, before: str = "") -> str:
        """Another page of the same list of disagreements."""
        return f"{self.address(self.machine, None if self.rejected else self.person, before)}#disagreements"


@dataclass(frozen=True, slots=True)
class Cell:
    """How often one answer of the model's met one of the person's."""

    count: int
    shade: str  # CSS class: "same" or "other" with a level from 0 to 5, by its share of the row
    address: str  # of the list of its studies; "" where nobody disagrees


@dataclass(frozen=True, slots=True)
class AnswerRow:
    """What people made of one of the model's answers."""

    label: str
    cells: tuple[Cell, ...]  # in the order of the columns; the last one: rejected
    tally: Tally


def agreement_router(auth: Auth, pages: Pages, database: Database) -> APIRouter:
    """The page for those who sign, and those who look after the models."""

    def may_look(request: Request) -> None:
        require_role(auth.person(request), *MAY_LOOK)

    router = APIRouter(include_in_schema=False, dependencies=[Depends(may_look)])
    zone = pages.settings.timezone

    @router.get("/admin/agreement")
    def page(
        request: Request,
        model: str = "",
        version: str = "",
        since: Annotated[str | None, Query(alias="from")] = None,
        until: Annotated[str, Query(alias="to")] = "",
        machine: str = "",
        person: str = "",
        rejected: bool = False,
        before: str = "",
    ) -> Response:
        with database.session() as session:
            known = models_with_answers(session)
            if not known and not model:
                return pages.page(request, "agreement.html", known=known, found=None)
            name = _chosen(known, model, version)
            begin = _default_begin(zone) if since is None else _day(since)
            asked = Asked(name, version, begin, _day(until), machine, person, rejected, before)
            content = _content(session, asked, zone)
        return pages.page(request, "agreement.html", known=known, asked=asked, narrowed=bool(machine), **content)

    return router


def _chosen(known: Mapping[str, tuple[str, ...]], model: str, version: str) -> str:
    name = model or next(iter(known))
    if name not in known:
        raise NotFound("No model of this name has answered yet.")
    if version and version not in known[name]:
        raise QueryError(f"There is no such version. Allowed: {', '.join(known[name])}.")
    return name


def _default_begin(zone: ZoneInfo) -> dt.date:
    return weeks.monday_of(dt.datetime.now(zone).date()) - (WEEKS - 1) * weeks.WEEK


def _day(text: str) -> dt.date | None:
    """A day as HTML's date field sends it; None where it is empty."""
    if not text:
        return None
    try:
        day = dt.date.fromisoformat(text)
    except ValueError as error:
        raise QueryError("The day is not valid. Allowed: a date such as 2026-11-16, or none.") from error
    if not dt.date(1900, 1, 1) <= day <= dt.date(2999, 12, 31):
        raise QueryError("The day is not valid. Allowed: from 1900-01-01 to 2999-12-31.")
    return day


def _content(session: Session, asked: Asked, zone: ZoneInfo) -> dict[str, Any]:
    query = asked.query(zone)
    found = agreement(session, query)
    listed = disagreements(
        session,
        query,
        machine=asked.machine,
        person=asked.person,
        rejected=asked.rejected,
        newest=LINES + 1,
        before=asked.before,
    )
    last = listed[LINES - 1] if len(listed) > LINES else None
    return {
        "found": found,
        "plot": plot(found.weeks, found.total) if found.total.signed else None,
        "rows": answer_rows(found, asked),
        "lines": listed[:LINES],
        "newest_url": asked.page() if asked.before else "",
        "older_url": asked.page(cursor(last.signed_at, last.read_id)) if last else "",
        "answers": {answer.label: answer for answer in found.answers},
        "Outcome": Outcome,
        "week_words": week_words,
    }


def answer_rows(found: Agreement, asked: Asked) -> list[AnswerRow]:
    """The table of answers: the model's down, the person's across, then what was rejected."""
    columns: list[str | None] = [*(answer.label for answer in found.answers), None]
    rows = []
    for answer in found.answers:
        tally = found.by_answer.get(answer.label, Tally())
        counts = {column: found.confusion.get((answer.label, column), 0) for column in columns}
        cells = tuple(
            Cell(
                count=count,
                shade=_shade(count, tally.signed, same=column == answer.label),
                address=asked.address(answer.label, column) if count and column != answer.label else "",
            )
            for column, count in counts.items()
        )
        rows.append(AnswerRow(answer.label, cells, tally))
    return rows


def _shade(count: int, of: int, *, same: bool) -> str:
    # Upwards, so that one of a thousand is still seen.
    level = -(-count * _LEVELS // of) if of else 0
    return f"{'same' if same else 'other'} level-{level}"
