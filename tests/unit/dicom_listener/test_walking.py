"""Data sets walked through in pieces."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_listener.data_set import MAX_DEPTH, PIXEL_TAGS, elements, encoding_of
from dicom_listener.received import split_file
from dicom_listener.walking import Walker
from fhir_records.errors import ObjectNotStorable
from tests.unit.dicom_listener.objects import encoded, image

SOP_INSTANCE = 0x00080018


def nested(depth: int) -> Dataset:
    """An image that has sequences of undefined length in each other."""
    ds = image()
    inner = Dataset()
    inner.CodeValue = "X"
    for _ in range(depth):
        outer = Dataset()
        outer.ContentSequence = Sequence([inner])
        outer["ContentSequence"].is_undefined_length = True
        inner.is_undefined_length_sequence_item = True
        inner = outer
    inner.is_undefined_length_sequence_item = True
    ds.ConceptNameCodeSequence = Sequence([inner])
    ds["ConceptNameCodeSequence"].is_undefined_length = True
    return ds


def walked(data: bytes, syntax: str, cuts: list[int]) -> Walker:
    """A walker that was given ``data`` cut at these places."""
    walker = Walker(encoding_of(syntax), {SOP_INSTANCE})
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(places):
        walker.feed(data[start:end])
    walker.finish()
    return walker


DATA = {syntax: encoded(nested(3), syntax) for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)}
DATA[ExplicitVRBigEndian] = encoded(image(PixelData=None), ExplicitVRBigEndian)


@pytest.mark.parametrize("syntax", DATA)
@given(cuts=st.lists(st.integers(min_value=0, max_value=1500), max_size=8))
@example(cuts=list(range(1500)))
def test_pieces_of_any_size_come_to_the_same(syntax: str, cuts: list[int]) -> None:
    """However a data set is cut, its values and the place of its pixels are those of the whole."""
    data = DATA[syntax]
    whole = {element.tag: element for element in elements(data, encoding_of(syntax))}
    walker = walked(data, syntax, cuts)
    uid = whole[SOP_INSTANCE]
    assert walker.content(SOP_INSTANCE) == data[uid.value : uid.end]
    assert walker.pixels == next((whole[tag] for tag in PIXEL_TAGS if tag in whole), None)


@pytest.mark.parametrize("syntax", DATA)
@given(data=st.data())
def test_broken_data_sets_are_judged_as_a_whole_one_would_be(syntax: str, data: st.DataObject) -> None:
    """Cut short or with bytes changed, in pieces or not: stored in both ways of looking, or refused in both."""
    content = bytearray(DATA[syntax])
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(0, len(content))) :]
    broken = bytes(content)
    try:
        list(elements(broken, encoding_of(syntax)))
        judged = ""
    except ObjectNotStorable as error:
        judged = str(error)
    try:
        walked(broken, syntax, data.draw(st.lists(st.integers(0, 1500), max_size=5)))
        streamed = ""
    except ObjectNotStorable as error:
        streamed = str(error)
    assert bool(judged) == bool(streamed), (judged, streamed)


def test_real_objects_are_walked_through(test_data: Path) -> None:
    """Enhanced, encapsulated, private, segmented: all of the assorted objects that are whole, in small pieces."""
    seen = 0
    for path in sorted((test_data / "dicom" / "assorted").glob("*.dcm")):
        meta, data = split_file(path.read_bytes())
        if meta.TransferSyntaxUID == "1.2.840.10008.1.2.1.99" or len(data) > 400_000:
            continue
        syntax = str(meta.TransferSyntaxUID)
        try:
            last = list(elements(data, encoding_of(syntax)))[-1]
        except ObjectNotStorable:
            continue
        walker = Walker(encoding_of(syntax), {last.tag})
        for start in range(0, len(data), 100):
            walker.feed(data[start : start + 100])
        walker.finish()
        seen += 1
    assert seen > 10


def test_nesting_has_a_limit() -> None:
    """What nests deeper than any real object is refused, and not only when it ends."""
    walker = Walker(encoding_of(ImplicitVRLittleEndian), ())
    with pytest.raises(ObjectNotStorable, match="nested too deeply"):
        for _ in range(MAX_DEPTH + 1):
            walker.feed(
                struct.pack("<HHL", 0x0040, 0xA730, 0xFFFFFFFF) + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
            )


def test_little_is_kept_of_a_huge_value() -> None:
    """A value of gigabytes that is asked for is stepped over like any other."""
    walker = Walker(encoding_of(ImplicitVRLittleEndian), {SOP_INSTANCE})
    walker.feed(struct.pack("<HHL", 0x0008, 0x0018, 2**32 - 2))
    for _ in range(100):
        walker.feed(bytes(2**20))
    assert walker.kept == {}
    assert walker.missed
    assert len(walker._rest) == 0
    with pytest.raises(ObjectNotStorable, match="ends early"):
        walker.finish()
