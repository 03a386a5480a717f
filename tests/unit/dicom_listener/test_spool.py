"""Durable files."""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import json
import os
import shutil
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
    fsync, fdatasync, rename = os.fsync, os.fdatasync, os.rename

    def watched_fsync(descriptor: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().relative_to(tmp_path)}")
        fsync(descriptor)

    def watched_fdatasync(descriptor: int) -> None:
        done.append("sync file")
        fdatasync(descriptor)

    def watched_rename(path: str, target: Path) -> None:
        done.append("rename")
        rename(path, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "fdatasync", watched_fdatasync)
    monkeypatch.setattr(os, "rename", watched_rename)
    spool.store([b"y"], RECEIVED_AT)
    assert done == ["sync file", "rename", "sync objects/2026-11-20/12"]


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
    monkeypatch.setattr(os, "fdatasync", full)
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
    """Half-written files that nobody holds are removed whatever their age; one that is held can still be kept."""
    spool = Spool(tmp_path)
    spool.prepare()
    orphan = tmp_path / "incoming" / "a.part"
    orphan.write_bytes(b"x")
    draft = spool.draft()
    draft.write(b"head", b"body")
    assert spool.prepare() == 1
    assert not orphan.exists()
    assert spool.path(spool.keep(draft, RECEIVED_AT)).read_bytes() == b"headbody"
    assert list((tmp_path / "incoming").iterdir()) == []
    assert spool.prepare() == 0


def test_draft_that_is_discarded_leaves_nothing(tmp_path: Path) -> None:
    """What is not kept is gone, also when it is discarded twice."""
    draft = Spool(tmp_path).draft()
    draft.write(b"x")
    draft.discard()
    draft.discard()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    """Whoever empties the spool under a running listener does not stop it."""
    spool = Spool(tmp_path)
    first = spool.store([b"1"], RECEIVED_AT)
    shutil.rmtree(spool.path(first.key).parent)
    second = spool.store([b"2"], RECEIVED_AT)
    assert spool.path(second.key).read_bytes() == b"2"


def test_removing_twice_is_no_error(tmp_path: Path) -> None:
    """A file that is gone stays gone."""
    spool = Spool(tmp_path)
    file = spool.store([b"x"], RECEIVED_AT)
    spool.remove(file.key)
    spool.remove(file.key)
    assert list(spool.object_keys()) == []
