"""A file that comes in pieces, on its way into the spool."""

from __future__ import annotations

import datetime as dt
import io
import zlib
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_listener.file_storing import Fault, FileStoring, Offered, Way
from dicom_listener.filed import opened
from dicom_listener.received import split_file
from dicom_listener.spool import Spool
from fhir_records.errors import OutOfSpace
from tests.unit.dicom_listener.objects import as_file, encoded, image, with_transfer_syntax

WAY = Way("stow:scanner", dt.datetime(2026, 11, 21, 17, tzinfo=dt.UTC), "192.0.2.7")
UIDS = {"SOPInstanceUID": "1.2.3.1", "StudyInstanceUID": "1.2.3.2", "SeriesInstanceUID": "1.2.3.3"}


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """An empty one."""
    return Spool(tmp_path)


def fed(spool: Spool, content: bytes, size: int) -> FileStoring:
    """A file that came in pieces of this size."""
    storing = FileStoring(spool, WAY)
    for start in range(0, len(content), size):
        storing.take(content[start : start + size])
    return storing


def half_written(spool: Spool) -> list[Path]:
    return list((spool.root / "incoming").iterdir())


@pytest.mark.parametrize("size", [1, 7, 133, 4096, 1 << 20])
def test_whole_file_is_kept_as_it_came(spool: Spool, size: int) -> None:
    """However it is cut, the data set lies in the spool byte for byte, under file meta information of ours."""
    content = as_file(image(**UIDS))
    storing = fed(spool, content, size)
    assert storing.finish() is None
    assert storing.offered == Offered(dcmread(io.BytesIO(content)).SOPClassUID, "1.2.3.1", "1.2.3.2", "1.2.3.3")
    with opened(spool.path(storing.keep())) as file:
        assert bytes(file.data_set) == bytes(split_file(content)[1])
        assert (file.received.source, file.received.address) == (WAY.source, WAY.address)
        assert file.received.received_at == WAY.received_at
    assert not half_written(spool)


def misnamed() -> bytes:
    ds = dcmread(io.BytesIO(as_file(image(**UIDS))))
    ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.9"
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", Fault.NOT_STORABLE),
        (b"no DICOM at all", Fault.NOT_STORABLE),
        (bytes(4096), Fault.NOT_STORABLE),
        (as_file(image(**UIDS))[:-10], Fault.NOT_STORABLE),
        (as_file(image(**UIDS))[:200], Fault.NOT_STORABLE),
        (as_file(image(**{**UIDS, "StudyInstanceUID": ""})), Fault.NOT_STORABLE),
        (misnamed(), Fault.MISMATCH),
    ],
)
@pytest.mark.parametrize("size", [11, 1 << 20])
def test_what_cannot_be_stored_is_kept_aside_whole(spool: Spool, content: bytes, fault: Fault, size: int) -> None:
    """A fault is named, and every byte that came is in quarantine with the reason."""
    storing = fed(spool, content, size)
    found = storing.finish()
    assert found is not None
    assert found[0] is fault
    key, _ = storing.keep_aside(found[1])
    kept = spool.path(key).read_bytes()
    assert kept.endswith(content[max(0, len(content) - 100) :])
    assert spool.quarantine_facts(key)["reason"] == found[1]
    assert not half_written(spool)


def test_dropped_file_leaves_nothing(spool: Spool) -> None:
    """Whatever had come of it is gone, and dropping it twice is no error."""
    storing = fed(spool, as_file(image(**UIDS)), 500)
    storing.drop()
    storing.drop()
    assert not half_written(spool)
    assert not list(spool.object_keys())


def test_deflated_object_may_not_grow_without_bound(spool: Spool) -> None:
    """A small file that inflates to more than is allowed is too large; one that does not is stored."""
    plain = encoded(image(**UIDS), "1.2.840.10008.1.2.1") + b"\xfc\xff\xfc\xffOB\0\0" + (1 << 20).to_bytes(4, "little")
    squeeze = zlib.compressobj(9, wbits=-15)
    packed = squeeze.compress(plain + bytes(1 << 20)) + squeeze.flush()
    head = with_transfer_syntax(as_file(image(**UIDS)), DeflatedExplicitVRLittleEndian)
    content = head[: 144 + int.from_bytes(head[140:144], "little")] + packed
    for most, fault in ((1 << 19, Fault.TOO_LARGE), (1 << 22, None)):
        storing = FileStoring(spool, WAY, most)
        storing.take(content)
        found = storing.finish()
        storing.drop()
        assert (found and found[0]) == fault


def test_full_disk_keeps_nothing(tmp_path: Path) -> None:
    """Below the watermark nothing is written, whatever had come before."""
    storing = FileStoring(Spool(tmp_path, min_free_bytes=1 << 60), WAY)
    content = as_file(image(**UIDS))
    storing.take(content[:100])
    with pytest.raises(OutOfSpace):
        storing.take(content[100:])
    storing.drop()
    assert not list(tmp_path.rglob("*.*"))
