"""What arrived, and which state of a study is complete.

Every function takes the caller's session and leaves committing to it. A study's row is locked before anything of it is
changed, so an image is either in the revision being frozen or opens the next one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.model import InstanceKind, Standing
from fhir_records.store.associations import senders_still_open
from fhir_records.store.patients import PatientIdentity, check_study_patient, settle_patient


@dataclass(frozen=True, slots=True)
class Arrival:
    """One stored object, as the index is to know it."""

    study_uid: str
    patient: PatientIdentity
    accession_number: str
    study_description: str
    started_at: dt.datetime | None  # StudyDate and StudyTime, in UTC
    series_uid: str
    modality: str
    series_number: int | None
    series_description: str
    sop_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    kind: InstanceKind
    instance_number: int | None
    number_of_frames: int
    rows: int | None
    columns: int | None
    file_key: str
    sha256: str  # of the whole file
    demographics_sha256: str
    pixels_sha256: str
    size: int  # bytes
    source: str  # "dicom:AE" or "orthanc:NAME"
    caller: str  # calling AE title
    received_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Twin:
    """An instance that is already known under a SOP Instance UID."""

    id: int
    standing: Standing
    file_key: str
    transfer_syntax_uid: str
    demographics_sha256: str
    pixels_sha256: str


@dataclass(frozen=True, slots=True)
class OpenStudy:
    """What decides whether a study is complete."""

    id: int
    study_uid: str
    open_since: dt.datetime  # when the first image that no revision holds came
    last_arrival_at: dt.datetime
    open_associations: int  # that sent this study since, and are open


@dataclass(frozen=True, slots=True)
class FrozenRevision:
    """A revision that was made."""

    id: int
    study_id: int
    number: int
    images: int


def is_own(session: Session, sop_uid: str) -> bool:
    """Whether Wetread wrote the object with this SOP Instance UID."""
    return bool(session.execute(select(exists().where(tables.Document.sop_uid == sop_uid))).scalar())


def twins(session: Session, sop_uid: str) -> Sequence[Twin]:
    """All instances known under a SOP Instance UID, the current one first."""
    rows = session.execute(
        select(
            tables.Instance.id,
            tables.Instance.standing,
            tables.Instance.file_key,
            tables.Instance.transfer_syntax_uid,
            tables.Instance.demographics_sha256,
            tables.Instance.pixels_sha256,
        ).where(tables.Instance.sop_uid == sop_uid)
    ).all()
    return sorted((Twin(*row) for row in rows), key=lambda twin: (twin.standing != Standing.CURRENT, twin.id))


def record_arrival(session: Session, arrival: Arrival, standing: Standing, now: dt.datetime) -> int:
    """Write an object's instance row, and its study's and patient's where they are new; returns the instance's id.

    An image that is current opens the study until the next revision. What Wetread wrote itself, and versions and
    conflicts, change nothing but the list of instances, and who the patient is when they say otherwise.

    Two transactions that make the same study, patient or instance at once: the later one fails on the unique key
    (`sqlalchemy.exc.IntegrityError`), and is to be repeated.
    """
    study = _study(session, arrival, now)
    if arrival.kind is not InstanceKind.OWN:
        check_study_patient(session, study, arrival.patient)
        if standing is Standing.CURRENT:
            study.last_arrival_at = max(study.last_arrival_at, now)
            _fill_in(study, arrival)
    if arrival.kind is InstanceKind.IMAGE and standing is Standing.CURRENT and study.open_since is None:
        study.open_since = now
    instance = _instance(study, arrival, standing)
    session.add(instance)
    session.flush()
    return instance.id


def replace_file(session: Session, instance_id: int, arrival: Arrival) -> None:
    """Let an instance whose file is lost stand on a new copy of the same object."""
    session.execute(
        update(tables.Instance)
        .where(tables.Instance.id == instance_id)
        .values(
            file_key=arrival.file_key,
            sha256=arrival.sha256,
            size=arrival.size,
            transfer_syntax_uid=arrival.transfer_syntax_uid,
            pixels_sha256=arrival.pixels_sha256,
        )
    )


def known_keys(session: Session, keys: Iterable[str]) -> set[str]:
    """Those of ``keys`` that an instance's row names."""
    return set(
        session.execute(select(tables.Instance.file_key).where(tables.Instance.file_key.in_(list(keys)))).scalars()
    )


def newest_receipt(session: Session) -> dt.datetime | None:
    """When the newest object that the index knows was received."""
    return session.execute(select(func.max(tables.Instance.received_at))).scalar()


def keys_since(session: Session, since: dt.datetime | None) -> Sequence[str]:
    """The file keys of all instances received since then; None: of all."""
    query = select(tables.Instance.file_key)
    if since is not None:
        query = query.where(tables.Instance.received_at >= since)
    return session.execute(query).scalars().all()


def record_quarantine(
    session: Session, *, file_key: str, reason: str, caller: str, size: int, received_at: dt.datetime
) -> None:
    """Write down bytes that came and could not be stored as an object; again: nothing changes."""
    if session.execute(select(exists().where(tables.QuarantinedObject.file_key == file_key))).scalar():
        return
    session.add(
        tables.QuarantinedObject(file_key=file_key, reason=reason, caller=caller, size=size, received_at=received_at)
    )


def due_studies(
    session: Session, now: dt.datetime, quiet_since: dt.datetime, open_since: dt.datetime
) -> Sequence[OpenStudy]:
    """The studies that may be complete, their rows locked; those that another transaction holds are left out.

    Args:
        session: the caller's.
        now: leases that ran out before do not count.
        quiet_since: nothing arrived after this, or …
        open_since: … the first new image came before this.
    """
    rows = session.execute(
        select(tables.Study.id, tables.Study.study_uid, tables.Study.open_since, tables.Study.last_arrival_at)
        .where(
            tables.Study.open_since.is_not(None),
            or_(tables.Study.last_arrival_at <= quiet_since, tables.Study.open_since <= open_since),
        )
        .order_by(tables.Study.open_since)
        .with_for_update(skip_locked=True, of=tables.Study)
    ).all()
    return [
        OpenStudy(
            id=row.id,
            study_uid=row.study_uid,
            open_since=row.open_since,
            last_arrival_at=row.last_arrival_at,
            open_associations=senders_still_open(session, row.study_uid, row.open_since, now),
        )
        for row in rows
    ]


def complete_study(session: Session, study_id: int, reason: str) -> FrozenRevision | None:
    """Freeze the study's current images as its next revision; None where no image is new since the last one."""
    study = session.execute(
        select(tables.Study).where(tables.Study.id == study_id).with_for_update(of=tables.Study)
    ).scalar_one()
    if study.open_since is None:
        return None
    study.open_since = None
    images = set(_current_images(session, study_id))
    if images <= _frozen_images(session, study_id):
        return None
    study.revision += 1
    revision = tables.Revision(study_id=study_id, number=study.revision, reason=reason)
    session.add(revision)
    session.flush()
    session.execute(
        insert(tables.RevisionInstance),
        [{"revision_id": revision.id, "instance_id": instance_id} for instance_id in sorted(images)],
    )
    return FrozenRevision(revision.id, study_id, study.revision, len(images))


def _current_images(session: Session, study_id: int) -> Sequence[int]:
    return (
        session.execute(
            select(tables.Instance.id).where(
                tables.Instance.study_id == study_id,
                tables.Instance.kind == InstanceKind.IMAGE,
                tables.Instance.standing == Standing.CURRENT,
            )
        )
        .scalars()
        .all()
    )


def _frozen_images(session: Session, study_id: int) -> set[int]:
    return set(
        session.execute(
            select(tables.RevisionInstance.instance_id)
            .join(tables.Revision)
            .where(tables.Revision.study_id == study_id)
        ).scalars()
    )


def _study(session: Session, arrival: Arrival, now: dt.datetime) -> tables.Study:
    """The study's row, locked; made where it is new."""
    study = session.execute(
        select(tables.Study).where(tables.Study.study_uid == arrival.study_uid).with_for_update(of=tables.Study)
    ).scalar_one_or_none()
    if study is not None:
        return study
    settled = settle_patient(session, arrival.patient)
    study = tables.Study(
        study_uid=arrival.study_uid,
        patient=settled.patient,
        hold_reason=settled.hold_reason,
        modalities=[],
        source=arrival.source,
        caller=arrival.caller,
        first_seen_at=arrival.received_at,
        last_arrival_at=now,
    )
    _fill_in(study, arrival)
    session.add(study)
    session.flush()
    return study


def _fill_in(study: tables.Study, arrival: Arrival) -> None:
    study.accession_number = study.accession_number or arrival.accession_number
    study.description = study.description or arrival.study_description
    study.started_at = study.started_at or arrival.started_at
    if arrival.modality and arrival.modality not in study.modalities and arrival.kind is not InstanceKind.OWN:
        study.modalities = sorted({*study.modalities, arrival.modality})


def _instance(study: tables.Study, arrival: Arrival, standing: Standing) -> tables.Instance:
    return tables.Instance(
        study_id=study.id,
        series_uid=arrival.series_uid,
        sop_uid=arrival.sop_uid,
        sop_class_uid=arrival.sop_class_uid,
        transfer_syntax_uid=arrival.transfer_syntax_uid,
        kind=arrival.kind,
        standing=standing,
        modality=arrival.modality,
        series_number=arrival.series_number,
        series_description=arrival.series_description,
        instance_number=arrival.instance_number,
        number_of_frames=arrival.number_of_frames,
        rows=arrival.rows,
        columns=arrival.columns,
        file_key=arrival.file_key,
        sha256=arrival.sha256,
        demographics_sha256=arrival.demographics_sha256,
        pixels_sha256=arrival.pixels_sha256,
        size=arrival.size,
        source=arrival.source,
        received_at=arrival.received_at,
    )
