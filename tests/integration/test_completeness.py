"""When studies are complete, with a real database: whoever sends them, over however many associations."""

from __future__ import annotations

import copy
import datetime as dt
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import select, text
from typer.testing import CliRunner

from deploy.cli import app
from dicom_listener.arrivals import CompletionRules, Judge, Patience, complete_due_studies, rules_of
from dicom_listener.asking import StudyNumbers, study_numbers
from dicom_listener.handover import Ended, Ending, Opened, Stored
from dicom_listener.index_keeper import IndexKeeper, utc_now
from dicom_listener.received import file_header
from dicom_listener.settings import Caller, ListenerSettings, Node, SenderSettings
from dicom_listener.spool import Spool
from fhir_records import completion, tables
from fhir_records.database import Database
from fhir_records.errors import NotFound, PeerRefused, PeerUnavailable
from fhir_records.store.associations import OpenAssociation
from fhir_records.store.completeness import database_now
from fhir_records.store.study_page import study_page
from tests import seed
from tests.peers import HOST, StoreScpPeer, orthanc_server
from tests.unit.dicom_listener.objects import as_file, encoded, image, received, report
from workflow.expecting import Expecting

RULES = CompletionRules(idle_seconds=60, max_seconds=3600)
CALLERS = (Caller("CT1", HOST), Caller("PACS", HOST, expected_numbers=True))


class Site:
    """A listener's index, and associations that tests open, use and close."""

    def __init__(self, database: Database, spool: Spool) -> None:
        self.database, self.spool = database, spool
        self.keeper = IndexKeeper(ListenerSettings(callers=CALLERS), database, spool)

    def open(self, caller: str = "CT1") -> OpenAssociation:
        """An association is accepted."""
        association = OpenAssociation(uuid.uuid4(), caller, HOST, utc_now())
        self.keeper.tell(Opened(association))
        return association

    def store(self, association: OpenAssociation, *objects: Dataset) -> None:
        """It sends objects, which are in the index when this returns."""
        for ds in objects:
            how = received(ds, caller=association.caller, received_at=utc_now())
            key = self.spool.store([file_header(how), encoded(copy.deepcopy(ds))], how.received_at).key
            self.keeper.tell(Stored(key, association.id))
        assert self.keeper.settled(20)

    def close(self, association: OpenAssociation) -> None:
        """It is released."""
        self.keeper.tell(Ended(association, Ending.RELEASED, "", 0, 0, 0, utc_now()))
        assert self.keeper.settled(20)

    def send(self, *objects: Dataset, caller: str = "CT1") -> None:
        """A whole association."""
        association = self.open(caller)
        self.store(association, *objects)
        self.close(association)

    def wait(self, seconds: float) -> None:
        """Let time pass: all that happened is so much longer ago, and open associations are still open."""
        with self.database.session() as session:
            for table, columns in (
                ("study", ("last_arrival_at", "open_since")),
                ("association_study", ("last_sent_at",)),
                ("expected_number", ("told_at",)),
            ):
                sets = ", ".join(f"{column} = {column} - make_interval(secs => :seconds)" for column in columns)
                session.execute(text(f"UPDATE {table} SET {sets}"), {"seconds": seconds})

    def complete(self, rules: CompletionRules = RULES) -> list[int]:
        """Judge; how many images each new revision has."""
        with self.database.session() as session:
            return [revision.images for revision in complete_due_studies(session, database_now(session), rules)]

    def revisions(self) -> Sequence[tables.Revision]:
        """All revisions, in order."""
        with self.database.session() as session:
            return session.execute(select(tables.Revision).order_by(tables.Revision.id)).scalars().all()


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Iterator[Site]:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    site = Site(database, spool)
    site.keeper.start()
    assert site.keeper.settled(20)
    yield site
    site.keeper.stop(5)


def _images(number: int, study_uid: str, **changed: object) -> list[Dataset]:
    return [image(StudyInstanceUID=study_uid, InstanceNumber=n, **changed) for n in range(number)]


def _like(ds: Dataset, sop_class_uid: str, modality: str) -> Dataset:
    ds.SOPClassUID, ds.Modality = sop_class_uid, modality
    return ds


def test_interleaved_studies_on_one_association_are_told_apart(site: Site) -> None:
    """Two studies sent image by image in turn are complete each for itself, with all that is theirs."""
    one, two = _images(4, generate_uid()), _images(3, generate_uid())
    association = site.open()
    for first, second in zip(one, [*two, None], strict=True):
        site.store(association, *(ds for ds in (first, second) if ds is not None))
    site.close(association)
    site.wait(59)
    assert site.complete() == []
    site.wait(1)
    assert sorted(site.complete()) == [3, 4]
    assert site.complete() == []


def test_study_over_several_associations_and_callers_waits_for_all(site: Site) -> None:
    """One sender's end says nothing of another's; the most patient caller decides how long is waited."""
    rules = CompletionRules(60, 3600, {"PACS": Patience(idle_seconds=300), "CT1": Patience(idle_seconds=10)})
    study_uid = generate_uid()
    first, second = site.open("CT1"), site.open("PACS")
    site.store(first, *_images(2, study_uid))
    site.store(second, *_images(3, study_uid))
    site.close(first)
    site.wait(301)
    assert site.complete(rules) == []
    site.close(second)
    assert site.complete(rules) == [5]
    site.send(*_images(1, study_uid), caller="CT1")  # the next revision is CT1's alone
    site.wait(9)
    assert site.complete(rules) == []
    site.wait(1)
    assert site.complete(rules) == [6]


def test_router_that_never_closes_holds_back_its_last_study_alone(site: Site) -> None:
    """A study from which an open association has moved on is complete when quiet; the last one at the longest time."""
    association = site.open("ROUTER")
    site.store(association, *_images(2, generate_uid()))
    site.wait(600)
    assert site.complete() == []
    site.store(association, *_images(3, generate_uid()))
    assert site.complete() == [2]
    site.wait(3000)
    assert site.complete() == []
    site.wait(600)
    assert site.complete() == [3]
    assert [row.reason for row in site.revisions()] == ["nothing arrived for 60 s", "open for 3600 s"]


def test_callers_have_their_own_longest_time() -> None:
    """What a caller does not set is as for all; the longest of several callers' times counts."""
    callers = (Caller("A", HOST, study_max_seconds=120), Caller("B", HOST, study_idle_seconds=5), Caller("C", HOST))
    rules = rules_of(callers, 60, 3600)
    assert (rules.idle_of(["A"]), rules.max_of(["A"])) == (60, 120)
    assert (rules.idle_of(["A", "B"]), rules.idle_of(["B"]), rules.idle_of([]), rules.idle_of(["X"])) == (60, 5, 60, 60)
    assert (rules.max_of(["A", "B"]), rules.shortest_idle, rules.shortest_max) == (3600, 5, 120)


def test_all_expected_images_complete_a_study_at_once(site: Site) -> None:
    """Number of Study Related Instances is believed of callers that say so, and of no others."""
    study_uid = generate_uid()
    objects = _images(3, study_uid, NumberOfStudyRelatedInstances=3)
    site.send(*objects[:2], caller="PACS")
    site.wait(600)
    assert site.complete() == []  # one is still to come, however quiet it is
    association = site.open("PACS")
    site.store(association, objects[2])
    assert site.complete() == [3]
    site.send(*_images(3, generate_uid(), NumberOfStudyRelatedInstances=3), caller="CT1")
    assert site.complete() == []
    (revision,) = site.revisions()
    assert (revision.arrived, revision.expected) == (3, 3)


def test_fewer_images_than_expected_are_read_in_the_end_and_it_is_said(site: Site, database: Database) -> None:
    """At the longest time a study is complete with what is there; revision and page say how much that is."""
    study_uid = generate_uid()
    site.send(*_images(2, study_uid, NumberOfStudyRelatedInstances=5), caller="PACS")
    site.wait(3599)
    assert site.complete() == []
    site.wait(1)
    assert site.complete() == [2]
    (revision,) = site.revisions()
    assert revision.reason == "open for 3600 s; 2 of 5 expected instances are here"
    with database.session() as session:
        (line,) = study_page(session, study_uid).revisions
    assert (line.is_short, line.arrived, line.expected) == (True, 2, 5)


def test_numbers_of_series_say_when_a_study_is_complete(site: Site) -> None:
    """With the number of series, and of instances of each, nothing of the study as a whole is needed."""
    study_uid, series = generate_uid(), [generate_uid(), generate_uid()]
    numbers = {"NumberOfStudyRelatedSeries": 2, "NumberOfSeriesRelatedInstances": 2}
    one = _images(2, study_uid, SeriesInstanceUID=series[0], **numbers)
    two = _images(2, study_uid, SeriesInstanceUID=series[1], **numbers)
    site.send(*one, two[0], caller="PACS")
    assert site.complete() == []
    site.send(two[1], caller="PACS")
    assert site.complete() == [4]


def test_late_images_make_a_new_revision_and_copies_none(site: Site) -> None:
    """What is new after a revision makes the next one, with all images; what is sent again changes nothing."""
    study_uid = generate_uid()
    objects = _images(3, study_uid)
    site.send(*objects)
    site.wait(60)
    assert site.complete() == [3]
    site.send(*objects)
    site.wait(4000)
    assert site.complete() == []
    site.send(*objects, *_images(1, study_uid))
    site.wait(60)
    assert site.complete() == [4]
    assert [row.number for row in site.revisions()] == [1, 2]


def test_number_that_was_reached_does_not_make_a_revision_of_every_late_image(site: Site) -> None:
    """What comes after a complete study is waited for anew, though its objects still carry the old number."""
    study_uid = generate_uid()
    site.send(*_images(2, study_uid, NumberOfStudyRelatedInstances=2), caller="PACS")
    assert site.complete() == [2]
    for _ in range(2):
        site.send(*_images(1, study_uid, NumberOfStudyRelatedInstances=2), caller="PACS")
        assert site.complete() == []
    site.wait(60)
    assert site.complete() == [4]


@pytest.mark.parametrize("modality", ["SR", "KO", "PR", "SEG", "own"])
def test_what_is_no_image_never_starts_a_read(site: Site, modality: str) -> None:
    """Reports, key objects, presentation states, segmentations and our own objects open no study, before or after."""
    study_uid = generate_uid()
    equipment = Dataset()
    equipment.ManufacturerModelName = "Wetread"
    other = {
        "SR": report(StudyInstanceUID=study_uid),
        "KO": _like(report(StudyInstanceUID=study_uid), "1.2.840.10008.5.1.4.1.1.88.59", "KO"),
        "PR": _like(report(StudyInstanceUID=study_uid), "1.2.840.10008.5.1.4.1.1.11.1", "PR"),
        "SEG": image(StudyInstanceUID=study_uid, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4", Modality="SEG"),
        "own": image(StudyInstanceUID=study_uid, ContributingEquipmentSequence=[equipment]),
    }[modality]
    site.send(other)
    site.wait(4000)
    assert site.complete() == []
    site.send(*_images(2, study_uid))
    site.wait(60)
    assert site.complete() == [2]
    another = copy.deepcopy(other)
    another.SOPInstanceUID = generate_uid()
    site.send(another)
    site.wait(4000)
    assert site.complete() == []


def test_dead_listeners_associations_stop_holding_a_study(site: Site, database: Database) -> None:
    """An association whose lease has run out holds nothing back."""
    association = site.open()
    site.store(association, *_images(2, generate_uid()))
    site.wait(60)
    assert site.complete() == []
    site.keeper.stop(5)  # without a word about its associations, as `kill -9` would
    with database.session() as session:
        session.execute(sqlalchemy.update(tables.AssociationLease).values(expires_at=utc_now()))
    assert site.complete() == [2]


def test_clock_set_back_holds_no_study_for_ever(site: Site, database: Database) -> None:
    """Instants that lie ahead of the database's clock are brought back to it, and the idle time begins anew."""
    site.send(*_images(2, generate_uid()))
    site.wait(-7200)  # the clock was set back by two hours
    judge = Judge(RULES, steady=lambda: 0.0)
    with database.session() as session:
        assert judge.complete(session) == []
    site.wait(59)
    assert site.complete() == []
    site.wait(1)
    assert site.complete() == [2]


def test_silence_is_distrusted_when_nobody_could_be_heard(site: Site, database: Database) -> None:
    """After a gap, or a jump of the clock ahead, a judge waits as long as a lease before it believes silence."""
    site.send(*_images(2, generate_uid()))
    site.wait(120)
    clock = [0.0]
    judge = Judge(RULES, steady=lambda: clock[0])
    judge._last = (0.0, utc_now())
    clock[0] = 100.0  # the database was away for so long
    for moment, images in ((100.0, []), (110.0, []), (116.0, [2])):
        clock[0] = moment
        with database.session() as session:
            # By the steady clock no time passes between the looks of this test; the database's tells the same.
            judge._last = (judge._last[0] if moment == 100.0 else moment, database_now(session))
            assert [revision.images for revision in judge.complete(session)] == images
    site.send(*_images(1, generate_uid()))
    site.wait(120)
    judge._last = (116.0, utc_now() - dt.timedelta(hours=1))  # the clock jumped ahead by an hour
    with database.session() as session:
        assert judge.complete(session) == []
    clock[0] = 132.0
    judge._last = (132.0, utc_now())
    with database.session() as session:
        assert len(judge.complete(session)) == 1


def test_study_is_read_now_where_somebody_asks(site: Site, database: Database) -> None:
    """What is there makes a revision and a job at once, is written into the trail, and late images make another."""
    study_uid = generate_uid()
    association = site.open()
    site.store(association, *_images(2, study_uid))
    with database.session() as session:
        revision = completion.read_now(session, study_uid, "anna")
    assert revision is not None
    assert (revision.number, revision.images) == (1, 2)
    with database.session() as session:
        assert completion.read_now(session, study_uid, "anna") is None
        jobs = session.execute(text("SELECT task_name, args FROM procrastinate_jobs")).all()
        trail = session.execute(select(tables.AuditEvent).where(tables.AuditEvent.actor == "anna")).scalars().all()
        with pytest.raises(NotFound):
            completion.read_now(session, "1.2.3", "anna")
    assert [(job.task_name, job.args) for job in jobs] == [("route_revision", {"revision_id": revision.id})]
    assert [(line.action, line.study_uid) for line in trail] == [("read asked for", study_uid)] * 2
    site.store(association, *_images(1, study_uid))
    site.close(association)
    site.wait(60)
    assert site.complete() == [3]


def test_pacs_is_asked_and_its_number_believed(site: Site, database: Database) -> None:
    """A quiet study is asked about once; with all there it is complete, with fewer it waits and is asked again."""
    node = Node("pacs", "ORTHANC", HOST, 4242)
    asked: list[str] = []
    answers: list[StudyNumbers | None] = [StudyNumbers(3, 1), StudyNumbers(3, 1)]

    def ask(to: Node, study_uid: str) -> StudyNumbers | None:
        asked.append(study_uid)
        return answers.pop(0)

    expecting = Expecting(database, {"CT1": node}, ask)
    study_uid = generate_uid()
    site.send(*_images(2, study_uid))
    site.send(*_images(2, generate_uid()), caller="OTHER")
    assert expecting.look() == 0  # images have only just come
    site.wait(6)
    assert (expecting.look(), expecting.look(), asked) == (1, 0, [study_uid])
    site.wait(61)
    assert site.complete() == [2]  # the other caller's, by time
    site.send(*_images(1, study_uid))
    site.wait(6)
    assert (expecting.look(), len(asked)) == (1, 2)
    association = site.open()
    site.store(association, *_images(1, generate_uid()))
    assert site.complete() == [3]


def test_pacs_that_does_not_answer_leaves_a_study_to_time(site: Site, database: Database) -> None:
    """Away, refusing, or without the study: the study is complete when it is quiet."""
    node = Node("pacs", "ORTHANC", HOST, 4242)
    answers: list[Exception | None] = [PeerUnavailable("pacs cannot be reached."), PeerRefused("no"), None]

    def ask(to: Node, study_uid: str) -> StudyNumbers | None:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return None

    expecting = Expecting(database, {"CT1": node}, ask)
    site.send(*_images(2, generate_uid()))
    site.wait(6)
    assert [expecting.look() for _ in range(4)] == [0] * 4
    assert answers == []
    site.wait(54)
    assert site.complete() == [2]


def test_own_objects_that_the_pacs_counts_are_not_waited_for(site: Site, database: Database) -> None:
    """Reports that went to the PACS are in its number, and need not come back to us."""
    with database.session() as session:
        study = seed.read_study(session, 1)
        session.execute(
            sqlalchemy.update(tables.Study)
            .where(tables.Study.id == study.study_id)
            .values(open_since=utc_now(), last_arrival_at=utc_now(), open_callers=["CT1"])
        )
        here = session.execute(
            select(sqlalchemy.func.count()).where(tables.Instance.study_id == study.study_id)
        ).scalar_one()
    site.send(*_images(1, study.study_uid))
    site.wait(6)
    expecting = Expecting(database, {"CT1": Node("pacs", "O", HOST, 1)}, lambda *_: StudyNumbers(here + 2, 1))
    assert expecting.look() == 1
    assert site.complete() == [here + 1]


def test_orthanc_answers_how_many_there_are(tmp_path: Path) -> None:
    """C-FIND at STUDY level of a real PACS; a study that it does not have is None; who is unknown gets no answer."""
    study_uid = generate_uid()
    with orthanc_server(tmp_path, modalities={"WETREAD": ("WETREAD", HOST, 11112)}) as orthanc:
        for ds in _images(3, study_uid):
            orthanc.upload(as_file(ds))
        node = Node("pacs", orthanc.ae_title, HOST, orthanc.dicom_port)
        assert study_numbers(node, SenderSettings(), study_uid) == StudyNumbers(3, 3)
        assert study_numbers(node, SenderSettings(), generate_uid()) is None
        with pytest.raises(PeerUnavailable):
            study_numbers(node, SenderSettings(ae_title="STRANGER"), study_uid)


def test_peer_that_answers_no_questions_says_so(storescp: StoreScpPeer) -> None:
    """A node that only stores refuses the question, and one that is not there cannot be reached."""
    with pytest.raises(PeerRefused):
        study_numbers(Node("store", "STORESCP", HOST, storescp.dicom_port), SenderSettings(), generate_uid())
    with pytest.raises(PeerUnavailable):
        study_numbers(Node("nobody", "X", HOST, 1, timeout_s=2), SenderSettings(), generate_uid())


def test_command_line_has_a_study_read_now(site: Site, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wetread read` says what will be read, that there is nothing new, or that there is no such study."""
    monkeypatch.setenv("WETREAD_DATABASE_URL", database.url)
    monkeypatch.setenv("WETREAD_HOME", str(site.spool.root.parent / "home"))
    study_uid = generate_uid()
    site.send(*_images(2, study_uid))
    first, second, third = (CliRunner().invoke(app, ["read", uid]) for uid in (study_uid, study_uid, "1.2.3"))
    assert (first.exit_code, second.exit_code, third.exit_code) == (0, 0, 1)
    assert "Revision 1 with 2 images will be read." in first.output
    assert "nothing to read" in second.output
    assert [row.number for row in site.revisions()] == [1]


def test_every_question_of_the_index_has_an_index_of_the_database(site: Site, database: Database) -> None:
    """No question of the index reads the whole table of instances, however many there are."""
    with database.session() as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        for question in (
            "SELECT id FROM instance WHERE sop_uid = ANY(ARRAY['1.2'])",
            "SELECT file_key FROM instance WHERE file_key = ANY(ARRAY['a'])",
            "SELECT max(received_at) FROM instance",
            "SELECT count(*) FROM instance WHERE study_id = 1",
            "SELECT count(id) FROM instance WHERE missing_since IS NOT NULL",
            "SELECT count(id) FROM instance WHERE standing = 'conflict'",
            "SELECT id FROM instance WHERE (received_at, id) > (now(), 1) ORDER BY received_at, id LIMIT 10",
        ):
            plan = "\n".join(session.execute(text(f"EXPLAIN {question}")).scalars())
            assert "Seq Scan" not in plan, f"{question}\n{plan}"
