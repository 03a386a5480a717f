"""DICOMweb as the published Python client uses it, unchanged, against a running server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.dataset import Dataset
from requests.exceptions import HTTPError

from fhir_records.database import Database
from tests.dicomweb_server import Served, serving


@pytest.fixture(scope="module")
def series(test_data: Path) -> list[Dataset]:
    """Six slices of a real series, by instance number."""
    found = [dcmread(path) for path in sorted((test_data / "dicom" / "philips_brain_mr").iterdir())[:6]]
    return sorted(found, key=lambda ds: int(ds.InstanceNumber))


@pytest.fixture
def served(database: Database, tmp_path: Path) -> Iterator[Served]:
    """A server with an empty record."""
    with serving(database, tmp_path) as running:
        yield running


@pytest.fixture
def client(served: Served, series: list[Dataset]) -> DICOMwebClient:
    """A client that has stored the series."""
    client = served.dicomweb()
    client.store_instances(series)
    return client


def test_stores(served: Served, series: list[Dataset]) -> None:
    """What is stored is answered with a reference for each object; a wrong study raises, as the client has it."""
    client = served.dicomweb()
    answer = client.store_instances(series)
    assert [item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence] == [
        ds.SOPInstanceUID for ds in series
    ]
    assert "FailedSOPSequence" not in answer
    client.store_instances(series[:1], study_instance_uid=series[0].StudyInstanceUID)
    with pytest.raises(HTTPError, match="409"):
        client.store_instances(series[:1], study_instance_uid="1.2.3")


def test_searches(client: DICOMwebClient, series: list[Dataset]) -> None:
    """Studies, series and instances are found, also without naming what is above them."""
    ds = series[0]
    (study,) = client.search_for_studies(search_filters={"PatientID": ds.PatientID}, limit=5)
    assert study["0020000D"]["Value"] == [ds.StudyInstanceUID]
    (found,) = client.search_for_series(ds.StudyInstanceUID, search_filters={"Modality": "MR"})
    assert found["0020000E"]["Value"] == [ds.SeriesInstanceUID]
    assert len(client.search_for_instances(ds.StudyInstanceUID, ds.SeriesInstanceUID)) == 6
    assert len(client.search_for_instances(ds.StudyInstanceUID)) == 6
    page = client.search_for_instances(ds.StudyInstanceUID, limit=2, offset=4, fields=["ImagePositionPatient"])
    assert [one["00200032"]["Value"] for one in page] == [
        [float(value) for value in ds.ImagePositionPatient] for ds in series[4:]
    ]
    assert client.search_for_studies(search_filters={"PatientID": "NOBODY"}) == []
    assert client.search_for_studies(fuzzymatching=True, search_filters={"PatientName": ds.PatientName.family_name})


def test_retrieves_objects(client: DICOMwebClient, series: list[Dataset]) -> None:
    """A study, a series and an instance come whole, at once and one by one."""
    ds = series[0]
    study, one_series = ds.StudyInstanceUID, ds.SeriesInstanceUID
    for found in (
        client.retrieve_study(study),
        list(client.iter_study(study)),
        client.retrieve_series(study, one_series),
        list(client.iter_series(study, one_series)),
    ):
        assert [one.SOPInstanceUID for one in found] == [one.SOPInstanceUID for one in series]
        assert all(one.PixelData == sent.PixelData for one, sent in zip(found, series, strict=True))
    got = client.retrieve_instance(study, one_series, ds.SOPInstanceUID)
    assert got == ds
    any_syntax = (("application/dicom", "*"),)
    assert client.retrieve_instance(study, one_series, ds.SOPInstanceUID, media_types=any_syntax) == ds
    with pytest.raises(HTTPError, match="404"):
        client.retrieve_instance(study, one_series, "1.2.3")


def test_retrieves_attributes_and_bulk_data(client: DICOMwebClient, series: list[Dataset]) -> None:
    """Metadata become data sets again, and each address of bulk data in them delivers the value."""
    ds = series[0]
    study, one_series = ds.StudyInstanceUID, ds.SeriesInstanceUID
    assert len(client.retrieve_study_metadata(study)) == 6
    assert len(client.retrieve_series_metadata(study, one_series)) == 6
    found = client.retrieve_instance_metadata(study, one_series, ds.SOPInstanceUID)
    address = found["7FE00010"]["BulkDataURI"]
    again = Dataset.from_json(found, bulk_data_uri_handler=lambda uri: None)
    assert again.PatientName == ds.PatientName
    assert again.ImagePositionPatient == ds.ImagePositionPatient
    assert client.retrieve_bulkdata(address) == [ds.PixelData]
    assert client.retrieve_bulkdata(address, byte_range=(10, 19)) == [ds.PixelData[10:20]]
    assert list(client.iter_bulkdata(address)) == [ds.PixelData]


def test_retrieves_frames_and_pictures(client: DICOMwebClient, series: list[Dataset]) -> None:
    """Frames are the stored pixels; pictures come as JPEG and PNG of an instance, of frames and of a series."""
    ds = series[0]
    where = (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    (frame,) = client.retrieve_instance_frames(*where, frame_numbers=[1])
    assert np.array_equal(np.frombuffer(frame, "<u2").reshape(ds.Rows, ds.Columns), ds.pixel_array)
    assert list(client.iter_instance_frames(*where, frame_numbers=[1])) == [frame]
    assert client.retrieve_instance_rendered(*where).startswith(b"\xff\xd8")
    png = client.retrieve_instance_rendered(*where, media_types=("image/png",), params={"viewport": "64,64"})
    assert png.startswith(b"\x89PNG")
    assert client.retrieve_instance_frames_rendered(*where, frame_numbers=[1]).startswith(b"\xff\xd8")
    assert client.retrieve_series_rendered(*where[:2], media_types=("image/png",)).startswith(b"\x89PNG")


def test_goes_through_pages_to_the_end(client: DICOMwebClient, series: list[Dataset]) -> None:
    """With pages that hold less than there is, the client's own paging finds every instance once, in order."""
    ds = series[0]
    where = (ds.StudyInstanceUID, ds.SeriesInstanceUID)
    expected = [one.SOPInstanceUID for one in series]
    for found in (
        client.search_for_instances(*where, limit=4, get_remaining=True),
        client.search_for_instances(limit=4, get_remaining=True, search_filters={"StudyInstanceUID": where[0]}),
    ):
        assert [one["00080018"]["Value"][0] for one in found] == expected
    assert len(client.search_for_series(get_remaining=True, search_filters={"Modality": "MR"})) == 1
    assert len(client.search_for_studies(get_remaining=True, limit=1)) == 1


def test_passes_parameters_on(client: DICOMwebClient, series: list[Dataset]) -> None:
    """Parameters of the caller's own are read as the standard has them, at every kind of request."""
    ds = series[0]
    where = (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    (found,) = client.search_for_studies(additional_params={"includefield": "StudyID", "00100020": ds.PatientID})
    assert found["00200010"]["vr"] == "SH"
    assert client.search_for_series(additional_params={"Modality": "CT"}) == []
    json = {"accept": "application/dicom+json"}
    assert len(client.retrieve_series_metadata(*where[:2], additional_params=json)) == 6
    assert client.retrieve_instance_metadata(*where, additional_params=json)["00080018"]["Value"] == [where[2]]
    frames = client.retrieve_instance_frames(*where, [1], additional_params={"accept": "multipart/related"})
    assert frames == [ds.PixelData]
    small = client.retrieve_instance_rendered(*where, params={"viewport": "32,32", "window": "400,800,linear"})
    assert len(small) < len(client.retrieve_instance_rendered(*where, params={"quality": "95"}))
    with pytest.raises(HTTPError, match="400"):
        client.retrieve_instance_rendered(*where, params={"window": "nothing"})


def test_takes_compressed_frames(served: Served, test_data: Path) -> None:
    """Asked for as JPEG-LS, a frame is the stored codestream; asked for as anything, it is pixels."""
    name = "CTImage.dcm_JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80.dcm"
    ds = dcmread(test_data / "dicom" / "transfer_syntaxes" / name)
    client = served.dicomweb()
    client.store_instances([ds])
    where = (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    (packed,) = client.retrieve_instance_frames(*where, [1], media_types=(("image/jls", "1.2.840.10008.1.2.4.80"),))
    assert packed[:2] == b"\xff\xd8"
    assert packed in ds.PixelData
    (plain,) = client.retrieve_instance_frames(*where, [1])
    assert len(plain) == ds.Rows * ds.Columns * 2
    whole = client.retrieve_instance(*where, media_types=(("application/dicom", "1.2.840.10008.1.2.4.80"),))
    assert whole.PixelData == ds.PixelData


def test_cannot_delete(client: DICOMwebClient, series: list[Dataset]) -> None:
    """Deletion is refused as something that is not done here, and nothing is gone."""
    ds = series[0]
    where = (ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID)
    for delete, uids in (
        (client.delete_study, where[:1]),
        (client.delete_series, where[:2]),
        (client.delete_instance, where),
    ):
        with pytest.raises(HTTPError, match="405"):
            delete(*uids)
    assert len(client.search_for_instances(*where[:2])) == 6
