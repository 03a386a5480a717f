"""What arrived, written many objects at a time.

Every function takes the caller's session and leaves committing to it. Studies' rows are locked, in order of their
UIDs, before anything of them is changed, so an image is either in the revision being frozen or opens the next one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ARRAY, ColumnElement, Text, any_, delete, func, literal, select, tuple_, union, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import InstrumentedAttribute, Session

from fhir_records import tables
from fhir_records.model import Equipment, InstanceKind, Standing
from fhir_records.store.copying import copy_rows
from fhir_records.store.digests import Digests
from fhir_records.store.equipment import record_equipment
from fhir_records.store.patients import PatientIdentity, Settled, check_study_patient, settle_patients

_PAGE = 2000  # rows of a page


@dataclass(frozen=True, slots=True)
class RelatedNumbers:
    """What an object says about how many there are (PS3.4 section C.3.4); None: nothing."""

    study_series: int | None = None
    study_instances: int | None = None
    series_instances: int | None = None


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
    demographics_sha256: str
    size: int  # bytes
    source: str  # "dicom:AE" or "orthanc:NAME"
    caller: str  # calling AE title
    received_at: dt.datetime
    equipment: Equipment
    numbers: RelatedNumbers = RelatedNumbers()


@dataclass(frozen=True, slots=True)
class Twin:
    """An instance that is already known under a SOP Instance UID."""

    id: int
    standing: Standing
    file_key: str
    transfer_syntax_uid: str
    demographics_sha256: str
    digests: Digests


def own_uids(session: Session, sop_uids: Iterable[str]) -> frozenset[str]:
    """Those of the SOP Instance UIDs under which Wetread wrote an object."""
    wanted = list(sop_uids)
    if not wanted:
        return frozenset()
    found = select(tables.Document.sop_uid).where(_among(tables.Document.sop_uid, wanted))
    return frozenset(session.execute(found).scalars())


def twins(session: Session, sop_uids: Iterable[str]) -> Mapping[str, Sequence[Twin]]:
    """All instances known under each of the SOP Instance UIDs, the current one first."""
    rows = session.execute(
        select(
            tables.Instance.sop_uid,
            tables.Instance.id,
            tables.Instance.standing,
            tables.Instance.file_key,
            tables.Instance.transfer_syntax_uid,
            tables.Instance.demographics_sha256,
            tables.Instance.sha256,
            tables.Instance.pixels_sha256,
        ).where(_among(tables.Instance.sop_uid, sop_uids))
    ).all()
    found: dict[str, list[Twin]] = {}
    for row in sorted(rows, key=lambda row: (row.standing != Standing.CURRENT, row.id)):
        found.setdefault(row.sop_uid, []).append(Twin(*row[1:6], Digests(row.sha256, row.pixels_sha256)))
    return found


def lock_twins(session: Session, sop_uids: Iterable[str]) -> None:
    """Let no other transaction do the same for any of these SOP Instance UIDs until this one ends."""
    instance = tables.Instance
    current = _among(instance.sop_uid, sop_uids), instance.standing == Standing.CURRENT
    # Not keyed, so that whoever freezes a revision of these images need not wait.
    session.execute(select(instance.id).where(*current).order_by(instance.id).with_for_update(key_share=True))


def record_arrivals(session: Session, arrived: Sequence[tuple[Arrival, Standing]], now: dt.datetime) -> None:
    """Write objects' instance rows, and their studies' and patients' where they are new.

    An image that is current opens its study until the next revision. What Wetread wrote itself, and versions and
    conflicts, change nothing but the list of instances, and who the patient is when they say otherwise.

    Two transactions that make the same study, patient or instance at once: the later one fails on the unique key
    (`sqlalchemy.exc.IntegrityError`), and is to be repeated.
    """
    if not arrived:
        return
    studies = _studies(session, [arrival for arrival, _ in arrived], now)
    checked: set[tuple[str, PatientIdentity]] = set()
    told: set[tuple[object, ...]] = set()
    made_with: dict[tuple[int, str], Equipment] = {}
    for arrival, standing in arrived:
        # Most say of their study what the one before said.
        says = _says_of_study(arrival, standing)
        if arrival.kind is InstanceKind.OWN or says in told:
            continue
        told.add(says)
        study = studies[arrival.study_uid]
        if (arrival.study_uid, arrival.patient) not in checked:
            check_study_patient(session, study, arrival.patient)
            checked.add((arrival.study_uid, arrival.patient))
        if standing is Standing.CURRENT:
            study.last_arrival_at = now
            _fill_in(study, arrival)
            if arrival.kind is InstanceKind.IMAGE:
                _open(study, arrival, now)
                made_with.setdefault((study.id, arrival.series_uid), arrival.equipment)
    session.flush()
    record_equipment(session, made_with)
    ids = {uid: study.id for uid, study in studies.items()}
    copy_rows(
        session,
        tables.Instance,
        _COLUMNS,
        (_row(ids[arrival.study_uid], arrival, standing) for arrival, standing in arrived),
    )


def replace_file(session: Session, instance_id: int, arrival: Arrival, digests: Digests) -> None:
    """Let an instance whose file is lost stand on a new copy of the same object."""
    session.execute(
        update(tables.Instance)
        .where(tables.Instance.id == instance_id)
        .values(
            file_key=arrival.file_key,
            sha256=digests.sha256,
            size=arrival.size,
            transfer_syntax_uid=arrival.transfer_syntax_uid,
            pixels_sha256=digests.pixels_sha256,
            missing_since=None,
        )
    )


def known_keys(session: Session, keys: Iterable[str]) -> frozenset[str]:
    """Those of ``keys`` that a row names: an instance's, or that of an object which cannot be indexed."""
    wanted = list(keys)
    found = union(
        select(tables.Instance.file_key).where(_among(tables.Instance.file_key, wanted)),
        select(tables.QuarantinedObject.file_key).where(_among(tables.QuarantinedObject.file_key, wanted)),
    )
    return frozenset(session.execute(found).scalars())


def newest_receipt(session: Session) -> dt.datetime | None:
    """When the newest object that the index knows was received."""
    return session.execute(select(func.max(tables.Instance.received_at))).scalar()


@dataclass(frozen=True, slots=True)
class FileRow:
    """Where an instance's file should be, and its place in the order of receipt."""

    id: int
    file_key: str
    missing: bool  # it was not there when it was last looked for
    received_at: dt.datetime


def file_rows(session: Session, since: dt.datetime | None, after: FileRow | None) -> Sequence[FileRow]:
    """A page of the instances received since then (None: of all), those behind ``after``; empty at the end."""
    instance = tables.Instance
    query = select(instance.id, instance.file_key, instance.missing_since.is_not(None), instance.received_at)
    if after is not None:
        query = query.where(tuple_(instance.received_at, instance.id) > (after.received_at, after.id))
    elif since is not None:
        query = query.where(instance.received_at >= since)
    rows = session.execute(query.order_by(instance.received_at, instance.id).limit(_PAGE)).tuples()
    return [FileRow(*row) for row in rows]


def mark_missing(session: Session, gone: Sequence[int], found: Sequence[int]) -> None:
    """Write down which instances' files are not where they should be, and which are there again."""
    for ids, since in ((gone, func.now()), (found, None)):
        if ids:
            session.execute(update(tables.Instance).where(tables.Instance.id.in_(ids)).values(missing_since=since))


def record_quarantine(
    session: Session, *, file_key: str, reason: str, caller: str, size: int, received_at: dt.datetime
) -> None:
    """Write down bytes that came and could not be stored or indexed as an object; again: nothing changes."""
    values = {"file_key": file_key, "reason": reason, "caller": caller, "size": size, "received_at": received_at}
    session.execute(upsert(tables.QuarantinedObject).values(values).on_conflict_do_nothing(index_elements=["file_key"]))


def unindexable_keys(session: Session, area: str) -> Sequence[str]:
    """The file keys below the folder ``area`` of the spool that are noted as objects which cannot be indexed."""
    key = tables.QuarantinedObject.file_key
    return session.execute(select(key).where(key.startswith(f"{area}/", autoescape=True))).scalars().all()


def forget_quarantine(session: Session, file_keys: Sequence[str]) -> None:
    """Take back what was noted of these files: they can be indexed after all, or are to be tried again."""
    if file_keys:
        session.execute(delete(tables.QuarantinedObject).where(_among(tables.QuarantinedObject.file_key, file_keys)))


def _among(column: InstrumentedAttribute[str], values: Iterable[str]) -> ColumnElement[bool]:
    # One array, not a list of parameters: one statement for any number, and one plan.
    return column == any_(literal(list(values), ARRAY(Text())))


def _studies(session: Session, arrived: Sequence[Arrival], now: dt.datetime) -> dict[str, tables.Study]:
    """The studies' rows by UID, locked; made where they are new."""
    firsts: dict[str, Arrival] = {}
    for arrival in arrived:
        firsts.setdefault(arrival.study_uid, arrival)
    rows = session.execute(
        select(tables.Study)
        .where(_among(tables.Study.study_uid, firsts))
        .order_by(tables.Study.study_uid)
        .with_for_update(of=tables.Study)
    ).scalars()
    studies = {row.study_uid: row for row in rows}
    new = [arrival for uid, arrival in firsts.items() if uid not in studies]
    for arrival, settled in zip(new, settle_patients(session, [arrival.patient for arrival in new]), strict=True):
        studies[arrival.study_uid] = study = _new_study(arrival, settled, now)
        session.add(study)
    session.flush()
    return studies


def _new_study(arrival: Arrival, settled: Settled, now: dt.datetime) -> tables.Study:
    study = tables.Study(
        study_uid=arrival.study_uid,
        patient=settled.patient,
        hold_reason=settled.hold_reason,
        modalities=[],
        source=arrival.source,
        caller=arrival.caller,
        first_seen_at=arrival.received_at,
        last_arrival_at=now,
        open_callers=[],
    )
    _fill_in(study, arrival)
    return study


def _open(study: tables.Study, arrival: Arrival, now: dt.datetime) -> None:
    if study.open_since is None:
        study.open_since, study.open_callers = now, []
    if arrival.caller not in study.open_callers:
        study.open_callers = sorted({*study.open_callers, arrival.caller})


def _fill_in(study: tables.Study, arrival: Arrival) -> None:
    study.accession_number = study.accession_number or arrival.accession_number
    study.description = study.description or arrival.study_description
    study.started_at = study.started_at or arrival.started_at
    if arrival.modality and arrival.modality not in study.modalities and arrival.kind is not InstanceKind.OWN:
        study.modalities = sorted({*study.modalities, arrival.modality})


def _says_of_study(arrival: Arrival, standing: Standing) -> tuple[object, ...]:
    """All that an arrival says of its study, and of its series."""
    return (
        arrival.study_uid,
        arrival.patient,
        standing,
        arrival.kind,
        arrival.accession_number,
        arrival.study_description,
        arrival.started_at,
        arrival.modality,
        arrival.caller,
        arrival.series_uid,
    )


_COLUMNS = (
    "study_id", "series_uid", "sop_uid", "sop_class_uid", "transfer_syntax_uid", "kind", "standing", "modality",
    "series_number", "series_description", "instance_number", "number_of_frames", "rows", "columns", "file_key",
    "sha256", "demographics_sha256", "pixels_sha256", "size", "source", "received_at",
)  # fmt: skip


def _row(study_id: int, arrival: Arrival, standing: Standing) -> tuple[object, ...]:
    """The values of `_COLUMNS`."""
    return (
        study_id,
        arrival.series_uid,
        arrival.sop_uid,
        arrival.sop_class_uid,
        arrival.transfer_syntax_uid,
        arrival.kind.value,
        standing.value,
        arrival.modality,
        arrival.series_number,
        arrival.series_description,
        arrival.instance_number,
        arrival.number_of_frames,
        arrival.rows,
        arrival.columns,
        arrival.file_key,
        "",  # the file is hashed later
        arrival.demographics_sha256,
        "",
        arrival.size,
        arrival.source,
        arrival.received_at,
    )
