"""The outer structure of encoded data sets."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dicom_listener import data_set
from dicom_listener.data_set import elements, encoding_of, inflated
from fhir_records.errors import ObjectNotStorable
from tests.unit.dicom_listener.objects import encoded, image


def _nested() -> Dataset:
    inner, outer = Dataset(), Dataset()
    inner.CodeValue = "1"
    outer.is_undefined_length_sequence_item = True
    outer.ConceptNameCodeSequence = [inner]
    outer["ConceptNameCodeSequence"].is_undefined_length = True
    ds = image(ContentSequence=[outer])
    ds["ContentSequence"].is_undefined_length = True
    return ds


NESTED = encoded(_nested())


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_all_elements_are_found(syntax: str) -> None:
    """Every element of the outermost level is met once, nested ones of undefined length are stepped over."""
    ds = _nested()
    found = [element.tag for element in elements(encoded(ds, syntax), encoding_of(syntax))]
    assert found == sorted(int(element.tag) for element in ds)


def test_big_endian_is_walked() -> None:
    """Explicit VR Big Endian has its bytes the other way round."""
    ds = image(PixelData=None)
    found = [element.tag for element in elements(encoded(ds, ExplicitVRBigEndian), encoding_of(ExplicitVRBigEndian))]
    assert found == sorted(int(element.tag) for element in ds)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_data_set_cut_off_anywhere_but_between_elements_is_seen(data: st.DataObject) -> None:
    """Whatever is left of a data set that ends early is not taken for a whole one."""
    whole = NESTED
    ends = {element.end for element in elements(whole, encoding_of(ExplicitVRLittleEndian))}
    cut = data.draw(st.integers(1, len(whole) - 1).filter(lambda at: at not in ends))
    with pytest.raises(ObjectNotStorable):
        list(elements(whole[:cut], encoding_of(ExplicitVRLittleEndian)))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_noise_ends_in_our_own_error_or_in_elements(noise: bytes) -> None:
    """No input brings the walker to another error, or to run on."""
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian):
        try:
            found = list(elements(noise, encoding_of(syntax)))
        except ObjectNotStorable:
            continue
        assert found == [] or found[-1].end <= len(noise)


def test_bottomless_nesting_is_refused() -> None:
    """A data set made to exhaust the interpreter is refused."""
    item = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    sequence = b"\x40\x00\x30\xa7SQ\x00\x00\xff\xff\xff\xff"
    with pytest.raises(ObjectNotStorable, match="nested too deeply"):
        list(elements((sequence + item) * 5000, encoding_of(ExplicitVRLittleEndian)))


def deflated(plain: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(plain) + deflater.flush()


DEFLATED = (DeflatedExplicitVRLittleEndian, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205")


@pytest.mark.parametrize("syntax", DEFLATED)
def test_deflated_data_set_is_inflated_within_bounds(monkeypatch: pytest.MonkeyPatch, syntax: str) -> None:
    """A deflated data set is inflated; one that is cut off, broken or too large is refused."""
    packed = deflated(bytes(100_000))
    assert inflated(packed, syntax) == bytes(100_000)
    assert inflated(packed + b"\0", syntax) == bytes(100_000)  # the pad byte
    for broken in (packed[:-5], b"\xff" * 50, b""):
        with pytest.raises(ObjectNotStorable):
            inflated(broken, syntax)
    monkeypatch.setattr(data_set, "MAX_INFLATED_BYTES", 99_999)
    with pytest.raises(ObjectNotStorable, match="too large"):
        inflated(packed, syntax)


def test_what_is_not_deflated_stays_as_it_is() -> None:
    """Every other transfer syntax's data set is handed back, the very object."""
    for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, "1.2.840.10008.1.2.4.94", RLELossless, ""):
        assert inflated(NESTED, syntax) is NESTED


def test_a_bomb_goes_off_in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """What inflates to more than a hundred times its size is refused early, without ever being held in memory."""
    monkeypatch.setattr(data_set, "FREE_INFLATED_BYTES", 3 << 20)
    bomb = deflated(bytes(1 << 27))
    given = []
    tracemalloc.start()
    try:
        with pytest.raises(ObjectNotStorable, match="too large"):
            for piece in data_set.inflating(bomb):
                given.append(len(piece))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert max(given) <= 1 << 20
    assert sum(given) <= 100 * len(bomb)
    assert peak < 8 << 20


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=3000), st.integers(0, 400))
def test_inflating_gives_back_what_was_deflated(plain: bytes, times: int) -> None:
    """The pieces together are the data set, whatever its size and however well it was packed."""
    assert b"".join(data_set.inflating(deflated(plain * times))) == plain * times
