"""Durable files."""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from dicom_listener.spool import Spool
from fhir_records.errors import NotFound, OutOfSpace
from tests.unit.dicom_listener.objects import RECEIVED_AT


def test_stored_file_lies_under_its_day_and_holds_its_bytes(tmp_path: Path) -> None:
    """A key says the day of receipt, and nothing that came from outside."""
    spool = Spool(tmp_path)
    file = spool.store([b"head", memoryview(b"body")], RECEIVED_AT)
    assert file.key.startswith("objects/2026-11-20/")
    assert spool.path(file.key).read_bytes() == b"headbody"
    assert (file.sha256, file.size) == (hashlib.sha256(b"headbody").hexdigest(), 8)
    assert spool.facts(file.key) == file
    assert not list(tmp_path.rglob("*.part"))


def test_file_and_folder_are_fsynced_before_the_name_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced before it is renamed, its folder after."""
    spool = Spool(tmp_path)
    spool.store([b"x"], RECEIVED_AT)  # its folders are there from now on, or nearly all
    done: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def watched_fsync(descriptor: int) -> None:
        done.append("folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file")
        fsync(descriptor)

    def watched_rename(path: Path, target: Path) -> Path:
        done.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "rename", watched_rename)
    spool.store([b"y"], RECEIVED_AT)
    assert done[-3:] == ["file", "rename", "folder"]


def test_watermark_is_looked_at_before_writing(tmp_path: Path) -> None:
    """Below the watermark nothing is written."""
    spool = Spool(tmp_path, min_free_bytes=1 << 60)
    with pytest.raises(OutOfSpace):
        spool.store([b"x"], RECEIVED_AT)
    with pytest.raises(OutOfSpace):
        Spool(tmp_path, min_free_bytes=2**62).store([b"x"], RECEIVED_AT)
    assert list(tmp_path.rglob("*")) == []


def test_disk_that_fills_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is out of space, and the half-written file is removed."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    spool = Spool(tmp_path)
    spool.prepare()
    (tmp_path / "objects" / "2026-11-20").mkdir()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutOfSpace):
        spool.store([b"x"], RECEIVED_AT)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_quarantined_bytes_have_their_reason_beside_them(tmp_path: Path) -> None:
    """Bytes that are no object are kept, with the reason and the caller."""
    spool = Spool(tmp_path)
    file = spool.quarantine([b"junk"], RECEIVED_AT, {"reason": "no UIDs", "caller": "CT1"})
    assert spool.path(file.key).read_bytes() == b"junk"
    facts = json.loads(spool.path(file.key).with_suffix(".json").read_text())
    assert facts == {"received_at": "2026-11-20T12:00:00+00:00", "reason": "no UIDs", "caller": "CT1"}
    assert spool.quarantine_facts(file.key) == facts
    assert list(spool.quarantined_keys()) == [file.key]
    assert list(spool.object_keys()) == []


def test_keys_can_be_asked_for_from_a_day_on(tmp_path: Path) -> None:
    """A reconciler looks at recent days only."""
    spool = Spool(tmp_path)
    old = spool.store([b"1"], RECEIVED_AT - dt.timedelta(days=3))
    new = spool.store([b"2"], RECEIVED_AT)
    assert list(spool.object_keys()) == [old.key, new.key]
    assert list(spool.object_keys(dt.date(2026, 11, 18))) == [new.key]


def test_key_cannot_lead_out_of_the_spool(tmp_path: Path) -> None:
    """Whatever stands in a row, only files of the spool are opened."""
    with pytest.raises(NotFound):
        Spool(tmp_path / "spool").path("../secret")


def test_orphans_are_removed_and_files_being_written_are_not(tmp_path: Path) -> None:
    """Half-written files are removed once they are too old to be another listener's."""
    spool = Spool(tmp_path)
    spool.prepare()
    old, young = tmp_path / "objects" / "a.dcm.part", tmp_path / "objects" / "b.dcm.part"
    for part in (old, young):
        part.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    assert spool.prepare() == 1
    assert not old.exists()
    assert young.exists()


def test_removing_twice_is_no_error(tmp_path: Path) -> None:
    """A file that is gone stays gone."""
    spool = Spool(tmp_path)
    file = spool.store([b"x"], RECEIVED_AT)
    spool.remove(file.key)
    spool.remove(file.key)
    assert list(spool.object_keys()) == []
