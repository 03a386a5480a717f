"""What answers C-ECHO and C-STORE: from pynetdicom's events to the intake, and from its outcomes to DIMSE statuses."""

from __future__ import annotations

from typing import cast

import structlog
from pydicom.dataset import Dataset
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event

from dicom_listener.faults import where
from dicom_listener.intake import Intake, Outcome, Taken
from dicom_listener.received import Received
from fhir_records.store.associations import OpenAssociation

log = structlog.get_logger(__name__)

SUCCESS = 0x0000
# PS3.4 table B.2-1.
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH_SOP_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000
# PS3.7 section C.5.11.
PROCESSING_FAILURE = 0x0110

STATUSES = {
    Outcome.STORED: SUCCESS,
    Outcome.WAITING: SUCCESS,
    Outcome.NO_SPACE: OUT_OF_RESOURCES,
    Outcome.MISMATCH: DOES_NOT_MATCH_SOP_CLASS,
    Outcome.NOT_STORABLE: CANNOT_UNDERSTAND,
}


def answer_echo(event: Event) -> int:
    """C-ECHO: always success (PS3.4 section A.4)."""
    return SUCCESS


def answer_store(event: Event, intake: Intake, association: OpenAssociation | None) -> Dataset:
    """C-STORE: take the object in; success means that its bytes are safe."""
    request = cast(C_STORE, event.request)
    data = request.DataSet.getbuffer() if request.DataSet is not None else b""
    try:
        taken = intake.take(data, _received(event, request, intake), association)
    except Exception as error:  # boundary: one object must not end the association, nor the listener
        log.error("an object could not be stored", error=where(error))
        return _status(PROCESSING_FAILURE, "not stored")
    return _answer(taken)


def _received(event: Event, request: C_STORE, intake: Intake) -> Received:
    requestor, acceptor = event.assoc.requestor, event.assoc.acceptor
    caller = str(requestor.ae_title).strip()
    return Received(
        sop_class_uid=str(request.AffectedSOPClassUID),
        sop_instance_uid=str(request.AffectedSOPInstanceUID),
        transfer_syntax_uid=str(event.context.transfer_syntax),
        source=f"dicom:{caller}",
        caller=caller,
        called=str(acceptor.ae_title).strip(),
        address=str(requestor.address),
        received_at=intake.clock(),
    )


def _answer(taken: Taken) -> Dataset:
    return _status(STATUSES[taken.outcome], taken.reason)


def _status(status: int, comment: str) -> Dataset:
    ds = Dataset()
    ds.Status = status
    if comment:
        ds.ErrorComment = comment[:64]  # LO (PS3.7 section C)
    return ds
