"""The index behind the answers, with a real database: batches, leases, the trail, and what is lost with a process."""

from __future__ import annotations

import copy
import datetime as dt
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from sqlalchemy import func, select

from dicom_listener import index as index_module
from dicom_listener import index_keeper
from dicom_listener import intake as intake_module
from dicom_listener.handover import Ended, Ending, Opened, Quarantined, Rejected, Stored
from dicom_listener.index import Index
from dicom_listener.index_batch import Indexing
from dicom_listener.index_keeper import IndexKeeper, utc_now
from dicom_listener.intake import Intake
from dicom_listener.received import file_header
from dicom_listener.reconciler import reconcile, reindex_all
from dicom_listener.settings import Caller, ListenerSettings
from dicom_listener.spool import Spool
from fhir_records import tables
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable
from fhir_records.model import InstanceKind, Standing
from fhir_records.store.associations import OpenAssociation
from tests.peers import wait_until
from tests.unit.dicom_listener.objects import as_file, encoded, image, received, report

Start = Callable[..., IndexKeeper]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


@pytest.fixture
def start(database: Database, spool: Spool) -> Iterator[Start]:
    """Starts keepers, and stops them after the test."""
    started: list[IndexKeeper] = []

    def start_one(*callers: Caller, max_waiting: int = 20_000) -> IndexKeeper:
        keeper = IndexKeeper(ListenerSettings(callers=callers), database, spool, max_waiting=max_waiting)
        keeper.start()
        started.append(keeper)
        return keeper

    yield start_one
    for keeper in started:
        keeper.stop(5)


def _put(spool: Spool, ds: Dataset, syntax: str = ExplicitVRLittleEndian, caller: str = "CT1") -> str:
    """Store an object as an acceptor does; its key."""
    how = received(ds, syntax, caller=caller, source=f"dicom:{caller}", received_at=utc_now())
    return spool.store([file_header(how), encoded(copy.deepcopy(ds), syntax)], how.received_at).key


def _association(caller: str = "CT1") -> OpenAssociation:
    return OpenAssociation(uuid.uuid4(), caller, "10.0.0.5", utc_now())


def _ended(association: OpenAssociation, ending: Ending = Ending.RELEASED, stored: int = 0) -> Ended:
    return Ended(association, ending, "", stored, 0, 0, utc_now())


def _tell(keeper: IndexKeeper, spool: Spool, *objects: Dataset, caller: str = "CT1") -> OpenAssociation:
    """An association that sends these objects and is released."""
    association = _association(caller)
    keeper.tell(Opened(association))
    for ds in objects:
        keeper.tell(Stored(_put(spool, ds, caller=caller), association.id))
    keeper.tell(_ended(association, stored=len(objects)))
    return association


def _instances(database: Database) -> list[tables.Instance]:
    with database.session() as session:
        return list(session.execute(select(tables.Instance).order_by(tables.Instance.id)).scalars())


def _count(database: Database, table: type[tables.Base]) -> int:
    with database.session() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


def _trail(database: Database) -> list[tables.AuditEvent]:
    with database.session() as session:
        return list(session.execute(select(tables.AuditEvent).order_by(tables.AuditEvent.id)).scalars())


def test_what_an_association_stored_is_in_the_index_and_in_the_trail(
    start: Start, database: Database, spool: Spool
) -> None:
    """Objects of two studies become rows with their files' hashes; who came and left is written down once each."""
    keeper = start()
    first, second = generate_uid(), generate_uid()
    objects = [image(StudyInstanceUID=first if n % 2 else second, InstanceNumber=n) for n in range(10)]
    association = _tell(keeper, spool, *objects)
    keeper.tell(Opened(association))  # told again, as after a restart
    keeper.tell(_ended(association))
    assert keeper.settled(20)
    assert keeper.hashed(20)
    rows = _instances(database)
    assert {row.sop_uid for row in rows} == {ds.SOPInstanceUID for ds in objects}
    for row in rows:
        facts = spool.facts(row.file_key)
        assert (row.sha256, row.size, row.source) == (facts.sha256, facts.size, "dicom:CT1")
    assert (_count(database, tables.Study), _count(database, tables.Patient)) == (2, 1)
    assert _count(database, tables.AssociationLease) == 0
    trail = _trail(database)
    assert [line.action for line in trail][:2] == ["association accepted", "association released"]
    assert {line.actor for line in trail} == {"dicom:CT1"}
    assert trail[1].detail["stored"] == 10


def test_which_scanner_made_a_series_is_kept_of_its_first_image(start: Start, database: Database, spool: Spool) -> None:
    """Maker, model, station and serial number as the header has them; no row where it names none, or is no image."""
    keeper = start()
    scanner = {"Manufacturer": "Mäker", "ManufacturerModelName": "M3", "DeviceSerialNumber": "77"}
    named, other, silent, written = (generate_uid() for _ in range(4))
    study = {"StudyInstanceUID": generate_uid(), "SpecificCharacterSet": "ISO_IR 192"}
    first = image(SeriesInstanceUID=named, StationName="MR1 ", **scanner, **study)
    _tell(keeper, spool, first, image(SeriesInstanceUID=silent, **study))
    assert keeper.settled(20)
    _tell(
        keeper,
        spool,
        image(SeriesInstanceUID=named, StationName="MR9", **scanner, **study),
        image(SeriesInstanceUID=other, StationName="MR9", **study),
        report(SeriesInstanceUID=written, **scanner, **study),
    )
    assert keeper.settled(20)
    with database.session() as session:
        rows = {row.series_uid: row for row in session.scalars(select(tables.SeriesEquipment))}
    found = {
        uid: (row.manufacturer, row.model_name, row.station_name, row.device_serial_number) for uid, row in rows.items()
    }
    assert found == {named: ("Mäker", "M3", "MR1", "77"), other: ("", "", "MR9", "")}


def test_ends_and_rejections_of_every_kind_are_in_the_trail(start: Start, database: Database) -> None:
    """Aborted, lost and rejected associations are failures in the trail, with reason and address, tamed."""
    keeper = start()
    for ending in (Ending.ABORTED, Ending.ABORTED_BY_PEER, Ending.LOST):
        association = _association()
        keeper.tell(Opened(association))
        keeper.tell(_ended(association, ending))
    keeper.tell(Rejected("EV\x00IL\n", "WETREAD", "10.9.9.9", "calling AE title not recognized", utc_now()))
    assert keeper.settled(20)
    failures = [line for line in _trail(database) if line.outcome == "failure"]
    assert sorted(line.action for line in failures) == [
        "association aborted",
        "association aborted",
        "association lost",
        "association rejected",
    ]
    (rejected,) = [line for line in failures if line.action == "association rejected"]
    assert rejected.actor == "dicom:EV?IL?"
    assert rejected.detail == {
        "address": "10.9.9.9",
        "called": "WETREAD",
        "reason": "calling AE title not recognized",
    }


def test_the_same_object_many_times_in_one_batch_is_kept_once(start: Start, database: Database, spool: Spool) -> None:
    """Copies, versions and conflicts told in one go are told apart as if they had come one by one."""
    keeper, ds = start(), image()
    assert keeper.settled(20)
    renamed, repainted = copy.deepcopy(ds), copy.deepcopy(ds)
    renamed.PatientName = "Test^One^Middle"
    repainted.PixelData = bytes(48)
    _tell(keeper, spool, ds, ds, renamed, repainted, ds, renamed, repainted)
    assert keeper.settled(20)
    rows = _instances(database)
    assert [row.standing for row in rows] == [Standing.CURRENT, Standing.VERSION, Standing.CONFLICT]
    assert sorted(spool.object_keys()) == sorted(row.file_key for row in rows)


def test_one_bad_object_does_not_keep_the_others_out(
    start: Start, database: Database, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read, or not be written, stays in its place with a reason; its neighbours are indexed."""
    poison = image()
    write = index_module.index_batch.write

    def fail_on_poison(session, spool, filings, believed):  # type: ignore[no-untyped-def]
        if any(filing.sop_uid == poison.SOPInstanceUID for filing in filings):
            session.execute(sqlalchemy.text("SELECT 1/0"))
        return write(session, spool, filings, believed)

    monkeypatch.setattr(index_module.index_batch, "write", fail_on_poison)
    keeper = start()
    good = [image(InstanceNumber=n) for n in range(9)]
    noise = spool.store([b"noise" * 100], utc_now()).key
    association = _association()
    keeper.tell(Opened(association))
    for ds in (*good[:4], poison, *good[4:]):
        keeper.tell(Stored(_put(spool, ds), association.id))
    keeper.tell(Stored(noise, association.id))
    keeper.tell(_ended(association))
    assert keeper.settled(20)
    assert {row.sop_uid for row in _instances(database)} == {ds.SOPInstanceUID for ds in good}
    with database.session() as session:
        kept = session.execute(select(tables.QuarantinedObject)).scalars().all()
    assert len(kept) == 2
    assert all(spool.path(row.file_key).is_file() for row in kept)
    (unread,) = [row for row in kept if row.file_key == noise]
    assert unread.reason == "not a DICOM file"
    monkeypatch.setattr(index_module.index_batch, "write", write)
    index = Index(database, spool, clock=utc_now)
    assert reconcile(index).indexed == 0  # they are known, and not tried again and again
    done = reindex_all(index)
    assert (done.indexed, done.broken) == (1, 1)
    assert poison.SOPInstanceUID in {row.sop_uid for row in _instances(database)}


def test_text_that_no_index_of_the_database_takes_stops_nothing(start: Start, database: Database, spool: Spool) -> None:
    """Absurdly long values are cut; an absurd patient identifier belongs to nobody, so a person looks."""
    keeper = start()
    ds = image(AccessionNumber=None, PatientID=None)
    ds.add_new("AccessionNumber", "UC", "A" * 50_000)
    ds.add_new("PatientID", "UC", "".join(f"{n:05d}" for n in range(9000)))
    _tell(keeper, spool, ds, image())
    assert keeper.settled(20)
    assert len(_instances(database)) == 2
    with database.session() as session:
        (study,) = session.execute(select(tables.Study).where(tables.Study.hold_reason.is_not(None))).unique().scalars()
    assert len(study.accession_number) == 500
    assert study.patient.provisional


def test_quarantined_bytes_are_shown(start: Start, database: Database, spool: Spool) -> None:
    """The acceptor's note becomes a row, once, whoever else finds the file."""
    keeper = start()
    file = spool.quarantine([b"noise"], utc_now(), {"reason": "no data set", "caller": "CT1"})
    note = Quarantined(file.key, file.size, "no data set", "CT1", utc_now())
    keeper.tell(note)
    keeper.tell(note)
    assert keeper.settled(20)
    reconcile(keeper.index)
    assert _count(database, tables.QuarantinedObject) == 1


def test_files_of_a_process_that_died_are_found_at_the_start(start: Start, database: Database, spool: Spool) -> None:
    """Notes that were lost cost nothing: objects and quarantined bytes get their rows from the files."""
    keys = {_put(spool, image()) for _ in range(30)}
    spool.quarantine([b"noise"], utc_now(), {"reason": "no data set", "caller": "CT1"})
    keeper = start()
    assert keeper.settled(20)
    assert {row.file_key for row in _instances(database)} == keys
    assert _count(database, tables.QuarantinedObject) == 1


def test_files_of_any_day_are_found_at_the_start(start: Start, database: Database, spool: Spool) -> None:
    """What a wrong clock filed under a day long past gets its row too, though newer days are in the index."""
    first = start()
    _tell(first, spool, image())
    assert first.settled(20)
    first.stop()
    ds, long_ago = image(), utc_now() - dt.timedelta(days=100)
    key = spool.store([file_header(received(ds, received_at=long_ago)), encoded(ds)], long_ago).key
    assert start().settled(20)
    assert key in {row.file_key for row in _instances(database)}


def test_notes_that_do_not_fit_into_memory_are_found_in_the_files(
    start: Start, database: Database, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the database is away memory is bounded; every object is in the index soon after it is back."""
    keeper = start(max_waiting=20)
    assert keeper.settled(20)
    gone = threading.Event()
    gone.set()
    session_of = database.session

    def session():  # type: ignore[no-untyped-def]
        if gone.is_set():
            raise DatabaseUnavailable
        return session_of()

    monkeypatch.setattr(database, "session", session)
    monkeypatch.setattr(index_keeper, "RETRY_S", 0.1)
    associations = [_tell(keeper, spool, image(), image()) for _ in range(40)]
    assert len(keeper._waiting) <= 60
    assert not keeper.settled(0.3)
    gone.clear()
    assert keeper.settled(30)
    assert len(_instances(database)) == 80
    wait_until(lambda: _count(database, tables.AssociationLease) == 0, what="the end of the leases", timeout_s=120)
    lost = [line for line in _trail(database) if line.action == "associations not recorded"]
    told = [line for line in _trail(database) if line.actor == "dicom:CT1"]
    assert sum(line.detail["notes"] for line in lost) + len(told) == 2 * len(associations)


def test_lease_is_renewed_until_the_last_object_has_its_row(
    start: Start, database: Database, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An association's end is written behind what it stored, however late that is; a dead listener's runs out."""
    monkeypatch.setattr(index_keeper, "HEARTBEAT_S", 0.1)
    keeper = start()
    association = _association()
    keeper.tell(Opened(association))
    ds = image()
    keeper.tell(Stored(_put(spool, ds), association.id))
    assert keeper.settled(20)

    def lease() -> dt.datetime | None:
        with database.session() as session:
            return session.execute(select(tables.AssociationLease.expires_at)).scalar_one_or_none()

    first = lease()
    assert first is not None
    wait_until(lambda: (lease() or first) > first, what="a heartbeat")
    with database.session() as session:
        (noted,) = session.execute(select(tables.AssociationStudy.study_uid)).scalars()
    assert noted == ds.StudyInstanceUID
    with keeper._changed:
        keeper._backlog = True  # something that it stored may lack its row
        keeper._waiting.append(_ended(association))
        keeper._told += 1
        keeper._changed.notify_all()
    assert keeper.settled(20)
    assert lease() is None
    keeper.stop()
    with database.session() as session:  # of a listener that died long ago
        session.add(
            tables.AssociationLease(
                id=uuid.uuid4(), caller="X", address="", expires_at=utc_now() - dt.timedelta(seconds=1)
            )
        )
        session.add(  # and of one that died before the clock was set back
            tables.AssociationLease(
                id=uuid.uuid4(), caller="X", address="", expires_at=utc_now() + dt.timedelta(days=1)
            )
        )
    start()
    wait_until(lambda: _count(database, tables.AssociationLease) == 1, what="the expired lease's end")
    remaining = lease()
    assert remaining is not None
    assert remaining < utc_now() + dt.timedelta(seconds=20)


def test_two_keepers_index_the_same_files_once(start: Start, database: Database, spool: Spool) -> None:
    """Processes that meet on the same files, studies and patients make every row once."""
    keepers = [start() for _ in range(3)]
    studies = [generate_uid() for _ in range(5)]
    keys = [_put(spool, image(StudyInstanceUID=studies[n % 5], PatientID=f"P{n % 5}")) for n in range(150)]
    for keeper in keepers:
        association = _association()
        keeper.tell(Opened(association))
        for key in keys:
            keeper.tell(Stored(key, association.id))
        keeper.tell(_ended(association))
    for keeper in keepers:
        assert keeper.settled(60)
    assert sorted(row.file_key for row in _instances(database)) == sorted(keys)
    assert (_count(database, tables.Study), _count(database, tables.Patient)) == (5, 5)
    assert _count(database, tables.QuarantinedObject) == 0


def test_missing_files_are_marked_and_come_back(start: Start, database: Database, spool: Spool) -> None:
    """A row without its file is marked; the mark goes when the file is there again, or the object is sent again."""
    keeper = start()
    one, two = image(), image()
    _tell(keeper, spool, one, two)
    assert keeper.settled(20)
    assert keeper.hashed(20)
    rows = {row.sop_uid: row for row in _instances(database)}
    first, second = rows[one.SOPInstanceUID], rows[two.SOPInstanceUID]
    content = spool.path(first.file_key).read_bytes()
    spool.path(first.file_key).unlink()
    spool.path(second.file_key).unlink()
    assert reconcile(keeper.index).missing == 2
    assert all(row.missing_since for row in _instances(database))
    spool.path(first.file_key).write_bytes(content)
    _tell(keeper, spool, two)
    assert keeper.settled(20)
    assert reconcile(keeper.index).missing == 0
    assert not any(row.missing_since for row in _instances(database))
    assert {row.id for row in _instances(database)} == {first.id, second.id}


def test_own_objects_and_reports_open_no_study(start: Start, database: Database, spool: Spool) -> None:
    """What Wetread wrote, and what is no image, is indexed and makes no revision due."""
    keeper, ds = start(), image()
    assert keeper.settled(20)
    equipment = Dataset()
    equipment.ManufacturerModelName = "Wetread"
    own = report(ContributingEquipmentSequence=[equipment], StudyInstanceUID=ds.StudyInstanceUID)
    _tell(keeper, spool, own, report(StudyInstanceUID=ds.StudyInstanceUID))
    assert keeper.settled(20)
    assert [row.kind for row in _instances(database)] == [InstanceKind.OWN, InstanceKind.OTHER]
    with database.session() as session:
        assert session.execute(select(tables.Study.open_since)).scalar_one() is None


def test_other_doors_index_at_once(database: Database, spool: Spool) -> None:
    """`Index.add_files` tells what became of an object before it returns."""
    index, ds = Index(database, spool, clock=utc_now), image()
    outcomes = []
    for _ in range(2):
        outcomes += index.add_files([(_put(spool, ds), None)])
    assert outcomes == [Indexing.NEW, Indexing.SAME]


def test_versions_told_to_two_keepers_are_kept_once(start: Start, database: Database, spool: Spool) -> None:
    """Processes that meet on copies of one object tell them apart as one process would."""
    keepers, ds = [start() for _ in range(3)], image()
    renamed, repainted = copy.deepcopy(ds), copy.deepcopy(ds)
    renamed.PatientName = "Test^One^Middle"
    repainted.PixelData = bytes(48)
    _tell(keepers[0], spool, ds)
    assert keepers[0].settled(20)
    for _ in range(10):
        for keeper in keepers:
            _tell(keeper, spool, renamed, repainted, ds)
    for keeper in keepers:
        assert keeper.settled(60)
    rows = _instances(database)
    assert sorted(row.standing for row in rows) == [Standing.CONFLICT, Standing.CURRENT, Standing.VERSION]
    assert sorted(spool.object_keys()) == sorted(row.file_key for row in rows)


def test_other_doors_try_the_database_again(database: Database, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that comes while the database is away is safe; the door does not wait for ever to look for it again."""
    monkeypatch.setattr(intake_module, "AWAY_S", 0.2)
    intake, session_of = Intake(spool, Index(database, spool, clock=utc_now), clock=utc_now), database.session

    def away():  # type: ignore[no-untyped-def]
        raise DatabaseUnavailable

    monkeypatch.setattr(database, "session", away)
    with pytest.raises(DatabaseUnavailable):
        intake.take_file(as_file(image()), "stow:test")
    monkeypatch.setattr(database, "session", session_of)
    with pytest.raises(DatabaseUnavailable):
        intake.take_file(as_file(image()), "stow:test")
    time.sleep(0.25)
    assert intake.take_file(as_file(image()), "stow:test") is Indexing.NEW
    assert intake.backlog.is_set()
    assert reconcile(intake.index).indexed == 2
    assert {row.source for row in _instances(database)} == {"stow:test"}


def test_what_nobody_told_of_is_made_durable_before_it_has_a_row(
    database: Database, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file whose writer died before the sync of its name is synchronised, name and all, and only then indexed.

    Else the same object, sent again, is taken for its copy and removed, and a power cut takes the file itself.
    """
    synced: set[str] = set()
    really = os.fsync

    def fsync(descriptor: int) -> None:
        synced.add(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        really(descriptor)

    class Watched(Index):
        """Looks what is durable when rows are asked for."""

        def add_files(self, keys: Sequence[tuple[str, uuid.UUID | None]]) -> Sequence[Indexing]:
            paths = [self.spool.path(key) for key, _ in keys]
            before.extend(str(path) in synced and str(path.parent) in synced for path in paths)
            return super().add_files(keys)

    before: list[bool] = []
    keys = [_put(spool, image()), _put(spool, report())]
    monkeypatch.setattr(os, "fsync", fsync)
    assert reconcile(Watched(database, spool, clock=utc_now)).indexed == len(keys)
    assert before == [True, True]


def test_half_written_files_of_an_earlier_version_go(start: Start, spool: Spool) -> None:
    """At the start files that an earlier version did not finish are removed; what may still be written to stays."""
    key = _put(spool, image())
    folder = spool.path(key).parent
    quarantine = spool.root / "quarantine" / "2026-11-20"
    quarantine.mkdir(parents=True)
    old = [folder / "ab12.dcm.part", quarantine / "cd34.bin.part"]
    young = folder / "ef56.dcm.part"
    for path in (*old, young):
        path.write_bytes(b"half")
    for path in old:
        os.utime(path, (1, 1))
    keeper = start()
    assert keeper.settled(20)
    assert not any(path.exists() for path in old)
    assert young.exists()
    assert list(spool.object_keys()) == [key]
