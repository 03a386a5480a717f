"""A report goes to each destination in the best SOP class that it takes, as an object of its own where that differs.

The report that was rendered is offered first. Where the destination says that it does not take its SOP class, the same
report in the next class takes its place (design, section 6). What was refused is remembered, so that the next report is
offered as what is taken, and forgotten after a day, or when a person tries again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy.orm import Session

from fhir_records import audit, tables
from fhir_records.errors import RenderingError
from fhir_records.jobs import request_delivery
from fhir_records.model import AuditEntry, DeliveryState, Document, Installation
from fhir_records.renderings import kinds, sr_classes
from fhir_records.renderings.conformance import faults_of
from fhir_records.renderings.sr_classes import Reference
from fhir_records.store import deliveries, report_classes, succession
from fhir_records.store.deliveries import document_record

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReportClasses:
    """Decides in which class a report goes to a destination, and sets it on its way there.

    Attributes:
        orders: SOP Class UIDs that each destination is offered, the first choice first; all where it is not named.
    """

    installation: Installation
    now: Callable[[], dt.datetime]
    orders: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def before_sending(self, session: Session, delivery_id: int) -> bool:
        """Let the report go as what the destination is known to take; whether that is another object than this one.

        Predecessors that the destination has in another class are named as what it has.
        """
        row = session.get_one(tables.Delivery, delivery_id)
        if row.document.kind != kinds.SR or document_record(row.document).is_held or not report_classes.may_change(row):
            return False
        if self._wanted(session, row) is None:
            return False
        # Whoever renders or withdraws for this study waits: what stands in must not escape a withdrawal.
        succession.lock_study(session, row.document.result.read.study_id)
        session.expire_all()
        row = session.get_one(tables.Delivery, delivery_id, with_for_update=True)
        if row.state is not DeliveryState.WAITING or not report_classes.may_change(row):
            return False
        wanted = self._wanted(session, row)
        return wanted is not None and self._stand_in(session, row, *wanted)

    def lock(self, session: Session, delivery_id: int, status: int | None) -> None:
        """Before an outcome is written down: where a report's class was refused, keep whoever withdraws waiting."""
        if status == report_classes.SOP_CLASS_NOT_SUPPORTED:
            row = session.get_one(tables.Delivery, delivery_id)
            if row.document.kind == kinds.SR:
                succession.lock_study(session, row.document.result.read.study_id)
                session.expire_all()

    def after_sending(self, session: Session, delivery_id: int, status: int | None) -> None:
        """Remember what the destination said of the class; where it refused it, the next one takes its place."""
        row = session.get_one(tables.Delivery, delivery_id)
        if row.document.kind != kinds.SR:
            return
        sop_class_uid = row.document.sop_class_uid
        if row.state is DeliveryState.DELIVERED:
            report_classes.note_taken(session, row.destination, sop_class_uid)
        if status != report_classes.SOP_CLASS_NOT_SUPPORTED:
            return
        report_classes.note_refused(session, row.destination, sop_class_uid, self.now())
        if row.state is not DeliveryState.REFUSED or row.document.withdrawn_at is not None:
            return
        base = _rendered(session, row)
        try:
            left = self._left(session, row, base, {sop_class_uid})
            predecessors = self._predecessors(session, row, base)
        except RenderingError as error:
            log.error("report not written in another class", destination=row.destination, why=str(error))
            return
        if left:
            self._stand_in(session, row, base, left[0], predecessors)

    def _wanted(self, session: Session, row: tables.Delivery) -> tuple[Document, str, Mapping[str, Reference]] | None:
        """The report that was rendered, and the class and predecessors it goes with instead; None: as it is."""
        own = row.document.sop_class_uid
        refused = report_classes.refused(session, row.destination, self.now())
        if (row.attempts or row.instead_of is not None) and own not in refused:
            return None  # under way as what it is
        base = _rendered(session, row)
        try:
            left = self._left(session, row, base, frozenset())
            if not left or (row.instead_of is not None and left[0] in refused):
                return None  # nothing is known to be better
            predecessors = self._predecessors(session, row, base)
        except RenderingError:
            return None  # damaged: it goes as it is, or not at all
        variant = sr_classes.variant_of(base.sop_class_uid, left[0], predecessors)
        as_it_is = variant == row.document.variant if variant else base.id == row.document_id
        return None if as_it_is else (base, left[0], predecessors)

    def _left(self, session: Session, row: tables.Delivery, base: Document, but: Iterable[str]) -> tuple[str, ...]:
        """The classes that the report can still be offered in: those not lately refused first, then in their order."""
        refused = report_classes.refused(session, row.destination, self.now())
        order = self.orders.get(row.destination, kinds.SR_CLASSES)
        offered = report_classes.offered_before(session, row) | set(but)
        left = [uid for uid in order if uid not in offered]
        # What the class cannot hold is not said in it.
        left = [uid for uid in left if uid == base.sop_class_uid or sr_classes.holds(base.content, uid)]
        return tuple(sorted(left, key=lambda uid: uid in refused))

    def _predecessors(self, session: Session, row: tables.Delivery, base: Document) -> Mapping[str, Reference]:
        named = sr_classes.predecessor_uids(base.content)
        there = report_classes.there_instead(session, row.destination, named, kinds.SR) if named else {}
        return {uid: sr_classes.reference_to(document.content) for uid, document in there.items()}

    def _stand_in(
        self,
        session: Session,
        row: tables.Delivery,
        base: Document,
        sop_class_uid: str,
        predecessors: Mapping[str, Reference],
    ) -> bool:
        """Set the report on its way as another object; whether that was possible."""
        variant = sr_classes.variant_of(base.sop_class_uid, sop_class_uid, predecessors)
        document_id, faults = base.id, base.faults
        if variant:
            try:
                made = sr_classes.in_class(self.installation, base.content, sop_class_uid, predecessors)
            except RenderingError as error:
                log.error("report not written in another class", destination=row.destination, why=str(error))
                return False
            faults = faults_of(made.content)
            document_id = deliveries.add_document(
                session,
                base.result_id,
                kind=kinds.SR,
                variant=variant,
                sop_uid=made.sop_uid,
                sop_class_uid=made.sop_class_uid,
                content=made.content,
                faults=faults,
            )
        held = "" if not deliveries.is_held(session, document_id) else deliveries.held_words(faults)
        words = _words(row.destination, row.document.sop_class_uid, sop_class_uid)
        delivery_id = report_classes.stand_in(session, row.id, document_id, words, self.now(), held=held)
        if not held:
            request_delivery(session, delivery_id)
        audit.record(session, _entry(row, sop_class_uid))
        log.info("report goes in another class", destination=row.destination, sop_class=_name(sop_class_uid))
        return True


def _rendered(session: Session, row: tables.Delivery) -> Document:
    """The report as it was rendered, of which the others are made."""
    found = deliveries.find_document(session, row.document.result_id, kinds.SR, "")
    return found or document_record(row.document)


def _name(sop_class_uid: str) -> str:
    return kinds.SR_CLASS_NAMES.get(sop_class_uid, sop_class_uid)


def _words(destination: str, own: str, other: str) -> str:
    if own == other:
        return f"It goes to {destination} with the predecessors that are there."
    return f"{destination} is not offered {_name(own)}, or does not take it: it goes as {_name(other)}."


def _entry(row: tables.Delivery, sop_class_uid: str) -> AuditEntry:
    return AuditEntry(
        action="report class changed",
        actor="wetread",
        study_uid=row.document.result.read.study.study_uid,
        detail={
            "delivery": row.id,
            "destination": row.destination,
            "from": _name(row.document.sop_class_uid),
            "to": _name(sop_class_uid),
        },
    )
