"""Notes over a pipe."""

from __future__ import annotations

import datetime as dt
import os
import uuid

from hypothesis import example, given
from hypothesis import strategies as st

from dicom_listener.handover import Ended, Ending, Note, Opened, Quarantined, Rejected, Seen, Stored
from dicom_listener.note_pipe import NoteReader, NoteWriter, decode, encode, make_pipe
from fhir_records.store.associations import OpenAssociation

NOW = dt.datetime(2026, 11, 20, 12, 0, tzinfo=dt.UTC)


class Heard:
    """A handover that remembers, and counts how often files are to be looked at."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.looks = 0

    def tell(self, note: Note) -> None:
        """Remember."""
        self.notes.append(note)

    def look(self) -> None:
        """Count."""
        self.looks += 1


def association(caller: str = "CT1") -> OpenAssociation:
    return OpenAssociation(uuid.uuid4(), caller, "10.0.0.5", NOW)


def ended(open_: OpenAssociation, reason: str = "") -> Ended:
    return Ended(open_, Ending.RELEASED, reason, 3, 1, 4000, NOW)


def reader_of(descriptor: int, heard: Heard) -> NoteReader:
    return NoteReader(descriptor, heard, heard.look, lambda: NOW)


@given(st.text(max_size=600))
@example("\0" * 600)
@example("\U0001f600" * 600)
@example('"' * 600)
def test_every_note_is_one_line_and_comes_out_as_it_went_in(text: str) -> None:
    """Whatever a peer calls itself: no line is longer than a pipe takes at once, none is two."""
    open_ = association(text)
    for note in (
        Opened(open_),
        Stored("objects/2026-11-20/12/ab.dcm", open_.id),
        Quarantined("quarantine/2026-11-20/ab.bin", 12, text, text, NOW),
        ended(open_, text),
        Rejected(text, text, text, text, NOW),
    ):
        line = encode(note)
        assert line.index(b"\n") == len(line) - 1
        assert len(line) <= 4096
        told = decode(line[:-1])
        assert type(told) is type(note)
        if text.isprintable() and text.isascii() and len(text) <= 400:
            assert told == note


def test_notes_pass_in_their_order() -> None:
    """What one end tells the other end hears, and nothing is looked for."""
    reading, writing = make_pipe()
    writer, heard, open_ = NoteWriter(writing), Heard(), association()
    notes = [Opened(open_), Stored("a", open_.id), Quarantined("q", 1, "why", "CT1", NOW), ended(open_)]
    for note in notes:
        writer.tell(note)
    reader = reader_of(reading, heard)
    assert reader.read()
    assert heard.notes == notes
    os.close(writing)
    assert not reader.read()
    assert heard.notes == notes
    assert heard.looks == 0


def test_full_pipe_drops_and_says_so_when_there_is_room_again() -> None:
    """Nobody waits for a reader that does not read; that notes are missing is told before the next one."""
    reading, writing = make_pipe()
    writer, heard, open_ = NoteWriter(writing), Heard(), association()
    for number in range(100_000):
        writer.tell(Stored(f"objects/{number}", open_.id))
    reader = reader_of(reading, heard)
    reader.read()
    assert 5_000 < len(heard.notes) < 100_000
    assert heard.looks == 0
    writer.tell(Stored("last", open_.id))
    reader.read()
    assert heard.looks == 1
    assert heard.notes[-1] == Stored("last", open_.id)


def test_pipe_without_room_for_all_that_was_seen_takes_the_key() -> None:
    """What no longer fits with its header is told without it, and nothing counts as lost."""
    reading, writing = make_pipe()
    writer, heard, open_ = NoteWriter(writing), Heard(), association()
    seen = Seen(5, "1.2.840.10008.1.2.1", "CT1", NOW, b"x" * 3000, None)
    notes = [Stored(f"objects/{number}", open_.id, seen) for number in range(2000)]
    for note in notes:
        writer.tell(note)
        if writer._dropped:
            break
    reader = reader_of(reading, heard)
    reader.read()
    told = [note for note in heard.notes if isinstance(note, Stored)]
    assert told[0] == notes[0]
    assert told[-1].seen is None
    assert [note.key for note in told] == [note.key for note in notes[: len(told)]]
    assert heard.looks == 0


def test_acceptor_that_dies_leaves_no_association_open() -> None:
    """At the end of the pipe the associations that did not end are ended, and the files are looked at."""
    reading, writing = make_pipe()
    writer, heard, gone, done = NoteWriter(writing), Heard(), association(), association()
    for note in (Opened(gone), Opened(done), ended(done)):
        writer.tell(note)
    os.close(writing)
    reader = reader_of(reading, heard)
    assert not reader.read()
    assert heard.notes[-1] == Ended(gone, Ending.LOST, "the acceptor died", 0, 0, 0, NOW)
    assert heard.looks == 1


def test_next_index_reads_on_and_hears_what_is_open() -> None:
    """A reader that begins within a line finds the next one; the associations that are open are told again."""
    reading, writing = make_pipe()
    writer, heard, open_, done = NoteWriter(writing), Heard(), association(), association()
    for note in (Opened(open_), Opened(done), Stored("a", open_.id), ended(done)):
        writer.tell(note)
    os.read(reading, 30)  # by an index that dies now
    reader = reader_of(reading, heard)
    reader.read()
    assert heard.looks == 1
    assert heard.notes == [Opened(done), Stored("a", open_.id), ended(done)]
    writer.tell_open()
    reader.read()
    assert heard.notes[-1] == Opened(open_)


def test_telling_nobody_is_no_error() -> None:
    """With parent and index dead, an acceptor still answers what it has begun."""
    reading, writing = make_pipe()
    os.close(reading)
    NoteWriter(writing).tell(Stored("a", uuid.uuid4()))
    os.close(writing)
