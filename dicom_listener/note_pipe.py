"""Notes from acceptors to the index, over a pipe that outlives both.

One line of text a note, so that a reader that begins in the middle of one, because another died there, finds the next.
A line is written whole or not at all: the kernel sees to it up to PIPE_BUF bytes. What finds no room is dropped and
counted, for the files are the truth; the next line that finds room says so.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
import select
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

import structlog

from dicom_listener.data_set import Element
from dicom_listener.handover import Ended, Ending, Handover, Note, Opened, Quarantined, Rejected, Seen, Stored
from fhir_records.store.associations import OpenAssociation

log = structlog.get_logger(__name__)

# Notes of objects need about 90 bytes each, and about 1000 with what was seen of them.
PIPE_BYTES: Final = (1 << 22, 1 << 20)  # who is not root may as a rule have the latter
_F_SETPIPE_SZ: Final = 1031  # fcntl(2)
_CHUNK: Final = 1 << 16
# What a word of a note may have, so that every note fits: peers choose some of them.
_MAX_TEXT: Final = 400
_LOST: Final = b"lost\n"
_LONGEST: Final = select.PIPE_BUF - len(_LOST)
_FIELD: Final = b"\x1f"  # between what was seen of an object


def make_pipe() -> tuple[int, int]:
    """The descriptors of a new pipe for notes: to read, to write; the latter does not block."""
    reading, writing = os.pipe()
    for size in PIPE_BYTES:
        with contextlib.suppress(OSError):  # the limit of a user who is not root may be reached
            fcntl.fcntl(writing, _F_SETPIPE_SZ, size)
            break
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)
    return reading, writing


class NoteWriter:
    """An acceptor's end of a pipe: a `Handover`.

    Args:
        descriptor: the pipe's, which does not block.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._dropped = 0  # since one found room
        self._open: dict[uuid.UUID, Opened] = {}

    def tell(self, note: Note) -> None:
        """Pass a note on. Does not wait and does not raise."""
        line = encode(note)
        with self._lock:
            if isinstance(note, Opened):
                self._open[note.association.id] = note
            elif isinstance(note, Ended):
                self._open.pop(note.association.id, None)
            if _FIELD in line:
                # Where there is no room for all that was seen there may be some for a key.
                self._write(line, line.partition(_FIELD)[0] + b"\n")
            else:
                self._write(line)

    def tell_open(self) -> None:
        """Tell again which associations are open, for an index that does not know them."""
        with self._lock:
            for note in self._open.values():
                self._write(encode(note))

    def _write(self, *lines: bytes) -> None:
        """Write the first of the lines for which there is room."""
        for line in lines:
            try:
                # With one write, so that neither is there without the other.
                os.write(self._descriptor, _LOST + line if self._dropped else line)
            except OSError:
                continue  # it is full, or nobody reads it any more
            if self._dropped:
                log.warning("notes for the index found no room; it looks at the files instead", notes=self._dropped)
                self._dropped = 0
            return
        self._dropped += 1


class NoteReader:
    """The index's end of an acceptor's pipe.

    Args:
        descriptor: the pipe's, which does not block.
        handover: where the notes go.
        look: called where notes were lost, so that files have to be looked at.
        clock: the time now, in UTC.
    """

    def __init__(
        self, descriptor: int, handover: Handover, look: Callable[[], None], clock: Callable[[], dt.datetime]
    ) -> None:
        self.descriptor = descriptor
        self._handover = handover
        self._look = look
        self._clock = clock
        self._rest = b""
        self._open: dict[uuid.UUID, OpenAssociation] = {}

    def read(self) -> bool:
        """Pass on what has come; False where the acceptor is gone: its associations are ended for it."""
        while True:
            try:
                chunk = os.read(self.descriptor, _CHUNK)
            except BlockingIOError:
                return True
            if not chunk:
                self._end_all()
                return False
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                self._pass_on(line)

    def _pass_on(self, line: bytes) -> None:
        if line == _LOST.rstrip():
            self._look()
            return
        try:
            note = decode(line)
        except (ValueError, KeyError, TypeError):
            # The end of a line whose beginning was read by an index that died.
            self._look()
            return
        if isinstance(note, Opened):
            self._open[note.association.id] = note.association
        elif isinstance(note, Ended):
            self._open.pop(note.association.id, None)
        self._handover.tell(note)

    def _end_all(self) -> None:
        if self._open:
            # It died in the middle of them, perhaps between a file and its note.
            self._look()
        for association in self._open.values():
            self._handover.tell(Ended(association, Ending.LOST, "the acceptor died", 0, 0, 0, self._clock()))
        self._open.clear()


def encode(note: Note) -> bytes:
    """A note as a line, not longer than a pipe takes at once."""
    if isinstance(note, Stored):
        line = f"stored {note.association_id.hex} {note.key}".encode()
        seen = line + _seen(note.seen) if note.seen is not None else line
        return (seen if len(seen) < _LONGEST else line) + b"\n"
    kind, fields = _FIELDS[type(note)]
    told = dict(_told(note, fields))
    line = f"{kind} {json.dumps(told)}\n".encode()
    if len(line) > _LONGEST:
        # Characters that JSON makes six bytes of, or twelve.
        told = {name: _printable(value) if isinstance(value, str) else value for name, value in told.items()}
        line = f"{kind} {json.dumps(told)}\n".encode()
    return line


def decode(line: bytes) -> Note:
    """A note from a line without its end.

    Raises:
        ValueError: it is none; so say KeyError and TypeError.
    """
    if line.startswith(b"stored "):
        return _stored(line)
    kind, _, text = line.decode().partition(" ")
    told: dict[str, Any] = json.loads(text)
    for name in ("at", "received_at", "opened_at"):
        if name in told:
            told[name] = dt.datetime.fromisoformat(told[name])
    if kind in ("opened", "ended"):
        association = OpenAssociation(
            uuid.UUID(told.pop("id")), told.pop("caller"), told.pop("address"), told.pop("opened_at")
        )
        if kind == "opened":
            return Opened(association)
        return Ended(association, Ending(told.pop("ending")), **told)
    if kind == "quarantined":
        return Quarantined(**told)
    if kind == "rejected":
        return Rejected(**told)
    raise ValueError(f"a note of kind {kind}")


def _seen(seen: Seen) -> bytes:
    """What was seen of an object, without the end of a line in it; b"" where that cannot be."""
    if not seen.caller.isprintable():
        return b""
    pixels = seen.pixels
    length = f"{pixels.tag},{pixels.end - pixels.value},{pixels.undefined_length:d}" if pixels is not None else ""
    told = ("", str(seen.size), seen.transfer_syntax_uid, seen.caller, seen.received_at.isoformat(), length, "")
    header = seen.header.replace(b"\\", b"\\b").replace(b"\n", b"\\n")
    return _FIELD.decode().join(told).encode() + header


def _stored(line: bytes) -> Stored:
    """A note of an object; ValueError where it is cut off."""
    head, *told = line.split(_FIELD, 6)
    _, association_id, key = head.decode().split(" ", 2)
    if not key or len(told) not in (0, 6):
        raise ValueError("a note that is cut off")
    if not told:
        return Stored(key, uuid.UUID(association_id))
    size, syntax, caller, received_at, length = (field.decode() for field in told[:5])
    pixels = None
    if length:
        tag, count, undefined = map(int, length.split(","))
        pixels = Element(tag, 0, 0, count, bool(undefined))
    header = told[5].replace(b"\\n", b"\n").replace(b"\\b", b"\\")
    seen = Seen(int(size), syntax, caller, dt.datetime.fromisoformat(received_at), header, pixels)
    return Stored(key, uuid.UUID(association_id), seen)


_FIELDS: Final[dict[type[Any], tuple[str, tuple[str, ...]]]] = {
    Opened: ("opened", ("association",)),
    Ended: ("ended", ("association", "ending", "reason", "stored", "refused", "received_bytes", "at")),
    Quarantined: ("quarantined", ("key", "size", "reason", "caller", "received_at")),
    Rejected: ("rejected", ("caller", "called", "address", "reason", "at")),
}


def _told(note: Note, fields: tuple[str, ...]) -> Iterator[tuple[str, str | int]]:
    for name in fields:
        value = getattr(note, name)
        if isinstance(value, OpenAssociation):
            yield "id", value.id.hex
            yield "caller", value.caller[:_MAX_TEXT]
            yield "address", value.address[:_MAX_TEXT]
            yield "opened_at", value.opened_at.isoformat()
        elif isinstance(value, dt.datetime):
            yield name, value.isoformat()
        elif isinstance(value, int):
            yield name, value
        else:
            yield name, str(value)[:_MAX_TEXT]


def _printable(text: str) -> str:
    return "".join(character if " " <= character <= "~" else "?" for character in text)
