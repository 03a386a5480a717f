"""One attempt to bring one document to one destination, and what came of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field

import structlog

from fhir_records.database import Database
from fhir_records.errors import PeerRefused, PeerUnavailable
from fhir_records.jobs import request_confirmation, request_withdrawal
from fhir_records.model import DeliveryState
from fhir_records.store import confirmations, deliveries, destinations, withdrawals
from workflow.report_classes import ReportClasses

MOST_AT_ONCE = 2  # to one destination, from all workers together

log = structlog.get_logger(__name__)

# Sends the bytes of a PS3.10 file. Gives the success status of the peer, and what it said.
# Raises PeerRefused or PeerUnavailable.
Send = Callable[[bytes], tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Deliver:
    """The job: send a waiting document. The bytes are the ones first rendered, however often they are sent."""

    database: Database
    senders: Mapping[str, Send]  # by name of the destination
    now: Callable[[], dt.datetime]
    limits: Mapping[str, int] = field(default_factory=dict)  # how many at once, by name of the destination
    confirmed: Container[str] = ()  # names of the destinations that are asked whether they keep what they took
    report_classes: ReportClasses | None = None  # in which class each gets reports; None: as they were rendered

    def __call__(self, delivery_id: int) -> None:
        """Make one attempt; nothing happens where the delivery waits no longer."""
        started = self.now()
        with self.database.session() as session:
            found = deliveries.waiting(session, delivery_id)
            if found is None:
                if withdrawals.close_waiting(session, delivery_id, started):
                    request_withdrawal(session, delivery_id)
                return
            if self.report_classes is not None and self.report_classes.before_sending(session, delivery_id):
                return  # it goes as another object, whose delivery is under way
        # Another transaction: a study is locked before a destination, and that before its deliveries.
        with self.database.session() as session:
            delivery, document = found
            if document.is_held:
                # The one door that everything leaves by: whoever made it due, it stays.
                deliveries.hold(session, delivery_id)
                log.error("object held by the conformance gate", destination=delivery.destination, kind=document.kind)
                return
            limit = self.limits.get(delivery.destination, MOST_AT_ONCE)
            if not destinations.begin(session, delivery_id, limit, started):
                return  # it comes due again when there is room, or the destination goes on
        state, status, detail, maybe_there = self._attempt(delivery.destination, document.content)
        # A destination that gave an answer, even "I am full", is there.
        away = state is DeliveryState.WAITING and status is None
        with self.database.session() as session:
            if self.report_classes is not None:
                self.report_classes.lock(session, delivery_id, status)
            destinations.end(session, delivery_id, began=started, away=away, words=detail, now=self.now())
            if deliveries.is_there_already(session, delivery_id, status):
                state, detail = DeliveryState.DELIVERED, f"{delivery.destination} has it already."
            withdrawn_meanwhile = deliveries.note_attempt(
                session,
                delivery_id,
                started_at=started,
                finished_at=self.now(),
                state=state,
                status=status,
                detail=detail,
                maybe_there=maybe_there,
            )
            if state is DeliveryState.DELIVERED and delivery.destination in self.confirmed:
                confirmations.ask_later(session, delivery_id, self.now())
                request_confirmation(session, delivery_id)
            if self.report_classes is not None:
                self.report_classes.after_sending(session, delivery_id, status)
            withdrawals.follow_note(session, delivery_id, state, detail, self.now())
            if withdrawn_meanwhile:
                request_withdrawal(session, delivery_id)
        log.info("delivery attempted", destination=delivery.destination, state=state.value, status=status)

    def _attempt(self, destination: str, content: bytes) -> tuple[DeliveryState, int | None, str, bool]:
        send = self.senders.get(destination)
        if send is None:
            return DeliveryState.WAITING, None, "No destination of this name is configured.", False
        try:
            status, detail = send(content)
        except PeerUnavailable as error:
            return DeliveryState.WAITING, error.status, str(error), error.maybe_there
        except PeerRefused as error:
            return DeliveryState.REFUSED, error.status, str(error), False
        except Exception as error:  # boundary: whatever breaks one attempt, the delivery waits and says so
            log.exception("delivery broke", destination=destination, error=type(error).__name__)
            words = "An unexpected error stopped the attempt; the log has the details."
            return DeliveryState.WAITING, None, words, True
        return DeliveryState.DELIVERED, status, detail, False
