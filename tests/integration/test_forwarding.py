"""Images sent on to other nodes: unchanged, once, and not back to where they came from."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import select

from deploy.work import _store_all
from dicom_listener.bounded import BoundedDecoder
from dicom_listener.received import split_file
from dicom_listener.settings import Node, SenderSettings
from fhir_records import jobs, tables
from fhir_records.database import Database
from fhir_records.errors import NotFound, PeerRefused, PeerUnavailable
from fhir_records.model import DeliveryState, Forward, Priority
from fhir_records.store import forwards
from tests import seed
from tests.peers import StoreScpPeer, free_port, storescp_server
from workflow.forwarding import ForwardImages, Sent

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(hours=1)


@dataclass
class FakeNode:
    """A node that takes files until it is told otherwise."""

    takes: int = 10**6  # so many, then it is lost
    refuses: frozenset[str] = frozenset()  # names of files
    kinds_refused: bool = False
    taken: list[str] = field(default_factory=list)
    calls: int = 0

    def __call__(self, paths: Sequence[Path]) -> Iterator[Sent]:
        """Take them."""
        self.calls += 1
        if self.kinds_refused:
            raise PeerRefused("It does not take this kind of object.", status=0x0122)
        for path in paths:
            if self.takes == 0:
                raise PeerUnavailable("The archive does not answer.")
            self.takes -= 1
            if path.name in self.refuses:
                yield Sent(False, 0xA900, "The archive answered C-STORE with A900.")
            else:
                self.taken.append(path.name)
                yield Sent(True, 0, "success")


def planned(
    database: Database, study_id: int, number: int = 1, not_from: Iterable[str] = (), to: str = "archive"
) -> forwards.PlannedImages:
    with database.session() as session:
        revision = session.scalars(
            select(tables.Revision).where(tables.Revision.study_id == study_id, tables.Revision.number == number)
        ).one()
        return forwards.plan(
            session,
            revision,
            destination=to,
            routes=["all on"],
            priority=Priority.ROUTINE,
            not_from=list(not_from),
            now=NOW,
        )


def study(database: Database, images: int = 3, number: int = 1) -> int:
    with database.session() as session:
        return seed.add_study(session, number, images=images).id


def run(database: Database, node: FakeNode, forward_id: int | None, now: dt.datetime = NOW) -> Forward:
    """One job; the forward after it."""
    assert forward_id is not None
    ForwardImages(database, {"archive": node}, Path, lambda: now)(forward_id)
    with database.session() as session:
        study_id = session.get_one(tables.Forward, forward_id).study_id
        return next(entry for entry in forwards.forwards_of(session, study_id) if entry.id == forward_id)


def waiting_jobs(database: Database) -> int:
    with database.session() as session:
        return jobs.queue_depths(session).get(("forwards", "todo"), 0)


def add_revision(database: Database, study_id: int, more: int) -> None:
    """A second revision: all images there were, and some more."""
    with database.session() as session:
        row = session.get_one(tables.Study, study_id)
        there = list(session.scalars(select(tables.Instance).where(tables.Instance.study_id == study_id)))
        new = [seed._image(row, len(there) + place) for place in range(1, more + 1)]
        session.add_all(new)
        row.revision = 2
        revision = tables.Revision(study_id=study_id, number=2, reason="", created_at=NOW)
        session.add(revision)
        session.flush()
        session.add_all(
            tables.RevisionInstance(revision_id=revision.id, instance_id=image.id) for image in [*there, *new]
        )


def test_all_images_of_a_revision_go_in_order_and_once(database: Database) -> None:
    """Each image is sent once, and a second run of the job sends nothing."""
    plan = planned(database, study(database))
    assert (plan.images, plan.had_already, plan.came_from_there) == (3, 0, 0)
    node = FakeNode()
    done = run(database, node, plan.forward_id)
    assert (done.state, done.images, done.arrived, done.delivered_at) == (DeliveryState.DELIVERED, 3, 3, NOW)
    assert [name[-5:] for name in node.taken] == ["1.dcm", "2.dcm", "3.dcm"]
    run(database, node, plan.forward_id)
    assert len(node.taken) == 3 and node.calls == 1


def test_a_later_revision_sends_only_what_the_node_has_not_had(database: Database) -> None:
    """Images that are on their way or have arrived are not sent with the next revision."""
    study_id = study(database)
    first = planned(database, study_id)
    add_revision(database, study_id, more=2)
    second = planned(database, study_id, number=2)
    assert (second.images, second.had_already) == (2, 3)
    node = FakeNode()
    run(database, node, second.forward_id)
    run(database, node, first.forward_id)
    assert len(node.taken) == len(set(node.taken)) == 5
    third = planned(database, study_id, number=2, to="elsewhere")
    assert third.images == 5


def test_what_came_from_a_node_does_not_go_back_to_it(database: Database) -> None:
    """Two nodes that send everything on to each other do not send the same images for ever."""
    study_id = study(database)
    with database.session() as session:
        image = session.scalars(select(tables.Instance).order_by(tables.Instance.id).limit(1)).one()
        image.source = "dicom:ARCHIVE"
    plan = planned(database, study_id, not_from=["dicom:ARCHIVE"])
    assert (plan.images, plan.came_from_there) == (2, 1)
    other = study(database, number=2)
    nothing = planned(database, other, not_from=["dicom:CT1"])
    assert (nothing.forward_id, nothing.images, nothing.came_from_there) == (None, 0, 3)
    with database.session() as session:
        assert forwards.forwards_of(session, other) == ()


def test_a_node_that_is_lost_gets_the_rest_later(database: Database) -> None:
    """What was answered stands; the rest waits, longer each time that nothing is taken, and comes due by itself."""
    plan = planned(database, study(database, images=25))
    node = FakeNode(takes=13)
    waits = run(database, node, plan.forward_id)
    assert (waits.state, waits.arrived, waits.attempts) == (DeliveryState.WAITING, 13, 1)
    assert waits.last_error == "The archive does not answer."
    assert waits.next_attempt_at == NOW + dt.timedelta(seconds=5)
    waits = run(database, node, plan.forward_id)
    assert (waits.attempts, waits.next_attempt_at) == (2, NOW + dt.timedelta(seconds=10))
    with database.session() as session:
        assert forwards.take_due(session, NOW) == ()
        assert forwards.take_due(session, LATER) == (plan.forward_id,)
    with database.session() as session:
        assert forwards.take_due(session, LATER) == ()  # leased
    node.takes = 100
    done = run(database, node, plan.forward_id)
    assert done.state is DeliveryState.DELIVERED
    assert len(node.taken) == len(set(node.taken)) == 25


def test_many_images_go_in_batches_with_room_for_what_is_urgent(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One job sends a batch and asks for the next, so that a more urgent forward overtakes in between."""
    monkeypatch.setattr("workflow.forwarding.forwards.take_batch", partial(forwards.take_batch, limit=10))
    plan = planned(database, study(database, images=25))
    node = FakeNode()
    for arrived, asked in ((10, 1), (20, 1), (25, 0)):
        with database.session() as session:
            session.execute(tables.Base.metadata.tables["step"].delete())
            session.connection().exec_driver_sql("DELETE FROM procrastinate_jobs")
        after = run(database, node, plan.forward_id)
        assert (after.arrived, waiting_jobs(database)) == (arrived, asked)
    assert after.state is DeliveryState.DELIVERED


def test_a_refused_image_is_shown_and_leaves_the_others(database: Database) -> None:
    """The node's no to one image is final until a person tries again; the others have arrived."""
    study_id = study(database)
    plan = planned(database, study_id)
    with database.session() as session:
        names = session.scalars(select(tables.Instance.file_key).order_by(tables.Instance.id)).all()
    node = FakeNode(refuses=frozenset({names[1]}))
    refused = run(database, node, plan.forward_id)
    assert (refused.state, refused.arrived, refused.refused) == (DeliveryState.REFUSED, 2, 1)
    assert refused.last_error == "1 of 3 images were refused. The archive answered C-STORE with A900."
    with database.session() as session:
        assert [entry.id for entry, _ in forwards.stuck(session)] == [plan.forward_id]
        jobs.retry_forward(session, refused.id)
    assert waiting_jobs(database) == 1
    node.refuses = frozenset()
    done = run(database, node, plan.forward_id)
    assert (done.state, done.arrived) == (DeliveryState.DELIVERED, 3)
    assert len(node.taken) == len(set(node.taken)) == 3
    with database.session() as session, pytest.raises(NotFound):
        jobs.retry_forward(session, refused.id)


def test_a_node_that_takes_no_such_images_refuses_them_all(database: Database) -> None:
    """No accepted presentation context is no reason to try for ever."""
    plan = planned(database, study(database))
    refused = run(database, FakeNode(kinds_refused=True), plan.forward_id)
    assert (refused.state, refused.refused) == (DeliveryState.REFUSED, 3)


def test_a_node_that_is_configured_no_longer_keeps_its_images(database: Database) -> None:
    """They wait and say so."""
    plan = planned(database, study(database))
    assert plan.forward_id is not None
    ForwardImages(database, {}, Path, lambda: NOW)(plan.forward_id)
    with database.session() as session:
        row = session.get_one(tables.Forward, plan.forward_id)
        assert (row.state, row.last_error) == (DeliveryState.WAITING, "No destination of this name is configured.")


# --- real nodes ---------------------------------------------------------------------------------------------------


@pytest.fixture
def decoder() -> Iterator[BoundedDecoder]:
    with BoundedDecoder() as made:
        yield made


def test_images_arrive_byte_for_byte_over_one_association(
    database: Database, storescp: StoreScpPeer, tmp_path: Path, decoder: BoundedDecoder
) -> None:
    """What DCMTK's storescp receives is what was received here, and all of it came over one association."""
    study_id = study(database, images=12)
    with database.session() as session:
        seed.write_images(tmp_path, session, study_id)
    plan = planned(database, study_id)
    assert plan.forward_id is not None
    node = Node("archive", storescp.ae_title, storescp.host, storescp.dicom_port)
    send = partial(_store_all, node, SenderSettings(), decoder)
    ForwardImages(database, {"archive": send}, lambda key: tmp_path / key, lambda: NOW)(plan.forward_id)
    sent = {bytes(split_file(path.read_bytes())[1]) for path in tmp_path.glob("*.dcm")}
    came = {bytes(split_file(path.read_bytes())[1]) for path in storescp.files()}
    assert len(sent) == 12 and came == sent
    assert storescp.peer.log_path.read_text().count("Association Acknowledged") == 1


def test_images_reach_a_node_that_comes_back(database: Database, tmp_path: Path, decoder: BoundedDecoder) -> None:
    """A node that aborts keeps its images waiting; when it works again it gets them all."""
    study_id = study(database)
    with database.session() as session:
        seed.write_images(tmp_path, session, study_id)
    plan = planned(database, study_id)
    assert plan.forward_id is not None

    def attempt(port: int) -> DeliveryState:
        send = partial(_store_all, Node("archive", "STORESCP", "127.0.0.1", port, 5), SenderSettings(), decoder)
        ForwardImages(database, {"archive": send}, lambda key: tmp_path / key, lambda: NOW)(plan.forward_id or 0)
        with database.session() as session:
            return session.get_one(tables.Forward, plan.forward_id).state

    assert attempt(free_port()) is DeliveryState.WAITING
    with storescp_server(tmp_path / "bad", abort_after=True) as peer:
        assert attempt(peer.dicom_port) is DeliveryState.WAITING
    with storescp_server(tmp_path / "good") as peer:
        assert attempt(peer.dicom_port) is DeliveryState.DELIVERED
        assert len(peer.files()) == 3
