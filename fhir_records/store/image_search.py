"""Searching studies, series and instances as QIDO-RS does (PS3.18 section 10.6). Only what is current is ever found."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, SelectBase, and_, func, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from fhir_records import tables
from fhir_records.model import Instance, Standing
from fhir_records.store.studies import instance_record


@dataclass(frozen=True, slots=True)
class ImageQuery:
    """What is asked; an empty field asks nothing.

    A text may hold the wildcards ``*`` (any number of characters) and ``?`` (one). Of several values, any fits.
    """

    study_uids: tuple[str, ...] = ()
    patient_id: str = ""
    patient_name: str = ""  # matched without regard to case
    sex: str = ""
    born_from: dt.date | None = None
    born_until: dt.date | None = None  # inclusive
    accession_number: str = ""
    study_description: str = ""
    modalities_in_study: tuple[str, ...] = ()
    started_from: dt.datetime | None = None
    started_before: dt.datetime | None = None
    series_uids: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    series_numbers: tuple[int, ...] = ()
    series_description: str = ""
    sop_uids: tuple[str, ...] = ()
    sop_class_uids: tuple[str, ...] = ()
    instance_numbers: tuple[int, ...] = ()
    limit: int | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class StudyAnswer:
    """A study as QIDO-RS describes it (PS3.18 table 10.6.3-3)."""

    study_uid: str
    patient_id: str
    issuer: str  # of the patient id
    patient_name: str
    birth_date: dt.date | None
    sex: str
    accession_number: str
    description: str
    modalities: tuple[str, ...]
    started_at: dt.datetime | None
    series_count: int
    instance_count: int


@dataclass(frozen=True, slots=True)
class SeriesAnswer:
    """A series as QIDO-RS describes it (PS3.18 table 10.6.3-4)."""

    study_uid: str
    series_uid: str
    modality: str
    series_number: int | None
    description: str
    instance_count: int


def search_studies(session: Session, query: ImageQuery) -> list[StudyAnswer]:
    """The studies with at least one current instance that fit ``query``, newest first."""
    statement = (
        select(tables.Study)
        .join(tables.Study.patient)
        .where(*_study_conditions(query), _HAS_INSTANCE)
        .order_by(tables.Study.started_at.desc().nulls_last(), tables.Study.id.desc())
        .offset(query.offset)
        .limit(query.limit)
    )
    return _study_answers(session, session.scalars(statement).all())


def studies_named(session: Session, study_uids: Iterable[str]) -> dict[str, StudyAnswer]:
    """The studies of these UIDs."""
    rows = session.scalars(select(tables.Study).where(tables.Study.study_uid.in_(set(study_uids)))).all()
    return {answer.study_uid: answer for answer in _study_answers(session, rows)}


def search_series(session: Session, query: ImageQuery) -> list[SeriesAnswer]:
    """The series with at least one current instance that fit ``query``, by newest study, then series number."""
    number = func.min(tables.Instance.series_number)
    statement = (
        _series(query)
        .order_by(
            tables.Study.started_at.desc().nulls_last(),
            tables.Study.id.desc(),
            number.nulls_last(),
            tables.Instance.series_uid,
        )
        .offset(query.offset)
        .limit(query.limit)
    )
    return [SeriesAnswer(*row) for row in session.execute(statement).tuples()]


def series_named(session: Session, uids: Iterable[tuple[str, str]]) -> dict[tuple[str, str], SeriesAnswer]:
    """The series of these pairs of study and series UID."""
    wanted = tuple_(tables.Study.study_uid, tables.Instance.series_uid).in_(set(uids))
    found = session.execute(_series(ImageQuery()).where(wanted)).tuples()
    return {(row[0], row[1]): SeriesAnswer(*row) for row in found}


def search_instances(session: Session, query: ImageQuery) -> list[Instance]:
    """The current instances that fit ``query``, by newest study, series and instance number."""
    statement = (
        select(tables.Instance, tables.Study.study_uid)
        .join(tables.Instance.study)
        .join(tables.Study.patient)
        .where(*_study_conditions(query), *_instance_conditions(query))
        .order_by(
            tables.Study.started_at.desc().nulls_last(),
            tables.Study.id.desc(),
            tables.Instance.series_number.nulls_last(),
            tables.Instance.series_uid,
            tables.Instance.instance_number.nulls_last(),
            tables.Instance.sop_uid,
        )
        .offset(query.offset)
        .limit(query.limit)
    )
    return [instance_record(row, study_uid) for row, study_uid in session.execute(statement).tuples()]


def count_studies(session: Session, query: ImageQuery) -> int:
    """How many studies fit ``query``, whatever its limit."""
    return _count(
        session,
        select(tables.Study.id).join(tables.Study.patient).where(*_study_conditions(query), _HAS_INSTANCE),
    )


def count_series(session: Session, query: ImageQuery) -> int:
    """How many series fit ``query``, whatever its limit."""
    return _count(session, _series(query))


def count_instances(session: Session, query: ImageQuery) -> int:
    """How many instances fit ``query``, whatever its limit."""
    return _count(
        session,
        select(tables.Instance.id)
        .join(tables.Instance.study)
        .join(tables.Study.patient)
        .where(*_study_conditions(query), *_instance_conditions(query)),
    )


def one_of_each(
    session: Session, study_uids: Iterable[str], series_uids: Iterable[str] | None = None
) -> dict[tuple[str, str], Instance]:
    """An instance of each series, an image where there is one, by study and series UID.

    Without ``series_uids``: one of each study, under the series UID "".
    """
    study, instance = tables.Study, tables.Instance
    parts = [study.study_uid] if series_uids is None else [study.study_uid, instance.series_uid]
    statement = (
        select(instance, study.study_uid)
        .join(instance.study)
        .where(study.study_uid.in_(set(study_uids)), _CURRENT)
        .distinct(*parts)
        .order_by(
            *parts, instance.rows.is_(None), instance.series_number.nulls_last(), instance.instance_number.nulls_last()
        )
    )
    if series_uids is not None:
        statement = statement.where(instance.series_uid.in_(set(series_uids)))
    found = session.execute(statement).tuples()
    return {(uid, "" if series_uids is None else row.series_uid): instance_record(row, uid) for row, uid in found}


def is_here(session: Session, study_uid: str, series_uid: str | None = None) -> bool:
    """Whether the study, or this series of it, has a current instance."""
    statement = select(tables.Instance.id).join(tables.Instance.study).where(tables.Study.study_uid == study_uid)
    if series_uid is not None:
        statement = statement.where(tables.Instance.series_uid == series_uid)
    return session.execute(statement.where(_CURRENT).limit(1)).first() is not None


_CURRENT: ColumnElement[bool] = tables.Instance.standing == Standing.CURRENT
_HAS_INSTANCE: ColumnElement[bool] = (
    select(tables.Instance.id)
    .where(tables.Instance.study_id == tables.Study.id, _CURRENT)
    .correlate(tables.Study)
    .exists()
)


def _series(query: ImageQuery) -> Select[str, str, str, int | None, str, int]:
    """Study and series UID, modality, number, description, number of instances, of each series."""
    instance = tables.Instance
    return (
        select(
            tables.Study.study_uid,
            instance.series_uid,
            func.min(instance.modality),
            func.min(instance.series_number),
            func.max(instance.series_description),
            func.count(),
        )
        .join(instance.study)
        .join(tables.Study.patient)
        .where(*_study_conditions(query), _CURRENT, *_series_conditions(query))
        .group_by(tables.Study.id, instance.series_uid)
    )


def _count(session: Session, statement: SelectBase) -> int:
    return session.execute(select(func.count()).select_from(statement.subquery())).scalar_one()


def _study_conditions(query: ImageQuery) -> list[ColumnElement[bool]]:
    study, patient = tables.Study, tables.Patient
    conditions: list[ColumnElement[bool]] = []
    if query.study_uids:
        conditions.append(study.study_uid.in_(query.study_uids))
    if query.patient_id:
        identifiers = tables.PatientIdentifier
        conditions.append(patient.identifiers.any(_like(identifiers.value, query.patient_id)))
    if query.patient_name:
        conditions.append(_person_name(query.patient_name))
    if query.sex:
        conditions.append(patient.sex == query.sex)
    if query.born_from is not None:
        conditions.append(patient.birth_date >= query.born_from)
    if query.born_until is not None:
        conditions.append(patient.birth_date <= query.born_until)
    if query.accession_number:
        conditions.append(_like(study.accession_number, query.accession_number))
    if query.study_description:
        conditions.append(_like(study.description, query.study_description))
    if query.modalities_in_study:
        conditions.append(study.modalities.op("&&", is_comparison=True)(list(query.modalities_in_study)))
    if query.started_from is not None:
        conditions.append(study.started_at >= query.started_from)
    if query.started_before is not None:
        conditions.append(study.started_at < query.started_before)
    return conditions


def _series_conditions(query: ImageQuery) -> list[ColumnElement[bool]]:
    instance = tables.Instance
    conditions: list[ColumnElement[bool]] = []
    if query.series_uids:
        conditions.append(instance.series_uid.in_(query.series_uids))
    if query.modalities:
        conditions.append(instance.modality.in_(query.modalities))
    if query.series_numbers:
        conditions.append(instance.series_number.in_(query.series_numbers))
    if query.series_description:
        conditions.append(_like(instance.series_description, query.series_description))
    return conditions


def _instance_conditions(query: ImageQuery) -> list[ColumnElement[bool]]:
    instance = tables.Instance
    conditions = [_CURRENT, *_series_conditions(query)]
    if query.sop_uids:
        conditions.append(instance.sop_uid.in_(query.sop_uids))
    if query.sop_class_uids:
        conditions.append(instance.sop_class_uid.in_(query.sop_class_uids))
    if query.instance_numbers:
        conditions.append(instance.instance_number.in_(query.instance_numbers))
    return conditions


def _person_name(wanted: str) -> ColumnElement[bool]:
    """The whole name, or what stands before its first "^" or "=" where the wanted one has neither."""
    name = tables.Patient.name
    family = func.split_part(func.split_part(name, "=", 1), "^", 1)
    pattern = _pattern(wanted)
    whole = name.ilike(pattern, escape="\\")
    return whole if "^" in wanted or "=" in wanted else or_(whole, and_(name != "", family.ilike(pattern, escape="\\")))


def _like(column: InstrumentedAttribute[str], wanted: str) -> ColumnElement[bool]:
    return column.like(_pattern(wanted), escape="\\") if "*" in wanted or "?" in wanted else column == wanted


def _pattern(wanted: str) -> str:
    """DICOM's wildcards as SQL's (PS3.4 section C.2.2.2.4)."""
    for character in "\\%_":
        wanted = wanted.replace(character, "\\" + character)
    return wanted.replace("*", "%").replace("?", "_")


def _study_answers(session: Session, rows: Sequence[tables.Study]) -> list[StudyAnswer]:
    """The answers of these studies, each counted; of a page only, for counting looks at every instance."""
    instance = tables.Instance
    counted = session.execute(
        select(instance.study_id, func.count(func.distinct(instance.series_uid)), func.count())
        .where(_CURRENT, instance.study_id.in_([row.id for row in rows]))
        .group_by(instance.study_id)
    ).tuples()
    counts: Mapping[int, tuple[int, int]] = {study_id: (series, count) for study_id, series, count in counted}
    return [_study(row, *counts.get(row.id, (0, 0))) for row in rows]


def _study(row: tables.Study, series: int, instances: int) -> StudyAnswer:
    identifiers: Sequence[tables.PatientIdentifier] = row.patient.identifiers
    return StudyAnswer(
        study_uid=row.study_uid,
        patient_id=identifiers[0].value if identifiers else "",
        issuer=identifiers[0].issuer if identifiers else "",
        patient_name=row.patient.name,
        birth_date=row.patient.birth_date,
        sex=row.patient.sex,
        accession_number=row.accession_number,
        description=row.description,
        modalities=tuple(row.modalities),
        started_at=row.started_at,
        series_count=series,
        instance_count=instances,
    )
