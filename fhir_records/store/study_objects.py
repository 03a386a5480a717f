"""What a study holds besides images that can be shown: reports, documents, waveforms, segmentations, videos."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.errors import NotFound
from fhir_records.model import Instance, InstanceKind, Standing
from fhir_records.store.studies import instance_record


@dataclass(frozen=True, slots=True)
class StudyObjects:
    """The first of these objects, and how many there are."""

    first: tuple[Instance, ...]  # by series and instance number
    count: int


def study_objects(session: Session, study_uid: str, shown: Collection[str], most: int = 50) -> StudyObjects:
    """The current objects of a study that are no images, or images in another transfer syntax than ``shown``.

    Args:
        session: of the record.
        study_uid: which study.
        shown: UIDs of the transfer syntaxes whose pixels can be shown.
        most: how many are listed at the most.
    """
    wanted: list[ColumnElement[bool]] = [
        tables.Study.study_uid == study_uid,
        tables.Instance.standing == Standing.CURRENT,
        or_(tables.Instance.kind != InstanceKind.IMAGE, tables.Instance.transfer_syntax_uid.not_in(shown)),
    ]
    rows = session.scalars(
        select(tables.Instance)
        .join(tables.Instance.study)
        .where(*wanted)
        .order_by(
            tables.Instance.series_number.nulls_last(),
            tables.Instance.series_uid,
            tables.Instance.instance_number.nulls_last(),
            tables.Instance.sop_uid,
        )
        .limit(most)
    ).all()
    first = tuple(instance_record(row, study_uid) for row in rows)
    if len(first) < most:
        return StudyObjects(first, len(first))
    count = session.scalar(select(func.count()).select_from(tables.Instance).join(tables.Instance.study).where(*wanted))
    return StudyObjects(first, count or 0)


def object_in_study(session: Session, study_uid: str, instance_id: int) -> Instance:
    """A stored object, where it is this study's and current.

    Raises:
        NotFound: it is not.
    """
    row = session.scalar(
        select(tables.Instance)
        .join(tables.Instance.study)
        .where(
            tables.Instance.id == instance_id,
            tables.Instance.standing == Standing.CURRENT,
            tables.Study.study_uid == study_uid,
        )
    )
    if row is None:
        raise NotFound("The study has no such object.")
    return instance_record(row, study_uid)
