"""Following a real Orthanc: what is fetched, what is judged complete, and what is never read again."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, SecondaryCaptureImageStorage, generate_uid
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dicom_listener.index import Index
from dicom_listener.index_batch import Indexing
from dicom_listener.intake import Intake
from dicom_listener.orthanc import OrthancNode, UploadOutcome, changes_since, upload
from dicom_listener.orthanc_follower import Follower
from dicom_listener.received import read_received, split_file
from dicom_listener.spool import Spool
from fhir_records import tables
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable, OutOfSpace, PeerRefused, PeerUnavailable
from fhir_records.model import InstanceKind, ResultStatus
from fhir_records.store import orthanc as cursors
from fhir_records.store.completeness import FrozenRevision
from tests.peers import OrthancPeer, orthanc_server, storescp_server, storescu, wait_until

NAME = "archive"
SAMPLE = Path(__file__).resolve().parents[2] / "deploy" / "orthanc"


class CountingIntake(Intake):
    """An intake that counts the files it takes, and fails when a test wants it to."""

    taken = 0
    fail_at: int | None = None  # the number of the file at which the disk is full

    def take_file(self, content: bytes, source: str) -> Indexing:
        """As an `Intake`'s."""
        if self.taken == self.fail_at:
            raise OutOfSpace
        self.taken += 1
        return super().take_file(content, source)


class Reader:
    """Stands for what follows a complete study: keeps the revisions it was told of."""

    def __init__(self) -> None:
        self.revisions: list[FrozenRevision] = []
        self.fails = False

    def __call__(self, session: Session, revision: FrozenRevision) -> None:
        """Note the revision, in the transaction's own table too."""
        session.add(tables.Step(subject=f"study:{revision.study_id}", revision=revision.number, name="told"))
        session.flush()
        if self.fails:
            raise DatabaseUnavailable
        self.revisions.append(revision)


@pytest.fixture
def slices(test_data: Path) -> list[bytes]:
    """A dozen images of one real series, as files."""
    return [path.read_bytes() for path in sorted((test_data / "dicom" / "philips_brain_mr").glob("*.dcm"))[:12]]


@pytest.fixture
def intake(database: Database, tmp_path: Path) -> CountingIntake:
    """The door of a listener with an empty spool."""
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return CountingIntake(spool, Index(database, spool, clock=now), clock=now)


@pytest.fixture
def reader() -> Reader:
    """What is told of complete studies."""
    return Reader()


@pytest.fixture
def new_follower(
    orthanc: OrthancPeer, database: Database, intake: CountingIntake, reader: Reader
) -> Callable[[], Follower]:
    """Makes followers of the test's Orthanc, as a process that starts again does."""
    return lambda: Follower(node_of(orthanc), database, intake, reader)


@pytest.fixture
def slow_orthanc(tmp_path: Path) -> Iterator[OrthancPeer]:
    """An Orthanc in which a study is stable after a minute, so never within a test."""
    with orthanc_server(tmp_path, ae_title="SLOW", stable_age_s=60) as peer:
        yield peer


def now() -> dt.datetime:
    """The time, in UTC."""
    return dt.datetime.now(dt.UTC)


def node_of(peer: OrthancPeer) -> OrthancNode:
    """The node as a site would configure it."""
    return OrthancNode(NAME, peer.url, timeout_s=30.0)


def follow_until(follower: Follower, condition: Callable[[], bool], what: str) -> None:
    """Follow until the condition holds, then once more: nothing may be left over."""

    def step() -> bool:
        follower.follow_once()
        return condition()

    wait_until(step, what=what)
    while follower.follow_once():
        pass


def follow_stable(follower: Follower, orthanc: OrthancPeer, times: int) -> None:
    """Follow until Orthanc has called studies stable so many times, and all of it is dealt with."""
    wait_until(lambda: orthanc.stable_changes() >= times, what="study stable")
    while follower.follow_once():
        pass


def rows(database: Database, kind: InstanceKind = InstanceKind.IMAGE) -> int:
    """How many instances of this kind the index holds."""
    with database.session() as session:
        return session.execute(
            select(func.count()).select_from(tables.Instance).where(tables.Instance.kind == kind)
        ).scalar_one()


def cursor(database: Database) -> tuple[int, str | None]:
    """The cursor's place and error."""
    with database.session() as session:
        row = session.get(tables.OrthancCursor, NAME)
        return (row.last_change, row.error) if row else (0, None)


def derived(source: bytes, **changes: object) -> bytes:
    """A new object of the same study, in a new series."""
    ds = pydicom.dcmread(BytesIO(source))
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix="2.25.")
    ds.SeriesInstanceUID = generate_uid(prefix="2.25.")
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    return as_file(ds)


def as_file(ds: Dataset) -> bytes:
    """The dataset as a file."""
    buffer = BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


def own_report(database: Database, source: bytes) -> bytes:
    """A structured report that Wetread wrote for the study: an object with a row of its own in the record."""
    ds = pydicom.dcmread(BytesIO(source))
    del ds.PixelData, ds.Rows, ds.Columns
    content = derived(as_file(ds), SOPClassUID=BasicTextSRStorage, Modality="SR")
    sop_uid = str(pydicom.dcmread(BytesIO(content)).SOPInstanceUID)
    with database.session() as session:
        study = session.execute(select(tables.Study)).scalar_one()
        read = tables.Read(study_id=study.id, revision=study.revision, model="m", model_version=sop_uid)
        result = tables.Result(read=read, version=1, status=ResultStatus.PRELIMINARY, content={})
        session.add(
            tables.Document(
                result=result,
                kind="dicom_sr",
                sop_uid=sop_uid,
                sop_class_uid=BasicTextSRStorage,
                content=content,
                sha256="",
            )
        )
    return content


def test_a_stable_study_is_fetched_whole_and_read_once(
    orthanc: OrthancPeer,
    database: Database,
    intake: CountingIntake,
    reader: Reader,
    new_follower: Callable[[], Follower],
    slices: list[bytes],
) -> None:
    """Every image comes, its data set byte for byte; the study is complete without any idle time, once."""
    for content in slices:
        orthanc.upload(content)
    follower = new_follower()
    follow_until(follower, lambda: bool(reader.revisions), "study complete")
    follower.follow_once()
    assert [(revision.number, revision.images) for revision in reader.revisions] == [(1, len(slices))]
    with database.session() as session:
        keys = session.execute(select(tables.Instance.file_key)).scalars().all()
    stored = {bytes(read_received(intake.spool.path(key))[1]) for key in keys}
    assert stored == {bytes(split_file(content)[1]) for content in slices}
    with database.session() as session:
        study = session.execute(select(tables.Study)).scalar_one()
        assert (study.source, study.open_since) == (f"orthanc:{NAME}", None)
        assert session.get(tables.Step, (f"study:{study.id}", 1, "told")) is not None
    # Orthanc logs that series and patient are stable a moment later.
    follow_until(
        follower, lambda: cursor(database) == (orthanc.json("changes?last")["Last"], None), "cursor at the end"
    )
    assert len(reader.revisions) == 1


def test_what_we_store_back_is_never_read(
    orthanc: OrthancPeer,
    database: Database,
    intake: CountingIntake,
    reader: Reader,
    new_follower: Callable[[], Follower],
    slices: list[bytes],
) -> None:
    """Round after round, our report and our pictures make the study stable again, and nothing follows from it."""
    for content in slices:
        orthanc.upload(content)
    follower = new_follower()
    follow_until(follower, lambda: bool(reader.revisions), "study complete")
    for _ in range(3):
        told = orthanc.stable_changes()
        report = own_report(database, slices[0])
        assert upload(node_of(orthanc), report) is UploadOutcome.STORED
        assert orthanc.by_modality("SR")
        follow_stable(follower, orthanc, told + 1)
    assert intake.taken == len(slices)
    picture = derived(
        slices[0], SOPClassUID=SecondaryCaptureImageStorage, Modality="OT", ManufacturerModelName="Wetread"
    )
    told = orthanc.stable_changes()
    upload(node_of(orthanc), picture)
    follow_stable(follower, orthanc, told + 1)
    assert len(orthanc.by_modality("SR")) == 3
    assert len(reader.revisions) == 1
    assert rows(database) == len(slices)
    assert rows(database, InstanceKind.OWN) == 1


def test_images_that_come_later_make_one_new_revision(
    orthanc: OrthancPeer, reader: Reader, new_follower: Callable[[], Follower], slices: list[bytes], database: Database
) -> None:
    """A second series of the study is fetched alone, and the study is complete again with all its images."""
    for content in slices[:4]:
        orthanc.upload(content)
    follower = new_follower()
    follow_until(follower, lambda: len(reader.revisions) == 1, "first revision")
    orthanc.upload(derived(slices[5]))
    orthanc.upload(derived(slices[6]))
    follow_until(follower, lambda: len(reader.revisions) == 2, "second revision")
    assert [(revision.number, revision.images) for revision in reader.revisions] == [(1, 4), (2, 6)]
    assert rows(database) == 6


def test_a_new_process_goes_on_from_the_cursor(
    orthanc: OrthancPeer,
    intake: CountingIntake,
    reader: Reader,
    new_follower: Callable[[], Follower],
    slices: list[bytes],
) -> None:
    """After a restart nothing is fetched or read twice, and what came meanwhile is."""
    for content in slices[:4]:
        orthanc.upload(content)
    follow_until(new_follower(), lambda: bool(reader.revisions), "study complete")
    other = derived(slices[4], StudyInstanceUID=generate_uid(prefix="2.25."))
    orthanc.upload(other)
    follow_until(new_follower(), lambda: len(reader.revisions) == 2, "other study complete")
    assert intake.taken == 5
    assert [revision.images for revision in reader.revisions] == [4, 1]
    follower = new_follower()
    assert follower.follow_once() is False
    assert (intake.taken, len(reader.revisions)) == (5, 2)


def test_orthanc_may_be_down_for_a_while(
    orthanc: OrthancPeer,
    database: Database,
    reader: Reader,
    new_follower: Callable[[], Follower],
    slices: list[bytes],
) -> None:
    """While it is away following fails with a reason that is kept; when it is back everything comes, once."""
    orthanc.upload(slices[0])
    wait_until(lambda: orthanc.stable_changes() == 1, what="study stable")
    follower = new_follower()
    orthanc.stop(kill=True)
    with pytest.raises(PeerUnavailable):
        follower.follow_once()
    place, error = cursor(database)
    assert place == 0
    assert error is not None and NAME in error
    orthanc.start()
    follow_until(follower, lambda: bool(reader.revisions), "study complete")
    assert cursor(database)[1] is None
    assert len(reader.revisions) == 1


@pytest.mark.parametrize("kill", [False, True])
def test_a_study_that_orthanc_forgot_to_tell_of_is_fetched(
    slow_orthanc: OrthancPeer,
    database: Database,
    intake: CountingIntake,
    reader: Reader,
    slices: list[bytes],
    kill: bool,
) -> None:
    """An Orthanc that is stopped before the study is stable never says that it is; it is fetched all the same."""
    for content in slices[:3]:
        slow_orthanc.upload(content)
    follower = Follower(node_of(slow_orthanc), database, intake, reader)
    follower.follow_once()
    assert intake.taken == 0
    slow_orthanc.stop(kill)
    slow_orthanc.start()
    follow_until(follower, lambda: bool(reader.revisions), "study complete")
    assert slow_orthanc.stable_changes() == 0
    assert [(revision.number, revision.images) for revision in reader.revisions] == [(1, 3)]
    assert cursor(database)[0] == slow_orthanc.json("changes?last")["Last"]


def test_a_study_that_still_grows_is_left_alone(
    slow_orthanc: OrthancPeer, database: Database, intake: CountingIntake, reader: Reader, slices: list[bytes]
) -> None:
    """Nothing is fetched before a study is stable, and the cursor stays before its first image for the next process."""
    follower = Follower(node_of(slow_orthanc), database, intake, reader)
    for content in slices[:3]:
        slow_orthanc.upload(content)
        follower.follow_once()
        follower.follow_once()
    assert (intake.taken, reader.revisions) == (0, [])
    changes, _, _ = changes_since(node_of(slow_orthanc), 0)
    assert cursor(database)[0] == changes[0].sequence - 1


def test_an_orthanc_with_a_new_database_is_followed_from_its_first_change(
    orthanc: OrthancPeer,
    intake: CountingIntake,
    reader: Reader,
    new_follower: Callable[[], Follower],
    slices: list[bytes],
) -> None:
    """When its numbering starts again nothing is missed, and what is known is neither fetched nor read again."""
    for content in slices:
        orthanc.upload(content)
    follower = new_follower()
    follow_until(follower, lambda: bool(reader.revisions), "study complete")
    orthanc.wipe()
    orthanc.start()
    other = derived(slices[0], StudyInstanceUID=generate_uid(prefix="2.25."))
    orthanc.upload(slices[0])
    orthanc.upload(other)
    follow_stable(follower, orthanc, 2)
    assert intake.taken == len(slices) + 1
    assert [revision.images for revision in reader.revisions] == [len(slices), 1]


def test_a_fetch_that_breaks_off_goes_on_where_it_was(
    orthanc: OrthancPeer,
    database: Database,
    intake: CountingIntake,
    reader: Reader,
    new_follower: Callable[[], Follower],
    slices: list[bytes],
) -> None:
    """With the disk full in the middle of a study it is not complete; later only the missing images are fetched."""
    for content in slices:
        orthanc.upload(content)
    wait_until(lambda: orthanc.stable_changes() == 1, what="study stable")
    intake.fail_at = 5
    follower = new_follower()
    for _ in range(2):
        with pytest.raises(OutOfSpace):
            follower.follow_once()
    assert (rows(database), reader.revisions, cursor(database)[0]) == (5, [], 0)
    intake.fail_at = None
    follow_until(follower, lambda: bool(reader.revisions), "study complete")
    assert intake.taken == len(slices)
    assert [revision.images for revision in reader.revisions] == [len(slices)]


def test_cursor_and_what_follows_go_together(
    orthanc: OrthancPeer,
    database: Database,
    reader: Reader,
    new_follower: Callable[[], Follower],
    slices: list[bytes],
) -> None:
    """Where asking for the read fails there is no revision and the cursor has not moved; both come at the next try."""
    orthanc.upload(slices[0])
    wait_until(lambda: orthanc.stable_changes() == 1, what="study stable")
    reader.fails = True
    with pytest.raises(DatabaseUnavailable):
        new_follower().follow_once()
    with database.session() as session:
        assert session.execute(select(func.count()).select_from(tables.Revision)).scalar_one() == 0
        assert cursors.last_change(session, NAME) == 0
    reader.fails = False
    follow_until(new_follower(), lambda: bool(reader.revisions), "study complete")
    assert len(reader.revisions) == 1


def test_only_one_process_follows_at_a_time(
    orthanc: OrthancPeer,
    database: Database,
    intake: CountingIntake,
    new_follower: Callable[[], Follower],
    slices: list[bytes],
) -> None:
    """While another process follows, a follower does nothing; when that one ends, it goes on."""
    orthanc.upload(slices[0])
    wait_until(lambda: orthanc.stable_changes() == 1, what="study stable")
    follower = new_follower()
    other = Database(database.url)
    try:
        with cursors.only_follower(other, NAME) as alone, cursors.only_follower(other, "another archive") as also:
            assert alone and also
            assert follower.follow_once() is False
            assert intake.taken == 0
    finally:
        other.close()
    follower.follow_once()
    assert intake.taken == 1


def test_a_log_in_is_used_and_a_wrong_one_refused(
    tmp_path: Path, database: Database, intake: CountingIntake, reader: Reader
) -> None:
    """An Orthanc that wants a password is followed with it; a wrong one is a refusal that is kept with its reason."""
    with orthanc_server(tmp_path, ae_title="LOCKED", users={"wetread": "right"}) as peer:
        node = replace(node_of(peer), username="wetread", password="right")
        assert Follower(node, database, intake, reader).follow_once() is False
        with pytest.raises(PeerRefused):
            Follower(replace(node, password="wrong"), database, intake, reader).follow_once()
        error = cursor(database)[1]
        assert error is not None and "401" in error and "wrong" not in error


def test_a_bad_object_is_refused_by_orthanc(orthanc: OrthancPeer, slices: list[bytes]) -> None:
    """What is not DICOM is refused; the same object twice is a success both times."""
    node = node_of(orthanc)
    with pytest.raises(PeerRefused):
        upload(node, b"not DICOM")
    assert upload(node, slices[0]) in set(UploadOutcome)
    assert upload(node, slices[0]) in set(UploadOutcome)
    assert len(orthanc.instances()) == 1


def test_the_sample_configuration_sends_images_and_takes_results(tmp_path: Path, slices: list[bytes]) -> None:
    """An Orthanc with our sample configuration sends images, no reports, to WETREAD and takes objects from it alone."""
    sample = json.loads((SAMPLE / "orthanc.json").read_text())
    with storescp_server(tmp_path, ae_title="WETREAD") as scp:
        sample["DicomModalities"]["wetread"]["Port"] = scp.dicom_port
        sample["LuaScripts"] = [str(SAMPLE / script) for script in sample["LuaScripts"]]
        for key in ("StorageDirectory", "IndexDirectory", "HttpPort", "DicomPort", "StableAge"):
            del sample[key]
        users = sample["RegisteredUsers"]
        extra = sample | {"AuthenticationEnabled": False}
        with orthanc_server(tmp_path, extra=extra) as peer:
            ds = pydicom.dcmread(BytesIO(slices[0]))
            del ds.PixelData, ds.Rows, ds.Columns
            report = tmp_path / "report.dcm"
            report.write_bytes(derived(as_file(ds), SOPClassUID=BasicTextSRStorage, Modality="SR"))
            for content in slices[:2]:
                peer.upload(content)
            sent = storescu([report], peer.host, peer.dicom_port, called="ORTHANC", calling="WETREAD")
            assert sent.status == 0, sent.output
            wait_until(lambda: len(scp.files()) >= 2, what="images sent")
            wait_until(lambda: peer.stable_changes() >= 1, what="study stable")
            assert {path.name.split(".")[0] for path in scp.files()} == {"MR"}
            assert len(scp.files()) == 2
            stranger = storescu([report], peer.host, peer.dicom_port, called="ORTHANC", calling="STRANGER")
            assert stranger.status != 0
    assert users == {"wetread": "choose-a-password"}
