"""A study completed because a person wants it read now, not because its time has come."""

from __future__ import annotations

from sqlalchemy.orm import Session

from fhir_records import audit, jobs
from fhir_records.model import AuditEntry, Priority
from fhir_records.store.completeness import FrozenRevision, complete_study, study_to_complete


def read_now(session: Session, study_uid: str, actor: str) -> FrozenRevision | None:
    """Make a revision of what is here of a study, and ask for its routing, before other work.

    Images that arrive later make another revision, as ever. None: no image is new since the last revision.

    Args:
        session: a transaction.
        study_uid: Study Instance UID.
        actor: who wants it, for the trail.

    Raises:
        NotFound: there is no such study.
    """
    revision = complete_study(session, study_to_complete(session, study_uid), "a person asked for it to be read now")
    audit.record(
        session,
        AuditEntry(
            "read asked for",
            actor,
            study_uid=study_uid,
            detail={"revision": revision.number} if revision else {"new_images": False},
        ),
    )
    if revision is not None:
        jobs.request_route(session, revision.id, priority=Priority.URGENT)
    return revision
