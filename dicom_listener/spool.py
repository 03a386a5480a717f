"""Durable files: what has a name here has been fsynced, and so has the directory that holds the name.

Layout under the root, all keys relative to it::

    incoming/<random>.part                  being written, locked by the writer
    objects/2026-11-20/17/<random>.dcm      by day and hour of receipt (UTC), so that a reconciler can look at recent
                                            days, and files that come together share their folder's fsync
    quarantine/2026-11-20/<random>.bin      what could not be stored as an object
    quarantine/2026-11-20/<random>.json     why, without patient data

No UID becomes part of a path: a UID comes from outside.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from dicom_listener.writing import Bytes, Draft, Folders, make_folder, remove_orphans, sync_folder
from fhir_records.errors import NotFound, OutOfSpace

log = structlog.get_logger(__name__)

OBJECTS = "objects"
QUARANTINE = "quarantine"
INCOMING = "incoming"
# What our own keys are made of: names that cannot lead anywhere.
_OWN_KEY = re.compile(r"(objects|quarantine)(/[0-9a-f][0-9a-f-]*)+\.(dcm|bin|json)")


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
        self._folders = Folders()
        self._incoming = root / INCOMING
        self._paths: dict[str, Path] = {}  # of folders of objects, by their keys

    def prepare(self) -> int:
        """Make the folders and remove half-written files that nobody holds; returns how many were removed."""
        for name in (INCOMING, OBJECTS, QUARANTINE):
            make_folder(self.root / name)
        removed = remove_orphans(self._incoming)
        if removed:
            log.warning("removed half-written files", files=removed)
        return removed

    def check_space(self, size: int = 0) -> None:
        """See that ``size`` bytes more leave the disk above the watermark.

        Raises:
            OutOfSpace: they do not.
        """
        free = _free_bytes(self.root)
        if free - size < self._min_free_bytes:
            raise OutOfSpace(
                f"The disk of the spool has {free} bytes free; {self._min_free_bytes} bytes must stay free."
            )

    def draft(self) -> Draft:
        """A new file without a place; `keep` and `keep_aside` give it one, unless it is discarded.

        Raises:
            OutOfSpace: the disk is below the watermark, or full.
        """
        self.check_space()
        try:
            return Draft(self._incoming, self._folders)
        except FileNotFoundError:
            make_folder(self._incoming)
            return Draft(self._incoming, self._folders)

    def keep(self, draft: Draft, received_at: dt.datetime) -> str:
        """Make a draft an object, durably; its key.

        Raises:
            OutOfSpace: the disk became full; the draft is discarded.
        """
        folder = f"{OBJECTS}/{_day(received_at)}/{_hour(received_at)}"
        return self._keep(draft, folder, f"{secrets.token_hex(16)}.dcm")

    def keep_aside(self, draft: Draft, received_at: dt.datetime, facts: Mapping[str, str]) -> str:
        """Make a draft that is no storable object a file in quarantine; its key.

        Args:
            draft: the bytes.
            received_at: when they came.
            facts: the reason, the caller; no patient data.

        Raises:
            OutOfSpace: the disk became full; the draft is discarded.
        """
        folder, stem = f"{QUARANTINE}/{_day(received_at)}", secrets.token_hex(16)
        reason = {"received_at": received_at.isoformat(), **facts}
        try:
            # The reason first: bytes without a reason would be a riddle.
            beside = Draft(self._incoming, self._folders)
            beside.write(json.dumps(reason, ensure_ascii=False, indent=1).encode())
            self._keep(beside, folder, f"{stem}.json")
        except BaseException:
            draft.discard()
            raise
        return self._keep(draft, folder, f"{stem}.bin")

    def store(self, content: Iterable[Bytes], received_at: dt.datetime) -> StoredFile:
        """Write an object durably and give it its name.

        Raises:
            OutOfSpace: the disk is below the watermark, or became full.
        """
        draft, sha256 = self._written(content)
        size = draft.size
        return StoredFile(self.keep(draft, received_at), sha256, size)

    def quarantine(self, content: Iterable[Bytes], received_at: dt.datetime, facts: Mapping[str, str]) -> StoredFile:
        """Keep bytes that are no storable object, with ``facts`` (the reason, the caller; no patient data) beside them.

        Raises:
            OutOfSpace: the disk is below the watermark, or became full.
        """
        draft, sha256 = self._written(content)
        size = draft.size
        return StoredFile(self.keep_aside(draft, received_at, facts), sha256, size)

    def path(self, key: str) -> Path:
        """The file of a key.

        Raises:
            NotFound: the key leads out of the spool.
        """
        if _OWN_KEY.fullmatch(key):
            return self.root / key
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
            sync_folder(path.parent)

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

    def _written(self, content: Iterable[Bytes]) -> tuple[Draft, str]:
        """A draft that holds ``content``, and its SHA-256 in hex."""
        chunks = list(content)
        self.check_space(sum(map(len, chunks)))
        draft, digest = self.draft(), hashlib.sha256()
        try:
            for chunk in chunks:
                draft.write(chunk)
                digest.update(chunk)
        except BaseException:
            draft.discard()
            raise
        return draft, digest.hexdigest()

    def _keep(self, draft: Draft, folder: str, name: str) -> str:
        path = self._paths.get(folder)
        if path is None:
            # One hour's at a time, for making a path costs as much as moving a file to it.
            self._paths = {folder: (path := self.root / folder)}
        try:
            draft.commit(path, name)
        except BaseException:
            draft.discard()
            raise
        return f"{folder}/{name}"


def _day(instant: dt.datetime) -> str:
    return instant.astimezone(dt.UTC).date().isoformat()


def _hour(instant: dt.datetime) -> str:
    return f"{instant.astimezone(dt.UTC).hour:02}"


def _free_bytes(path: Path) -> int:
    """Of the disk that holds ``path``, or will hold it."""
    while True:
        try:
            status = os.statvfs(path)
        except FileNotFoundError:
            path = path.parent
        else:
            return status.f_bavail * status.f_frsize
