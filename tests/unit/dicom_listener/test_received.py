"""Received objects as files."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from dicom_listener.received import file_header, read_received, split_file
from fhir_records.errors import ObjectNotStorable
from tests.unit.dicom_listener.objects import as_file, encoded, image, received


def test_file_says_how_its_object_came_and_keeps_its_bytes(tmp_path: Path) -> None:
    """Caller, called AE, address, door and instant are read back from the file; the data set is untouched."""
    ds = image()
    how = received(ds, ImplicitVRLittleEndian, source="orthanc:archive", address="fd00::1")
    data = encoded(ds, ImplicitVRLittleEndian)
    path = tmp_path / "x.dcm"
    path.write_bytes(file_header(how) + data)
    read_back, read_data = read_received(path)
    assert read_back == how
    assert bytes(read_data) == data


def test_any_dicom_reader_reads_the_file(tmp_path: Path) -> None:
    """The file meta information is that of PS3.10, with the sender's AE title in its place."""
    ds = image()
    path = tmp_path / "x.dcm"
    path.write_bytes(file_header(received(ds)) + encoded(ds))
    read = dcmread(path)
    assert read == ds
    assert read.file_meta.SourceApplicationEntityTitle == "CT1"
    assert read.file_meta.SendingApplicationEntityTitle == "CT1"
    assert read.file_meta.ReceivingApplicationEntityTitle == "WETREAD"
    assert read.file_meta.SourcePresentationAddress == "dicom://10.0.0.5"


def test_file_of_another_writer_is_read_too(tmp_path: Path) -> None:
    """Without our private information, the door is the sender and the instant that of the file."""
    path = tmp_path / "x.dcm"
    path.write_bytes(as_file(image()))
    how, _ = read_received(path)
    assert how.source == "dicom:"
    assert how.received_at.tzinfo is not None


@pytest.mark.parametrize("content", [b"", b"\0" * 200, bytes(128) + b"DICM", as_file(image())[:150]])
def test_what_is_no_dicom_file_is_refused(content: bytes) -> None:
    """A file without whole file meta information is no object."""
    with pytest.raises(ObjectNotStorable):
        split_file(content)


def test_broken_file_meta_information_is_named() -> None:
    """Cut off anywhere, or with a value that cannot be decoded, it is refused in words, or read without that value."""
    whole = file_header(received(image()))
    for end in range(len(whole)):
        with pytest.raises(ObjectNotStorable):
            split_file(whole[:end])
    for place in range(132, len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 0x13
        with suppress(ObjectNotStorable):
            meta, _ = split_file(bytes(broken))
            assert len(list(meta)) == len(meta)
