"""What an acceptor sees of an object on its way is what the index would read from the file."""

from __future__ import annotations

import datetime as dt
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_listener.data_set import encoding_of
from dicom_listener.description import Origin, describe, describe_header
from dicom_listener.examination import Examination
from dicom_listener.handover import Seen, Stored
from dicom_listener.header_text import picked_text
from dicom_listener.note_pipe import decode, encode
from dicom_listener.received import Received, split_file
from fhir_records.errors import ObjectNotStorable
from fhir_records.store.arrivals import Arrival
from tests.unit.dicom_listener.objects import RECEIVED_AT, encoded, image

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]
KEY = "objects/2026-11-20/12/ab.dcm"


def seen(data: bytes, syntax: str, piece: int = 100) -> Stored:
    """The note of an object that came in pieces of this size, as it comes out of the pipe."""
    examination = Examination(syntax)
    for start in range(0, len(data), piece):
        examination.feed(memoryview(data)[start : start + piece])
    examination.finish()
    told = None
    if examination.header:
        told = Seen(len(data), syntax, "CT1", RECEIVED_AT, examination.header, examination.pixels)
    note = decode(encode(Stored(KEY, uuid.UUID(int=1), told))[:-1])
    assert isinstance(note, Stored)
    return note


def by_note(note: Stored) -> Arrival:
    """What the index makes of a note."""
    assert note.seen is not None
    told = note.seen
    header = picked_text(told.header, encoding_of(told.transfer_syntax_uid), told.pixels)
    origin = Origin(told.transfer_syntax_uid, "dicom:CT1", told.caller, told.received_at, note.key, told.size)
    return describe_header(header, origin, dt.UTC, "HOSP")


def by_file(data: bytes, syntax: str) -> Arrival:
    """What the index makes of a file."""
    how = Received("", "", syntax, "dicom:CT1", "CT1", "WETREAD", "10.0.0.5", RECEIVED_AT)
    return describe(data, how, dt.UTC, "HOSP", file_key=KEY, size=len(data))


def test_every_file_of_the_test_data_is_indexed_alike(test_data: Path) -> None:
    """Note and file say the same of every object that is taken, whatever it is; nearly all fit into a note."""
    fit = total = 0
    for path in sorted((test_data / "dicom").rglob("*.dcm")):
        try:
            meta, content = split_file(path.read_bytes())
            syntax, data = str(meta.TransferSyntaxUID), bytes(content)
            note = seen(data, syntax, 4096)
        except (ObjectNotStorable, AttributeError):
            continue
        total += 1
        if note.seen is not None:
            fit += 1
            assert by_note(note) == by_file(data, syntax), path.name
    assert fit > 100
    assert fit > 0.9 * total


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"PatientName": "Müller^Jörg", "SpecificCharacterSet": "ISO_IR 100"},
        {"StudyDescription": "one\\two\n", "SeriesDescription": "\x1f\\b\\n"},
        {"StudyDescription": "0123456789" * 10},  # a length of 0x64, and values with 0x0a for their length
        {"PatientID": "1234567890", "AccessionNumber": "X" * 0x5C},
        {"NumberOfStudyRelatedInstances": "12", "StationName": "CT-1"},
    ],
)
def test_odd_values_pass_the_pipe(changed: dict[str, object], syntax: str) -> None:
    """Line ends, backslashes, other character sets: what the pipe's lines are made of does no harm."""
    data = encoded(image(PixelData=None, **changed), syntax)
    note = seen(data, syntax)
    assert by_note(note) == by_file(data, syntax)


@given(st.binary(max_size=300))
def test_any_bytes_pass_the_pipe(header: bytes) -> None:
    """Whatever bytes an object has, they come out of the pipe as they went in, on one line."""
    note = Stored(KEY, uuid.UUID(int=1), Seen(5, ExplicitVRLittleEndian, "CT1", RECEIVED_AT, header, None))
    line = encode(note)
    assert line.index(b"\n") == len(line) - 1
    assert decode(line[:-1]) == note


def test_what_does_not_fit_into_a_note_is_left_to_the_file() -> None:
    """A value that is too long, a sequence of undefined length, too much altogether, a caller with control codes."""
    assert seen(encoded(image(StudyDescription="x" * 2000)), ExplicitVRLittleEndian).seen is None
    equipment = Dataset()
    equipment.ManufacturerModelName = "Wetread"
    ds = image(ContributingEquipmentSequence=[equipment])
    note = seen(encoded(ds), ExplicitVRLittleEndian)
    assert by_note(note) == by_file(encoded(ds), ExplicitVRLittleEndian)
    ds["ContributingEquipmentSequence"].is_undefined_length = True
    assert seen(encoded(ds), ExplicitVRLittleEndian).seen is None
    texts = ("StudyDescription", "SeriesDescription", "StationName", "Manufacturer", "AccessionNumber")
    long = image(**dict.fromkeys(texts, "x" * 1000))
    assert seen(encoded(long), ExplicitVRLittleEndian).seen is None
    odd = Stored(KEY, uuid.UUID(int=1), Seen(5, ExplicitVRLittleEndian, "CT\n1", RECEIVED_AT, b"abc", None))
    assert decode(encode(odd)[:-1]) == Stored(KEY, uuid.UUID(int=1))
