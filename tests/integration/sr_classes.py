"""The way of reports to peers that take some SR classes only."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydicom import dcmread
from pydicom.dataset import Dataset
from sqlalchemy import select

from dicom_listener import sender
from dicom_listener.settings import Node, SenderSettings
from fhir_records import tables
from fhir_records.errors import PeerRefused
from fhir_records.renderings.kinds import SR_CLASSES
from tests.integration.signed_results import INSTALLATION, NOW, Bench
from workflow.delivery import Deliver, Send
from workflow.report_classes import ReportClasses

COMPREHENSIVE_3D, COMPREHENSIVE, ENHANCED = SR_CLASSES
US = SenderSettings(ae_title="WETREAD")


@dataclass(slots=True)
class Picky:
    """A destination that takes these SOP classes and says 0122 to every other one."""

    takes: set[str]
    offered: list[str] = field(default_factory=list)
    held: dict[str, bytes] = field(default_factory=dict)  # by SOP Instance UID

    def __call__(self, content: bytes) -> tuple[int, str]:
        """Take an object, or refuse its class."""
        ds = dcmread(io.BytesIO(content))
        self.offered.append(str(ds.SOPClassUID))
        if ds.SOPClassUID not in self.takes:
            raise PeerRefused("It does not take this kind of object.", status=0x0122)
        assert self.held.setdefault(str(ds.SOPInstanceUID), content) == content, "two objects under one UID"
        return 0, "success"

    def documents(self) -> list[Dataset]:
        """What it has, the first one first."""
        return [dcmread(io.BytesIO(content)) for content in self.held.values()]


@dataclass(slots=True)
class Way:
    """Deliveries done by hand, until none is due; the clock stands."""

    bench: Bench
    senders: Mapping[str, Send]
    orders: Mapping[str, Sequence[str]] = field(default_factory=dict)
    now: dt.datetime = NOW
    confirmed: Sequence[str] = ()

    def deliver(self) -> None:
        """Attempt whatever waits, and what stands in for it, once each."""
        done: set[int] = set()
        while waiting := [
            one.id for one in self.bench.deliveries() if one.state.value == "waiting" and one.id not in done
        ]:
            for delivery_id in waiting:
                self.attempt(delivery_id)
                done.add(delivery_id)

    def attempt(self, delivery_id: int) -> None:
        """One attempt."""
        classes = ReportClasses(INSTALLATION, lambda: self.now, self.orders)
        Deliver(self.bench.database, self.senders, lambda: self.now, confirmed=self.confirmed, report_classes=classes)(
            delivery_id
        )

    def lines(self) -> list[tuple[str, str, str]]:
        """SOP class, destination and state of every delivery of a report."""
        with self.bench.database.session() as session:
            rows = session.scalars(select(tables.Delivery).order_by(tables.Delivery.id))
            return [
                (row.document.sop_class_uid, row.destination, row.state.value)
                for row in rows
                if row.document.kind == "dicom_sr"
            ]


def sends_to(node: Node, *classes: str) -> Send:
    """The product's own way to send, to a real peer."""

    def send(content: bytes) -> tuple[int, str]:
        outcome = sender.send(content, node, US, classes or SR_CLASSES)
        return outcome.status, outcome.meaning

    return send
