"""Every delivery held against the journal of its destination."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import select

from dicom_listener.received import split_file
from fhir_records import tables
from fhir_records.database import Database
from fhir_records.model import DeliveryState
from fhir_records.store import confirmations
from tests.delivery_storm.account import Account
from tests.delivery_storm.pacs import Pacs

THERE = (DeliveryState.DELIVERED, DeliveryState.CONFIRMED)
# What says that nothing is left to be done about an object that is withdrawn.
_SETTLED = (DeliveryState.FILTERED, DeliveryState.REFUSED, DeliveryState.WITHDRAWN)


@dataclass(frozen=True, slots=True)
class Judge:
    """Finds every claim that the peers' journals do not bear out."""

    database: Database
    peers: Mapping[str, Pacs]

    def into(self, account: Account) -> None:
        """Write the verdict on every delivery into the account."""
        for peer in self.peers.values():
            account.faults += peer.faults
        with self.database.session() as session:
            rows = session.scalars(select(tables.Delivery).order_by(tables.Delivery.id)).all()
            account.deliveries = len(rows)
            for row in rows:
                account.states[row.state.value] += 1
                account.untrue += [
                    f"delivery {row.id} to {row.destination}, {row.state.value}: {words}" for words in self._untrue(row)
                ]

    def _untrue(self, row: tables.Delivery) -> Iterator[str]:
        peer, uid, state = self.peers[row.destination], row.document.sop_uid, row.state
        _, data = split_file(row.document.content)
        sent = hashlib.sha256(data).hexdigest()
        if set(peer.received[uid]) - {sent}:
            yield "other bytes were sent than those first rendered"
        if hashlib.sha256(row.document.content).hexdigest() != row.document.sha256:
            yield "the stored bytes are not those first rendered"
        if state in THERE and not peer.accepted[uid]:
            yield "claimed, and the PACS never said that it took it"
        if state is DeliveryState.CONFIRMED and row.destination == "committing" and uid not in peer.promised:
            yield "confirmed, and the PACS never said that it keeps it"
        if state is DeliveryState.CONFIRMED and row.destination == "listing" and uid not in peer.held:
            yield "confirmed, and the PACS does not list it"
        lost = row.not_kept >= confirmations.MOST_LOST
        if state is DeliveryState.REFUSED and not peer.failed[uid] and not lost:
            yield "refused, and the PACS neither refused nor lost it"
        if row.destination == "committing" and row.not_kept > peer.denied[uid]:
            yield "lost more often than the PACS said"
        if state is DeliveryState.FILTERED and peer.accepted[uid]:
            yield "not sent, it says, and the PACS took it"
        yield from self._withdrawn(row, peer)
        yield from _open(row)

    def _withdrawn(self, row: tables.Delivery, peer: Pacs) -> Iterator[str]:
        uid = row.document.sop_uid
        if row.document.withdrawn_at is None:
            return
        if row.state in (*THERE, DeliveryState.WAITING):
            yield "withdrawn, and it stands there as if it were not"
        if row.destination == "listing" and row.state is DeliveryState.WITHDRAWN:
            if not self._note_taken(row, peer):
                yield "withdrawn, and the PACS never took the rejection note after it had the object"
        elif row.state in _SETTLED and uid in peer.held:
            yield "nothing is to be taken back, it says, and the PACS has it"

    def _note_taken(self, row: tables.Delivery, peer: Pacs) -> bool:
        with self.database.session() as session:
            notes = session.scalars(select(tables.Delivery).where(tables.Delivery.withdraws == row.id)).all()
            since = peer.order.get(row.document.sop_uid, 0)
            uids = [note.document.sop_uid for note in notes]
            # A note that was lost later was taken all the same.
            return any(peer.accepted[uid] and peer.order.get(uid, since) >= since for uid in uids)


def _open(row: tables.Delivery) -> Iterator[str]:
    if row.state in (DeliveryState.WAITING, DeliveryState.WITHDRAWAL_OPEN) and row.next_attempt_at is not None:
        yield "did not come to an end"
    if row.state is DeliveryState.DELIVERED and row.confirm_at is not None:
        yield "its destination is still to be asked"
