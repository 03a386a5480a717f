"""A structured report walked into words."""

from __future__ import annotations

import io

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, ExplicitVRLittleEndian

from fhir_records.errors import RenderingError
from web.sr_text import read_report


def code(meaning: str, value: str = "1") -> list[Dataset]:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, "99TEST", meaning
    return [ds]


def item(kind: str, name: str, **attributes: object) -> Dataset:
    ds = Dataset()
    ds.RelationshipType, ds.ValueType, ds.ConceptNameCodeSequence = "CONTAINS", kind, code(name)
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def report(*children: Dataset) -> bytes:
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = ComprehensiveSRStorage, "2.25.1"
    ds.ValueType, ds.ConceptNameCodeSequence, ds.ContentSequence = "CONTAINER", code("Report"), list(children)
    ds.CompletionFlag, ds.VerificationFlag = "COMPLETE", "UNVERIFIED"
    written = io.BytesIO()
    pydicom.dcmwrite(written, ds, enforce_file_format=True)
    return written.getvalue()


def test_each_kind_of_content_item_is_said() -> None:
    """Code, number with its unit, text, name, identifiers, times and image references with their frames."""
    number, image = Dataset(), Dataset()
    number.NumericValue, number.MeasurementUnitsCodeSequence = "93.1", code("percent", "%")
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber = "1.2", "1.2.3", 4
    text = read_report(
        report(
            item("CODE", "Finding", ConceptCodeSequence=code("Glioma")),
            item("NUM", "Probability", MeasuredValueSequence=[number]),
            item("TEXT", "Comment", TextValue="Übel"),
            item("PNAME", "Observer", PersonName="Doe^Jane"),
            item("UIDREF", "Device", UID="2.25.7"),
            item("IMAGE", "Source", ReferencedSOPSequence=[image]),
            item("NUM", "Nothing measured", MeasuredValueSequence=[]),
        )
    )
    said = {child.name: child.value for child in text.root.children}
    assert said == {
        "Finding": "Glioma",
        "Probability": "93.1 %",
        "Comment": "Übel",
        "Observer": "Doe, Jane",
        "Device": "2.25.7",
        "Source": "1.2.3, frame 4",
        "Nothing measured": "",
    }
    assert ("Verification", "unverified") in text.header


@pytest.mark.parametrize("content", [b"", b"no DICOM at all", b"\0" * 128 + b"DICM"])
def test_bytes_that_are_no_report_are_an_error_of_ours(content: bytes) -> None:
    """Never an error of the library's."""
    with pytest.raises(RenderingError):
        read_report(content)
