"""A person accepts, corrects or rejects a result: a new document version, whose word it then is.

Whoever signs says which version was seen. The read's row is locked, so that of two people who sign at once one wins,
and the other is told. Nothing that stands is changed: what was said before stays in its own version.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from fhir_records import audit, tables
from fhir_records.errors import NotAllowed, NotFound, Outdated, QueryError
from fhir_records.jobs import request_rendering
from fhir_records.model import (
    Act,
    AuditEntry,
    ClassProbability,
    Code,
    Finding,
    ImageRef,
    Region,
    Result,
    ResultStatus,
    Role,
    Signature,
    Signer,
    User,
    Withdrawal,
)
from fhir_records.renderings import plain_words
from fhir_records.store import results, studies

MAY_SIGN = (Role.RADIOLOGIST,)
MAX_NOTE = 2000  # characters

_AUDITED = {Act.ACCEPT: "result accepted", Act.CORRECT: "result corrected", Act.REJECT: "result rejected"}


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """What a person wants to do with which version of which result."""

    study_uid: str
    read_id: int
    version: int  # the document version that the person saw
    act: Act
    label: str = ""  # correct: the answer, one of the model's own labels; "": the present one stays
    note: str = ""  # the person's words; rejecting needs them no more than accepting does
    region: Region | None = None  # correct: where the person sees it
    wrong_patient: bool = False  # reject: it is about somebody else


def signer_of(user: User, organization: str, scheme: str) -> Signer:
    """The person as the documents name them.

    Args:
        user: the account.
        organization: the site's.
        scheme: the coding scheme of the people's numbers (PS3.16 section 8); "": numbers are not written.

    Raises:
        NotAllowed: the account's role may not sign, or the account is closed.
    """
    if user.role not in MAY_SIGN or not user.active:
        wanted = " or ".join(f"a {role}" for role in MAY_SIGN)
        raise NotAllowed(f"Only {wanted} signs results; your account is that of a {user.role}.")
    code = Code(scheme, user.identification, user.display_name[:64]) if scheme and user.identification else None
    return Signer(
        username=user.username,
        name=user.person_name or _as_person_name(user.display_name),
        display_name=user.display_name,
        organization=organization,
        identification=code,
    )


def answers(first: Result) -> tuple[ClassProbability, ...]:
    """What a finding may be corrected to: every answer that the model itself can give.

    Args:
        first: the first document version, which is the model's own.
    """
    return first.finding.alternatives if first.finding else ()


def sign(session: Session, request: SigningRequest, signer: Signer, now: dt.datetime) -> Result:
    """Write what a person made of a result, and ask for its renderings; all in the caller's transaction.

    Returns:
        The new document version.

    Raises:
        NotFound: the study has no such read, or the read no result.
        Outdated: somebody signed meanwhile, or newer images have been read.
        QueryError: the act does not fit the result, or a value is not allowed.
    """
    read = _locked(session, request)
    versions = results.versions_of(session, read.id)
    if not versions:
        raise NotFound("There is no result to sign yet.")
    latest = versions[-1]
    if latest.version != request.version:
        raise Outdated(_overtaken(latest))
    if _newer_read(session, read):
        raise Outdated("Newer images of this study have been read meanwhile. Look at the newer result, then sign that.")
    _check(request, latest)
    finding = _finding(session, request, versions[0], latest, signer, read)
    signature = Signature(
        act=request.act,
        signer=signer,
        signed_at=now,
        signed_version=latest.version,
        changed=_answer(finding) != _answer(latest.finding),
        machine_said=plain_words.headline(versions[0]),
        note=request.note.strip(),
        withdrawal=_why(request),
    )
    status = _status(request.act, versions)
    result_id = results.add_version(session, latest, status=status, finding=finding, signature=signature)
    if result_id is None:
        raise Outdated
    request_rendering(session, result_id, priority=read.priority)
    audit.record(
        session,
        AuditEntry(
            action=_AUDITED[request.act],
            actor=signer.username,
            study_uid=request.study_uid,
            detail={"read": read.id, "result": result_id, "version": latest.version + 1, "changed": signature.changed},
        ),
    )
    return replace(
        latest,
        id=result_id,
        version=latest.version + 1,
        status=status,
        finding=finding,
        created_at=now,
        signature=signature,
    )


def _locked(session: Session, request: SigningRequest) -> tables.Read:
    row = session.scalar(
        select(tables.Read)
        .join(tables.Read.study)
        .where(tables.Read.id == request.read_id, tables.Study.study_uid == request.study_uid)
        .with_for_update(of=tables.Read)
    )
    if row is None:
        raise NotFound("The study has no such read.")
    return row


def _newer_read(session: Session, read: tables.Read) -> bool:
    """Whether the same model has a result for newer images, or in a newer version for the same ones."""
    newer = (
        select(tables.Result.id)
        .join(tables.Read, tables.Result.read_id == tables.Read.id)
        .where(tables.Read.study_id == read.study_id, tables.Read.model == read.model, tables.Read.id > read.id)
    )
    return bool(session.scalar(select(exists(newer))))


def _overtaken(latest: Result) -> str:
    if latest.signature is None:
        return "This result has been replaced meanwhile. Look at the new one, then decide."
    who = latest.signature.signer.display_name
    done = {Act.ACCEPT: "accepted", Act.CORRECT: "corrected", Act.REJECT: "rejected"}[latest.signature.act]
    return f"{who} has {done} this result meanwhile, so yours was not carried out. Look at it, then decide."


def _check(request: SigningRequest, latest: Result) -> None:
    if len(request.note) > MAX_NOTE:
        raise QueryError(f"The note has {len(request.note)} characters; at most {MAX_NOTE} are allowed.")
    if request.act is not Act.CORRECT and (request.label or request.region is not None):
        raise QueryError("Another answer or a marked region belongs to a correction.")
    if request.act is Act.ACCEPT and latest.is_signed:
        raise QueryError("This result is signed already. It can be corrected or rejected.")
    if request.act is Act.REJECT and latest.status is ResultStatus.ENTERED_IN_ERROR:
        raise QueryError("This result is rejected already.")
    if request.act is Act.CORRECT and latest.finding is None:
        raise QueryError("Nothing was read, so there is no finding to correct.")
    other = latest.finding is not None and request.label not in ("", latest.finding.label)
    if request.act is Act.CORRECT and not (other or request.note.strip() or request.region):
        raise QueryError("A correction is another answer, a note or a marked region; none was given.")


def _finding(
    session: Session, request: SigningRequest, first: Result, latest: Result, signer: Signer, read: tables.Read
) -> Finding | None:
    """The finding of the new version: the present one, or the person's own."""
    present = latest.finding
    if request.act is not Act.CORRECT or present is None:
        return present
    chosen = present
    if request.label and request.label != present.label:
        allowed = {answer.label: answer for answer in answers(first)}
        if request.label not in allowed:
            raise QueryError(f"{request.label!r} is no answer of this model; allowed are: {', '.join(allowed)}.")
        answer = allowed[request.label]
        chosen = replace(
            present, label=answer.label, code=answer.code, presence=answer.presence, site=answer.site or present.site
        )
    if request.region is not None:
        _check_region(session, request.region, read)
    elif chosen is present:
        return present  # only a note: the answer stays whose it was
    key_images: tuple[ImageRef, ...] = (request.region.image,) if request.region else present.key_images
    # The model's probabilities, doubts, limits and outlines are those of its own answer.
    return replace(
        chosen,
        probability=None,
        alternatives=(),
        limits=(),
        key_images=key_images,
        region=request.region,
        author=signer,
        segments=(),
    )


def _check_region(session: Session, region: Region, read: tables.Read) -> None:
    images = {entry.sop_uid: entry for entry in studies.revision_instances(session, read.study, read.revision)}
    image = images.get(region.image.sop_uid)
    if image is None:
        raise QueryError("The marked image is not one of those that were read.")
    frames, frame = image.number_of_frames, region.image.frame
    if (frame is None) != (frames == 1) or (frame is not None and not 1 <= frame <= frames):
        wanted = f"a frame from 1 to {frames}" if frames > 1 else "no frame, for the image has only one"
        raise QueryError(f"The marked region's frame is {frame}; allowed is {wanted}.")
    columns, rows = image.columns or 0, image.rows or 0
    inside = (
        min(region.left, region.top) >= 0
        and region.left + region.width <= columns
        and region.top + region.height <= rows
    )
    if not (inside and region.width > 0 and region.height > 0):
        raise QueryError(f"The marked region is not inside the image, which has {columns} columns and {rows} rows.")


def region_on(
    session: Session, read_id: int, sop_uid: str, frame: int | None, box: tuple[float, float, float, float]
) -> Region:
    """A region on an image of a read, by the image's SOP Instance UID.

    Args:
        session: the caller's.
        read_id: number of the read.
        sop_uid: of the image.
        frame: from 1; None for an image of one frame, where 1 is taken for None, too.
        box: left, top, width and height, in pixels of the frame.

    Raises:
        NotFound: there is no such read.
        QueryError: the image is not one of those that were read.
    """
    read = results.read_row(session, read_id)
    for image in studies.revision_instances(session, read.study, read.revision):
        if image.sop_uid == sop_uid:
            wanted = None if image.number_of_frames == 1 and frame == 1 else frame
            return Region(ImageRef(image.series_uid, sop_uid, image.sop_class_uid, wanted), *box)
    raise QueryError("The marked image is not one of those that were read.")


def _answer(finding: Finding | None) -> tuple[object, ...]:
    return () if finding is None else (finding.code, finding.presence, finding.site)


def _why(request: SigningRequest) -> str:
    if request.act is not Act.REJECT:
        return ""
    return Withdrawal.WRONG_PATIENT if request.wrong_patient else Withdrawal.REJECTED


def _status(act: Act, versions: tuple[Result, ...]) -> ResultStatus:
    """`amended` only after somebody had signed before: until then nothing was final that could be amended."""
    if act is Act.REJECT:
        return ResultStatus.ENTERED_IN_ERROR
    return ResultStatus.AMENDED if any(version.is_signed for version in versions) else ResultStatus.FINAL


def _as_person_name(display_name: str) -> str:
    """A name for people as one PN component: which of its words is the family name, nobody can tell."""
    return "".join(" " if character in "^=\\" else character for character in display_name).strip()[:64]
