"""One transaction of the index: what each of many stored objects is to those known already, and their rows."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import structlog
from sqlalchemy.orm import Session

from dicom_listener.spool import Spool
from fhir_records.identities import UUID_UID_ROOT
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

    arrival: Arrival
    association_id: uuid.UUID | None = None  # that sent it; None: another door, or long ago

    @property
    def sop_uid(self) -> str:
        """Its SOP Instance UID."""
        return self.arrival.sop_uid


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
    arrived = [filing.arrival for filing in filings]
    if own:
        arrived = [replace(one, kind=InstanceKind.OWN) if one.sop_uid in own else one for one in arrived]
    compared = _compared(
        session, spool, [(arrival, known[arrival.sop_uid]) for arrival in arrived if arrival.sop_uid in known]
    )
    for filing, arrival in zip(filings, arrived, strict=True):
        outcome = compared.get(arrival.sop_uid, Indexing.NEW)
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


def _compared(
    session: Session, spool: Spool, pairs: Sequence[tuple[Arrival, Sequence[Twin]]]
) -> Mapping[str, Indexing]:
    """What those are, by SOP Instance UID, that are known under their UID already."""
    # Two of the index's threads, or another process, may have met the same file.
    here = {one.sop_uid for one, twins in pairs if any(twin.file_key == one.file_key for twin in twins)}
    compared = dict.fromkeys(here, Indexing.KNOWN)
    others = [pair for pair in pairs if pair[0].sop_uid not in here]
    if others:
        # What decodes pixels, and is loaded with it, is for the few objects that come twice.
        from dicom_listener.twins import outcomes

        compared.update(outcomes(session, spool, others))
    return compared
