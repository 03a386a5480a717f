"""Files on their way into the spool: written without a name, synchronised, named, and the name synchronised.

A half-written file lies in a folder of its own and is locked by whoever writes it, so that one that nobody holds is
known for an orphan whatever its age.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from dicom_listener.group_sync import GroupSync
from fhir_records.errors import OutOfSpace

Bytes = bytes | bytearray | memoryview

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_PART: Final = ".part"
# Folders whose descriptors are kept open.
_KEPT_FOLDERS: Final = 4


class Folder:
    """A folder that files are moved into, its syncs shared by all who move at the same time."""

    def __init__(self, path: Path) -> None:
        self._descriptor = -1
        make_folder(path)
        # Whoever made it may have died before these names were durable.
        sync_folder(path.parent)
        sync_folder(path.parent.parent)
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self._sync = GroupSync(lambda: os.fsync(self._descriptor))

    def sync(self) -> None:
        """Make the names in it durable."""
        self._sync.wait()

    def __del__(self) -> None:
        # Whoever still waits for its sync holds it.
        if self._descriptor >= 0:
            os.close(self._descriptor)


class Folders:
    """The folders that are moved into lately, open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[Path, Folder] = {}

    def folder(self, path: Path) -> Folder:
        """The folder of this path, made where it is absent."""
        found = self._open.get(path)
        if found is None:
            with self._lock:
                found = self._open.get(path) or Folder(path)
                while len(self._open) >= _KEPT_FOLDERS:
                    del self._open[next(iter(self._open))]
                self._open[path] = found
        return found

    def forget(self, path: Path) -> None:
        """Open this folder anew when it is asked for again: it was removed meanwhile."""
        with self._lock:
            self._open.pop(path, None)


class Draft:
    """A file that is being written and has no place in the spool yet.

    Args:
        incoming: where half-written files lie; the folder exists, on the spool's disk.
        folders: for where it is moved.

    Raises:
        OutOfSpace: the disk is full.
    """

    def __init__(self, incoming: Path, folders: Folders) -> None:
        self.size = 0  # bytes written
        self._folders = folders
        try:
            self._path, self._descriptor = _new_file(incoming)
        except OSError as error:
            _see_whether_full(error)
            raise

    def write(self, *pieces: Bytes) -> None:
        """Write at the end.

        Raises:
            OutOfSpace: the disk became full; the draft is of no use any more, and still to be discarded.
        """
        left = sum(map(len, pieces))
        self.size += left
        try:
            left -= os.writev(self._descriptor, pieces)
            if left:
                # Seldom: a disk that is nearly full, or a file system that takes little at a time.
                rest = memoryview(b"".join(pieces))[-left:]
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
        except OSError as error:
            _see_whether_full(error)
            raise

    def commit(self, folder_path: Path, name: str) -> None:
        """Make it durable as ``name`` in a folder, which is made where it is absent. To be discarded if it fails.

        Raises:
            OutOfSpace: the disk became full.
        """
        path = f"{folder_path}/{name}"
        try:
            os.fdatasync(self._descriptor)
            folder = self._folders.folder(folder_path)
            try:
                os.rename(self._path, path)  # noqa: PTH104 - a path object costs more than the call
            except FileNotFoundError:
                self._folders.forget(folder_path)
                folder = self._folders.folder(folder_path)
                Path(self._path).rename(path)
            self._path = ""
            try:
                folder.sync()
            except OSError:
                # It may be there or not after a power cut; nobody was told that it is.
                Path(path).unlink(missing_ok=True)
                raise
        except OSError as error:
            _see_whether_full(error)
            raise
        # Closed last: until then its lock says that it is somebody's.
        self.discard()

    def discard(self) -> None:
        """Remove it, where it was not committed; more than once changes nothing."""
        if self._path:
            with suppress(FileNotFoundError):
                os.unlink(self._path)  # noqa: PTH108 - a path object costs more than the call
            self._path = ""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def remove_orphans(incoming: Path) -> int:
    """Remove the half-written files that nobody holds; how many there were."""
    removed = 0
    for path in incoming.glob(f"*{_PART}"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Committed or removed since it was listed, where it has no such name any more.
                path.unlink()
                removed += 1
            finally:
                os.close(descriptor)
    return removed


def make_folder(path: Path) -> None:
    """Make ``path`` and what lies above it, so that the names survive a power cut."""
    if path.is_dir():
        return
    make_folder(path.parent)
    # Not 0700: the mode of WETREAD_HOME above decides who may come this far.
    path.mkdir(exist_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _new_file(incoming: Path) -> tuple[str, int]:
    """A new, empty, locked file."""
    while True:
        path = f"{incoming}/{secrets.token_hex(16)}{_PART}"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the two calls somebody who looks for orphans may have taken it for one.
            if os.fstat(descriptor).st_nlink:
                return path, descriptor
        except BlockingIOError:
            pass
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _see_whether_full(error: OSError) -> None:
    """Say so where that is what is wrong."""
    if error.errno in _FULL:
        raise OutOfSpace("The disk of the spool is full.") from error
