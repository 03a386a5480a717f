"""Headers straight from their bytes, held to what pydicom makes of the same file; and what is kept of them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_listener.data_set import encoding_of
from dicom_listener.received import file_header, split_file
from fhir_records.errors import ObjectNotStorable, PixelsNotReadable
from tests.unit.dicom_listener.objects import encoded, image, received
from web import dicomweb_attributes as module
from web.dicomweb_cache import BytesCache
from web.dicomweb_header import header_of
from web.dicomweb_json import Json

ADDRESS = "http://test/dicom-web/studies/1/series/2/instances/3"
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


@pytest.fixture(autouse=True)
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a server reads: what breaks its VR's rules is read all the same."""
    monkeypatch.setattr(config.settings, "reading_validation_mode", config.IGNORE)


def by_pydicom(path: Path) -> Json:
    """The whole header by the long way."""
    return module._as_json(module._header(path, None), ADDRESS)


def agree(ours: Json, theirs: Json, what: str) -> None:
    """Whatever pydicom writes, we write alike; a value of several, of which some are empty, it may leave out."""
    for tag, element in theirs.items():
        if element["vr"] == "SQ":
            assert len(element.get("Value", ())) == len(ours[tag].get("Value", ())), f"{what}, {tag}"
            for item, other in zip(ours[tag].get("Value", ()), element.get("Value", ()), strict=True):
                agree(item, other, f"{what}, {tag}")
        elif tag != "00080005":
            assert ours[tag] == element, f"{what}, {tag}"
    for tag in ours.keys() - theirs.keys():
        assert None in ours[tag].get("Value", ()), f"{what}: {tag} is ours alone"


def test_every_real_header_comes_out_as_pydicom_has_it(test_data: Path) -> None:
    """Of the test data, both ways give the same attributes, and nearly all headers need pydicom for nothing."""
    seen = quick = 0
    for path in sorted((test_data / "dicom").rglob("*.dcm"))[::3]:
        try:
            theirs = by_pydicom(path)
            meta, data = split_file(path.read_bytes())
        except (PixelsNotReadable, ObjectNotStorable):
            continue
        agree(module._read(path, ADDRESS, None), theirs, path.name)
        header = header_of(data, encoding_of(str(meta.TransferSyntaxUID)), ADDRESS)
        seen += 1
        quick += header is not None and not header.odd
    assert seen > 100
    assert quick > seen * 0.8


def stored(folder: Path, ds: Dataset, syntax: str) -> Path:
    """``ds`` as a file."""
    path = folder / "object.dcm"
    path.write_bytes(file_header(received(ds, syntax)) + encoded(ds, syntax))
    return path


def rich() -> Dataset:
    """A header of many kinds: nested, private, of several values, in other characters."""
    code, item = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99TEST", "one"
    item.PurposeOfReferenceCodeSequence = Sequence([code, code])
    item.add_new(0x54001010, "OW", bytes(5000))
    ds = image(
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
        SmallestImagePixelValue=3,
        WindowCenter=["40", "400"],
        ImageType=["ORIGINAL", "", "AXIAL"],
        ReferencedImageSequence=Sequence([item, Dataset()]),
        DeviceSerialNumber="",
    )
    private = ds.private_block(0x0009, "GEMS_IDEN_01", create=True)
    private.add_new(0x01, "LO", "GE_GENESIS_FF")
    private.add_new(0x27, "SL", -5)
    other = ds.private_block(0x0011, "WETREAD TEST", create=True)
    other.add_new(0x01, "UN", b"abc\0")
    other.add_new(0x02, "OB", bytes(6000))
    return ds


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
def test_rich_headers_come_out_alike(tmp_path: Path, syntax: str, undefined: bool) -> None:
    """Nested, private, multi-valued and Japanese attributes, with lengths and without, are the same by both ways."""
    ds = rich()
    ds["ReferencedImageSequence"].is_undefined_length = undefined
    ds.ReferencedImageSequence[0].is_undefined_length_sequence_item = undefined
    path = stored(tmp_path, ds, syntax)
    ours, theirs = module._read(path, ADDRESS, None), by_pydicom(path)
    agree(ours, theirs, syntax)
    assert ours["00100010"]["Value"][0]["Ideographic"] == "山田^太郎"
    long = ours["00081140"]["Value"][0]["54001010"]
    assert long == {"vr": "OW", "BulkDataURI": f"{ADDRESS}/bulkdata/00081140/1/54001010"}


def test_empty_among_several_numbers_is_null(tmp_path: Path) -> None:
    """A number that is left out among others is null, and the others keep their places (PS3.18 section F.2.5)."""
    path = stored(tmp_path, image(WindowCenter="40\\\\400"), ExplicitVRLittleEndian)
    assert module._read(path, ADDRESS, None)["00281050"]["Value"] == [40.0, None, 400.0]


@settings(max_examples=300, deadline=None)
@given(syntax=st.sampled_from(SYNTAXES), places=st.lists(st.integers(0, 10_000), max_size=4), value=st.integers(0, 255))
def test_broken_headers_are_left_to_pydicom(syntax: str, places: list[int], value: int) -> None:
    """Whatever is wrong with the bytes, there is an answer, and it describes nothing beyond them."""
    data: Any = bytearray(encoded(rich(), syntax))
    for place in places:
        data[place % len(data)] = value
    header = header_of(bytes(data), encoding_of(syntax), ADDRESS)
    if header is not None:
        assert all(0 <= begin < end <= len(data) for _, begin, end in header.odd)
        assert sorted(header.found) == list(header.found)


def test_cache_keeps_what_was_asked_for_last() -> None:
    """Beyond its bound the values go that nobody asked for the longest; a very long one is not kept at all."""
    cache = BytesCache(10_000)
    for number in range(20):
        cache.put(number, bytes(700))
        cache.get(0)
    kept = [number for number in range(20) if cache.get(number) is not None]
    assert 0 in kept
    assert 19 in kept
    assert len(kept) == 10
    cache.put("long", bytes(2000))
    assert cache.get("long") is None
    cache.put(0, b"new")
    assert cache.get(0) == b"new"


def test_cache_is_for_many_threads() -> None:
    """Threads that put and get at once find whole values, and the bound holds."""
    cache = BytesCache(100_000)

    def work(seed: int) -> None:
        for number in range(500):
            cache.put((seed + number) % 300, bytes([seed]) * 900)
            assert len(cache.get(number % 300) or bytes(900)) == 900

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(len(cache.get(number) or b"") for number in range(300)) <= 100_000
