"""DICOMweb over a real record and real files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from httpx import Response
from pydicom import dcmread
from pydicom.dataset import Dataset
from starlette.exceptions import HTTPException

from fhir_records.database import Database
from fhir_records.model import Standing
from tests.dicomweb_archive import put
from web.dicomweb_http import dicomweb_router

FRAMES = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'


@pytest.fixture
def series(test_data: Path) -> list[Path]:
    """Twelve slices of a real series, by instance number."""
    files = sorted((test_data / "dicom" / "philips_brain_mr").iterdir())[:12]
    return sorted(files, key=lambda path: int(dcmread(path, specific_tags=["InstanceNumber"]).InstanceNumber))


@pytest.fixture
def client(database: Database, series: list[Path]) -> Iterator[TestClient]:
    """A server of nothing but DICOMweb, with the series in its record."""
    put(database, series)
    yield serve(database)


def serve(database: Database, *dependencies: Depends) -> TestClient:
    app = FastAPI()
    app.include_router(dicomweb_router(database, Path("/"), ZoneInfo("UTC"), dependencies), prefix="/dicom-web")
    return TestClient(app, raise_server_exceptions=False)


def parts(response: Response) -> list[bytes]:
    """The parts of a multipart answer, as the standard library's parser finds them."""
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    found = []
    for part in message_from_bytes(head + response.content).walk():
        content = part.get_payload(decode=True)
        if not part.is_multipart() and isinstance(content, bytes):
            found.append(content)
    return found


def study_path(ds: Dataset) -> str:
    return f"/dicom-web/studies/{ds.StudyInstanceUID}"


def instance_path(ds: Dataset) -> str:
    return f"{study_path(ds)}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"


def test_studies_are_found_by_what_is_known_of_them(client: TestClient, series: list[Path]) -> None:
    """Each key finds the study when it fits, with wildcards and without regard to a name's case, and not otherwise."""
    ds = dcmread(series[0])
    fitting = [
        "", f"StudyInstanceUID={ds.StudyInstanceUID}", f"PatientID={ds.PatientID}", "PatientID=d2n*R571",
        "PatientName=D2N_philips*", "PatientName=d2n?Philips_3T_R571", "ModalitiesInStudy=CT,MR",
        f"0020000D={ds.StudyInstanceUID}",
    ]  # fmt: skip
    for query in fitting:
        (found,) = client.get(f"/dicom-web/studies?{query}").json()
        assert found["0020000D"]["Value"] == [ds.StudyInstanceUID], query
        assert found["00201208"]["Value"] == [12], query
        assert found["00081190"]["Value"] == [f"http://testserver{study_path(ds)}"]
    for query in ["PatientID=d2n", "PatientName=philips", "ModalitiesInStudy=CT", "StudyDate=19000101", "offset=1",
                  "AccessionNumber=1", "limit=0"]:  # fmt: skip
        assert client.get(f"/dicom-web/studies?{query}").status_code == 204, query


def test_series_and_instances_come_in_order(client: TestClient, series: list[Path]) -> None:
    """A study's series say how many instances they have; instances come by instance number, page by page."""
    ds = dcmread(series[0])
    (found,) = client.get(f"{study_path(ds)}/series").json()
    assert found["00201209"]["Value"] == [12]
    assert found["0008103E"]["Value"] == [ds.SeriesDescription]
    assert client.get(f"{study_path(ds)}/series?Modality=CT").status_code == 204
    numbers = [one["00200013"]["Value"][0] for one in client.get(f"{study_path(ds)}/instances").json()]
    assert numbers == [int(dcmread(path).InstanceNumber) for path in series]
    page = client.get(f"{study_path(ds)}/series/{ds.SeriesInstanceUID}/instances?limit=2&offset=3").json()
    assert [one["00200013"]["Value"][0] for one in page] == numbers[3:5]


def test_include_field_adds_what_the_header_says(client: TestClient, series: list[Path]) -> None:
    """Attributes asked for by keyword or tag are in each answer, as the file has them."""
    ds = dcmread(series[4])
    query = f"{study_path(ds)}/instances?includefield=WindowCenter,00281053&SOPInstanceUID={ds.SOPInstanceUID}"
    (found,) = client.get(query).json()
    assert found["00281050"]["Value"] == [float(ds.WindowCenter)]
    assert found["00281053"]["Value"] == [float(ds.RescaleSlope)]
    assert "00281051" not in found


def test_frames_are_the_stored_bytes(client: TestClient, series: list[Path]) -> None:
    """A frame of an uncompressed object is its pixel data, byte for byte, in a part that names its transfer syntax."""
    ds = dcmread(series[3])
    response = client.get(f"{instance_path(ds)}/frames/1", headers={"Accept": FRAMES})
    assert response.status_code == 200
    assert parts(response) == [ds.PixelData]
    assert b"transfer-syntax=1.2.840.10008.1.2.1\r\n" in response.content
    single = client.get(f"{instance_path(ds)}/frames/1", headers={"Accept": "application/octet-stream"})
    assert single.content == ds.PixelData
    bulk = client.get(f"{instance_path(ds)}/bulkdata/7FE00010", headers={"Accept": "application/octet-stream"})
    assert bulk.content == ds.PixelData


def test_whole_objects_come_as_stored(client: TestClient, series: list[Path]) -> None:
    """A study, a series and an instance come as the very files that were received."""
    ds = dcmread(series[0])
    files = [path.read_bytes() for path in series]
    assert parts(client.get(study_path(ds), headers={"Accept": 'multipart/related; type="application/dicom"'})) == files
    assert parts(client.get(f"{study_path(ds)}/series/{ds.SeriesInstanceUID}")) == files
    assert client.get(instance_path(ds), headers={"Accept": "application/dicom"}).content == files[0]


def test_metadata_is_the_whole_header(client: TestClient, series: list[Path]) -> None:
    """The metadata of a series has every public attribute of each object, and an address for the pixels that works."""
    ds = dcmread(series[0])
    response = client.get(f"{study_path(ds)}/series/{ds.SeriesInstanceUID}/metadata")
    assert response.headers["content-type"] == "application/dicom+json"
    found = response.json()
    assert len(found) == 12
    missing = [element.keyword for element in ds if f"{int(element.tag):08X}" not in found[0]]
    assert not [keyword for keyword in missing if keyword]
    address = found[0]["7FE00010"]["BulkDataURI"]
    assert client.get(address, headers={"Accept": "application/octet-stream"}).content == ds.PixelData


def test_pictures_in_the_type_and_window_asked_for(client: TestClient, series: list[Path]) -> None:
    """Rendered frames come as JPEG or PNG, a narrower window changes them, and a thumbnail is small."""
    path = instance_path(dcmread(series[3]))
    jpeg = client.get(f"{path}/rendered", headers={"Accept": "image/*"})
    assert jpeg.headers["content-type"] == "image/jpeg"
    assert jpeg.content.startswith(b"\xff\xd8")
    png = client.get(f"{path}/frames/1/rendered", headers={"Accept": "image/png"})
    assert png.content.startswith(b"\x89PNG")
    narrow = client.get(f"{path}/rendered?window=100,50,linear", headers={"Accept": "image/png"})
    assert narrow.status_code == 200
    assert narrow.content != png.content
    assert len(client.get(f"{path}/thumbnail").content) < len(jpeg.content)


def test_what_cannot_be_delivered_is_refused_in_words(client: TestClient, series: list[Path]) -> None:
    """Refusals have the right status and one message, without a UID or a name in it."""
    ds = dcmread(series[0])
    path = instance_path(ds)
    asked = [
        (f"{path}/frames/1", {"Accept": "image/jp2"}, 406),
        (f"{path}/frames/1", {"Accept": f"{FRAMES[:-1]}1.2.840.10008.1.2.4.90"}, 406),
        (path, {"Accept": "text/html"}, 406),
        (path, {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.90'}, 406),
        (f"{path}/rendered", {"Accept": "image/bmp"}, 406),
        (f"{path}/rendered?quality=0", {}, 400),
        (f"{path}/rendered?viewport=10,10,1,2", {}, 400),
        (f"{path}/rendered?viewport=10,10,9999,0,5,5", {}, 400),
        (f"{path}/rendered?window=1,2,cubic", {}, 400),
        (f"{path}/bulkdata/nothing", {}, 400),
        (f"{path}/bulkdata/00420011", {}, 404),
        (f"{path}/bulkdata/7FE00010", {"Accept": "application/octet-stream", "Range": "bytes=99999999-"}, 416),
        (f"{path}/metadata", {"Accept": "application/dicom+xml"}, 406),
        (f"{path}/frames/2", {}, 404),
        (f"{path}/frames/0", {}, 404),
        (f"{path}/frames/x", {}, 400),
        (f"{path}/rendered?window=1,2", {}, 400),
        (f"{path}/rendered?window=1,0,linear", {}, 400),
        (f"{path}/rendered?viewport=0,1", {}, 400),
        (f"{path}9/frames/1", {}, 404),
        ("/dicom-web/studies/1.2.3", {}, 404),
        ("/dicom-web/studies/1.2.3/series", {}, 404),
        ("/dicom-web/studies/a b/series", {}, 400),
        ("/dicom-web/studies?limit=x", {}, 400),
    ]
    for address, headers, status in asked:
        response = client.get(address, headers=headers)
        assert response.status_code == status, address
        assert list(response.json()) == ["message"], address
        assert ds.StudyInstanceUID not in response.text
        assert str(ds.PatientName) not in response.text


def test_file_that_is_gone_is_said(client: TestClient, database: Database, tmp_path: Path, series: list[Path]) -> None:
    """A row whose file is missing answers 500 with words, and the others are still delivered."""
    ds = dcmread(series[0])
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    lost = tmp_path / "lost.dcm"
    ds.save_as(lost)
    put(database, [lost])
    lost.unlink()
    response = client.get(f"{instance_path(ds)}/frames/1")
    assert response.status_code == 500
    assert "missing" in response.json()["message"]
    assert client.get(f"{instance_path(dcmread(series[1]))}/frames/1").status_code == 200


def test_only_what_is_current_is_seen(client: TestClient, database: Database, test_data: Path) -> None:
    """An instance that is kept apart as a conflict is neither found nor delivered."""
    other = next(iter(sorted((test_data / "dicom" / "ge_fruit_mr").iterdir())))
    put(database, [other], Standing.CONFLICT)
    ds = dcmread(other)
    assert client.get(f"/dicom-web/studies?StudyInstanceUID={ds.StudyInstanceUID}").status_code == 204
    assert client.get(f"{instance_path(ds)}/frames/1").status_code == 404


def test_dependencies_guard_every_route(database: Database, series: list[Path]) -> None:
    """What the permission dependency refuses is refused everywhere, as JSON, before anything is looked up."""

    def refuse() -> None:
        raise HTTPException(401, "Log in first.", headers={"WWW-Authenticate": "Bearer"})

    put(database, series[:1])
    client = serve(database, Depends(refuse))
    path = instance_path(dcmread(series[0]))
    for address in ["/dicom-web/studies", path, f"{path}/metadata", f"{path}/frames/1", f"{path}/rendered"]:
        response = client.get(address)
        assert response.status_code == 401
        assert response.json() == {"message": "Log in first."}
        assert response.headers["www-authenticate"] == "Bearer"


def test_every_transfer_syntax_is_delivered_decoded(database: Database, test_data: Path, tmp_path: Path) -> None:
    """One CT in every transfer syntax that we can decode gives frames of the size that its attributes promise."""
    files = []
    for number, path in enumerate(sorted((test_data / "dicom" / "transfer_syntaxes").rglob("CTImage*.dcm"))):
        ds = dcmread(path)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"  # they are all one object
        files.append(tmp_path / path.name)
        ds.save_as(files[-1])
    put(database, files)
    client = serve(database)
    delivered = set()
    for path in files:
        ds = dcmread(path)
        response = client.get(f"{instance_path(ds)}/frames/1", headers={"Accept": "application/octet-stream"})
        if response.status_code == 200:
            (found,) = client.get(f"{instance_path(ds)}/metadata").json()
            assert len(response.content) == ds.Rows * ds.Columns * found["00280100"]["Value"][0] // 8, path.name
            delivered.add(ds.file_meta.TransferSyntaxUID.name)
        else:
            assert response.status_code == 406, path.name
            assert "JPEG" in response.json()["message"], "only 12-bit JPEG, and what was never in use, may be refused"
    assert {"Explicit VR Big Endian", "Deflated Explicit VR Little Endian", "RLE Lossless"} <= delivered
    assert {"JPEG-LS Lossless Image Compression", "JPEG 2000 Image Compression (Lossless Only)"} <= delivered


def test_hundred_frames_and_headers_come_quickly(client: TestClient, series: list[Path]) -> None:
    """Scrolling is not held up: a frame takes far less than a tenth of a second."""
    path = instance_path(dcmread(series[0]))
    started = time.perf_counter()
    for _ in range(20):
        assert client.get(f"{path}/frames/1", headers={"Accept": FRAMES}).status_code == 200
    assert (time.perf_counter() - started) / 20 < 0.1
