"""What the index reads from an object."""

from __future__ import annotations

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_listener.description import describe
from fhir_records.errors import ObjectNotStorable
from fhir_records.model import Identifier, InstanceKind
from fhir_records.store.arrivals import Arrival
from tests.unit.dicom_listener.objects import encoded, image, received, report


def _described(ds: Dataset, issuer: str = "", syntax: str = ExplicitVRLittleEndian) -> Arrival:
    return describe(encoded(ds, syntax), received(ds, syntax), ZoneInfo("Asia/Kolkata"), issuer)


def test_arrival_holds_what_the_header_says() -> None:
    """Study, series, instance and patient come out as the object has them."""
    arrival = _described(image(StudyDescription="Head ", NumberOfFrames="1"))
    assert arrival.patient.identifier == Identifier("PAT1", "")
    assert (arrival.patient.name, arrival.patient.birth_date) == ("Test^One", dt.date(1970, 1, 2))
    assert (arrival.study_description, arrival.modality, arrival.rows, arrival.columns) == ("Head", "MR", 4, 6)
    assert (arrival.kind, arrival.source, arrival.caller) == (InstanceKind.IMAGE, "dicom:CT1", "CT1")


def test_times_are_read_in_the_sites_zone_or_the_objects_own() -> None:
    """TimezoneOffsetFromUTC goes before the site's zone."""
    site = _described(image()).started_at
    own = _described(image(TimezoneOffsetFromUTC="-0330")).started_at
    assert site == dt.datetime(2026, 11, 20, 4, 0, tzinfo=dt.UTC)
    assert own == dt.datetime(2026, 11, 20, 13, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"StudyDate": ""}, None),
        ({"StudyTime": ""}, dt.datetime(2026, 11, 19, 18, 30, tzinfo=dt.UTC)),
        ({"StudyTime": "0930"}, dt.datetime(2026, 11, 20, 4, 0, tzinfo=dt.UTC)),
        ({"StudyTime": "093059.5"}, dt.datetime(2026, 11, 20, 4, 0, 59, 500000, tzinfo=dt.UTC)),
    ],
)
def test_partial_times_are_read(changed: dict[str, str], expected: dt.datetime | None) -> None:
    """A missing date gives no instant, a missing or short time the beginning of what is known."""
    assert _described(image(**changed)).started_at == expected


def test_issuer_is_the_objects_or_else_the_callers() -> None:
    """The configured issuer stands in where the object names none."""
    assert _described(image(), issuer="HOSP").patient.identifier == Identifier("PAT1", "HOSP")
    named = _described(image(IssuerOfPatientID="OTHER"), issuer="HOSP").patient.identifier
    assert named == Identifier("PAT1", "OTHER")
    assert _described(image(PatientID="")).patient.identifier is None


def test_only_images_can_start_a_read() -> None:
    """Reports, and pixels that are statements about images, are other objects."""
    segmentation = image(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    assert _described(report()).kind is InstanceKind.OTHER
    assert _described(segmentation).kind is InstanceKind.OTHER
    private = image(SOPClassUID="1.3.6.1.4.1.99999.1")
    assert _described(private).kind is InstanceKind.IMAGE


def test_own_objects_are_known_by_their_equipment() -> None:
    """What names Wetread as its contributing equipment is never read."""
    equipment = Dataset()
    equipment.ManufacturerModelName = "Wetread"
    assert _described(report(ContributingEquipmentSequence=[equipment])).kind is InstanceKind.OWN
    assert _described(report()).kind is InstanceKind.OTHER


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, "", "../../etc/passwd"])
def test_missing_uid_is_named(keyword: str, value: Any) -> None:
    """An object without a UID that storage needs is refused, and the UID named."""
    with pytest.raises(ObjectNotStorable, match=keyword):
        _described(image(**{keyword: value}))


def test_pixels_shorter_than_the_header_says_are_seen() -> None:
    """Rows, Columns, NumberOfFrames and BitsAllocated promise a length."""
    with pytest.raises(ObjectNotStorable, match="shorter"):
        _described(image(NumberOfFrames="2"))
    with pytest.raises(ObjectNotStorable, match="shorter"):
        _described(image(PixelData=bytes(46)))


def test_hash_tells_demographics_apart() -> None:
    """Other demographics change the hash, other pixels do not."""
    first = image()
    other_name, other_pixels = image(), image(PixelData=bytes(48))
    for ds in (other_name, other_pixels):
        for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
            setattr(ds, keyword, first[keyword].value)
    other_name.PatientName = "Test^Two"
    one, two, three = (_described(ds) for ds in (first, other_name, other_pixels))
    assert one.demographics_sha256 == three.demographics_sha256 != two.demographics_sha256


def test_values_that_no_database_takes_are_tamed() -> None:
    """Control characters become spaces, numbers that are none become unknown."""
    ds = image(StudyDescription="a\x00b")
    ds.add_new("SeriesNumber", "LO", "abc")
    ds.add_new("InstanceNumber", "LO", "9" * 30)
    ds.add_new("AccessionNumber", "UN", b"\xff\xfe")
    arrival = _described(ds)
    assert arrival.study_description == "a b"
    assert arrival.series_number is None
    assert arrival.instance_number is None
    arrival.accession_number.encode()
