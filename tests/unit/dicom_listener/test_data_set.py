"""The outer structure of encoded data sets."""

from __future__ import annotations

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


def test_deflated_data_set_is_inflated_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deflated data set is inflated; one that is cut off, broken or too large is refused."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    packed = deflater.compress(bytes(100_000)) + deflater.flush()
    assert inflated(packed, DeflatedExplicitVRLittleEndian) == bytes(100_000)
    for broken in (packed[:-5], b"\xff" * 50):
        with pytest.raises(ObjectNotStorable):
            inflated(broken, DeflatedExplicitVRLittleEndian)
    monkeypatch.setattr(data_set, "MAX_INFLATED_BYTES", 99_999)
    with pytest.raises(ObjectNotStorable, match="too large"):
        inflated(packed, DeflatedExplicitVRLittleEndian)
