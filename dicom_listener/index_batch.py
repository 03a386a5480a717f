"""One transaction of the index: what each of many stored objects is to those known already, and their rows."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog
from sqlalchemy.orm import Session

from dicom_listener.description import Described
from dicom_listener.sameness import Sameness, compare
from dicom_listener.spool import Spool, StoredFile
from fhir_records.identities import UUID_UID_ROOT, log_id
from fhir_records.model import InstanceKind, Standing
from fhir_records.store import arrivals, associations, completeness, expected
from fhir_records.store.arrivals import Arrival, Twin

log = structlog.get_logger(__name__)


class Indexing(StrEnum):
    """What became of an object in the index."""

    NEW = "new"
    SAME = "same"  # known already; the copy is not kept
    VERSION = "version"
    CONFLICT = "conflict"
    KNOWN = "known"  # this very file is in the index now
    GONE = "gone"  # its file is not there any more: another process found it to be a copy
    UNINDEXABLE = "unindexable"  # the file stays, and a person is told why it has no row


STANDINGS = {
    Indexing.NEW: Standing.CURRENT,
    Indexing.VERSION: Standing.VERSION,
    Indexing.CONFLICT: Standing.CONFLICT,
}


@dataclass(frozen=True, slots=True)
class Filing:
    """A stored object on its way into the index."""

    described: Described
    file: StoredFile
    association_id: uuid.UUID | None = None  # that sent it; None: another door, or long ago

    @property
    def sop_uid(self) -> str:
        """Its SOP Instance UID."""
        return self.described.arrival.sop_uid


def rounds(filings: Iterable[Filing]) -> list[list[Filing]]:
    """The filings in their order, parted so that no round holds a SOP Instance UID twice."""
    parted: list[list[Filing]] = []
    seen: dict[str, int] = {}
    for filing in filings:
        place = seen.get(filing.sop_uid, 0)
        seen[filing.sop_uid] = place + 1
        if place == len(parted):
            parted.append([])
        parted[place].append(filing)
    return parted


def write(session: Session, spool: Spool, filings: Sequence[Filing], believed: frozenset[str]) -> Sequence[Indexing]:
    """Write the rows of objects of different SOP Instance UIDs, in the caller's transaction.

    Args:
        session: the caller's.
        spool: where the files are; what is the same as a known object is to be removed after the commit.
        filings: the objects.
        believed: calling AE titles whose objects' numbers of related instances are believed.

    Returns:
        What became of each.
    """
    now = completeness.database_now(session)
    uids = [filing.sop_uid for filing in filings]
    known = arrivals.twins(session, uids)
    if known:
        # Copies, versions and conflicts of one object are told apart one after another.
        arrivals.lock_twins(session, known)
        known = arrivals.twins(session, uids)
    ours = (filing.sop_uid for filing in filings if filing.sop_uid.startswith(f"{UUID_UID_ROOT}."))
    own = arrivals.own_uids(session, ours)
    outcomes: list[Indexing] = []
    recorded: list[tuple[Arrival, Standing]] = []
    sent: dict[tuple[uuid.UUID, str], None] = {}
    for filing in filings:
        file = filing.file
        arrival = filing.described.stored_as(file.key, file.sha256, file.size, own=filing.sop_uid in own)
        twins = known.get(filing.sop_uid, ())
        here = any(twin.file_key == file.key for twin in twins)
        outcome = Indexing.KNOWN if here else _outcome(session, spool, arrival, twins)
        outcomes.append(outcome)
        if outcome in STANDINGS:
            recorded.append((arrival, STANDINGS[outcome]))
        if filing.association_id is not None and arrival.kind is not InstanceKind.OWN:
            key = (filing.association_id, arrival.study_uid)
            sent.pop(key, None)  # the last one stands last
            sent[key] = None
    arrivals.record_arrivals(session, recorded, now)
    expected.expect_from_objects(session, [arrival for arrival, _ in recorded if arrival.caller in believed])
    associations.note_studies(session, list(sent), now)
    return outcomes


def _outcome(session: Session, spool: Spool, arrival: Arrival, twins: Sequence[Twin]) -> Indexing:
    """What the object is to others that are known under its UID."""
    outcome = Indexing.NEW
    if not twins:
        return outcome
    path = spool.path(arrival.file_key)
    if not path.is_file():
        return Indexing.GONE
    for twin in twins:
        try:
            sameness = compare(path, spool.path(twin.file_key), arrival.pixels_sha256, twin.pixels_sha256)
        except FileNotFoundError:
            if not path.is_file():
                return Indexing.GONE
            if _told_the_same(arrival, twin):
                arrivals.replace_file(session, twin.id, arrival)
                log.warning("a lost file came again", sop=log_id(arrival.sop_uid))
                return Indexing.KNOWN
            sameness = Sameness.PIXELS_DIFFER
        if sameness is Sameness.SAME:
            return Indexing.SAME
        if twin.standing is Standing.CURRENT:
            outcome = Indexing.CONFLICT if sameness is Sameness.PIXELS_DIFFER else Indexing.VERSION
    return outcome


def _told_the_same(arrival: Arrival, twin: Twin) -> bool:
    """Whether the index's hashes speak for one object, where its file cannot be looked at any more."""
    return (arrival.pixels_sha256, arrival.demographics_sha256) == (twin.pixels_sha256, twin.demographics_sha256)
