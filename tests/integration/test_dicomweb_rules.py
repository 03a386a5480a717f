"""DICOMweb's rules of headers, parameters and levels, over real files of many kinds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path
from xml.etree.ElementTree import fromstring
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from dicom_listener.pixels import native_frame
from fhir_records.database import Database
from tests.dicomweb_archive import put
from web.dicomweb_frames import ENCODED
from web.dicomweb_http import dicomweb_router
from web.dicomweb_reader import BoundedReader
from web.dicomweb_xml import NAMESPACE

DICOM_PARTS = 'multipart/related; type="application/dicom"'
LITTLE = "1.2.840.10008.1.2.1"
OCTETS = {"Accept": "application/octet-stream"}


@pytest.fixture(scope="module")
def reader() -> Iterator[BoundedReader]:
    """Children for all the tests here."""
    with BoundedReader() as reader:
        yield reader


@pytest.fixture
def client(database: Database, reader: BoundedReader) -> TestClient:
    """A server of nothing but DICOMweb."""
    app = FastAPI()
    router = dicomweb_router(database, Path("/"), ZoneInfo("UTC"), reader=reader, public_url="https://reads.example/x")
    app.include_router(router, prefix="/dicom-web")
    return TestClient(app, raise_server_exceptions=False)


def parts(response: httpx.Response) -> list[tuple[str, bytes]]:
    """Content type and content of each part."""
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    found = message_from_bytes(head + response.content).walk()
    return [(str(part["Content-Type"]), part.get_payload(decode=True)) for part in found if not part.is_multipart()]


def where(ds: Dataset) -> str:
    return f"/dicom-web/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"


def made(folder: Path, database: Database, **values: object) -> Dataset:
    """An object of 8-bit pixels, in the record."""
    ds = Dataset()
    told = {
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "SOPInstanceUID": "1.2.3.4.5",
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.7",
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "Modality": "OT",
        "StudyID": "S17",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "Rows": 8,
        "Columns": 6,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "PixelData": bytes(range(48)),
    }
    for keyword, value in (told | values).items():
        if value is not None:
            setattr(ds, keyword, value)
    if "PixelData" in ds:
        ds["PixelData"].VR = "OB" if ds.BitsAllocated <= 8 else "OW"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    ds.save_as(path, enforce_file_format=True)
    put(database, [path])
    return ds


def syntaxes(test_data: Path, folder: Path, database: Database) -> list[Path]:
    """One CT in every transfer syntax, each an object of its own, in the record."""
    files = []
    for number, path in enumerate(sorted((test_data / "dicom" / "transfer_syntaxes").rglob("CTImage*.dcm"))):
        ds = dcmread(path)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        files.append(folder / path.name)
        ds.save_as(files[-1])
    put(database, files)
    return files


def test_object_comes_in_explicit_little_endian_unless_another_syntax_is_named(
    client: TestClient, database: Database, test_data: Path, tmp_path: Path
) -> None:
    """Each transfer syntax is decoded for who names none, kept for who says "*" or its UID, and never mislabelled."""
    decoded = 0
    for path in syntaxes(test_data, tmp_path, database):
        ds, stored = dcmread(path), dcmread(path).file_meta.TransferSyntaxUID
        for syntax in ("*", stored):
            ((kind, content),) = parts(
                client.get(where(ds), headers={"Accept": f"{DICOM_PARTS}; transfer-syntax={syntax}"})
            )
            assert content == path.read_bytes()
            assert kind == f"application/dicom; transfer-syntax={stored}"
        ((kind, content),) = parts(client.get(where(ds), headers={"Accept": DICOM_PARTS}))
        got = dcmread(io.BytesIO(content))
        assert kind == f"application/dicom; transfer-syntax={got.file_meta.TransferSyntaxUID}"
        if got.file_meta.TransferSyntaxUID == LITTLE:
            decoded += 1
            expected = native_frame(path)
            values = np.frombuffer(got.PixelData, expected.pixels.dtype.newbyteorder("<"))[: expected.pixels.size]
            assert np.array_equal(values.reshape(expected.pixels.shape), expected.pixels), path.name
            assert (got.PatientName, got.Rows, got.WindowCenter) == (ds.PatientName, ds.Rows, ds.WindowCenter)
            assert len(got.PixelData) % 2 == 0
        strict = client.get(where(ds), headers={"Accept": f"application/dicom; transfer-syntax={LITTLE}"})
        assert strict.status_code in ((200,) if got.file_meta.TransferSyntaxUID == LITTLE else (406,)), path.name
    assert decoded >= 12


def test_compressed_frames_come_as_stored_to_who_takes_them(
    client: TestClient, database: Database, test_data: Path, tmp_path: Path
) -> None:
    """A client that names the media type gets the very codestream; one that takes both gets what it prefers."""
    seen = set()
    for path in syntaxes(test_data, tmp_path, database):
        ds, stored = dcmread(path), dcmread(path).file_meta.TransferSyntaxUID
        kind = ENCODED.get(stored)
        if kind is None:
            refused = client.get(f"{where(ds)}/frames/1", headers={"Accept": 'multipart/related; type="image/jls"'})
            assert refused.status_code == 406
            continue
        seen.add(kind)
        address = f"{where(ds)}/frames/1"
        ((told, content),) = parts(client.get(address, headers={"Accept": f'multipart/related; type="{kind}"'}))
        assert told == f"{kind}; transfer-syntax={stored}"
        assert content in path.read_bytes()
        single = client.get(address, headers={"Accept": f"{kind}, application/octet-stream;q=0.5"})
        assert single.content == content
    assert seen == {"image/jpeg", "image/jls", "image/jp2", "image/dicom-rle"}


def test_every_long_value_has_an_address_that_delivers_it(
    client: TestClient, database: Database, tmp_path: Path
) -> None:
    """A document, and a waveform within a sequence, are addresses in the metadata; ranges of them can be had."""
    wave = Dataset()
    wave.WaveformBitsAllocated = 16
    wave.add_new(0x54001010, "OW", bytes(range(256)) * 40)
    document = b"%PDF-1.4 " + bytes(9001)
    ds = made(
        tmp_path, database, PixelData=None, Rows=None, EncapsulatedDocument=document, WaveformSequence=Sequence([wave])
    )
    (found,) = client.get(f"{where(ds)}/metadata").json()
    addresses = [found["00420011"], found["54000100"]["Value"][0]["54001010"]]
    values = [ds.EncapsulatedDocument, wave[0x54001010].value]
    for element, value in zip(addresses, values, strict=True):
        address = element["BulkDataURI"]
        whole = client.get(address, headers=OCTETS)
        assert (whole.status_code, whole.content) == (200, value)
        for asked, first, last in (
            ("10-19", 10, 19),
            ("9990-", 9990, len(value) - 1),
            ("-5", len(value) - 5, len(value) - 1),
        ):
            if first >= len(value):
                continue
            part = client.get(address, headers=OCTETS | {"Range": f"bytes={asked}"})
            assert part.status_code == 206
            assert part.headers["content-range"] == f"bytes {first}-{last}/{len(value)}"
            assert part.content == value[first : last + 1]
        several = client.get(address, headers=OCTETS | {"Range": "bytes=0-1,5-6"})
        assert (several.status_code, several.content) == (200, value)


def test_bulk_values_are_little_endian_whatever_is_stored(
    database: Database, client: TestClient, tmp_path: Path
) -> None:
    """Words of a big endian object come out little endian."""
    ds = made(tmp_path, database, PixelData=None, Rows=None)
    ds.add_new(0x54001010, "OW", np.arange(4000, dtype=">u2").tobytes())
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    path = tmp_path / f"{ds.SOPInstanceUID}.dcm"
    ds.save_as(path, implicit_vr=False, little_endian=False, enforce_file_format=True)
    content = client.get(f"{where(ds)}/bulkdata/54001010", headers=OCTETS).content
    assert np.array_equal(np.frombuffer(content, "<u2"), np.arange(4000))


def test_range_of_decoded_pixels(client: TestClient, database: Database, test_data: Path, tmp_path: Path) -> None:
    """A range of the pixels of a compressed object is that range of the decoded value."""
    path = next(one for one in syntaxes(test_data, tmp_path, database) if "RLE" in one.name)
    ds = dcmread(path)
    whole = client.get(f"{where(ds)}/bulkdata/7FE00010", headers=OCTETS).content
    part = client.get(f"{where(ds)}/bulkdata/7FE00010", headers=OCTETS | {"Range": "bytes=1000-1999"})
    assert part.status_code == 206
    assert part.content == whole[1000:2000]


def test_several_frames_and_frames_that_are_not_there(client: TestClient, database: Database, tmp_path: Path) -> None:
    """A list of frames comes in its order, a part each; one that does not exist refuses the whole list."""
    ds = made(tmp_path, database, NumberOfFrames=3, PixelData=bytes(range(144)))
    got = parts(client.get(f"{where(ds)}/frames/3,1"))
    assert [content for _, content in got] == [ds.PixelData[96:144], ds.PixelData[:48]]
    assert client.get(f"{where(ds)}/frames/1,4").status_code == 404
    assert client.get(f"{where(ds)}/frames/1,2", headers=OCTETS).status_code == 406, "two frames need parts"


def test_rendered_pictures_of_several_frames(client: TestClient, database: Database, tmp_path: Path) -> None:
    """Several frames are a part each, or a moving picture; one picture of several says which it is."""
    ds = made(tmp_path, database, NumberOfFrames=3, PixelData=np.random.default_rng(1).bytes(144))
    for address in (where(ds), where(ds).split("/instances")[0], where(ds).split("/series")[0]):
        rendered = client.get(f"{address}/rendered", headers={"Accept": 'multipart/related; type="image/png"'})
        assert [kind for kind, _ in parts(rendered)] == ["image/png"] * 3
        moving = Image.open(io.BytesIO(client.get(f"{address}/rendered", headers={"Accept": "image/gif"}).content))
        assert moving.n_frames == 3
        single = client.get(f"{address}/rendered")
        assert single.headers["content-type"] == "image/jpeg"
        assert "picture 1 of 3" in single.headers["warning"]
    two = parts(client.get(f"{where(ds)}/frames/1,3/rendered", headers={"Accept": 'multipart/related; type="image/*"'}))
    assert [kind for kind, _ in two] == ["image/jpeg"] * 2


def test_rendering_parameters(client: TestClient, database: Database, tmp_path: Path) -> None:
    """Viewport sizes and cuts, quality changes a JPEG's length, and what is not done is said."""
    ds = made(tmp_path, database, Rows=64, Columns=64, PixelData=np.random.default_rng(1).bytes(4096))
    address = f"{where(ds)}/rendered"
    png = {"Accept": "image/png"}
    assert Image.open(io.BytesIO(client.get(f"{address}?viewport=32,16", headers=png).content)).size == (16, 16)
    cut = Image.open(io.BytesIO(client.get(f"{address}?viewport=32,32,8,8,16,16", headers=png).content))
    assert cut.size == (32, 32)
    low, high = (len(client.get(f"{address}?quality={quality}").content) for quality in (10, 95))
    assert low < high
    assert "annotation" in client.get(f"{address}?annotation=patient").headers["warning"]


def test_thumbnail_skips_what_has_no_picture(
    client: TestClient, database: Database, test_data: Path, tmp_path: Path
) -> None:
    """A study of a video and a still image shows the still image; a video alone says why there is none."""
    still = made(tmp_path, database, InstanceNumber=1)
    video = dcmread(tmp_path / f"{still.SOPInstanceUID}.dcm")
    video.SOPInstanceUID = video.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.6"
    video.InstanceNumber = 2
    video.PixelData = (
        b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00abcd\xfe\xff\xdd\xe0\x00\x00\x00\x00"
    )
    video["PixelData"].is_undefined_length = True
    video.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    video.save_as(tmp_path / "video.dcm")
    put(database, [tmp_path / "video.dcm"])
    study = where(still).split("/series")[0]
    assert client.get(f"{study}/thumbnail").content.startswith(b"\xff\xd8")
    assert len(parts(client.get(f"{study}/rendered", headers={"Accept": "multipart/related"}))) == 1
    alone = client.get(f"{where(video)}/thumbnail")
    assert alone.status_code == 406
    assert "video" in alone.json()["message"]
    whole = client.get(where(video), headers={"Accept": DICOM_PARTS})
    assert parts(whole)[0][0].endswith("4.102"), "a video has no other form"


def test_attributes_as_xml(client: TestClient, database: Database, tmp_path: Path) -> None:
    """Metadata and searches come as Native DICOM Model documents in parts, with the same values as in JSON."""
    ds = made(tmp_path, database, PatientName="Doe^Jané=字^名")
    for address in (f"{where(ds)}/metadata", "/dicom-web/studies", "/dicom-web/instances"):
        answer = client.get(address, headers={"Accept": 'multipart/related; type="application/dicom+xml"'})
        ((kind, content),) = parts(answer)
        assert kind == "application/dicom+xml"
        root = fromstring(content)
        family = root.find(f".//{{{NAMESPACE}}}FamilyName")
        assert family is not None
        assert family.text == "Doe"
        uid = root.find(f".//{{{NAMESPACE}}}DicomAttribute[@tag='0020000D']/{{{NAMESPACE}}}Value")
        assert uid is not None
        assert uid.text == ds.StudyInstanceUID


def test_search_at_every_level(client: TestClient, database: Database, test_data: Path, tmp_path: Path) -> None:
    """Series and instances are found without a path by attributes of any level, with those of the levels above."""
    ds = made(tmp_path, database, PatientBirthDate="19700102", PatientSex="F", StudyDescription="Knee left")
    made(tmp_path, database, SOPInstanceUID="1.2.3.4.7", InstanceNumber=2)
    put(database, sorted((test_data / "dicom" / "philips_brain_mr").iterdir())[:4])
    for query in (
        "PatientID=P1",
        "Modality=OT",
        "SeriesInstanceUID=1.2.3.4,9.9",
        "StudyInstanceUID=1.2.3",
        "SeriesNumber=1&PatientID=P*",
    ):
        (series,) = client.get(f"/dicom-web/series?{query}").json()
        assert series["0020000E"]["Value"] == ["1.2.3.4"], query
        assert series["00100020"]["Value"] == ["P1"]
        assert series["00201209"]["Value"] == [2]
        instances = client.get(f"/dicom-web/instances?{query}").json()
        assert [one["00080018"]["Value"][0] for one in instances] == ["1.2.3.4.5", "1.2.3.4.7"], query
        assert instances[0]["00100010"]["Value"] == [{"Alphabetic": "Doe^Jane"}]
    lower = client.get("/dicom-web/series?PatientID=P1&SOPInstanceUID=1.2.3.4.7")
    assert "not matched: SOPInstanceUID" in lower.headers["warning"], "attributes of lower levels are none of a series"
    assert client.get("/dicom-web/studies/1.2.3/series?StudyInstanceUID=9").status_code == 204
    for query in ("PatientSex=F", "PatientBirthDate=19700101-19700131", "StudyDescription=Knee*"):
        assert len(client.get(f"/dicom-web/studies?{query}").json()) == 1, query
    (study,) = client.get("/dicom-web/studies?PatientID=P1&includefield=StudyID,00080090").json()
    assert study["00200010"]["Value"] == ["S17"]
    assert (
        client.get("/dicom-web/studies?SeriesNumber=x").headers["warning"] == '299 wetread "not matched: SeriesNumber"'
    )
    assert client.get("/dicom-web/series?SeriesNumber=x").status_code == 400
    assert ds.StudyInstanceUID


def test_warnings_of_searches(client: TestClient, database: Database, test_data: Path, tmp_path: Path) -> None:
    """What was not matched, that names were matched literally, and how many results are left, is said."""
    made(tmp_path, database)
    put(database, sorted((test_data / "dicom" / "philips_brain_mr").iterdir())[:4])
    found = client.get(
        "/dicom-web/instances?limit=2&offset=1&fuzzymatching=true&00400275.00400009=X&ReferringPhysicianName=Y"
    )
    assert len(found.json()) == 2
    warning = found.headers["warning"]
    assert "not matched: 00400275.00400009, ReferringPhysicianName" in warning
    assert "Only literal matching has been performed." in warning
    assert "There are 2 additional results that can be requested" in warning
    assert "warning" not in client.get("/dicom-web/instances?limit=2&offset=3").headers


def test_addresses_are_those_by_which_the_client_came(client: TestClient, database: Database, tmp_path: Path) -> None:
    """Retrieve URLs name the host of the request; where that is the configured one, its scheme and port, too."""
    made(tmp_path, database)
    for host, base in (("testserver", "http://testserver"), ("reads.example", "https://reads.example")):
        (study,) = client.get("/dicom-web/studies", headers={"Host": host}).json()
        assert study["00081190"]["Value"] == [f"{base}/dicom-web/studies/1.2.3"]


def test_one_broken_object_does_not_hide_the_others(client: TestClient, database: Database, tmp_path: Path) -> None:
    """The metadata of a series with a file that cannot be parsed has every object, that one as the record knows it."""
    made(tmp_path, database)
    made(tmp_path, database, SOPInstanceUID="1.2.3.4.7", InstanceNumber=2)
    (tmp_path / "1.2.3.4.5.dcm").write_bytes(b"no longer what it was")
    found = client.get("/dicom-web/studies/1.2.3/metadata").json()
    assert [one["00080018"]["Value"][0] for one in found] == ["1.2.3.4.5", "1.2.3.4.7"]
    assert "00100010" not in found[0]
    assert found[1]["00100010"]["Value"] == [{"Alphabetic": "Doe^Jane"}]
