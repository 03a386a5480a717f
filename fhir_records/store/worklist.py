"""The worklist: studies newest first, each with where it stands, what was found and where that went."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Text,
    case,
    cast,
    exists,
    func,
    literal,
    literal_column,
    or_,
    select,
    tuple_,
)
from sqlalchemy.orm import Session, selectinload

from fhir_records import tables
from fhir_records.model import (
    Delivery,
    DeliveryState,
    InstanceKind,
    Read,
    ReadState,
    Result,
    Standing,
    Study,
    StudyState,
)
from fhir_records.store.cursors import cursor, position
from fhir_records.store.deliveries import delivery_record
from fhir_records.store.results import read_record, result_record
from fhir_records.store.studies import record_of

PAGE_SIZE = 50
MAX_WORDS = 8  # of one search; more make the query slow and find nothing


@dataclass(frozen=True, slots=True)
class ReadLine:
    """One model's read as the worklist shows it."""

    read: Read
    result: Result | None  # newest document version, without the list of images read
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True)
class WorklistRow:
    """One study."""

    study: Study
    provisional: bool  # the patient is not settled
    reads: tuple[ReadLine, ...]  # of the newest revision that has any
    to_take_back: tuple[Delivery, ...]  # of any version: they are somewhere, and should not be any more


@dataclass(frozen=True, slots=True)
class WorklistQuery:
    """What to show."""

    words: str = ""  # parts of the patient's name, Patient UID, PatientID or accession number; all must fit
    state: StudyState | None = None
    held: bool = False  # only studies whose patient waits for a person
    before: str = ""  # `WorklistPage.older` of the page before


@dataclass(frozen=True, slots=True)
class WorklistPage:
    """A part of the worklist."""

    rows: tuple[WorklistRow, ...]
    older: str  # where the next page starts; "" where this is the last


def worklist(session: Session, query: WorklistQuery, size: int = PAGE_SIZE) -> WorklistPage:
    """One page of the worklist, newest first.

    Raises:
        QueryError: ``before`` is none of ours.
    """
    found: Sequence[tables.Study] = session.scalars(
        _newest(select(tables.Study), query)
        .options(selectinload(tables.Study.patient).selectinload(tables.Patient.identifiers))
        .limit(size + 1)
    ).all()
    shown = found[:size]
    older = cursor(shown[-1].first_seen_at, shown[-1].id) if len(found) > size else ""
    return WorklistPage(rows=tuple(_rows(session, shown)), older=older)


def worklist_stamp(session: Session, query: WorklistQuery, size: int = PAGE_SIZE) -> str:
    """A text that changes whenever the page does, for a fraction of the page's cost: the versions of its rows.

    Raises:
        QueryError: ``before`` is none of ours.
    """
    columns = select(tables.Study.id, _row_version(tables.Study), _row_version(tables.Patient))
    studies = session.execute(_newest(columns, query).limit(size + 1)).all()
    work = session.execute(
        select(*(_row_version(table) for table in (tables.Read, tables.Result, tables.Delivery)))
        .select_from(tables.Read)
        .outerjoin(tables.Result, tables.Result.read_id == tables.Read.id)
        .outerjoin(tables.Document, tables.Document.result_id == tables.Result.id)
        .outerjoin(tables.Delivery, tables.Delivery.document_id == tables.Document.id)
        .where(tables.Read.study_id.in_([study.id for study in studies]))
        .order_by(tables.Read.id, tables.Result.id, tables.Delivery.id)
    ).all()
    return hashlib.sha256(repr((studies, work)).encode()).hexdigest()


def newest_results(session: Session, read_ids: Iterable[int]) -> Mapping[int, Result]:
    """The newest document version of each read's result, without the list of images read, by read."""
    rows = session.execute(
        select(
            tables.Result.id,
            tables.Result.read_id,
            tables.Result.version,
            tables.Result.status,
            tables.Result.created_at,
            # Hundreds of UIDs a study, which nobody looks at here.
            (tables.Result.content - "images_read").label("content"),
        )
        .where(tables.Result.read_id.in_(list(read_ids)))
        .order_by(tables.Result.read_id, tables.Result.version.desc())
        .distinct(tables.Result.read_id)
    )
    return {row.read_id: result_from_columns(row) for row in rows}


def result_from_columns(row: Row[tuple[object, ...]]) -> Result:
    """The record of a result whose images were left out."""
    content = {**row.content, "images_read": []}
    return result_record(
        tables.Result(
            id=row.id,
            read_id=row.read_id,
            version=row.version,
            status=row.status,
            created_at=row.created_at,
            content=content,
        )
    )


def _newest(columns: Select[*tuple[Any, ...]], query: WorklistQuery) -> Select[*tuple[Any, ...]]:
    """The studies that a query asks for, newest first."""
    wanted = [_matches_word(word) for word in query.words.split()[:MAX_WORDS]]
    if query.state is not None:
        wanted.append(_state() == query.state.value)
    if query.held:
        wanted.append(tables.Study.hold_reason.is_not(None))
    if query.before:
        wanted.append(tuple_(tables.Study.first_seen_at, tables.Study.id) < tuple_(*position(query.before)))
    newest_first = (tables.Study.first_seen_at.desc(), tables.Study.id.desc())
    return columns.join(tables.Study.patient).where(*wanted).order_by(*newest_first)


def _row_version(table: type[tables.Base]) -> ColumnElement[str]:
    """PostgreSQL's own mark of who wrote a row last; no two committed versions of a row share it."""
    return cast(literal_column(f"{table.__tablename__}.xmin"), Text)


def _rows(session: Session, studies: Sequence[tables.Study]) -> Iterable[WorklistRow]:
    ids = [study.id for study in studies]
    reads: dict[int, list[tables.Read]] = defaultdict(list)
    for read in session.scalars(select(tables.Read).where(tables.Read.study_id.in_(ids)).order_by(tables.Read.id)):
        reads[read.study_id].append(read)
    newest = {study: [r for r in rows if r.revision == max(x.revision for x in rows)] for study, rows in reads.items()}
    results = newest_results(session, [read.id for rows in newest.values() for read in rows])
    deliveries = _deliveries(session, [result.id for result in results.values()])
    counts, open_withdrawals = _image_counts(session, ids), _open_withdrawals(session, ids)
    for study in studies:
        lines = tuple(
            ReadLine(
                read=read_record(read),
                result=results.get(read.id),
                deliveries=tuple(deliveries[results[read.id].id]) if read.id in results else (),
            )
            for read in newest.get(study.id, [])
        )
        states = [read.state for read in reads[study.id] if read.revision == study.revision]
        yield WorklistRow(
            study=record_of(study, states, *counts.get(study.id, (0, 0))),
            provisional=study.patient.provisional,
            reads=lines,
            to_take_back=tuple(open_withdrawals[study.id]),
        )


def _deliveries(session: Session, result_ids: Sequence[int]) -> Mapping[int, list[Delivery]]:
    rows = session.execute(
        select(tables.Document.result_id, tables.Delivery)
        .join(tables.Delivery, tables.Delivery.document_id == tables.Document.id)
        .where(tables.Document.result_id.in_(result_ids))
        .order_by(tables.Delivery.id)
    )
    by_result: dict[int, list[Delivery]] = defaultdict(list)
    for result_id, delivery in rows:
        by_result[result_id].append(delivery_record(delivery))
    return by_result


def _open_withdrawals(session: Session, study_ids: Sequence[int]) -> Mapping[int, list[Delivery]]:
    rows = session.execute(
        select(tables.Read.study_id, tables.Delivery)
        .join(tables.Delivery.document)
        .join(tables.Document.result)
        .join(tables.Result.read)
        .where(tables.Read.study_id.in_(study_ids), tables.Delivery.state == DeliveryState.WITHDRAWAL_OPEN)
        .order_by(tables.Delivery.id)
    )
    by_study: dict[int, list[Delivery]] = defaultdict(list)
    for study_id, delivery in rows:
        by_study[study_id].append(delivery_record(delivery))
    return by_study


def _image_counts(session: Session, study_ids: Sequence[int]) -> Mapping[int, tuple[int, int]]:
    rows = session.execute(
        select(tables.Instance.study_id, func.count(), func.count(func.distinct(tables.Instance.series_uid)))
        .where(
            tables.Instance.study_id.in_(study_ids),
            tables.Instance.kind == InstanceKind.IMAGE,
            tables.Instance.standing == Standing.CURRENT,
        )
        .group_by(tables.Instance.study_id)
    )
    return {study_id: (images, series) for study_id, images, series in rows}


def _matches_word(word: str) -> ColumnElement[bool]:
    """A word is part of the name, or the start of an identifier or of the accession number."""
    patient = tables.Patient
    starts = exists().where(
        tables.PatientIdentifier.patient_id == patient.id,
        tables.PatientIdentifier.value.istartswith(word, autoescape=True),
    )
    return or_(
        patient.name.icontains(word.strip(",;"), autoescape=True),
        patient.patient_uid == word,
        tables.Study.accession_number.istartswith(word, autoescape=True),
        tables.Study.study_uid == word,
        starts,
    )


def _state() -> ColumnElement[str]:
    """`studies.derive_state` in SQL; a test holds the two together."""

    def any_read(state: ReadState) -> ColumnElement[bool]:
        return exists().where(
            tables.Read.study_id == tables.Study.id,
            tables.Read.revision == tables.Study.revision,
            tables.Read.state == state,
        )

    study = tables.Study
    return case(
        (or_(study.open_since.is_not(None), study.revision == 0), literal(StudyState.ARRIVING.value)),
        (study.routed_revision < study.revision, literal(StudyState.QUEUED.value)),
        (any_read(ReadState.READING), literal(StudyState.READING.value)),
        (any_read(ReadState.QUEUED), literal(StudyState.QUEUED.value)),
        (any_read(ReadState.FAILED), literal(StudyState.FAILED.value)),
        (any_read(ReadState.READ), literal(StudyState.READ.value)),
        (any_read(ReadState.REFUSED), literal(StudyState.REFUSED.value)),
        else_=literal(StudyState.NOT_ROUTED.value),
    )
