"""FHIR resources as they are stored and served: written when they change, found by their search parameters."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import ColumnElement, Select, and_, func, literal, or_, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.errors import NotFound
from fhir_records.fhir_api.bundles import Page, StoredResource
from fhir_records.fhir_api.parameters import Column
from fhir_records.fhir_api.search import (
    Clause,
    Cursor,
    DateClause,
    PatientClause,
    Query,
    Sort,
    Token,
    TokenClause,
    WordClause,
    write_cursor,
)
from fhir_records.model import FhirResource

_ROW: Final = tables.FhirResource

# Stands for "any" in an indexed token. No system and no value has it in it: renderings and queries know no control
# characters.
_ANY: Final = "\x1f"

# The sort key of a resource without a date.
_NEVER: Final = dt.datetime(1, 1, 1, tzinfo=dt.UTC)


def put(
    session: Session, resources: Iterable[FhirResource], *, patient_id: int | None, study_id: int | None
) -> tuple[str, ...]:
    """Write resources that belong to a study.

    The same content again changes nothing. Other content under the same id becomes the next version. `versionId` and
    `lastUpdated` are put into the text here and nowhere else.

    Args:
        session: the caller's; nothing is committed.
        resources: rendered ones.
        patient_id: number of the patient that they are about.
        study_id: number of the study. A Device belongs to neither, a Patient to no one study.

    Returns:
        "Type/id" of each resource that was new or changed.
    """
    # To the millisecond, so that the column and the served text say the same instant.
    now = session.execute(select(func.date_trunc("milliseconds", func.clock_timestamp()))).scalar_one()
    changed = []
    # Always in the same order, so that two writers of the same study cannot wait for each other.
    for resource in sorted(resources, key=lambda resource: (resource.type, resource.id)):
        links = {
            "patient_id": None if resource.type == "Device" else patient_id,
            "study_id": None if resource.type in {"Device", "Patient"} else study_id,
        }
        if _put(session, resource, links, now):
            changed.append(f"{resource.type}/{resource.id}")
    return tuple(changed)


def get(session: Session, type: str, id: str) -> StoredResource:
    """The current version of a resource.

    Raises:
        NotFound: there is none.
    """
    row = session.execute(_stored().where(_ROW.type == type, _ROW.id == id)).one_or_none()
    if row is None:
        raise NotFound("There is no such resource.")
    return StoredResource(**row._mapping)


def search(session: Session, query: Query) -> Page:
    """One page of what a search finds."""
    conditions = [_ROW.type == query.type, *(_condition(clause) for clause in query.clauses)]
    total = session.execute(select(func.count()).select_from(_ROW).where(*conditions)).scalar_one()
    if query.count == 0:
        return Page((), total, None)
    key = _sort_key(query.sort)
    if query.cursor is not None:
        conditions.append(_after(query.cursor, query.sort, key))
    order = (key.desc(), _ROW.id.desc()) if query.sort.descending else (key, _ROW.id)
    found = session.execute(
        _stored().add_columns(key.label("sort_key")).where(*conditions).order_by(*order).limit(query.count + 1)
    ).all()
    rows = found[: query.count]
    resources = []
    for row in rows:
        fields = dict(row._mapping)
        del fields["sort_key"]
        resources.append(StoredResource(**fields))
    cursor = None
    if len(found) > query.count:
        last = rows[-1].sort_key
        cursor = write_cursor(query.sort, last if isinstance(last, str) else last.isoformat(), rows[-1].id)
    return Page(tuple(resources), total, cursor)


def stamp(text: str, version: int, last_updated: dt.datetime) -> str:
    """A rendered resource's JSON with its version and time of change in `meta`, as it is stored and served."""
    resource: dict[str, Any] = json.loads(text)
    moment = last_updated.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    meta = {"versionId": str(version), "lastUpdated": moment, **resource.pop("meta", {})}
    head = {"resourceType": resource.pop("resourceType"), "id": resource.pop("id"), "meta": meta}
    return json.dumps(head | resource, ensure_ascii=False, separators=(",", ":"))


def _put(session: Session, resource: FhirResource, links: dict[str, int | None], now: dt.datetime) -> bool:
    columns = {
        "status": resource.status,
        "codes": [entry for token in resource.codes for entry in _indexed(token)],
        "identifiers": [entry for token in resource.identifiers for entry in _indexed(token)],
        "date": resource.date,
        **links,
    }
    key = {"type": resource.type, "id": resource.id}
    added = session.execute(
        insert(_ROW)
        .values(**key, version=1, text=stamp(resource.text, 1, now), last_updated=now, **columns)
        .on_conflict_do_nothing()
        .returning(_ROW.id)
    ).scalar_one_or_none()
    if added is not None:
        return True
    # Fresh from the database: the row may have been changed since this session last saw it.
    row = session.get_one(_ROW, (resource.type, resource.id), populate_existing=True)
    if _unchanged(row, resource, columns):
        return False
    row = session.get_one(_ROW, (resource.type, resource.id), populate_existing=True, with_for_update=True)
    if _unchanged(row, resource, columns):
        return False
    content_changed = stamp(resource.text, row.version, row.last_updated) != row.text
    for name, value in columns.items():
        setattr(row, name, value)
    if content_changed:
        row.version += 1
        row.last_updated = now
        row.text = stamp(resource.text, row.version, now)
    session.flush()
    return content_changed


def _unchanged(row: tables.FhirResource, resource: FhirResource, columns: dict[str, Any]) -> bool:
    same_columns = all(getattr(row, name) == value for name, value in columns.items())
    return same_columns and stamp(resource.text, row.version, row.last_updated) == row.text


def _indexed(token: str) -> tuple[str, ...]:
    """What a "system|value" is found by: both, the value under any system, any value of the system."""
    system, _, value = token.partition("|")
    anywhere = f"{_ANY}|{value}"
    return (token, anywhere, f"{system}|{_ANY}") if system else (token, anywhere)


def _wanted(token: Token) -> str:
    system = _ANY if token.system is None else token.system
    return f"{system}|{_ANY if token.value is None else token.value}"


def _stored() -> Select[str, str, int, dt.datetime, str, str | None]:
    return select(_ROW.type, _ROW.id, _ROW.version, _ROW.last_updated, _ROW.text, tables.Study.study_uid).outerjoin(
        tables.Study, tables.Study.id == _ROW.study_id
    )


def _condition(clause: Clause) -> ColumnElement[bool]:
    match clause:
        case TokenClause(column, tokens):
            listed = _ROW.codes if column is Column.CODES else _ROW.identifiers
            overlaps: ColumnElement[bool] = listed.overlap([_wanted(token) for token in tokens])
            return overlaps
        case WordClause(column, words):
            return (_ROW.status if column is Column.STATUS else _ROW.id).in_(words)
        case PatientClause(ids):
            patients = select(_ROW.patient_id).where(_ROW.type == "Patient", _ROW.id.in_(ids))
            return _ROW.patient_id.in_(patients)
        case DateClause(column, intervals):
            moment = _ROW.last_updated if column is Column.LAST_UPDATED else _ROW.date
            return or_(
                *(
                    and_(
                        moment.is_not(None),
                        literal(True) if interval.start is None else moment >= interval.start,
                        literal(True) if interval.end is None else moment < interval.end,
                    )
                    for interval in intervals
                )
            )


def _sort_key(sort: Sort) -> ColumnElement[Any]:
    match sort.column:
        case Column.ID:
            return _ROW.id.expression
        case Column.DATE:
            return func.coalesce(_ROW.date, literal(_NEVER, _ROW.date.type))
        case _:
            return _ROW.last_updated.expression


def _after(cursor: Cursor, sort: Sort, key: ColumnElement[Any]) -> ColumnElement[bool]:
    last = cursor.key if sort.column is Column.ID else dt.datetime.fromisoformat(cursor.key)
    here, there = tuple_(key, _ROW.id), tuple_(literal(last, key.type), literal(cursor.id))
    return here < there if sort.descending else here > there
