"""Delivered is not kept: each destination is asked, in the way that it knows, whether it has what it took."""

from __future__ import annotations

import datetime as dt
import io
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import pydicom
import structlog

from dicom_listener.commitment import (
    PROCESSING_FAILURE,
    CommitmentReport,
    Kept,
    TakeReport,
    reason_words,
)
from fhir_records.database import Database
from fhir_records.errors import PeerRefused, PeerUnavailable
from fhir_records.identities import UUID_UID_ROOT
from fhir_records.model import Document
from fhir_records.store import confirmations

log = structlog.get_logger(__name__)

SUCCESS = 0x0000


@dataclass(frozen=True, slots=True)
class ByCommitment:
    """Storage commitment is asked for.

    Attributes:
        ask: asks under a Transaction UID for some objects, and hands over a report that comes at once; whether one did.
            Raises PeerUnavailable or PeerRefused.
    """

    ask: Callable[[str, tuple[Kept, ...], TakeReport], bool]


@dataclass(frozen=True, slots=True)
class ByReadingBack:
    """The destination is asked for the object.

    Attributes:
        find: by Study, Series and SOP Instance UID. Raises PeerUnavailable or PeerRefused.
    """

    find: Callable[[str, str, str], bool]


ConfirmWay: TypeAlias = ByCommitment | ByReadingBack


@dataclass(frozen=True, slots=True)
class TakeCommitmentReport:
    """Writes reports of storage commitment down: those of the request's association, and those that come by themselves.

    Attributes:
        ae_titles: AE title of each destination, by its name: only the destination itself reports on what it took.
    """

    database: Database
    ae_titles: Mapping[str, str]
    now: Callable[[], dt.datetime]

    def __call__(self, report: CommitmentReport, calling_ae: str) -> int:
        """The DIMSE status that answers the report."""
        names = [name for name, ae_title in self.ae_titles.items() if ae_title == calling_ae.strip()]
        with self.database.session() as session:
            ours = confirmations.note_report(
                session,
                report.transaction_uid,
                report.committed,
                {uid: reason_words(reason) for uid, reason in report.failed},
                dict(report.failed),
                from_destinations=names,
                now=self.now(),
            )
        if not ours:
            log.warning("a report of storage commitment is about nothing that was asked", calling=calling_ae)
        return SUCCESS if ours else PROCESSING_FAILURE


@dataclass(frozen=True, slots=True)
class Confirm:
    """The job: ask one destination once whether it keeps one document."""

    database: Database
    ways: Mapping[str, ConfirmWay]  # by name of the destination; those without are not asked
    take: TakeReport
    now: Callable[[], dt.datetime]

    def __call__(self, delivery_id: int) -> None:
        """Ask once; nothing happens where that is settled."""
        with self.database.session() as session:
            found = confirmations.unconfirmed(session, delivery_id)
        if found is None:
            return
        delivery, document = found
        way = self.ways.get(delivery.destination)
        try:
            match way:
                case ByCommitment(ask):
                    self._commit(delivery_id, document, ask)
                case ByReadingBack(find):
                    self._read_back(delivery_id, document, find)
                case None:
                    self._failed(delivery_id, "No destination of this name is configured to be asked.")
        except (PeerUnavailable, PeerRefused) as error:
            self._failed(delivery_id, str(error))
        except Exception as error:  # boundary: whatever breaks one question, the delivery stays delivered and says so
            log.exception("confirmation broke", destination=delivery.destination, error=type(error).__name__)
            self._failed(delivery_id, "An unexpected error stopped the question; the log has the details.")

    def _commit(
        self, delivery_id: int, document: Document, ask: Callable[[str, tuple[Kept, ...], TakeReport], bool]
    ) -> None:
        transaction_uid = f"{UUID_UID_ROOT}.{uuid.uuid4().int}"
        with self.database.session() as session:
            confirmations.requested(session, delivery_id, transaction_uid, self.now())
        reported = ask(transaction_uid, (Kept(document.sop_class_uid, document.sop_uid),), self.take)
        if not reported:
            with self.database.session() as session:
                confirmations.wait_for_report(session, delivery_id, self.now())

    def _read_back(self, delivery_id: int, document: Document, find: Callable[[str, str, str], bool]) -> None:
        tags = ["StudyInstanceUID", "SeriesInstanceUID"]
        ds = pydicom.dcmread(io.BytesIO(document.content), stop_before_pixels=True, specific_tags=tags)
        there = find(str(ds.StudyInstanceUID), str(ds.SeriesInstanceUID), document.sop_uid)
        with self.database.session() as session:
            if there:
                confirmations.confirm(session, delivery_id)
            else:
                confirmations.unlisted(session, delivery_id, self.now())

    def _failed(self, delivery_id: int, words: str) -> None:
        with self.database.session() as session:
            confirmations.in_vain(session, delivery_id, words, self.now())
