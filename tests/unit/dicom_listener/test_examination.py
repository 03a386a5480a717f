"""Objects examined while they stream by."""

from __future__ import annotations

import datetime as dt
import zlib
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_listener import examination
from dicom_listener.description import describe
from dicom_listener.examination import Announced, Examination
from dicom_listener.received import Received, split_file
from fhir_records.errors import ObjectNotStorable
from tests.unit.dicom_listener.objects import MR_IMAGE, encoded, image

SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)


def examined(data: bytes | memoryview, syntax: str, piece: int = 1 << 30) -> Examination:
    """The examination of a data set that came in pieces of so many bytes."""
    found = Examination(syntax)
    for start in range(0, len(data), piece):
        found.feed(data[start : start + piece])
    found.finish()
    return found


@pytest.mark.parametrize("syntax", SYNTAXES)
@given(piece=st.integers(min_value=1, max_value=900))
def test_whole_object_is_found_whole(syntax: str, piece: int) -> None:
    """In every encoding, however it is cut, an object is itself, and no other."""
    ds = WHOLE
    found = examined(DATA[syntax], syntax, piece)
    uid = str(ds.SOPInstanceUID)
    assert found.mismatch(Announced(MR_IMAGE, uid)) == ""
    assert found.mismatch(Announced("", "")) == ""
    assert found.mismatch(Announced(MR_IMAGE, uid + "1")) == "SOPInstanceUID differs from the request's"
    assert found.mismatch(Announced("1.2.3", uid)) == "SOPClassUID differs from the request's"


WHOLE = image()
DATA = {syntax: encoded(WHOLE, syntax) for syntax in SYNTAXES}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("missing", [1, 3, 20, 47])
def test_early_end_is_seen(syntax: str, missing: int) -> None:
    """An object that lacks its last bytes is not stored, deflated or not."""
    # A deflated data set of odd length ends with a zero byte of padding.
    cut = missing + (syntax == DeflatedExplicitVRLittleEndian and DATA[syntax].endswith(b"\0"))
    with pytest.raises(ObjectNotStorable, match="ends early"):
        examined(DATA[syntax][:-cut], syntax, 100)


@pytest.mark.parametrize("syntax", [*SYNTAXES, ExplicitVRBigEndian])
def test_pixels_shorter_than_the_header_says_are_seen(syntax: str) -> None:
    """Rows and columns are read in the byte order of the transfer syntax."""
    ds = image(Rows=5, PixelData=bytes(60))
    examined(encoded(ds, syntax), syntax)
    with pytest.raises(ObjectNotStorable, match="shorter than the header says"):
        examined(encoded(image(Rows=99), syntax), syntax)


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, "", "1.2.3/../../etc", "1" * 65])
def test_uids_that_storage_needs(keyword: str, value: str | None) -> None:
    """Each of the four must be there, and one."""
    data = encoded(image(**{keyword: value}))
    with pytest.raises(ObjectNotStorable, match=f"{keyword} is missing or not a UID"):
        examined(data, ExplicitVRLittleEndian)


def test_what_the_index_would_refuse_is_refused(test_data: Path) -> None:
    """For every object of the test data, both ways of looking come to the same verdict."""
    seen = 0
    for path in sorted((test_data / "dicom").rglob("*.dcm")):
        if path.stat().st_size > 500_000 or ("philips" in path.parent.name and seen > 150):
            continue
        try:
            meta, data = split_file(path.read_bytes())
        except ObjectNotStorable:
            continue
        syntax = str(meta.TransferSyntaxUID)
        how = Received("", "", syntax, "dicom:CT1", "CT1", "", "", dt.datetime.now(dt.UTC))
        verdicts = []
        for look in (partial(describe, data, how, dt.UTC), partial(examined, data, syntax, 16378)):
            try:
                look()
                verdicts.append("")
            except ObjectNotStorable as error:
                verdicts.append(str(error))
        assert verdicts[0] == verdicts[1], path.name
        seen += 1
    assert seen > 50


def test_inflation_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes that would inflate to gigabytes are refused before they do."""
    monkeypatch.setattr(examination, "FREE_INFLATED_BYTES", 1 << 20)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    huge = b"\xe0\x7f\x10\x00OW\0\0" + (1 << 26).to_bytes(4, "little") + bytes(1 << 26)
    bomb = deflater.compress(encoded(image(PixelData=b""))[:-12] + huge) + deflater.flush()
    with pytest.raises(ObjectNotStorable, match="too large"):
        examined(bomb, DeflatedExplicitVRLittleEndian, 1000)
    with pytest.raises(ObjectNotStorable, match="deflated data set is broken"):
        examined(b"\xff" * 100, DeflatedExplicitVRLittleEndian)
