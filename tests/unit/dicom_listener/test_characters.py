"""Text in every character set, and in none."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_listener.characters import declared, decoded, settle

ANY_TERMS = st.lists(
    st.sampled_from(["", "ISO_IR 100", "ISO_IR 192", "ISO 2022 IR 87", "ISO 2022 IR 149", "ISO_IR 13", "GBK", "?"]),
    max_size=4,
)


@given(st.binary(max_size=80), ANY_TERMS, st.booleans())
def test_no_bytes_bring_it_to_an_error(value: bytes, terms: list[str], person_name: bool) -> None:
    """Whatever the bytes and whatever is declared, text comes out, without lone surrogates."""
    decoded(value, declared(terms), person_name=person_name).encode("utf-8")


@given(
    st.lists(st.sampled_from(["\x1b$B", "\x1b(B", "\x1b$(D", "\x1b)I", "\x1b$)C", "^", "=", "0!", "\\"]), max_size=12)
)
def test_escape_sequences_in_any_order_bring_it_to_no_error(pieces: list[str]) -> None:
    """Code extensions that nobody would write come out as some text too."""
    assert isinstance(decoded("".join(pieces).encode(), declared(["", "ISO 2022 IR 87"]), person_name=True), str)


@pytest.mark.parametrize(
    ("term", "codec", "text"),
    [
        ("ISO_IR 100", "latin_1", "Åsa Ødegård"),
        ("ISO_IR 101", "iso8859_2", "Łódź"),
        ("ISO_IR 109", "iso8859_3", "Ġorġ"),
        ("ISO_IR 110", "iso8859_4", "Āboliņš"),
        ("ISO_IR 126", "iso8859_7", "Ελένη"),
        ("ISO_IR 127", "iso8859_6", "مريم"),
        ("ISO_IR 138", "iso8859_8", "שלום"),
        ("ISO_IR 144", "iso8859_5", "Жданова"),
        ("ISO_IR 148", "iso8859_9", "Işık"),
        ("ISO_IR 166", "iso8859_11", "เขต"),
        ("ISO_IR 203", "iso8859_15", "Šœur"),
        ("ISO_IR 13", "shift_jis", "ﾔﾏﾀﾞ"),
        ("ISO_IR 192", "utf_8", "山田 🩻"),
        ("GB18030", "gb18030", "䶮"),
        ("GBK", "gbk", "王小东"),
    ],
)
def test_each_defined_term_is_understood(term: str, codec: str, text: str) -> None:
    """Text of each repertoire is decoded by its defined term, and by common misspellings of it."""
    for spelt in (term, term.lower(), term.replace("_", " "), term.replace("_", "-"), f"{term} "):
        assert decoded(text.encode(codec), declared([spelt])) == text, spelt


def test_delimiters_bring_back_the_first_character_set() -> None:
    """Behind ^ and = of a name, and behind a line's end of a text, what was switched to no longer holds."""
    charset = declared(["ISO 2022 IR 100", "ISO 2022 IR 126"])
    greek = b"\x1b-F\xc1"
    assert decoded(greek + b"^\xc1=\xc1", charset, person_name=True) == "Α^Á=Á"
    assert decoded(greek + b"\r\n\xc1", charset) == "Α\r\nÁ"
    assert decoded(greek + b"^\xc1", charset) == "Α^Α"


def test_half_a_character_is_no_delimiter() -> None:
    """The second byte of a Chinese or Japanese character may be a backslash, a caret or an equals sign."""
    ds = Dataset()
    ds.SpecificCharacterSet = "GBK"
    text = "竆俓璡"
    assert b"\\" in text.encode("gbk") or b"^" in text.encode("gbk")
    assert decoded(text.encode("gbk"), declared(["GBK"]), person_name=True) == text
    japanese = "".join(character for character in "漾予預余" if character)
    encoded = japanese.encode("iso2022_jp")
    assert decoded(encoded, declared(["", "ISO 2022 IR 87"]), person_name=True) == japanese


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_data_set_is_settled_with_its_sequences(syntax: str) -> None:
    """Items inherit the character set, or have their own; several values stay several; other elements are untouched."""
    ds, inheriting, other = Dataset(), Dataset(), Dataset()
    ds.SpecificCharacterSet = "ISO_IR 144"
    inheriting.CodeMeaning = "Печень"
    other.SpecificCharacterSet = "ISO_IR 126"
    other.CodeMeaning = "Ήπαρ"
    ds.ProcedureCodeSequence = Sequence([inheriting, other])
    ds.PatientName = "Иванов^Иван"
    ds.OtherPatientNames = ["Петров^Пётр", "Doe^Jane"]
    ds.ImageType = ["ORIGINAL", "PRIMARY"]
    ds.Rows = 5
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    read = dcmread(io.BytesIO(buffer.getvalue()), force=True)
    settle(read)
    assert read.PatientName == "Иванов^Иван" and str(read.PatientName.family_name) == "Иванов"
    assert [str(name) for name in read.OtherPatientNames] == ["Петров^Пётр", "Doe^Jane"]
    assert [item.CodeMeaning for item in read.ProcedureCodeSequence] == ["Печень", "Ήπαρ"]
    assert read.ImageType == ["ORIGINAL", "PRIMARY"] and read.Rows == 5
    assert read.SpecificCharacterSet == "ISO_IR 144"
