"""Durable files: what has a name here has been fsynced, and so has the directory that holds the name.

Layout under the root, all keys relative to it::

    objects/2026-11-20/ab/<random>.dcm      by day of receipt (UTC), so that a reconciler can look at recent days
    quarantine/2026-11-20/<random>.bin      bytes that could not be stored as an object
    quarantine/2026-11-20/<random>.json     why, without patient data

No UID becomes part of a path: a UID comes from outside.
"""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from fhir_records.errors import NotFound, OutOfSpace

log = structlog.get_logger(__name__)

OBJECTS = "objects"
QUARANTINE = "quarantine"
# A half-written file older than this belongs to nobody: another listener on the same disk may be writing a younger one.
ORPHAN_SECONDS = 3600.0

_FULL = {errno.ENOSPC, errno.EDQUOT}

Bytes = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in its final place."""

    key: str  # relative to the spool's root
    sha256: str  # of the whole file, hex
    size: int  # bytes


class Spool:
    """The folder of received objects.

    Args:
        root: the folder; made where it is absent.
        min_free_bytes: watermark: nothing is written when the disk would have less free than this.
    """

    def __init__(self, root: Path, *, min_free_bytes: int = 0) -> None:
        self.root = root
        self._min_free_bytes = min_free_bytes

    def prepare(self) -> int:
        """Make the folders and remove half-written files that nobody owns; returns how many were removed."""
        for name in (OBJECTS, QUARANTINE):
            _make_folder(self.root / name)
        removed = 0
        horizon = time.time() - ORPHAN_SECONDS
        for part in self.root.rglob("*.part"):
            if part.stat().st_mtime < horizon:
                part.unlink(missing_ok=True)
                removed += 1
        if removed:
            log.warning("removed half-written files", files=removed)
        return removed

    def check_space(self, size: int = 0) -> None:
        """See that ``size`` bytes more leave the disk above the watermark.

        Raises:
            OutOfSpace: they do not.
        """
        free = shutil.disk_usage(_existing(self.root)).free
        if free - size < self._min_free_bytes:
            raise OutOfSpace(
                f"The disk of the spool has {free} bytes free; {self._min_free_bytes} bytes must stay free."
            )

    def store(self, content: Iterable[Bytes], received_at: dt.datetime) -> StoredFile:
        """Write an object durably and give it its name.

        Raises:
            OutOfSpace: the disk is below the watermark, or became full.
        """
        chunks = list(content)
        self.check_space(sum(len(chunk) for chunk in chunks))
        name = uuid.uuid4().hex
        return self._write(chunks, f"{OBJECTS}/{_day(received_at)}/{name[:2]}/{name}.dcm")

    def quarantine(self, content: Iterable[Bytes], received_at: dt.datetime, facts: Mapping[str, str]) -> StoredFile:
        """Keep bytes that are no storable object, with ``facts`` (the reason, the caller; no patient data) beside them.

        Raises:
            OutOfSpace: the disk is below the watermark, or became full.
        """
        chunks = list(content)
        self.check_space(sum(len(chunk) for chunk in chunks))
        stem = f"{QUARANTINE}/{_day(received_at)}/{uuid.uuid4().hex}"
        # The reason first: bytes without a reason would be a riddle.
        reason = {"received_at": received_at.isoformat(), **facts}
        self._write([json.dumps(reason, ensure_ascii=False, indent=1).encode()], f"{stem}.json")
        return self._write(chunks, f"{stem}.bin")

    def path(self, key: str) -> Path:
        """The file of a key.

        Raises:
            NotFound: the key leads out of the spool.
        """
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise NotFound("There is no such file in the spool.")
        return path

    def facts(self, key: str) -> StoredFile:
        """A file that is already in its place, read again.

        Raises:
            FileNotFoundError: it is not.
        """
        digest, size = hashlib.sha256(), 0
        with self.path(key).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
                size += len(chunk)
        return StoredFile(key, digest.hexdigest(), size)

    def remove(self, key: str) -> None:
        """Remove a file, durably; one that is not there is no error."""
        path = self.path(key)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync_folder(path.parent)

    def object_keys(self, since: dt.date | None = None) -> Iterator[str]:
        """The keys of all objects received on the day ``since`` (UTC) or later; None: of all. Oldest day first."""
        yield from self._keys(OBJECTS, ".dcm", since)

    def quarantined_keys(self, since: dt.date | None = None) -> Iterator[str]:
        """The keys of quarantined bytes, likewise."""
        yield from self._keys(QUARANTINE, ".bin", since)

    def quarantine_facts(self, key: str) -> dict[str, str]:
        """What was written beside quarantined bytes; empty where that is gone."""
        try:
            facts: dict[str, str] = json.loads(self.path(key).with_suffix(".json").read_text())
        except (OSError, ValueError):
            return {}
        return facts

    def _keys(self, area: str, suffix: str, since: dt.date | None) -> Iterator[str]:
        folder = self.root / area
        days = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        for day in days:
            if since is not None and day < since.isoformat():
                continue
            for path in sorted((folder / day).rglob(f"*{suffix}")):
                yield path.relative_to(self.root).as_posix()

    def _write(self, chunks: Iterable[Bytes], key: str) -> StoredFile:
        path = self.root / key
        part = path.with_suffix(f"{path.suffix}.part")
        digest, size = hashlib.sha256(), 0
        try:
            _make_folder(path.parent)
            with part.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
            _sync_folder(path.parent)
        except OSError as error:
            part.unlink(missing_ok=True)
            if error.errno in _FULL:
                raise OutOfSpace("The disk of the spool is full.") from error
            raise
        return StoredFile(key, digest.hexdigest(), size)


def _day(instant: dt.datetime) -> str:
    return instant.astimezone(dt.UTC).date().isoformat()


def _existing(path: Path) -> Path:
    """``path``, or its nearest ancestor that exists."""
    while not path.exists():
        path = path.parent
    return path


def _make_folder(path: Path) -> None:
    """Make ``path`` and what lies above it, so that the names survive a power cut."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    # Not 0700: the mode of WETREAD_HOME above decides who may come this far.
    path.mkdir(exist_ok=True)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
