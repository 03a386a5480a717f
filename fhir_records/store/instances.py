"""The instances below a study, a series or a SOP Instance UID. Only what is current is ever named here."""

from __future__ import annotations

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.errors import NotFound
from fhir_records.model import Instance, Standing
from fhir_records.store.studies import instance_record


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
