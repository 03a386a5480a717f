"""The DICOM JSON model as we write it, held to pydicom's own writer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import config, dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from web.dicomweb_json import Json, as_json

TAGS = {
    "AE": 0x00080054, "AS": 0x00101010, "CS": 0x00080060, "DA": 0x00080020, "DS": 0x00281050, "DT": 0x0008002A,
    "FD": 0x00189087, "FL": 0x00089459, "IS": 0x00200013, "LO": 0x00081030, "LT": 0x00104000, "PN": 0x00100010,
    "SH": 0x00080050, "SL": 0x00186020, "SS": 0x00189219, "ST": 0x00080081, "TM": 0x00080030, "UC": 0x00189908,
    "UI": 0x00080018, "UL": 0x00081161, "UR": 0x00081190, "US": 0x00280010, "UT": 0x00189074,
}  # fmt: skip


@pytest.fixture(autouse=True)
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a server reads: what breaks its VR's rules is read all the same."""
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)


def agree(ours: Json, theirs: Json, what: str) -> None:
    """Whatever pydicom writes, we write alike; what it leaves out, a whole sequence for one value, we may have."""
    for tag, element in theirs.items():
        if element["vr"] == "SQ" and len(element.get("Value", ())) == len(ours[tag].get("Value", ())):
            for item, other in zip(ours[tag].get("Value", ()), element.get("Value", ()), strict=True):
                agree(item, other, f"{what}, {tag}")
        else:
            assert json.dumps(ours[tag]) == json.dumps(element), f"{what}, {tag}"


def test_real_objects_are_written_as_pydicom_writes_them(test_data: Path) -> None:
    """Every header of the test data comes out the same by both writers."""
    seen = 0
    for path in sorted((test_data / "dicom").rglob("*.dcm"))[::4]:
        try:
            ours, theirs = (dcmread(path, stop_before_pixels=True) for _ in range(2))
            expected = theirs.to_json_dict(suppress_invalid_tags=True)
        except Exception:
            continue
        agree(as_json(ours), expected, path.name)
        seen += 1
    assert seen > 40


@given(vr=st.sampled_from(sorted(TAGS)), value=st.binary(max_size=24), ascii_only=st.booleans())
def test_whatever_the_bytes_are_the_two_agree(vr: str, value: bytes, ascii_only: bool) -> None:
    """For any bytes in any VR, both writers say the same, or both leave the element out."""
    if ascii_only:
        value = bytes(byte % 96 + 32 for byte in value)
    raw = RawDataElement(Tag(TAGS[vr]), vr, len(value), value, 0, False, True)
    ours, theirs = Dataset(), Dataset()
    ours[raw.tag] = raw
    theirs[raw.tag] = raw
    try:
        expected = theirs.to_json_dict(suppress_invalid_tags=True)
    except Exception:  # what pydicom cannot write must not end us
        as_json(ours)
        return
    agree(as_json(ours), expected, vr)
