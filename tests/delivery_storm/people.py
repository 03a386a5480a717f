"""What people do while deliveries are under way: reject, sign, pause, resume, and delete by hand."""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pydicom.uid import Comprehensive3DSRStorage
from sqlalchemy import select
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.errors import NotFound
from fhir_records.model import DeliveryState, ReadState, ResultStatus, Withdrawal
from fhir_records.store import deliveries, destinations, withdrawals
from tests import seed
from tests.delivery_storm.pacs import Pacs
from tests.unit.dicom_listener.objects import as_file
from tests.unit.fhir_records.renderings.sr_reports import header

DOCUMENTS = 4  # of a result
TO = ("committing", "listing")


@dataclass(slots=True)
class People:
    """Their acts, as chance has them."""

    database: Database
    peers: Mapping[str, Pacs]
    chance: random.Random
    unsigned: list[int] = field(default_factory=list)  # results that nobody has said anything about
    did: Counter[str] = field(default_factory=Counter)
    paused: set[str] = field(default_factory=set)
    documents: int = 0

    def add_results(self, count: int, now: dt.datetime) -> None:
        """Results with so many documents in all, each on its way to both destinations."""
        with self.database.session() as session:
            for first in range(0, count, DOCUMENTS):
                study = seed.add_study(session, first + 1)
                read = seed.add_read(session, study, ReadState.READ)
                result = seed.add_result(session, read, finding=seed.glioma(study))
                self.unsigned.append(result.id)
                self._add_documents(session, result.id, study.study_uid, min(DOCUMENTS, count - first), now)
        self.chance.shuffle(self.unsigned)
        del self.unsigned[3 * len(self.unsigned) // 4 :]  # nobody ever says anything about these

    def _add_documents(self, session: Session, result_id: int, study_uid: str, count: int, now: dt.datetime) -> None:
        for _ in range(count):
            self.documents += 1
            uid = f"2.25.{10**9 + self.documents}"
            ds = header(self.documents, StudyInstanceUID=study_uid, SOPInstanceUID=uid)
            ds.SOPClassUID, ds.Modality = Comprehensive3DSRStorage, "SR"
            document = deliveries.add_document(
                session,
                result_id,
                kind="dicom_sr",
                variant=str(self.documents),
                sop_uid=uid,
                sop_class_uid=Comprehensive3DSRStorage,
                content=as_file(ds),
            )
            for number in deliveries.add_deliveries(session, document, TO, now):
                # They come due together with what waits already.
                row = session.get_one(tables.Delivery, number)
                row.next_attempt_at, row.created_at = now, now

    def acts(self, now: dt.datetime) -> Iterator[Callable[[], Sequence[int]]]:
        """What is done in this round, while everything else is; each gives the deliveries that are to be taken back."""
        for _ in range(min(len(self.unsigned), self.chance.choice((0, 0, 1, 1, 2)))):
            yield partial(self.chance.choice((self._reject, self._sign)), self.unsigned.pop(), now)

    def _reject(self, result_id: int, now: dt.datetime) -> Sequence[int]:
        self.did["rejected"] += 1
        with self.database.session() as session:
            return withdrawals.withdraw(session, [result_id], Withdrawal.REJECTED, now)

    def _sign(self, result_id: int, now: dt.datetime) -> Sequence[int]:
        """A newer version takes the place of the result; its documents go the same ways."""
        self.did["signed"] += 1
        with self.database.session() as session:
            older = session.get_one(tables.Result, result_id)
            newer = tables.Result(
                read_id=older.read_id,
                version=2,
                status=ResultStatus.FINAL,
                content=older.content,
                created_at=now,
            )
            session.add(newer)
            session.flush()
            opened = withdrawals.withdraw(session, [result_id], Withdrawal.SUPERSEDED, now)
            self._add_documents(session, newer.id, older.read.study.study_uid, DOCUMENTS, now)
            return opened

    def pause(self, now: dt.datetime) -> None:
        """One destination gets nothing for a while."""
        name = self.chance.choice(sorted(self.peers))
        self.paused.add(name)
        self.did["paused"] += 1
        with self.database.session() as session:
            destinations.pause(session, name, "admin", now)

    def resume(self, now: dt.datetime) -> None:
        """All go on."""
        for name in self.paused:
            with self.database.session() as session:
                destinations.resume(session, name, now)
        self.paused.clear()

    def try_again(self, now: dt.datetime) -> None:
        """A withdrawal whose rejection note was refused is attempted again."""
        row = tables.Delivery
        with self.database.session() as session:
            refused = session.scalars(
                select(row.withdraws).where(row.withdraws.is_not(None), row.state == DeliveryState.REFUSED)
            )
            for delivery_id in refused:
                if session.get_one(row, delivery_id).state is DeliveryState.WITHDRAWAL_OPEN:
                    self.did["tried again"] += 1
                    withdrawals.try_again(session, delivery_id, now)

    def delete_by_hand(self, now: dt.datetime) -> None:
        """What a person is to delete at the destination is deleted, and said to be."""
        row = tables.Delivery
        with self.database.session() as session:
            listed = session.scalars(
                select(row).where(
                    row.destination == "standby",
                    row.state == DeliveryState.WITHDRAWAL_OPEN,
                    row.next_attempt_at.is_(None),
                )
            ).all()
            found = [(one.id, one.document.sop_uid) for one in listed]
        for delivery_id, sop_uid in found:
            self.peers["standby"].delete(sop_uid)
            self.did["deleted by hand"] += 1
            try:
                with self.database.session() as session:
                    withdrawals.note_done(session, delivery_id, now, by="admin")
            except NotFound:
                pass  # it was reopened or ended meanwhile
