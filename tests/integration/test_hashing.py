"""Files hashed behind their rows, and rows copied in."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import structlog
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from sqlalchemy import select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from dicom_listener import hashing
from dicom_listener.hashing import Hashing
from dicom_listener.index import Index
from dicom_listener.index_keeper import utc_now
from dicom_listener.received import file_header
from dicom_listener.spool import Spool
from fhir_records import tables
from fhir_records.database import Database
from fhir_records.store.copying import copy_rows
from fhir_records.store.digests import Digests, Unhashed, record_digests, without_digests
from tests.unit.dicom_listener.objects import encoded, image, received, report


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(tmp_path / "spool")
    spool.prepare()
    return spool


def put(database: Database, spool: Spool, count: int = 1, syntax: str = ExplicitVRLittleEndian) -> list[str]:
    """So many images, indexed; their keys."""
    keys = []
    for _ in range(count):
        ds = image()
        how = received(ds, syntax, received_at=utc_now())
        keys.append(spool.store([file_header(how), encoded(ds, syntax)], how.received_at).key)
    Index(database, spool, clock=utc_now).add_files([(key, None) for key in keys])
    return keys


def hashes(database: Database) -> dict[str, tuple[str, str]]:
    """What the rows tell, by their files' keys."""
    row = tables.Instance
    with database.session() as session:
        found = session.execute(select(row.file_key, row.sha256, row.pixels_sha256))
        return {key: (sha256, pixels) for key, sha256, pixels in found}


def test_files_and_pixels_are_hashed(database: Database, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every row gets the SHA-256 of its file and of its pixels, page by page; equal pixels have equal hashes."""
    monkeypatch.setattr(hashing, "_PAGE", 2)
    keys = put(database, spool, 5) + put(database, spool, 1, DeflatedExplicitVRLittleEndian)
    assert set(hashes(database).values()) == {("", "")}
    assert Hashing(database, spool).catch_up()
    told = hashes(database)
    for key in keys:
        assert told[key][0] == hashlib.sha256(spool.path(key).read_bytes()).hexdigest()
    pixels = hashlib.sha256(image().PixelData).hexdigest()
    assert {word for _, word in told.values()} == {f"little:{pixels}"}


def test_objects_without_pixels_are_hashed_once(database: Database, spool: Spool) -> None:
    """That there are no pixels is no reason to hash again."""
    ds = report()
    how = received(ds, received_at=utc_now())
    key = spool.store([file_header(how), encoded(ds)], how.received_at).key
    Index(database, spool, clock=utc_now).add_files([(key, None)])
    assert Hashing(database, spool).catch_up()
    assert hashes(database)[key][1] == ""
    with database.session() as session:
        assert without_digests(session, 0, 10) == []


def test_enough_is_enough(database: Database, spool: Spool) -> None:
    """When something else is to be done, what was hashed so far is kept, and the rest waits."""
    put(database, spool, 4)
    left = [True, True]
    assert not Hashing(database, spool).catch_up(lambda: bool(left) and left.pop())
    assert sum(bool(sha256) for sha256, _ in hashes(database).values()) == 2
    assert Hashing(database, spool).catch_up()
    assert all(sha256 for sha256, _ in hashes(database).values())


def test_files_that_are_gone_or_broken_hold_up_no_other(database: Database, spool: Spool) -> None:
    """A file that is gone is left to the reconciler; one that cannot be read any more is told of once."""
    gone, broken, whole = put(database, spool, 3)
    spool.path(gone).unlink()
    spool.path(broken).write_bytes(b"no DICOM")
    one = Hashing(database, spool)
    with structlog.testing.capture_logs() as logs:
        assert one.catch_up()
        assert one.catch_up()
    assert [entry["file"] for entry in logs if entry["log_level"] == "error"] == [broken]
    assert {key: bool(sha256) for key, (sha256, _) in hashes(database).items()} == {
        gone: False,
        broken: False,
        whole: True,
    }


def test_hash_of_a_file_that_was_replaced_is_not_kept(database: Database, spool: Spool) -> None:
    """Where a row stands on another file by now, or was hashed by somebody else, nothing is written."""
    replaced, theirs = put(database, spool, 2)
    with database.session() as session:
        found = {one: Digests("old", "old") for one in without_digests(session, 0, 10)}
        assert {one.file_key for one in found} == {replaced, theirs}
        row = tables.Instance
        session.execute(update(row).where(row.file_key == replaced).values(file_key="objects/new.dcm"))
        session.execute(update(row).where(row.file_key == theirs).values(sha256="theirs"))
        record_digests(session, found)
        record_digests(session, {Unhashed(-1, "objects/none.dcm"): Digests("x", "y")})
    assert hashes(database) == {"objects/new.dcm": ("", ""), theirs: ("theirs", "")}


def test_rows_that_break_a_rule_are_told_as_any_insert_tells(database: Database) -> None:
    """A copy that a key or a type does not take fails as SQLAlchemy's errors, without the values."""
    columns = ("patient_uid", "name", "sex", "provisional")
    with pytest.raises(IntegrityError) as twice, database.session() as session:
        copy_rows(session, tables.Patient, columns, [("P1", "Secret^Name", "F", False)] * 2)
    assert "Secret" not in repr(twice.value.statement)
    assert twice.value.params is None
    with pytest.raises(DBAPIError), database.session() as session:
        copy_rows(session, tables.Patient, columns, [("P1", "a\0b", "F", False)])
    with database.session() as session:
        copy_rows(session, tables.Patient, columns, [("P1", "Name", "F", False)])
    with database.session() as session:
        assert session.scalars(select(tables.Patient.name)).all() == ["Name"]
