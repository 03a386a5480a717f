"""What was rejected or superseded is taken back from where it was sent, in the way that each destination knows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import structlog
from sqlalchemy.orm import Session

from fhir_records import audit
from fhir_records.database import Database
from fhir_records.errors import NotFound, PeerRefused, PeerUnavailable, RenderingError
from fhir_records.identities import log_id
from fhir_records.jobs import request_delivery
from fhir_records.model import AuditEntry, Installation, Withdrawal
from fhir_records.renderings.conformance import faults_of
from fhir_records.renderings.rejection_note import KIND, note_title, render_rejection_note
from fhir_records.store import deliveries, studies, withdrawals
from fhir_records.store.withdrawals import OpenWithdrawal

log = structlog.get_logger(__name__)

BY_HAND = "To be deleted there by hand; an administrator says when it is done."
NOTE_ON_ITS_WAY = "A rejection note is on its way there."


@dataclass(frozen=True, slots=True)
class ByHand:
    """Nobody but a person can delete there (`manual`)."""


@dataclass(frozen=True, slots=True)
class ByNote:
    """A rejection note is sent there (`iocm`)."""

    title: str  # code of the note's title: "113037" or "113001"
    reason: str  # code of CID 7011, for "113001"


@dataclass(frozen=True, slots=True)
class ByDeletion:
    """It is deleted there through an interface of the destination's own (`orthanc_rest`).

    Attributes:
        delete: deletes by SOP Instance UID and sees that it is gone. Raises PeerUnavailable or PeerRefused.
    """

    delete: Callable[[str], object]


Way: TypeAlias = ByHand | ByNote | ByDeletion


@dataclass(frozen=True, slots=True)
class Withdraw:
    """The job: one attempt to take one document back from one destination."""

    database: Database
    installation: Installation
    ways: Mapping[str, Way]  # by name of the destination; by hand where none is given
    now: Callable[[], dt.datetime]

    def __call__(self, delivery_id: int) -> None:
        """Make one attempt; nothing happens where the document is taken back already."""
        with self.database.session() as session:
            found = withdrawals.find_open(session, delivery_id)
        if found is None:
            return
        try:
            self._attempt(found)
        except NotFound:
            return  # another attempt, or a person, has ended it meanwhile
        log.info("withdrawal attempted", destination=found.destination, study=log_id(found.study_uid))

    def _attempt(self, found: OpenWithdrawal) -> None:
        match self.ways.get(found.destination, ByHand()):
            case ByHand():
                with self.database.session() as session:
                    withdrawals.note_waits(session, found.delivery_id, BY_HAND)
            case ByNote(title, reason):
                try:
                    with self.database.session() as session:
                        self._send_note(session, found, title, reason)
                except RenderingError as error:
                    self._failed(found, str(error))
            case ByDeletion(delete):
                self._delete(found, delete)

    def _send_note(self, session: Session, found: OpenWithdrawal, code: str, reason: str) -> None:
        document = found.document
        why = Withdrawal(document.withdrawal)
        title = note_title(code, reason, why)
        study = studies.study_by_uid(session, found.study_uid)
        at = document.withdrawn_at or self.now()
        note = render_rejection_note(self.installation, study, document.content, title, why, at)
        if faults := faults_of(note.content):
            raise RenderingError(deliveries.held_words(faults))
        note_id = deliveries.add_document(
            session,
            document.result_id,
            kind=KIND,
            variant=f"{document.kind}/{document.variant}/{title.key}",
            sop_uid=note.sop_uid,
            sop_class_uid=note.sop_class_uid,
            content=note.content,
        )
        new = deliveries.add_deliveries(session, note_id, [found.destination], self.now())
        for delivery_id in new:
            withdrawals.link_note(session, delivery_id, found.delivery_id)
            request_delivery(session, delivery_id)
        if not new:
            again = withdrawals.send_note_again(session, note_id, found.destination, found.delivery_id, self.now())
            if again is not None:
                request_delivery(session, again)
        # After the note: whoever notes that it arrived locks the two in the same order.
        withdrawals.note_waits(session, found.delivery_id, NOTE_ON_ITS_WAY)

    def _delete(self, found: OpenWithdrawal, delete: Callable[[str], object]) -> None:
        try:
            delete(found.document.sop_uid)
        except (PeerUnavailable, PeerRefused) as error:
            # Whoever may not delete today may tomorrow: a refusal is tried again, too.
            self._failed(found, str(error))
            return
        except Exception as error:  # boundary: whatever breaks one attempt, the withdrawal stays open and says so
            log.exception("withdrawal broke", destination=found.destination, error=type(error).__name__)
            self._failed(found, "An unexpected error stopped the attempt; the log has the details.")
            return
        with self.database.session() as session:
            withdrawals.note_done(session, found.delivery_id, self.now())
            audit.record(
                session,
                AuditEntry(
                    action="object withdrawn",
                    actor="wetread",
                    study_uid=found.study_uid,
                    detail={"delivery": found.delivery_id, "destination": found.destination},
                ),
            )

    def _failed(self, found: OpenWithdrawal, words: str) -> None:
        with self.database.session() as session:
            withdrawals.note_in_vain(session, found.delivery_id, words, self.now())
