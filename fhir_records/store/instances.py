"""Studies, series and instances as DICOMweb asks for them. Only what is current is ever named here."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from fhir_records import tables
from fhir_records.errors import NotFound
from fhir_records.model import Instance, Standing
from fhir_records.store.studies import instance_record


@dataclass(frozen=True, slots=True)
class StudyQuery:
    """What is asked of studies (PS3.18 section 10.6); an empty field asks nothing.

    A text may hold the wildcards ``*`` (any number of characters) and ``?`` (one).
    """

    study_uids: tuple[str, ...] = ()
    patient_id: str = ""
    patient_name: str = ""  # matched without regard to case
    accession_number: str = ""
    modalities: tuple[str, ...] = ()  # any of them
    started_from: dt.datetime | None = None
    started_before: dt.datetime | None = None
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


def search_studies(session: Session, query: StudyQuery) -> list[StudyAnswer]:
    """The studies with at least one current instance that fit ``query``, newest first."""
    counts = (
        select(
            tables.Instance.study_id,
            func.count(func.distinct(tables.Instance.series_uid)).label("series"),
            func.count().label("instances"),
        )
        .where(_CURRENT)
        .group_by(tables.Instance.study_id)
        .subquery()
    )
    statement = (
        select(tables.Study, counts.c.series, counts.c.instances)
        .join(counts, counts.c.study_id == tables.Study.id)
        .join(tables.Patient, tables.Patient.id == tables.Study.patient_id)
        .where(*_study_conditions(query))
        .order_by(tables.Study.started_at.desc().nulls_last(), tables.Study.id.desc())
        .offset(query.offset)
        .limit(query.limit)
    )
    return [_study(study, series, instances) for study, series, instances in session.execute(statement).unique()]


def series_of(session: Session, study_uid: str) -> list[SeriesAnswer]:
    """The study's series with at least one current instance, by series number."""
    instance = tables.Instance
    statement = (
        select(
            instance.series_uid,
            func.min(instance.modality),
            func.min(instance.series_number),
            func.max(instance.series_description),
            func.count(),
        )
        .join(tables.Study, tables.Study.id == instance.study_id)
        .where(tables.Study.study_uid == study_uid, _CURRENT)
        .group_by(instance.series_uid)
        .order_by(func.min(instance.series_number).nulls_last(), instance.series_uid)
    )
    return [SeriesAnswer(study_uid, *row) for row in session.execute(statement).tuples()]


def instances_of(session: Session, study_uid: str, series_uid: str | None = None) -> list[Instance]:
    """The current instances of a study, or of one of its series, by series and instance number."""
    wanted = [] if series_uid is None else [tables.Instance.series_uid == series_uid]
    statement = (
        select(tables.Instance)
        .join(tables.Instance.study)
        .where(tables.Study.study_uid == study_uid, _CURRENT, *wanted)
        .order_by(
            tables.Instance.series_number.nulls_last(),
            tables.Instance.series_uid,
            tables.Instance.instance_number.nulls_last(),
            tables.Instance.sop_uid,
        )
    )
    return [instance_record(row, study_uid) for row in session.scalars(statement)]


def instance(session: Session, study_uid: str, series_uid: str, sop_uid: str) -> Instance:
    """One current instance.

    Raises:
        NotFound: there is none of these UIDs.
    """
    statement = (
        select(tables.Instance)
        .join(tables.Instance.study)
        .where(
            tables.Study.study_uid == study_uid,
            tables.Instance.series_uid == series_uid,
            tables.Instance.sop_uid == sop_uid,
            _CURRENT,
        )
    )
    row = session.scalars(statement).one_or_none()
    if row is None:
        raise NotFound("There is no such instance.")
    return instance_record(row, study_uid)


_CURRENT: ColumnElement[bool] = tables.Instance.standing == Standing.CURRENT


def _study_conditions(query: StudyQuery) -> list[ColumnElement[bool]]:
    study, patient = tables.Study, tables.Patient
    conditions: list[ColumnElement[bool]] = []
    if query.study_uids:
        conditions.append(study.study_uid.in_(query.study_uids))
    if query.patient_id:
        identifiers = tables.PatientIdentifier
        conditions.append(patient.identifiers.any(_like(identifiers.value, query.patient_id)))
    if query.patient_name:
        conditions.append(_person_name(query.patient_name))
    if query.accession_number:
        conditions.append(_like(study.accession_number, query.accession_number))
    if query.modalities:
        conditions.append(study.modalities.op("&&", is_comparison=True)(list(query.modalities)))
    if query.started_from is not None:
        conditions.append(study.started_at >= query.started_from)
    if query.started_before is not None:
        conditions.append(study.started_at < query.started_before)
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
