"""The listener's processes load no decoder, and still tell an object that comes again in another encoding."""

from __future__ import annotations

import copy
import io
from pathlib import Path

from pydicom import Dataset, dcmread, dcmwrite
from pydicom.uid import RLELossless
from sqlalchemy import select

from dicom_listener.sender import send
from dicom_listener.settings import Node, SenderSettings
from fhir_records import tables
from fhir_records.model import Standing
from tests.chaos.stand import Stand, standing
from tests.peers import HOST, wait_until
from tests.unit.dicom_listener.objects import as_file, image


def standings(stand: Stand) -> list[Standing]:
    """Of all instances in the index, in the order of their arrival."""
    with stand.database.session() as session:
        return list(session.scalars(select(tables.Instance.standing).order_by(tables.Instance.id)))


def rle(ds: Dataset) -> bytes:
    """The object as an RLE compressed file."""
    again = dcmread(io.BytesIO(as_file(ds)))
    again.compress(RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    dcmwrite(buffer, again)
    return buffer.getvalue()


def test_an_object_comes_again_compressed_and_then_with_other_pixels(tmp_path: Path) -> None:
    """Compressed without loss it is the same; with one pixel changed it is a conflict."""
    plain = image(Rows=64, Columns=64, PixelData=bytes((*range(16), 0)[n % 17] for n in range(8192)))
    changed = copy.deepcopy(plain)
    changed.PixelData = bytes([plain.PixelData[0] + 1]) + plain.PixelData[1:]
    with standing(tmp_path) as stand:
        node = Node("us", "WETREAD", HOST, stand.port, timeout_s=60)

        def sent(content: bytes) -> int:
            return send(content, node, SenderSettings(ae_title="CT2")).status

        assert sent(as_file(plain)) == 0
        wait_until(lambda: standings(stand) == [Standing.CURRENT], what="the first object in the index")
        files = {pid: (Path("/proc") / str(pid) / "maps").read_text() for pid in stand.listen.pids}
        assert files
        assert not [pid for pid, maps in files.items() if "numpy" in maps or "gdcm" in maps]
        assert sent(rle(plain)) == 0
        assert sent(rle(changed)) == 0
        wait_until(lambda: standings(stand) == [Standing.CURRENT, Standing.CONFLICT], what="the conflict in the index")
        wait_until(lambda: len(list(stand.spool.object_keys())) == 2, what="the copy's end")
