"""What an object is to others that are known under its SOP Instance UID."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog
from sqlalchemy.orm import Session

from dicom_listener.digests import digests_of
from dicom_listener.index_batch import Indexing
from dicom_listener.sameness import Comparer, Sameness
from dicom_listener.spool import Spool
from fhir_records.identities import log_id
from fhir_records.model import Standing
from fhir_records.store import arrivals
from fhir_records.store.arrivals import Arrival, Twin
from fhir_records.store.digests import Digests

log = structlog.get_logger(__name__)


def outcomes(session: Session, spool: Spool, pairs: Sequence[tuple[Arrival, Sequence[Twin]]]) -> Mapping[str, Indexing]:
    """What each object is to the others of its UID, by SOP Instance UID; in the caller's transaction.

    Args:
        session: the caller's; the twins are locked in it.
        spool: where the files are.
        pairs: stored objects of different UIDs, each with those that are known, the current one first, in other files.
    """
    with Comparer() as comparer:
        return {arrival.sop_uid: _outcome(session, spool, arrival, twins, comparer) for arrival, twins in pairs}


def _outcome(session: Session, spool: Spool, arrival: Arrival, twins: Sequence[Twin], comparer: Comparer) -> Indexing:
    outcome = Indexing.NEW
    path = spool.path(arrival.file_key)
    try:
        digests = digests_of(path)
    except FileNotFoundError:
        return Indexing.GONE
    for twin in twins:
        try:
            known = spool.path(twin.file_key)
            # Its row may be so young that nobody has hashed its file yet.
            pixels_sha256 = twin.digests.pixels_sha256 if twin.digests.sha256 else digests_of(known).pixels_sha256
            sameness = comparer.compare(path, known, digests.pixels_sha256, pixels_sha256)
        except FileNotFoundError:
            if not path.is_file():
                return Indexing.GONE
            if _told_the_same(arrival, digests, twin):
                arrivals.replace_file(session, twin.id, arrival, digests)
                log.warning("a lost file came again", sop=log_id(arrival.sop_uid))
                return Indexing.KNOWN
            sameness = Sameness.PIXELS_DIFFER
        if sameness is Sameness.SAME:
            return Indexing.SAME
        if twin.standing is Standing.CURRENT:
            outcome = Indexing.CONFLICT if sameness is Sameness.PIXELS_DIFFER else Indexing.VERSION
    return outcome


def _told_the_same(arrival: Arrival, digests: Digests, twin: Twin) -> bool:
    """Whether the index's hashes speak for one object, where its file cannot be looked at any more."""
    told = digests.pixels_sha256, arrival.demographics_sha256
    return bool(twin.digests.sha256) and told == (twin.digests.pixels_sha256, twin.demographics_sha256)
