"""Images sent on to another node as they were received, a batch at a time over one association."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from fhir_records import audit
from fhir_records.database import Database
from fhir_records.errors import PeerRefused, PeerUnavailable
from fhir_records.identities import log_id
from fhir_records.jobs import request_forward
from fhir_records.model import AuditEntry, DeliveryState
from fhir_records.store import forwards
from fhir_records.store.forwards import Batch, ImageOutcome

log = structlog.get_logger(__name__)

# After so many images their outcomes are written down; a worker that dies sends no more than these again.
_NOTED_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one file of several."""

    taken: bool  # the node answered with success, or a warning
    status: int | None  # DIMSE or HTTP status; None: it could not be sent
    detail: str


# Sends files in order, and gives what became of each as soon as that is known.
# Raises PeerUnavailable where the node cannot be reached, is lost, or is full: the files not given yet were not taken.
# Raises PeerRefused where the node takes none of them.
SendFiles = Callable[[Sequence[Path]], Iterable[Sent]]


@dataclass(frozen=True, slots=True)
class ForwardImages:
    """The job: send the next images of a forward, and ask for those after them."""

    database: Database
    senders: Mapping[str, SendFiles]  # by name of the destination
    path_of: Callable[[str], Path]  # a file key's place on the disk
    now: Callable[[], dt.datetime]

    def __call__(self, forward_id: int) -> None:
        """Send one batch; nothing happens where no image waits."""
        with self.database.session() as session:
            batch = forwards.take_batch(session, forward_id, self.now())
        if batch is None:
            return
        why = self._send(batch)
        with self.database.session() as session:
            if why is not None:
                forwards.note_pause(session, forward_id, why, self.now())
                state = DeliveryState.WAITING
            else:
                state = forwards.settle(session, forward_id, self.now())
                if state is DeliveryState.WAITING:
                    request_forward(session, forward_id, priority=batch.priority)
                else:
                    audit.record(session, _entry(batch, state))
        log.info(
            "images forwarded",
            study=log_id(batch.study_uid),
            destination=batch.destination,
            images=len(batch.images),
            state=state.value,
        )

    def _send(self, batch: Batch) -> str | None:
        """Send the batch and note what becomes of each image; why it had to stop, or None where it got through."""
        send = self.senders.get(batch.destination)
        if send is None:
            return "No destination of this name is configured."
        pending: list[ImageOutcome] = []
        done = 0
        try:
            paths = [self.path_of(image.file_key) for image in batch.images]
            for outcome in _outcomes(batch, send(paths)):
                pending.append(outcome)
                done += 1
                if len(pending) == _NOTED_AT_ONCE:
                    self._note(batch, pending)
        except PeerUnavailable as error:
            return str(error)
        except PeerRefused as error:
            # It takes no object of this kind at all: each image is refused, and shown with the reason.
            pending += [
                ImageOutcome(image.instance_id, DeliveryState.REFUSED, error.status, str(error))
                for image in batch.images[done:]
            ]
        except Exception as error:  # boundary: whatever breaks one attempt, the images wait and say so
            log.exception("forwarding broke", destination=batch.destination, error=type(error).__name__)
            return "An unexpected error stopped the sending; the log has the details."
        finally:
            self._note(batch, pending)
        return None

    def _note(self, batch: Batch, pending: list[ImageOutcome]) -> None:
        """Write down what is known, and empty the list."""
        if pending:
            with self.database.session() as session:
                forwards.note_images(session, batch.forward_id, pending, self.now())
            pending.clear()


def _outcomes(batch: Batch, sent: Iterable[Sent]) -> Iterator[ImageOutcome]:
    for image, outcome in zip(batch.images, sent, strict=True):
        state = DeliveryState.DELIVERED if outcome.taken else DeliveryState.REFUSED
        yield ImageOutcome(image.instance_id, state, outcome.status, outcome.detail)


def _entry(batch: Batch, state: DeliveryState) -> AuditEntry:
    return AuditEntry(
        action="images forwarded",
        actor="wetread",
        outcome="success" if state is DeliveryState.DELIVERED else state.value,
        study_uid=batch.study_uid,
        detail={"destination": batch.destination, "forward": batch.forward_id},
    )
