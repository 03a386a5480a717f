"""Reads and their results: append-only, and the same however often they are written."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.errors import NotFound
from fhir_records.model import (
    Act,
    Algorithm,
    ClassProbability,
    Code,
    Finding,
    ImageRef,
    Installation,
    Presence,
    Priority,
    Read,
    ReadState,
    Refusal,
    Region,
    Report,
    Result,
    ResultStatus,
    SegmentVolume,
    Signature,
    Signer,
)
from fhir_records.store import studies

log = structlog.get_logger(__name__)

MAX_READ_ATTEMPTS = 3
FIRST_READ_WAIT = dt.timedelta(seconds=10)


def queue_read(
    session: Session,
    study: tables.Study,
    *,
    model: str,
    model_version: str,
    routes: Sequence[str],
    results_to: Sequence[str],
    priority: Priority,
) -> int | None:
    """Queue one model version's read of the study's newest revision.

    Returns:
        The read's number, or None where this read is there already.
    """
    return session.execute(
        insert(tables.Read)
        .values(
            study_id=study.id,
            revision=study.revision,
            model=model,
            model_version=model_version,
            state=ReadState.QUEUED,
            attempts=0,
            routes=list(routes),
            results_to=list(results_to),
            priority=priority,
        )
        .on_conflict_do_nothing(index_elements=["study_id", "revision", "model", "model_version"])
        .returning(tables.Read.id)
    ).scalar_one_or_none()


def read_row(session: Session, read_id: int, *, lock: bool = False) -> tables.Read:
    """The row of a read; with ``lock`` nobody else changes it before the transaction ends.

    Raises:
        NotFound: there is no such read.
    """
    query = select(tables.Read).where(tables.Read.id == read_id)
    row = session.execute(query.with_for_update() if lock else query).scalar_one_or_none()
    if row is None:
        raise NotFound(f"There is no read with the number {read_id}.")
    return row


def read_record(row: tables.Read) -> Read:
    """The frozen record of a read's row."""
    return Read(
        id=row.id,
        study_id=row.study_id,
        revision=row.revision,
        model=row.model,
        model_version=row.model_version,
        state=row.state,
        attempts=row.attempts,
        error=row.error,
        results_to=tuple(row.results_to),
        priority=row.priority,
        queued_at=row.queued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def note_failure(session: Session, read_id: int, words: str, now: dt.datetime, *, final: bool = False) -> None:
    """Write down that a read came to nothing: it is tried again later, or shown as failed after the last time.

    Args:
        session: the caller's.
        read_id: number of the read; one that is no longer under way is left as it is.
        words: why, for people; without patient data.
        now: the instant.
        final: not to be tried again by itself.
    """
    row = read_row(session, read_id, lock=True)
    if row.state not in (ReadState.QUEUED, ReadState.READING):
        return
    row.error = words
    if final or row.attempts >= MAX_READ_ATTEMPTS:
        row.state, row.finished_at, row.next_attempt_at = ReadState.FAILED, now, None
        log.error("read failed", read=read_id, attempts=row.attempts, why=words)
    else:
        row.state, row.next_attempt_at = ReadState.QUEUED, now + FIRST_READ_WAIT * 3 ** max(0, row.attempts - 1)
        log.warning("read is tried again", read=read_id, attempts=row.attempts, why=words)


def reads_of(session: Session, study_id: int) -> tuple[Read, ...]:
    """All reads of a study, the newest revision first."""
    rows = session.execute(
        select(tables.Read)
        .where(tables.Read.study_id == study_id)
        .order_by(tables.Read.revision.desc(), tables.Read.id.desc())
    ).scalars()
    return tuple(read_record(row) for row in rows)


def add_result(
    session: Session,
    read_id: int,
    *,
    finding: Finding | None,
    refusal: Refusal | None,
    algorithm: Algorithm,
    images_read: Sequence[ImageRef],
    created_at: dt.datetime,
) -> int | None:
    """Write the first document version of a read's result, preliminary.

    Returns:
        The result's number, or None where another reader was faster: its result stands.
    """
    if (finding is None) == (refusal is None):
        raise ValueError("a result has exactly one of finding and refusal")
    content = {
        "finding": asdict(finding) if finding else None,
        "refusal": asdict(refusal) if refusal else None,
        "algorithm": asdict(algorithm),
        "images_read": [asdict(image) for image in images_read],
    }
    return session.execute(
        insert(tables.Result)
        .values(read_id=read_id, version=1, status=ResultStatus.PRELIMINARY, content=content, created_at=created_at)
        .on_conflict_do_nothing(index_elements=["read_id", "version"])
        .returning(tables.Result.id)
    ).scalar_one_or_none()


def add_version(
    session: Session,
    before: Result,
    *,
    status: ResultStatus,
    finding: Finding | None,
    signature: Signature,
) -> int | None:
    """Write the document version after ``before``: what a person made of it.

    Returns:
        The result's number, or None where there is a version after ``before`` already.
    """
    content = {
        "finding": asdict(finding) if finding else None,
        "refusal": asdict(before.refusal) if before.refusal else None,
        "algorithm": asdict(before.algorithm),
        "images_read": [asdict(image) for image in before.images_read],
        "signature": {**asdict(signature), "signed_at": signature.signed_at.isoformat()},
    }
    return session.execute(
        insert(tables.Result)
        .values(
            read_id=before.read_id,
            version=before.version + 1,
            status=status,
            content=content,
            created_at=signature.signed_at,
        )
        .on_conflict_do_nothing(index_elements=["read_id", "version"])
        .returning(tables.Result.id)
    ).scalar_one_or_none()


def result_record(row: tables.Result) -> Result:
    """The frozen record of a result's row."""
    content = row.content
    return Result(
        id=row.id,
        read_id=row.read_id,
        version=row.version,
        status=row.status,
        finding=_finding(content["finding"]) if content["finding"] else None,
        refusal=_refusal(content["refusal"]) if content["refusal"] else None,
        algorithm=Algorithm(**content["algorithm"]),
        images_read=tuple(ImageRef(**image) for image in content["images_read"]),
        created_at=row.created_at,
        signature=_signature(content["signature"]) if content.get("signature") else None,
    )


def versions_of(session: Session, read_id: int) -> tuple[Result, ...]:
    """Every document version of a read's result, the first one first."""
    rows = session.scalars(
        select(tables.Result).where(tables.Result.read_id == read_id).order_by(tables.Result.version)
    )
    return tuple(result_record(row) for row in rows)


def latest_result(session: Session, read_id: int) -> Result | None:
    """The newest document version of a read's result, if it has one."""
    row = session.execute(
        select(tables.Result).where(tables.Result.read_id == read_id).order_by(tables.Result.version.desc()).limit(1)
    ).scalar_one_or_none()
    return result_record(row) if row else None


def load_report(session: Session, result_id: int, installation: Installation) -> Report:
    """All that a rendering of this result needs.

    Raises:
        NotFound: there is no such result.
    """
    row = session.get(tables.Result, result_id)
    if row is None:
        raise NotFound(f"There is no result with the number {result_id}.")
    return Report(
        installation=installation,
        study=studies.study_record(session, row.read.study),
        read=read_record(row.read),
        result=result_record(row),
        instances=tuple(studies.revision_instances(session, row.read.study, row.read.revision)),
    )


def _finding(content: Mapping[str, Any]) -> Finding:
    return Finding(
        label=content["label"],
        code=Code(**content["code"]),
        presence=Presence(content["presence"]),
        probability=content["probability"],
        site=Code(**content["site"]),
        key_images=tuple(ImageRef(**image) for image in content["key_images"]),
        limits=tuple(content["limits"]),
        alternatives=tuple(
            ClassProbability(
                label=entry["label"],
                code=Code(**entry["code"]),
                presence=Presence(entry["presence"]),
                probability=entry["probability"],
                site=Code(**entry["site"]) if entry.get("site") else None,
            )
            for entry in content["alternatives"]
        ),
        tracking_id=content["tracking_id"],
        tracking_uid=content["tracking_uid"],
        region=_region(content["region"]) if content.get("region") else None,
        author=_signer(content["author"]) if content.get("author") else None,
        segments=tuple(_segment(entry) for entry in content.get("segments") or ()),
    )


def _segment(content: Mapping[str, Any]) -> SegmentVolume:
    red, green, blue = content["colour"]
    codes = {name: Code(**content[name]) for name in ("code", "category", "site")}
    return SegmentVolume(**{**content, **codes, "colour": (red, green, blue)})


def _region(content: Mapping[str, Any]) -> Region:
    return Region(**{**content, "image": ImageRef(**content["image"])})


def _signer(content: Mapping[str, Any]) -> Signer:
    code = content["identification"]
    return Signer(**{**content, "identification": Code(**code) if code else None})


def _signature(content: Mapping[str, Any]) -> Signature:
    return Signature(
        **{
            **content,
            "act": Act(content["act"]),
            "signer": _signer(content["signer"]),
            "signed_at": dt.datetime.fromisoformat(content["signed_at"]),
        }
    )


def _refusal(content: Mapping[str, Any]) -> Refusal:
    return Refusal(
        code=content["code"],
        sentence=content["sentence"],
        question=Code(**content["question"]),
        site=Code(**content["site"]),
    )
