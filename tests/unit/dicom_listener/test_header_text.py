"""Headers read byte by byte say what a parser says."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_listener import header_text as module
from dicom_listener.data_set import encoding_of, inflated, sought
from dicom_listener.header_text import header_text
from dicom_listener.received import split_file
from fhir_records.errors import ObjectNotStorable
from tests.unit.dicom_listener.objects import as_file, encoded, image, report

SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


def test_both_ways_agree_on_every_file_of_the_test_data(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every object that can be read at all, the quick way and pydicom's give the same text and the same pixels."""
    quick = module._plain_values
    taken = 0
    for path in sorted((test_data / "dicom").rglob("*.dcm")):
        try:
            meta, content = split_file(path.read_bytes())
            syntax = str(meta.TransferSyntaxUID)
            data, encoding = inflated(content, syntax), encoding_of(syntax)
            monkeypatch.setattr(module, "_plain_values", quick)
            first = header_text(data, encoding)
            picked = [bytes(data[one.offset : one.end]) for one in sought(data, encoding, module.TAGS)]
            taken += encoding.little_endian and quick(b"".join(picked), encoding.implicit_vr) is not None
            monkeypatch.setattr(module, "_plain_values", lambda *_: None)
            second = header_text(data, encoding)
        except ObjectNotStorable:
            continue
        for keyword in module.KEYWORDS[1:]:
            assert first[keyword] == second[keyword], (path.name, keyword)
        assert (first.models, first.pixels) == (second.models, second.pixels), path.name
    assert taken > 100


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    "changed",
    [
        {"PatientName": "Müller^Jörg", "SpecificCharacterSet": "ISO_IR 100"},
        {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう", "SpecificCharacterSet": ["", "ISO 2022 IR 87"]},
        {"StudyDescription": "one\\two"},
        {"StudyDescription": " spaced "},
        {"AccessionNumber": "", "SeriesNumber": None, "NumberOfFrames": "1"},
        {"Modality": ["MR", "CT"]},
    ],
)
def test_text_of_any_kind_comes_out_alike(
    changed: dict[str, object], syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other character sets, several values, padding and empty values."""
    data, encoding = encoded(image(**changed), syntax), encoding_of(syntax)
    first = header_text(data, encoding)
    monkeypatch.setattr(module, "_plain_values", lambda *_: None)
    second = header_text(data, encoding)
    assert {keyword: first[keyword] for keyword in module.KEYWORDS[1:]} == {
        keyword: second[keyword] for keyword in module.KEYWORDS[1:]
    }


def test_big_endian_and_equipment_are_read() -> None:
    """What the quick way leaves alone is read all the same."""
    equipment = Dataset()
    equipment.ManufacturerModelName = "Wetread"
    own = header_text(encoded(report(ContributingEquipmentSequence=[equipment])), encoding_of(ExplicitVRLittleEndian))
    assert own.models == ("Wetread",)
    ds = image()
    as_file(ds)
    big = header_text(_big_endian(ds), encoding_of(ExplicitVRBigEndian))
    assert (big["PatientID"], big["Rows"]) == ("PAT1", "4")


def _big_endian(ds: Dataset) -> bytes:
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    del ds.PixelData
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, False
    write_dataset(buffer, ds)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_early_end_is_seen(syntax: str) -> None:
    """Cut anywhere but between two elements, a data set is refused; nothing else than refused."""
    data, encoding = encoded(image(), syntax), encoding_of(syntax)
    refused = 0
    for end in range(len(data)):
        try:
            header_text(data[:end], encoding)
        except ObjectNotStorable:
            refused += 1
    assert refused > len(data) * 0.8


@pytest.mark.parametrize("vr", [b"PS", b"IS", b"DA", b"ZZ"])
def test_a_wrong_representation_costs_no_text(vr: bytes) -> None:
    """A name under a VR that is another's, or nobody's, is read as its bytes say, and so is all else."""
    data = encoded(image(PatientName="Test^One"))
    wrong = data.replace(b"\x10\x00\x10\x00PN", b"\x10\x00\x10\x00" + vr)
    assert wrong != data
    found = header_text(wrong, encoding_of(ExplicitVRLittleEndian))
    assert found["PatientName"] == "Test^One"
    assert found["PatientID"] == "PAT1"


def test_text_as_bytes_is_text() -> None:
    """A name under a VR of bytes is the text that they are, not Python's way to write bytes."""
    data = encoded(image(PatientName="Test^One"), ImplicitVRLittleEndian)
    ds = Dataset()
    ds.add_new(0x00100010, "OB", b"Test^One")
    assert module._text(ds, "PatientName") == "Test^One"
    assert header_text(data, encoding_of(ImplicitVRLittleEndian))["PatientName"] == "Test^One"


def test_a_broken_sequence_costs_no_text() -> None:
    """Contributing equipment that cannot be decoded is none, and the rest is read."""
    ds = image(ContributingEquipmentSequence=[Dataset()])
    ds.ContributingEquipmentSequence[0].ManufacturerModelName = "Model"
    data = encoded(ds)
    broken = data.replace(b"\x08\x00\x90\x10LO", b"\x08\x00\x90\x10SQ")
    assert broken != data
    found = header_text(broken, encoding_of(ExplicitVRLittleEndian))
    assert found["PatientName"] == "Test^One"
    assert "Model" not in found.models


def test_a_character_set_that_is_none_costs_no_text() -> None:
    """A Specific Character Set with a NUL in it, which pydicom does not take, leaves the rest readable."""
    data = encoded(image(SpecificCharacterSet="ISO_IR 100", StudyDescription="Schädel"))
    broken = data.replace(b"ISO_IR 100", b"ISO_IR\x00100")
    found = header_text(broken, encoding_of(ExplicitVRLittleEndian))
    assert found["StudyDescription"] == "Schädel"
    assert found["PatientName"] == "Test^One"
