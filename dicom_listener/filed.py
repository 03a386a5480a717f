"""A file of the spool as the index looks at it: how it came, its data set, its size and hash, in bounded memory."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from dicom_listener.received import (
    PRIVATE_INFORMATION_CREATOR_UID,
    SOP_CLASS,
    SOP_INSTANCE,
    SYNTAX,
    Received,
    raw_meta,
)
from fhir_records.errors import ObjectNotStorable

# Larger files are mapped, not read: a multi-frame object may hold gigabytes.
_READ_WHOLE: Final = 8 * 2**20
_CHUNK: Final = 2**20
# Tags of the file meta information (PS3.10 table 7.1-1).
_SOURCE_AE, _RECEIVING_AE, _CREATOR, _PRIVATE = 0x00020016, 0x00020018, 0x00020100, 0x00020102


@dataclass(frozen=True, slots=True)
class Filed:
    """An open file of the spool; usable inside `opened` alone."""

    received: Received
    data_set: memoryview  # as it came, in `received.transfer_syntax_uid`
    size: int  # bytes, of the file
    _content: bytes | mmap.mmap = field(repr=False)
    _descriptor: int = field(repr=False)

    def sha256(self) -> str:
        """Of the whole file, in hex."""
        return self.sha256_of(0, self.size)

    def sha256_of_data(self, start: int, end: int, plain: bytes | memoryview | None = None) -> str:
        """Of the bytes ``start`` to ``end`` of the data set as it lies in the file, or of ``plain``, in hex."""
        if plain is not None and plain is not self.data_set:
            return hashlib.sha256(memoryview(plain)[start:end]).hexdigest()
        before = self.size - len(self.data_set)
        return self.sha256_of(before + start, before + end)

    def sha256_of(self, start: int, end: int) -> str:
        """Of the bytes ``start`` to ``end`` of the file, in hex."""
        if isinstance(self._content, bytes):
            return hashlib.sha256(memoryview(self._content)[start:end]).hexdigest()
        digest = hashlib.sha256()
        while start < end and (chunk := self._read(start, min(start + _CHUNK, end))):
            digest.update(chunk)
            start += len(chunk)
        return digest.hexdigest()

    def has_data_of(self, other: Filed) -> bool:
        """Whether both data sets are the same bytes."""
        length = len(self.data_set)
        if length != len(other.data_set):
            return False
        ours, theirs = self.size - length, other.size - length
        parts = range(0, length, _CHUNK)
        return all(
            self._read(ours + part, ours + min(part + _CHUNK, length))
            == other._read(theirs + part, theirs + min(part + _CHUNK, length))
            for part in parts
        )

    def _read(self, start: int, end: int) -> bytes:
        if isinstance(self._content, bytes):
            return self._content[start:end]
        # Read, not taken from the map: the pages of a map count as this process's memory.
        return os.pread(self._descriptor, end - start, start)


@contextmanager
def opened(path: Path) -> Iterator[Filed]:
    """Open a file of the spool.

    Raises:
        ObjectNotStorable: it is no DICOM file with file meta information of ours.
        FileNotFoundError: it is gone.
    """
    with path.open("rb", buffering=0) as file:
        descriptor = file.fileno()
        status = os.fstat(descriptor)
        if status.st_size == 0:
            raise ObjectNotStorable("the file is empty")
        if status.st_size <= _READ_WHOLE:
            content: bytes | mmap.mmap = file.read()
            yield _filed(content, status, descriptor)
            return
        content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        yield _filed(content, status, descriptor)


def _filed(content: bytes | mmap.mmap, status: os.stat_result, descriptor: int) -> Filed:
    meta, end = raw_meta(content)
    received = _received(meta, dt.datetime.fromtimestamp(status.st_mtime, dt.UTC))
    return Filed(received, memoryview(cast(bytes, content))[end:], len(content), content, descriptor)


def _received(meta: Mapping[int, bytes], modified_at: dt.datetime) -> Received:
    def text(tag: int) -> str:
        return meta.get(tag, b"").decode("utf-8", "replace").strip()

    told = _told(meta) if text(_CREATOR) == PRIVATE_INFORMATION_CREATOR_UID else {}
    caller = text(_SOURCE_AE)
    try:
        received_at = dt.datetime.fromisoformat(told.get("received_at", ""))
    except ValueError:
        received_at = modified_at
    return Received(
        sop_class_uid=text(SOP_CLASS),
        sop_instance_uid=text(SOP_INSTANCE),
        transfer_syntax_uid=text(SYNTAX),
        source=told.get("source") or f"dicom:{caller}",
        caller=caller,
        called=text(_RECEIVING_AE),
        address=told.get("address", ""),
        received_at=received_at,
    )


def _told(meta: Mapping[int, bytes]) -> Mapping[str, str]:
    try:
        told = json.loads(meta.get(_PRIVATE, b""))
    except ValueError:
        return {}
    return {key: value for key, value in told.items() if isinstance(value, str)} if isinstance(told, dict) else {}
