"""Deliveries: rows that come due, attempts that are written down, and results that wait for a signature."""

from __future__ import annotations

import datetime as dt
import hashlib

import pytest

from fhir_records import jobs, tables
from fhir_records.database import Database
from fhir_records.errors import NotFound, PeerRefused, PeerUnavailable
from fhir_records.model import Delivery, DeliveryState, ReadState
from fhir_records.store import deliveries, results, steps
from tests import seed
from workflow.delivery import Deliver

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(hours=1)


@pytest.fixture
def document_id(database: Database) -> int:
    """A rendered document of a read study."""
    with database.session() as session:
        study = seed.every_state(session)["read"]
        read = next(row for row in session.query(tables.Read).filter_by(study_id=study.id))
        result = session.query(tables.Result).filter_by(read_id=read.id).one()
        session.query(tables.Delivery).delete()
        session.query(tables.Document).delete()
        return deliveries.add_document(
            session, result.id, kind="dicom_sr", variant="", sop_uid="2.25.1", sop_class_uid="1.2", content=b"bytes"
        )


def one(database: Database) -> Delivery:
    with database.session() as session:
        return deliveries.delivery_record(session.query(tables.Delivery).one())


def add(database: Database, document_id: int) -> int:
    with database.session() as session:
        (delivery_id,) = deliveries.add_deliveries(session, document_id, ["pacs", "pacs"], NOW)
        return delivery_id


def attempt(database: Database, delivery_id: int, answer: tuple[int, str] | Exception) -> list[bytes]:
    sent: list[bytes] = []

    def send(content: bytes) -> tuple[int, str]:
        sent.append(content)
        if isinstance(answer, Exception):
            raise answer
        return answer

    Deliver(database, {"pacs": send}, lambda: NOW)(delivery_id)
    return sent


def test_the_bytes_first_stored_stay(database: Database, document_id: int) -> None:
    """A second rendering of the same document changes neither its number nor its bytes."""
    with database.session() as session:
        result_id = session.query(tables.Document).one().result_id
        again = deliveries.add_document(
            session, result_id, kind="dicom_sr", variant="", sop_uid="2.25.2", sop_class_uid="1.2", content=b"other"
        )
        assert again == document_id
        row = session.query(tables.Document).one()
        assert (row.content, row.sha256) == (b"bytes", hashlib.sha256(b"bytes").hexdigest())


def test_a_success_is_delivered_and_not_sent_again(database: Database, document_id: int) -> None:
    """The peer's success status settles the delivery; a second job for it sends nothing."""
    delivery_id = add(database, document_id)
    assert attempt(database, delivery_id, (0, "success")) == [b"bytes"]
    assert one(database).state is DeliveryState.DELIVERED
    assert attempt(database, delivery_id, (0, "success")) == []


def test_an_attempt_in_vain_waits_longer_each_time(database: Database, document_id: int) -> None:
    """A peer that is away leaves the delivery waiting, with the reason, and due after 5, 10 and 20 seconds."""
    delivery_id = add(database, document_id)
    for wait in (5, 10, 20):
        assert attempt(database, delivery_id, PeerUnavailable("The PACS does not answer.")) == [b"bytes"]
        delivery = one(database)
        assert delivery.state is DeliveryState.WAITING
        assert delivery.next_attempt_at == NOW + dt.timedelta(seconds=wait)
        assert delivery.last_error == "The PACS does not answer."
    with database.session() as session:
        assert deliveries.take_due(session, NOW) == ()
        assert deliveries.take_due(session, LATER) == (delivery_id,)
    with database.session() as session:
        assert deliveries.take_due(session, LATER) == ()  # leased for one attempt


def test_an_attempt_that_breaks_waits_like_one_in_vain(database: Database, document_id: int) -> None:
    """An error that nobody foresaw is written down without its details, and the delivery is tried again."""
    delivery_id = add(database, document_id)
    attempt(database, delivery_id, RuntimeError("Doe^Jane"))
    delivery = one(database)
    assert (delivery.state, delivery.attempts) == (DeliveryState.WAITING, 1)
    assert "unexpected error" in (delivery.last_error or "")
    assert "Doe" not in (delivery.last_error or "")


def test_a_refusal_is_final_until_a_person_tries_again(database: Database, document_id: int) -> None:
    """A peer's no is not asked for again by itself; "try again" makes it due."""
    delivery_id = add(database, document_id)
    attempt(database, delivery_id, PeerRefused("The PACS answered 0122."))
    assert one(database).state is DeliveryState.REFUSED
    with database.session() as session:
        assert deliveries.take_due(session, LATER) == ()
        jobs.retry_delivery(session, delivery_id)
    assert attempt(database, delivery_id, (0, "success")) == [b"bytes"]


def test_a_destination_that_is_gone_keeps_its_deliveries(database: Database, document_id: int) -> None:
    """A delivery to a name that is configured no longer waits and says so."""
    delivery_id = add(database, document_id)
    Deliver(database, {}, lambda: NOW)(delivery_id)
    delivery = one(database)
    assert delivery.state is DeliveryState.WAITING
    assert delivery.last_error == "No destination of this name is configured."


def test_what_waits_for_a_signature_is_never_sent(database: Database, document_id: int) -> None:
    """A held delivery does not come due, and "try again" does not get it out either."""
    with database.session() as session:
        deliveries.add_held(session, document_id, ["pacs"])
    delivery = one(database)
    assert delivery.is_held
    with database.session() as session:
        assert deliveries.take_due(session, LATER) == ()
        with pytest.raises(NotFound, match="signature"):
            jobs.retry_delivery(session, delivery.id)


def test_a_read_fails_after_its_last_attempt_and_can_be_tried_again(database: Database) -> None:
    """Failures are retried later and later, then shown; a person's "try again" starts with all attempts before it."""
    with database.session() as session:
        study = seed.every_state(session)["queued"]
        read_id = session.query(tables.Read).filter_by(study_id=study.id).one().id
        for number in range(1, results.MAX_READ_ATTEMPTS + 1):
            row = results.read_row(session, read_id)
            row.attempts = number
            results.note_failure(session, read_id, "The model's process crashed.", NOW)
        row = results.read_row(session, read_id)
        assert (row.state, row.error) == (ReadState.FAILED, "The model's process crashed.")
        jobs.retry_read(session, read_id)
        assert (row.state, row.attempts) == (ReadState.QUEUED, 0)
        with pytest.raises(NotFound):
            jobs.retry_read(session, read_id)


def test_a_step_is_done_once(database: Database) -> None:
    """The second to finish a step learns that it is done."""
    with database.session() as session:
        assert steps.finish(session, "study:1", 1, "route")
        assert not steps.finish(session, "study:1", 1, "route")
        assert steps.finish(session, "study:1", 2, "route")
