"""The listener, with real senders and a real database."""

from __future__ import annotations

import copy
import datetime as dt
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from sqlalchemy import func, select

from dicom_listener.arrivals import CompletionRules, complete_due_studies
from dicom_listener.association import Listener
from dicom_listener.hashing import Hashing
from dicom_listener.index import Index
from dicom_listener.received import read_received, split_file
from dicom_listener.reconciler import reconcile, reindex_all
from dicom_listener.sender import send, send_files
from dicom_listener.settings import Caller, ListenerSettings, Node, SenderSettings
from dicom_listener.spool import Spool
from fhir_records import tables
from fhir_records.database import Database
from fhir_records.errors import PeerRefused, PeerUnavailable
from fhir_records.model import InstanceKind, Standing
from tests.chaos.verdict import half_written
from tests.peers import HOST, echoscu, free_port, listens, run_program, storescu, wait_until
from tests.small_disk import may_mount, small_disk
from tests.unit.dicom_listener.objects import MR_IMAGE, as_file, image, report

US = SenderSettings(ae_title="CT1")
# Objects of the test data that cannot be filed: no Study Instance UID, an early end, a file meta information that
# announces another SOP Instance UID.
NOT_STORABLE = {
    "HTJ2KLossless_08_RGB.dcm",
    "HTJ2K_08_RGB.dcm",
    "emri_small_jpeg_2k_lossless_too_short.dcm",
    "bad_sequence.dcm",
    "TestPattern_JPEG-Lossless_RGB.dcm",
}

Start = Callable[..., Listener]
# Those of the test under way: rows are written behind the answers.
STARTED: list[Listener] = []


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def start(database: Database, spool: Spool) -> Iterator[Start]:
    """Starts listeners on free ports, and stops them after the test."""

    def start_one(**settings: Any) -> Listener:
        listener = Listener(ListenerSettings(host=HOST, port=0, **{"min_free_bytes": 0, **settings}), database, spool)
        listener.start()
        STARTED.append(listener)
        return listener

    yield start_one
    for listener in STARTED:
        listener.stop(grace=2)
    STARTED.clear()


def _settle() -> None:
    for listener in STARTED:
        assert listener.keeper.settled(20)


def _node(listener: Listener, ae_title: str = "WETREAD") -> Node:
    return Node("us", ae_title, HOST, listener.port, timeout_s=60)


def _send(listener: Listener, ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> int:
    """Send an object; its rows are there when this returns."""
    try:
        return send(as_file(copy.deepcopy(ds), syntax), _node(listener), US).status
    finally:
        _settle()


def _stop(listener: Listener, grace: float = 10) -> None:
    listener.stop(grace)
    STARTED.remove(listener)


def _instances(database: Database) -> list[tables.Instance]:
    _settle()
    with database.session() as session:
        return list(session.execute(select(tables.Instance).order_by(tables.Instance.id)).scalars())


def _studies(database: Database) -> list[tables.Study]:
    _settle()
    with database.session() as session:
        return list(session.execute(select(tables.Study).order_by(tables.Study.id)).scalars().unique())


def _data_sets(spool: Spool) -> dict[str, bytes]:
    """The stored data sets by SOP Instance UID."""
    found = {}
    for key in spool.object_keys():
        received, data = read_received(spool.path(key))
        found[received.sop_instance_uid] = bytes(data)
    return found


def test_series_sent_by_storescu_is_stored_and_indexed(start: Start, database: Database, test_data: Path) -> None:
    """170 slices from DCMTK make 170 files, one study, one patient; C-ECHO is answered."""
    listener = start()
    assert echoscu(HOST, listener.port).status == 0
    run = storescu([test_data / "dicom" / "philips_brain_mr"], HOST, listener.port)
    assert run.status == 0, run.output[-2000:]
    _settle()
    assert listener.keeper.hashed(20)
    rows = _instances(database)
    assert len(rows) == 170
    assert {row.kind for row in rows} == {InstanceKind.IMAGE}
    for row in rows:
        file = listener.spool.facts(row.file_key)
        assert (file.sha256, file.size) == (row.sha256, row.size)
    (study,) = _studies(database)
    assert (study.modalities, study.source, study.caller, study.hold_reason) == (
        ["MR"],
        "dicom:STORESCU",
        "STORESCU",
        None,
    )
    assert study.started_at == dt.datetime(2021, 9, 2, 12, 18, 16, tzinfo=dt.UTC)
    with database.session() as session:
        assert session.execute(select(func.count()).select_from(tables.AssociationLease)).scalar() == 0


def test_every_object_of_the_test_data_is_stored_byte_for_byte(start: Start, spool: Spool, test_data: Path) -> None:
    """Whatever SOP class and transfer syntax: the data set lies in the spool as it was sent."""
    listener = start()
    folders = ("assorted", "transfer_syntaxes", "sr_tid1500")
    paths = [path for name in folders for path in sorted((test_data / "dicom" / name).glob("*.dcm"))]
    # One CT in many transfer syntaxes is one object, so each finds the spool and the index empty.
    refused = set()
    for path in paths:
        for key in list(spool.object_keys()):
            spool.remove(key)
        with listener.index.database.session() as session:
            for table in (tables.AssociationStudy, tables.Instance, tables.Study):
                session.execute(sqlalchemy.delete(table))
        (outcome,) = send_files([path], _node(listener), US)
        if not outcome.delivered:
            refused.add(path.name)
            assert outcome.status is not None
            assert outcome.status in (0xA900, 0xC000)
            continue
        meta, data = split_file(path.read_bytes())
        (key,) = spool.object_keys()
        received, stored = read_received(spool.path(key))
        # A deflated data set of odd length is padded on its way (PS3.5 section A.5).
        assert bytes(stored) == bytes(data) + bytes(len(data) % 2), path.name
        assert received.transfer_syntax_uid == meta.TransferSyntaxUID
    assert refused == NOT_STORABLE


def test_wrong_called_ae_title_is_rejected(start: Start, spool: Spool) -> None:
    """An association for somebody else is rejected, with the reason."""
    listener = start()
    with pytest.raises(PeerUnavailable, match="Called AE title not recognised"):
        send(as_file(image()), _node(listener, "OTHER"), US)
    assert "Called AE Title Not Recognized" in echoscu(HOST, listener.port, called="OTHER").output
    assert list(spool.object_keys()) == []


def test_unknown_caller_is_rejected(start: Start, spool: Spool) -> None:
    """With callers listed, nobody else may send, not even from this machine."""
    listener = start(callers=(Caller("MR7", HOST), Caller("CT1", "10.0.0.5")))
    with pytest.raises(PeerUnavailable, match="Calling AE title not recognised"):
        send(as_file(image()), _node(listener), US)
    assert send(as_file(image()), _node(listener), SenderSettings(ae_title="MR7")).status == 0
    assert len(list(spool.object_keys())) == 1


def test_more_associations_than_allowed_are_rejected_for_now(start: Start) -> None:
    """The limit on associations is a transient rejection, and frees up again."""
    listener = start(max_associations=1)
    ae = AE(ae_title="CT1")
    ae.add_requested_context(MR_IMAGE)
    first = ae.associate(HOST, listener.port, ae_title="WETREAD")
    assert first.is_established
    second = ae.associate(HOST, listener.port, ae_title="WETREAD")
    assert second.is_rejected
    first.release()
    wait_until(lambda: echoscu(HOST, listener.port).status == 0, what="a place for an association")


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
def test_object_without_a_uid_is_refused_and_kept_in_quarantine(
    start: Start, database: Database, spool: Spool, keyword: str
) -> None:
    """Cannot Understand, nothing stored, the bytes and the reason in quarantine."""
    listener = start()
    with pytest.raises(PeerRefused) as caught:
        _send(listener, image(**{keyword: None}))
    assert caught.value.status == 0xC000
    _is_quarantined(database, spool, keyword)


def test_object_that_is_no_data_set_is_refused(start: Start, database: Database, spool: Spool) -> None:
    """Noise under a proper request is Cannot Understand."""
    listener = start()
    whole = as_file(image())
    _, data = split_file(whole)
    with pytest.raises(PeerRefused) as caught:
        send(whole[: len(whole) - len(data)] + b"\x93noise" * 100, _node(listener), US)
    assert caught.value.status == 0xC000
    _is_quarantined(database, spool, "data set")


@pytest.mark.parametrize("missing", [1, 30, 47])
def test_truncated_object_is_refused(start: Start, database: Database, spool: Spool, missing: int) -> None:
    """An object that ends before its pixels do is no success."""
    listener = start()
    with pytest.raises(PeerRefused) as caught:
        send(as_file(image())[:-missing], _node(listener), US)
    assert caught.value.status == 0xC000
    _is_quarantined(database, spool, "ends early")


def test_object_that_is_not_the_announced_one_is_refused(start: Start, database: Database, spool: Spool) -> None:
    """A data set with another SOP Instance UID than the request's does not match."""
    listener = start()
    ds = image()
    announced = as_file(ds)
    ds.SOPInstanceUID = generate_uid()
    meta_end = len(announced) - len(split_file(announced)[1])
    with pytest.raises(PeerRefused) as caught:
        send(announced[:meta_end] + bytes(split_file(as_file(ds))[1]), _node(listener), US)
    assert caught.value.status == 0xA900
    _is_quarantined(database, spool, "SOPInstanceUID differs")


def _is_quarantined(database: Database, spool: Spool, reason: str) -> None:
    assert list(spool.object_keys()) == []
    assert _instances(database) == []
    (key,) = spool.quarantined_keys()
    assert reason in spool.quarantine_facts(key)["reason"]
    with database.session() as session:
        (row,) = session.execute(select(tables.QuarantinedObject)).scalars()
    assert (row.file_key, row.caller, row.size) == (key, "CT1", spool.path(key).stat().st_size)
    assert reason in row.reason


def test_same_object_again_changes_nothing(start: Start, database: Database, spool: Spool) -> None:
    """A second copy, even in another encoding, is answered with success and leaves no trace."""
    listener, ds = start(), image()
    assert [_send(listener, ds), _send(listener, ds), _send(listener, ds, ImplicitVRLittleEndian)] == [0, 0, 0]
    (row,) = _instances(database)
    assert list(spool.object_keys()) == [row.file_key]


def test_other_pixels_under_one_uid_are_a_conflict(start: Start, database: Database, spool: Spool) -> None:
    """Two different images under one SOP Instance UID: both answered with success, both kept, the first one current."""
    listener, ds = start(), image()
    other = copy.deepcopy(ds)
    other.PixelData = bytes(48)
    assert [_send(listener, ds), _send(listener, other), _send(listener, other)] == [0, 0, 0]
    assert [row.standing for row in _instances(database)] == [Standing.CURRENT, Standing.CONFLICT]
    assert len(list(spool.object_keys())) == 2


def test_other_demographics_are_a_version_and_hold_the_study(start: Start, database: Database) -> None:
    """The same image with another patient's identifier is kept as a version, and a person must look at the study."""
    listener, ds = start(), image()
    renamed, moved = copy.deepcopy(ds), copy.deepcopy(ds)
    renamed.PatientName = "Test^One^Middle"
    moved.PatientID = "PAT2"
    assert [_send(listener, ds), _send(listener, renamed)] == [0, 0]
    (study,) = _studies(database)
    assert study.hold_reason is None
    assert _send(listener, moved) == 0
    assert [row.standing for row in _instances(database)] == [Standing.CURRENT, Standing.VERSION, Standing.VERSION]
    (study,) = _studies(database)
    assert study.hold_reason is not None
    assert "PAT" not in study.hold_reason
    assert study.patient.provisional


def test_known_identifier_with_another_birth_date_is_held(start: Start, database: Database) -> None:
    """A patient is never merged by guess: the second study gets a provisional patient and is still there to be read."""
    listener = start()
    # The second one fills in the birth date.
    others = ({"PatientBirthDate": ""}, {}, {"PatientBirthDate": "19710102"}, {"PatientSex": "M"}, {"PatientID": ""})
    for attributes in others:
        _send(listener, image(**attributes))
    one, two, three, four, five = _studies(database)
    assert one.patient_id == two.patient_id
    assert one.patient.birth_date == dt.date(1970, 1, 2)
    assert len({study.patient_id for study in (one, three, four, five)}) == 4
    assert [study.hold_reason is None for study in (one, two, three, four, five)] == [True, True, False, False, False]
    assert [study.patient.provisional for study in (one, three, four, five)] == [False, True, True, True]
    assert all(study.open_since is not None for study in (one, two, three, four, five))


def test_issuer_comes_from_the_caller(start: Start, database: Database) -> None:
    """The same PatientID from two callers with different issuers is two patients."""
    listener = start(callers=(Caller("CT1", HOST, "HOSP"), Caller("CT2", HOST, "CLINIC")))
    for ae_title in ("CT1", "CT2"):
        send(as_file(image()), _node(listener), SenderSettings(ae_title=ae_title))
        _settle()
    one, two = _studies(database)
    assert [study.patient.identifiers[0].issuer for study in (one, two)] == ["HOSP", "CLINIC"]


def test_own_objects_open_nothing(start: Start, database: Database) -> None:
    """What Wetread wrote, come back by C-STORE, and other people's reports, make no revision due."""
    listener, ds = start(), image()
    equipment = Dataset()
    equipment.ManufacturerModelName = "Wetread"
    _send(listener, report(ContributingEquipmentSequence=[equipment], StudyInstanceUID=ds.StudyInstanceUID))
    _send(listener, report(StudyInstanceUID=ds.StudyInstanceUID))
    assert [row.kind for row in _instances(database)] == [InstanceKind.OWN, InstanceKind.OTHER]
    (study,) = _studies(database)
    assert study.open_since is None


def test_many_associations_at_once_make_one_study(start: Start, database: Database, test_data: Path) -> None:
    """Parts of one new study over eight associations at once: one study, one patient, every image once."""
    listener = start()
    paths = sorted((test_data / "dicom" / "philips_brain_mr").glob("*.dcm"))[:40]
    results: list[bool] = []

    def run(part: list[Path]) -> None:
        results.extend(outcome.delivered for outcome in send_files(part, _node(listener), US))

    # Each image goes over two of the associations.
    threads = [threading.Thread(target=run, args=(paths[n % 4 :: 4],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 80
    wait_until(lambda: len(_instances(database)) == 40, what="the index")
    assert len(_studies(database)) == 1
    assert len(list(listener.spool.object_keys())) == 40
    with database.session() as session:
        assert session.execute(select(func.count()).select_from(tables.Patient)).scalar() == 1


def test_study_is_complete_after_release_and_idle_time(start: Start, database: Database) -> None:
    """An open association that sent the study holds it back; then one revision is made, and one more for new images."""
    listener = start()
    study_uid = generate_uid()
    rules = CompletionRules(idle_seconds=60, max_seconds=3600)

    def completed(after_s: float) -> list[int]:
        with database.session() as session:
            now = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=after_s)
            # Leases are renewed by the clock of now; let them run as far as this test looks ahead.
            session.execute(sqlalchemy.update(tables.AssociationLease).values(expires_at=now + dt.timedelta(hours=1)))
            return [revision.images for revision in complete_due_studies(session, now, rules)]

    ae = AE(ae_title="CT1")
    ae.add_requested_context(MR_IMAGE, ExplicitVRLittleEndian)
    assoc = ae.associate(HOST, listener.port, ae_title="WETREAD")
    for _ in range(2):
        ds = image(StudyInstanceUID=study_uid)
        as_file(ds)
        assert assoc.send_c_store(ds).Status == 0
    _settle()
    assert completed(61) == []
    assert completed(3601) == [2]
    assert completed(3601) == []
    assoc.release()
    _send(listener, image(StudyInstanceUID=study_uid))
    wait_until(lambda: _count(database, tables.AssociationLease) == 0, what="the end of the leases")
    assert completed(59) == []
    assert completed(61) == [3]
    (study,) = _studies(database)
    assert study.revision == 2
    assert study.open_since is None


def _count(database: Database, table: type[tables.Base]) -> int:
    with database.session() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


def test_two_judges_make_one_revision(start: Start, database: Database) -> None:
    """While one process judges a study, another one leaves it alone."""
    listener = start()
    _send(listener, image())
    later = dt.datetime.now(dt.UTC) + dt.timedelta(hours=2)
    with database.session() as one, database.session() as two:
        assert len(complete_due_studies(one, later, CompletionRules())) == 1
        assert complete_due_studies(two, later, CompletionRules()) == []
    assert _count(database, tables.Revision) == 1


def test_lease_is_renewed_while_the_association_is_open(start: Start, database: Database) -> None:
    """An open association has a lease that moves on; the study it sent is noted."""
    listener = start()
    ae = AE(ae_title="CT1")
    ae.add_requested_context(MR_IMAGE, ExplicitVRLittleEndian)
    assoc = ae.associate(HOST, listener.port, ae_title="WETREAD")
    ds = image()
    as_file(ds)
    assoc.send_c_store(ds)
    _settle()

    def lease() -> tables.AssociationLease:
        with database.session() as session:
            return session.execute(select(tables.AssociationLease)).scalar_one()

    first = lease()
    assert (first.caller, first.address) == ("CT1", HOST)
    with database.session() as session:
        noted = session.execute(select(tables.AssociationStudy.study_uid)).scalar_one()
    assert noted == ds.StudyInstanceUID
    wait_until(lambda: lease().expires_at > first.expires_at, what="a heartbeat")
    assoc.abort()
    wait_until(lambda: _count(database, tables.AssociationLease) == 0, what="the end of the lease")


def test_below_the_watermark_objects_are_refused_for_now(start: Start, spool: Spool) -> None:
    """Out of Resources, before anything is written."""
    listener = start(min_free_bytes=0)
    spool._min_free_bytes = 1 << 60
    with pytest.raises(PeerUnavailable) as caught:
        _send(listener, image())
    assert caught.value.status == 0xA700
    assert not [path for path in spool.root.rglob("*") if path.is_file()]
    spool._min_free_bytes = 0
    assert _send(listener, image()) == 0


@pytest.mark.skipif(not may_mount(), reason="SKIPPED LOUDLY: no right to mount a small disk")
def test_full_disk_is_out_of_resources_and_the_listener_lives_on(
    database: Database, tmp_path: Path, test_data: Path
) -> None:
    """On a disk of 2 MB, what does not fit is refused with A700; when there is room again, objects go in."""
    disk = tmp_path / "disk"
    disk.mkdir()
    held = ExitStack()
    held.enter_context(small_disk(disk, 2 << 20))
    listener = Listener(ListenerSettings(host=HOST, port=0), database, Spool(disk / "spool"))
    try:
        listener.start()
        paths = sorted((test_data / "dicom" / "philips_brain_mr").glob("*.dcm"))[:30]
        outcomes = list(send_files(paths, _node(listener), US))
        statuses = [outcome.status for outcome in outcomes]
        assert set(statuses) == {0x0000, 0xA700}
        assert listener.keeper.settled(20)
        keys = list(listener.spool.object_keys())
        assert len(keys) == statuses.count(0x0000) == len(_instances(database))
        assert not half_written(disk)
        listener.spool.remove(keys[0])
        failed = next(outcome.path for outcome in outcomes if outcome.status == 0xA700)
        assert send(failed, _node(listener), US).status == 0
    finally:
        listener.stop(grace=1)
        held.close()


def test_database_away_during_c_store_and_back(
    start: Start, database: Database, postgres_server: sqlalchemy.URL, spool: Spool
) -> None:
    """Objects are taken while the database is away, and are in the index soon after it is back."""
    listener = start()
    _send(listener, image())
    name = database.engine.url.database
    administrator = sqlalchemy.create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with administrator.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.exec_driver_sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
        try:
            assert [send(as_file(image()), _node(listener), US).status for _ in range(5)] == [0] * 5
            with pytest.raises(PeerRefused):
                send(as_file(image(StudyInstanceUID=None)), _node(listener), US)
            assert len(list(spool.object_keys())) == 6
        finally:
            connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    administrator.dispose()
    wait_until(lambda: len(_instances(database)) == 6, what="the index")
    wait_until(lambda: _count(database, tables.QuarantinedObject) == 1, what="the quarantine")
    assert all(study.open_since is not None for study in _studies(database))
    assert _send(listener, image()) == 0
    wait_until(lambda: len(_instances(database)) == 7, what="the index")


def test_killed_listener_loses_nothing_that_it_acknowledged(database: Database, spool: Spool, test_data: Path) -> None:
    """After `kill -9` in the middle of two associations every acknowledged object is there, and indexed on restart."""
    port = free_port()
    command = [sys.executable, "-m", "tests.integration.listener_process", database.url, str(spool.root), str(port)]
    process = subprocess.Popen(command)
    folder = test_data / "dicom" / "philips_brain_mr"
    outputs: list[str] = []

    def run(calling: str, half: list[Path]) -> None:
        outputs.append(storescu(half, HOST, port, calling=calling).output)

    paths = sorted(folder.glob("*.dcm"))
    try:
        wait_until(lambda: listens(port), what="the listener")
        threads = [threading.Thread(target=run, args=(f"CT{n}", paths[n::2])) for n in range(2)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(list(spool.object_keys())) > 30, what="some objects")
        process.kill()
        for thread in threads:
            thread.join()
    finally:
        process.kill()
        process.wait()
    acknowledged = [
        path
        for output in outputs
        for path in re.findall(r"Sending file: (\S+)\n(?:(?!Sending file).*\n)*?.*Store Response \(Success\)", output)
    ]
    assert 20 < len(acknowledged) < 170
    stored = _data_sets(spool)
    for path in acknowledged:
        ds = dcmread(path)
        assert stored[ds.SOPInstanceUID]
    listener = Listener(ListenerSettings(host=HOST, port=0), database, spool)
    listener.start()
    try:
        uids = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in acknowledged}
        wait_until(lambda: uids <= {row.sop_uid for row in _instances(database)}, what="the index")
        wait_until(lambda: len(_instances(database)) == len(list(spool.object_keys())), what="all files in the index")
    finally:
        listener.stop(grace=1)


def test_index_is_rebuilt_from_the_files(start: Start, database: Database, spool: Spool) -> None:
    """With every row of the index gone, the files alone bring back studies, instances and their callers."""
    listener, ds = start(callers=(Caller("CT1", HOST, "HOSP"),)), image()
    other = copy.deepcopy(ds)
    other.PixelData = bytes(48)
    for each in (ds, other, image(), report(StudyInstanceUID=ds.StudyInstanceUID)):
        _send(listener, each)
    _stop(listener)

    def facts() -> list[Any]:
        assert Hashing(database, spool).catch_up()
        return [
            (row.file_key, row.sha256, row.standing, row.kind, row.source, row.received_at, row.study_id)
            for row in sorted(_instances(database), key=lambda row: row.file_key)
        ]

    before, studies = facts(), [(study.study_uid, study.caller, study.source) for study in _studies(database)]
    with database.session() as session:
        for table in (tables.Instance, tables.Study, tables.PatientIdentifier, tables.Patient):
            session.execute(sqlalchemy.delete(table))
    seen: list[int] = []
    index = Index(database, spool, callers=(Caller("CT1", HOST, "HOSP"),), clock=lambda: dt.datetime.now(dt.UTC))
    done = reindex_all(index, lambda progress: seen.append(progress.looked_at))
    assert (done.looked_at, done.indexed, done.broken, done.missing) == (4, 4, 0, 0)
    assert seen == [4]
    # Files are met in another order than they came in, so which of two conflicting ones is current may change.
    assert [row[:2] + row[3:6] for row in facts()] == [row[:2] + row[3:6] for row in before]
    assert sorted((study.study_uid, study.caller, study.source) for study in _studies(database)) == sorted(studies)
    assert all(study.patient.identifiers[0].issuer == "HOSP" for study in _studies(database))
    assert reindex_all(index).indexed == 0


def test_rows_without_files_are_counted_and_healed_by_the_sender(
    start: Start, database: Database, spool: Spool
) -> None:
    """A lost file is seen; the same object sent again takes its place."""
    listener, ds = start(), image()
    _send(listener, ds)
    assert listener.keeper.hashed(20)
    (row,) = _instances(database)
    spool.remove(row.file_key)
    assert reconcile(listener.index).missing == 1
    assert _send(listener, ds) == 0
    (healed,) = _instances(database)
    assert (healed.id, healed.standing) == (row.id, Standing.CURRENT)
    assert spool.path(healed.file_key).is_file()
    assert reconcile(listener.index).missing == 0


def test_dcmsend_puts_compressed_objects_in(start: Start, database: Database, test_data: Path) -> None:
    """DCMTK's dcmsend, which proposes each file's own transfer syntax, gets them in compressed."""
    listener = start()
    folder = test_data / "dicom" / "transfer_syntaxes"
    paths = [*folder.glob("CTImage*JPEG2000Lossless*"), *folder.glob("TestPattern_JPEG-LS-L*")]
    assert len(paths) == 2
    run = run_program(
        "dcmsend", "-v", "--decompress-never", "--call", "WETREAD", HOST, str(listener.port), *map(str, paths)
    )
    assert run.status == 0, run.output
    assert {row.transfer_syntax_uid for row in _instances(database)} == {
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.4.80",
    }


def test_stopping_lets_an_open_association_finish(start: Start, database: Database) -> None:
    """What is under way when the listener stops is finished and acknowledged."""
    listener = start()
    ae = AE(ae_title="CT1")
    ae.add_requested_context(MR_IMAGE, ExplicitVRLittleEndian)
    assoc = ae.associate(HOST, listener.port, ae_title="WETREAD")
    stopper = threading.Thread(target=_stop, args=(listener,))
    stopper.start()
    wait_until(lambda: not listens(listener.port), what="the closed port")
    ds = image()
    as_file(ds)
    assert assoc.send_c_store(ds).Status == 0
    assoc.release()
    stopper.join()
    assert len(_instances(database)) == 1


def test_no_patient_data_is_logged(start: Start, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever happens to an object, its names, identifiers and UIDs stay out of the logs."""
    listener = start()
    ds = image(PatientName="Secret^Name", PatientID="SECRETID", PatientBirthDate="not a date")
    _send(listener, ds)
    other = copy.deepcopy(ds)
    other.PixelData = bytes(48)
    _send(listener, other)
    for broken in (image(PatientName="Secret^Name", StudyInstanceUID=None), image(PatientName="Secret^Name", Rows=99)):
        with pytest.raises(PeerRefused):
            _send(listener, broken)
    captured = capfd.readouterr()
    logged = captured.out + captured.err
    assert "quarantine" in logged
    for secret in ("Secret", "SECRETID", "not a date", ds.SOPInstanceUID, ds.StudyInstanceUID):
        assert secret not in logged
