"""Files of the spool as the index reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dicom_listener import filed
from dicom_listener.filed import opened
from dicom_listener.received import file_header, read_received
from fhir_records.errors import ObjectNotStorable
from tests.unit.dicom_listener.objects import encoded, image, received


@pytest.mark.parametrize("whole", [True, False], ids=["read", "mapped"])
def test_file_is_read_as_it_was_stored(tmp_path: Path, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """How it came, its data set, size and hashes, whether it is read at once or mapped."""
    monkeypatch.setattr(filed, "_READ_WHOLE", 1 << 20 if whole else 16)
    ds = image()
    how, data = received(ds, address="fe80::1", caller="CT1"), encoded(ds)
    path = tmp_path / "object.dcm"
    path.write_bytes(file_header(how) + data)
    with opened(path) as file:
        assert file.received == how == read_received(path)[0]
        assert bytes(file.data_set) == data
        assert (file.size, file.sha256()) == (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        assert file.sha256_of_data(8, 100) == hashlib.sha256(data[8:100]).hexdigest()


@pytest.mark.parametrize("length", [0, 100, 132, 144, 200])
def test_broken_files_are_named(tmp_path: Path, length: int) -> None:
    """Empty, short, or cut in its file meta information: not storable, in words."""
    path = tmp_path / "object.dcm"
    path.write_bytes((file_header(received(image())) + encoded(image()))[:length])
    with pytest.raises(ObjectNotStorable), opened(path):
        pass


def test_file_that_is_gone_is_told_apart(tmp_path: Path) -> None:
    """No file is no broken file."""
    with pytest.raises(FileNotFoundError), opened(tmp_path / "gone.dcm"):
        pass
