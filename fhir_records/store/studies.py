"""Studies, their instances and revisions, as frozen records."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.errors import NotFound
from fhir_records.model import (
    Identifier,
    Instance,
    InstanceKind,
    Patient,
    ReadState,
    Standing,
    Study,
    StudyState,
)


def installation_namespace(session: Session) -> uuid.UUID:
    """The random namespace of this installation, made at the first asking."""
    session.execute(
        insert(tables.Installation).values(id=1, namespace=uuid.uuid4()).on_conflict_do_nothing(index_elements=["id"])
    )
    return session.execute(select(tables.Installation.namespace)).scalar_one()


def derive_state(*, still_open: bool, revision: int, routed_revision: int, reads: Iterable[ReadState]) -> StudyState:
    """What the worklist says of a study.

    Args:
        still_open: images are there that no revision holds yet.
        revision: number of the newest revision, 0 where there is none.
        routed_revision: number of the last revision that routing has decided on.
        reads: the states of the newest revision's reads.
    """
    if still_open or revision == 0:
        return StudyState.ARRIVING
    if routed_revision < revision:
        return StudyState.QUEUED
    states = set(reads)
    # The most urgent to know comes first: work under way, then what needs a person, then answers.
    for read, study in (
        (ReadState.READING, StudyState.READING),
        (ReadState.QUEUED, StudyState.QUEUED),
        (ReadState.FAILED, StudyState.FAILED),
        (ReadState.READ, StudyState.READ),
        (ReadState.REFUSED, StudyState.REFUSED),
    ):
        if read in states:
            return study
    return StudyState.NOT_ROUTED


def study_by_uid(session: Session, study_uid: str) -> Study:
    """The study with this Study Instance UID.

    Raises:
        NotFound: there is none.
    """
    row = session.execute(select(tables.Study).where(tables.Study.study_uid == study_uid)).scalar_one_or_none()
    if row is None:
        raise NotFound("There is no such study.")
    return study_record(session, row)


def study_record(session: Session, row: tables.Study) -> Study:
    """The frozen record of a study's row."""
    reads = session.execute(
        select(tables.Read.state).where(tables.Read.study_id == row.id, tables.Read.revision == row.revision)
    ).scalars()
    images = session.execute(
        select(func.count(), func.count(func.distinct(tables.Instance.series_uid))).where(
            tables.Instance.study_id == row.id,
            tables.Instance.kind == InstanceKind.IMAGE,
            tables.Instance.standing == Standing.CURRENT,
        )
    ).one()
    return record_of(row, reads, images[0], images[1])


def record_of(row: tables.Study, reads: Iterable[ReadState], images: int, series: int) -> Study:
    """The frozen record of a study's row, where its reads' states and its counts are known already.

    Args:
        row: the study.
        reads: states of the newest revision's reads.
        images: how many current images it has.
        series: in how many series.
    """
    return Study(
        id=row.id,
        study_uid=row.study_uid,
        patient=patient_record(row.patient),
        accession_number=row.accession_number,
        description=row.description,
        modalities=tuple(row.modalities),
        started_at=row.started_at,
        revision=row.revision,
        priority=row.priority,
        state=derive_state(
            still_open=row.open_since is not None,
            revision=row.revision,
            routed_revision=row.routed_revision,
            reads=reads,
        ),
        hold_reason=row.hold_reason,
        source=row.source,
        first_seen_at=row.first_seen_at,
        last_arrival_at=row.last_arrival_at,
        image_count=images,
        series_count=series,
    )


def patient_record(row: tables.Patient) -> Patient:
    """The frozen record of a patient's row."""
    return Patient(
        id=row.id,
        patient_uid=row.patient_uid,
        name=row.name,
        birth_date=row.birth_date,
        sex=row.sex,
        identifiers=tuple(Identifier(value=entry.value, issuer=entry.issuer) for entry in row.identifiers),
    )


def instance_record(row: tables.Instance, study_uid: str) -> Instance:
    """The frozen record of an instance's row."""
    return Instance(
        id=row.id,
        study_uid=study_uid,
        series_uid=row.series_uid,
        sop_uid=row.sop_uid,
        sop_class_uid=row.sop_class_uid,
        transfer_syntax_uid=row.transfer_syntax_uid,
        kind=row.kind,
        standing=row.standing,
        modality=row.modality,
        series_number=row.series_number,
        series_description=row.series_description,
        instance_number=row.instance_number,
        number_of_frames=row.number_of_frames,
        rows=row.rows,
        columns=row.columns,
        file_key=row.file_key,
        sha256=row.sha256,
        size=row.size,
        received_at=row.received_at,
    )


def revision_row(session: Session, revision_id: int) -> tables.Revision:
    """The revision with this number.

    Raises:
        NotFound: there is none.
    """
    row = session.get(tables.Revision, revision_id)
    if row is None:
        raise NotFound("There is no such revision.")
    return row


def revision_instances(session: Session, study: tables.Study, number: int) -> Sequence[Instance]:
    """The images of a study's revision, in order of series number and instance number."""
    rows = session.execute(
        select(tables.Instance)
        .join(tables.RevisionInstance, tables.RevisionInstance.instance_id == tables.Instance.id)
        .join(tables.Revision, tables.Revision.id == tables.RevisionInstance.revision_id)
        .where(tables.Revision.study_id == study.id, tables.Revision.number == number)
        .order_by(
            tables.Instance.series_number.nulls_last(),
            tables.Instance.series_uid,
            tables.Instance.instance_number.nulls_last(),
            tables.Instance.sop_uid,
        )
    ).scalars()
    return tuple(instance_record(row, study.study_uid) for row in rows)
