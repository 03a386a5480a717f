"""Storage commitment: another node is asked to say that it keeps what we sent (PS3.4 Annex J, Push Model).

The report may come on the association of the request, or on a new one to our listener; both end in `read_report`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from pydicom.dataset import Dataset
from pynetdicom import build_context, evt
from pynetdicom.dimse_messages import N_EVENT_REPORT_RSP
from pynetdicom.events import Event, EventHandlerType

from dicom_listener.sender import SUCCESS, associated
from dicom_listener.settings import Node, SenderSettings
from fhir_records.errors import ObjectNotStorable, PeerRefused, PeerUnavailable

log = structlog.get_logger(__name__)

PUSH_MODEL: Final = "1.2.840.10008.1.20.1"
PUSH_MODEL_INSTANCE: Final = "1.2.840.10008.1.20.1.1"  # well-known (PS3.4 section J.3.5)
REQUEST_COMMITMENT: Final = 1  # Action Type ID (PS3.4 table J.3-1)
ALL_COMMITTED: Final = 1  # Event Type ID (PS3.4 table J.3-2)
SOME_FAILED: Final = 2
PROCESSING_FAILURE: Final = 0x0110  # PS3.7 section C.5.11
INVALID_ARGUMENT: Final = 0x0115

# PS3.3 section C.14.1.1, Failure Reason
FAILURE_REASONS: Final = {
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0213: "resource limitation",
    0x0122: "referenced SOP class not supported",
    0x0119: "class / instance conflict",
    0x0131: "duplicate transaction UID",
}


@dataclass(frozen=True, slots=True)
class Kept:
    """An object whose keeping is asked for."""

    sop_class_uid: str
    sop_uid: str


@dataclass(frozen=True, slots=True)
class CommitmentReport:
    """What a node says of one transaction."""

    transaction_uid: str
    committed: tuple[str, ...]  # SOP Instance UIDs
    failed: tuple[tuple[str, int], ...]  # SOP Instance UID and Failure Reason


# Takes a report and the AE title that sent it; answers with the DIMSE status.
TakeReport = Callable[[CommitmentReport, str], int]


def read_report(event_type: int, information: Dataset) -> CommitmentReport:
    """The report in the Event Information of an N-EVENT-REPORT.

    Args:
        event_type: Event Type ID.
        information: Event Information (PS3.4 table J.3-2).

    Raises:
        ObjectNotStorable: it is no report of storage commitment.
    """
    transaction = str(information.get("TransactionUID") or "")
    if event_type not in (ALL_COMMITTED, SOME_FAILED) or not transaction:
        raise ObjectNotStorable("The event is no report of storage commitment with a Transaction UID.")
    try:
        committed = tuple(str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence") or ())
        failed = tuple(
            (str(item.ReferencedSOPInstanceUID), int(item.get("FailureReason") or PROCESSING_FAILURE))
            for item in information.get("FailedSOPSequence") or ()
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise ObjectNotStorable("The report of storage commitment names an object without its UID.") from error
    return CommitmentReport(transaction, committed, failed)


def answer_report(event_type: int, information: Dataset, calling_ae: str, take: TakeReport) -> int:
    """The DIMSE status for an N-EVENT-REPORT, whichever association it came on; for the acceptor to call.

    Args:
        event_type: Event Type ID of the request.
        information: its decoded data set.
        calling_ae: AE title of the node that sent it.
        take: writes it down.
    """
    try:
        report = read_report(event_type, information)
    except ObjectNotStorable:
        log.warning("a report of storage commitment cannot be understood", calling=calling_ae)
        return INVALID_ARGUMENT
    try:
        return take(report, calling_ae)
    except Exception as error:  # boundary: a report that cannot be written down must not end the association
        log.error("a report of storage commitment could not be taken", error=type(error).__name__)
        return PROCESSING_FAILURE


def reason_words(reason: int) -> str:
    """A Failure Reason in words, with its number."""
    return f"{FAILURE_REASONS.get(reason, 'failure')} ({reason:04X})"


def request_commitment(
    node: Node,
    settings: SenderSettings,
    transaction_uid: str,
    objects: Sequence[Kept],
    take: TakeReport,
    *,
    wait_s: float = 5.0,
) -> bool:
    """Ask ``node`` to commit to keeping some objects, and wait a little for its report on the same association.

    Returns:
        Whether the report came on this association; else it is still to come, on one of the node's own.

    Raises:
        PeerUnavailable: the node does not answer.
        PeerRefused: it knows no storage commitment, or refuses the request.
    """
    reported = threading.Event()

    def answer(event: Event) -> tuple[int, None]:
        return answer_report(int(event.event_type or 0), event.event_information, node.ae_title, take), None

    def sent(event: Event) -> None:
        # Only now, lest the association be released before the report is answered.
        if isinstance(event.message, N_EVENT_REPORT_RSP):
            reported.set()

    handlers: list[EventHandlerType] = [(evt.EVT_N_EVENT_REPORT, answer), (evt.EVT_DIMSE_SENT, sent)]
    with associated(node, settings, [build_context(PUSH_MODEL)], handlers) as assoc:
        try:
            status, _ = assoc.send_n_action(
                _request(transaction_uid, objects), REQUEST_COMMITMENT, PUSH_MODEL, PUSH_MODEL_INSTANCE
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise PeerUnavailable(f"{node.name} ended the association.") from error
        if "Status" not in status:
            raise PeerUnavailable(f"{node.name} gave no answer to the request for storage commitment.")
        if status.Status != SUCCESS:
            words = f"{node.name} refused the request for storage commitment with {status.Status:04X}."
            raise PeerRefused(words, status=int(status.Status))
        return reported.wait(wait_s) if assoc.is_established else reported.is_set()


def _request(transaction_uid: str, objects: Sequence[Kept]) -> Dataset:
    ds = Dataset()
    ds.TransactionUID = transaction_uid
    ds.ReferencedSOPSequence = []
    for kept in objects:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kept.sop_class_uid, kept.sop_uid
        ds.ReferencedSOPSequence.append(item)
    return ds
