"""Reviewed cases that may leave as training data, and the exports in which cases left."""

from __future__ import annotations

import datetime as dt
import secrets
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fhir_records import audit, tables
from fhir_records.errors import NotFound
from fhir_records.model import AuditEntry, Instance, InstanceKind, Result, ResultStatus, Withdrawal
from fhir_records.store import results, studies

_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class ReviewExport:
    """One export, as it stands in the record."""

    export_uid: uuid.UUID
    model: str
    asked_by: str
    exported_at: dt.datetime
    folder: str  # its name alone
    options: Mapping[str, Any]  # what it was asked for
    result_ids: tuple[int, ...]
    images: int
    refused: int  # images that were not let out


@dataclass(frozen=True, slots=True)
class ReviewedCase:
    """A study's newest result by one model that a person has seen to, with what an export must know of it."""

    study_uid: str
    patient_id: int  # the row's number
    patient_uid: str
    settled: bool  # whether it is known whose study it is
    wrong_patient: bool  # whether somebody said of any of the study's results that it is about another patient
    disputed: bool  # whether people who signed this result gave different answers
    started_at: dt.datetime | None  # of the study
    result: Result
    first: Result  # the model's own word


def reviewed_cases(session: Session, model: str, since: dt.datetime | None = None) -> tuple[ReviewedCase, ...]:
    """The cases of a model that people have seen to, oldest first: of each study the newest such result.

    Args:
        session: the caller's.
        model: name of the model.
        since: only what was signed then or later.
    """
    seen: dict[int, ReviewedCase] = {}
    reads = session.scalars(
        select(tables.Read)
        .join(tables.Result, tables.Result.read_id == tables.Read.id)
        .where(tables.Read.model == model, tables.Result.status != ResultStatus.PRELIMINARY)
        .distinct()
        .order_by(tables.Read.id)
    ).all()
    for read in reads:
        versions = results.versions_of(session, read.id)
        latest = versions[-1]
        if latest.signature is None:
            continue
        case = _case(session, read, versions, latest)
        before = seen.pop(read.study_id, None)
        # A newer result that was rejected leaves nothing: the older, signed one stands.
        stands = case if latest.is_signed or before is None or not before.result.is_signed else before
        seen[read.study_id] = stands
    return tuple(
        case
        for case in seen.values()
        if since is None or (case.result.signature is not None and case.result.signature.signed_at >= since)
    )


def images_of(session: Session, case: ReviewedCase) -> Mapping[str, Instance]:
    """The images of a case's revision, by SOP Instance UID."""
    read = results.read_row(session, case.result.read_id)
    images = studies.revision_instances(session, read.study, read.revision)
    return {image.sop_uid: image for image in images if image.kind is InstanceKind.IMAGE}


def reviewed_models(session: Session) -> tuple[str, ...]:
    """Names of the models whose results people have signed."""
    signed = (ResultStatus.FINAL, ResultStatus.AMENDED)
    return tuple(
        session.scalars(
            select(tables.Read.model)
            .join(tables.Result, tables.Result.read_id == tables.Read.id)
            .where(tables.Result.status.in_(signed))
            .distinct()
            .order_by(tables.Read.model)
        )
    )


def add_export(session: Session, export: ReviewExport) -> None:
    """Write an export down, with its line in the audit trail."""
    session.add(
        tables.ReviewExport(
            export_uid=export.export_uid,
            model=export.model,
            asked_by=export.asked_by,
            exported_at=export.exported_at,
            folder=export.folder,
            options=dict(export.options),
            result_ids=list(export.result_ids),
            images=export.images,
            refused=export.refused,
        )
    )
    audit.record(
        session,
        AuditEntry(
            action="reviewed cases exported",
            actor=export.asked_by,
            detail={
                "export": str(export.export_uid),
                "model": export.model,
                "results": len(export.result_ids),
                "images": export.images,
                "refused": export.refused,
                "options": dict(export.options),
            },
        ),
    )


def find_export(session: Session, export_uid: str) -> ReviewExport:
    """One export by its identifier.

    Raises:
        NotFound: the record has none like that.
    """
    try:
        wanted = uuid.UUID(export_uid)
    except ValueError:
        wanted = uuid.UUID(int=0)
    row = session.scalar(select(tables.ReviewExport).where(tables.ReviewExport.export_uid == wanted))
    if row is None:
        raise NotFound(f"The record of this installation has no export {export_uid!r}.")
    return _records([row])[0]


def exported_cases(session: Session, export: ReviewExport) -> tuple[ReviewedCase, ...]:
    """The cases of an export as they were exported, with their patients as they are now."""
    rows = session.scalars(
        select(tables.Result).where(tables.Result.id.in_(export.result_ids)).order_by(tables.Result.id)
    ).all()
    cases = []
    for row in rows:
        read = session.get_one(tables.Read, row.read_id)
        versions = results.versions_of(session, read.id)
        cases.append(_case(session, read, versions, results.result_record(row)))
    return tuple(cases)


def exports(session: Session) -> tuple[ReviewExport, ...]:
    """Every export, newest first."""
    return _records(session.scalars(select(tables.ReviewExport).order_by(tables.ReviewExport.id.desc())).all())


def exports_with_patient(session: Session, patient_id: int) -> tuple[ReviewExport, ...]:
    """The exports that hold a case of the patient (by the row's number), newest first."""
    own = (
        select(tables.Result.id)
        .join(tables.Read, tables.Result.read_id == tables.Read.id)
        .join(tables.Study, tables.Read.study_id == tables.Study.id)
        .where(tables.Study.patient_id == patient_id)
    )
    ids = session.scalars(own).all()
    if not ids:
        return ()
    rows = select(tables.ReviewExport).where(tables.ReviewExport.result_ids.overlap(ids))
    return _records(session.scalars(rows.order_by(tables.ReviewExport.id.desc())).all())


def pseudonym_key(session: Session) -> bytes:
    """The installation's secret that pseudonyms and replaced UIDs are derived with, made at the first asking."""
    studies.installation_namespace(session)  # so that the row is there
    row = session.execute(select(tables.Installation).with_for_update()).scalar_one()
    if row.pseudonym_key is None:
        row.pseudonym_key = secrets.token_bytes(_KEY_BYTES)
        session.flush()
    return row.pseudonym_key


def _case(session: Session, read: tables.Read, versions: Sequence[Result], latest: Result) -> ReviewedCase:
    study = read.study
    return ReviewedCase(
        study_uid=study.study_uid,
        patient_id=study.patient_id,
        patient_uid=study.patient.patient_uid,
        settled=study.hold_reason is None and not study.patient.provisional,
        wrong_patient=_is_wrong_patient(session, study.id),
        started_at=study.started_at,
        result=latest,
        first=versions[0],
        disputed=_is_disputed(versions),
    )


def _is_disputed(versions: Sequence[Result]) -> bool:
    """Whether two people's last answers differ; who corrects himself agrees with himself."""
    answers = {
        version.signature.signer.username: version.finding.label
        for version in versions
        if version.signature and version.is_signed and version.finding
    }
    return len(set(answers.values())) > 1


def _is_wrong_patient(session: Session, study_id: int) -> bool:
    """Whether anybody's newest word on a result of the study, by whatever model, is that it is of another patient."""
    for read_id in session.scalars(select(tables.Read.id).where(tables.Read.study_id == study_id)):
        latest = results.latest_result(session, read_id)
        if latest and latest.signature and latest.signature.withdrawal == Withdrawal.WRONG_PATIENT:
            return True
    return False


def _records(rows: Sequence[tables.ReviewExport]) -> tuple[ReviewExport, ...]:
    return tuple(
        ReviewExport(
            export_uid=row.export_uid,
            model=row.model,
            asked_by=row.asked_by,
            exported_at=row.exported_at,
            folder=row.folder,
            options=row.options,
            result_ids=tuple(row.result_ids),
            images=row.images,
            refused=row.refused,
        )
        for row in rows
    )
