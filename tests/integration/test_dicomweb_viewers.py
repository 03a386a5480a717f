"""What viewers ask, as OHIF 3.13 was seen to ask it, and what nobody should ask: status, words, and never a fault."""

from __future__ import annotations

import copy
import io
import socket
from collections.abc import Iterator
from email import message_from_bytes
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset

from fhir_records.database import Database
from tests.dicomweb_server import Served, multipart, serving

ANY_FRAME = 'multipart/related; type="application/octet-stream"; transfer-syntax="*"'
LIST = "includefield=00081030%2C00080060%2C00080090%2C00100030"
JSON = {"Accept": "application/dicom+json"}
SYNTAXES = (
    "CTImage.dcm_JPEGLSLosslessTransferSyntax_1.2.840.10008.1.2.4.80.dcm",
    "CTImage.dcm_JPEG2000LosslessOnlyTransferSyntax_1.2.840.10008.1.2.4.90.dcm",
)


@pytest.fixture(scope="module")
def slices(test_data: Path) -> list[Dataset]:
    """Four slices of a real MR series, and a CT in two compressed transfer syntaxes."""
    found = [dcmread(path) for path in sorted((test_data / "dicom" / "philips_brain_mr").iterdir())[:4]]
    for number, name in enumerate(SYNTAXES):
        ds = dcmread(test_data / "dicom" / "transfer_syntaxes" / name)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        found.append(ds)
    return found


@pytest.fixture
def served(database: Database, tmp_path: Path, slices: list[Dataset]) -> Iterator[Served]:
    """A server that has the slices."""
    with serving(database, tmp_path) as running:
        running.dicomweb().store_instances(slices)
        yield running


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    """A client with a token."""
    with served.http() as client:
        yield client


def parts(response: httpx.Response) -> list[tuple[str, bytes]]:
    """Content type and content of each part."""
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    found = message_from_bytes(head + response.content).walk()
    return [(str(part["Content-Type"]), part.get_payload(decode=True)) for part in found if not part.is_multipart()]


def written(ds: Dataset) -> bytes:
    """``ds`` as a file."""
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


def test_study_list_as_ohif_asks_for_it(client: httpx.Client, slices: list[Dataset]) -> None:
    """The list, a search in it and the studies of one patient are answered, with what is asked for besides."""
    ds = slices[0]
    (found,) = [
        one
        for one in client.get(f"/studies?limit=101&offset=0&fuzzymatching=true&{LIST}", headers=JSON).json()
        if one["0020000D"]["Value"] == [ds.StudyInstanceUID]
    ]
    assert found["00080061"]["Value"] == ["MR"]
    assert found["00201208"]["Value"] == [4]
    assert found["00080090"]["vr"] == "PN"
    for query in (
        f"PatientName=*{str(ds.PatientName)[:3].lower()}*&ModalitiesInStudy=MR&StudyDate=19000101-20300101",
        f"00100020={ds.PatientID}",
        f"StudyInstanceUID={ds.StudyInstanceUID}",
        "00080020=20200101-&00080061=MR",
    ):
        answer = client.get(f"/studies?{query}&limit=101&offset=0&fuzzymatching=true&{LIST}", headers=JSON)
        assert [one["0020000D"]["Value"] for one in answer.json()] == [[ds.StudyInstanceUID]], query


def test_viewer_as_ohif_opens_a_study(client: httpx.Client, slices: list[Dataset]) -> None:
    """Series, their metadata and their frames are what the viewer shows: decoded, and said to be so."""
    for ds in (slices[0], slices[4], slices[5]):
        study = f"/studies/{ds.StudyInstanceUID}"
        found = client.get(f"{study}/series?includefield=00080021%2C00080031%2C0008103E%2C00200011", headers=JSON)
        (series,) = [one for one in found.json() if one["0020000E"]["Value"] == [ds.SeriesInstanceUID]]
        assert series["00080021"]["Value"] == [ds.SeriesDate]
        metadata = client.get(f"{study}/series/{ds.SeriesInstanceUID}/metadata", headers=JSON).json()
        (one,) = [item for item in metadata if item["00080018"]["Value"] == [ds.SOPInstanceUID]]
        assert one["00280010"]["Value"] == [ds.Rows]
        address = f"{study}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}"
        ((kind, frame),) = parts(client.get(f"{address}/frames/1", headers={"Accept": ANY_FRAME}))
        assert kind == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
        assert len(frame) == ds.Rows * ds.Columns * 2


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ('multipart/related; type="image/jls"; transfer-syntax=1.2.840.10008.1.2.4.80', "image/jls"),
        ("multipart/related; type=image/jls", "image/jls"),
        ('multipart/related; type="image/jls", multipart/related; type="application/octet-stream";q=0.5', "image/jls"),
        ('multipart/related; type="image/jp2", */*; q=0.1', "application/octet-stream"),
        ("image/jls", "image/jls"),
        ("*/*", "application/octet-stream"),
        (ANY_FRAME, "application/octet-stream"),
        ("multipart/related; type=application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1", "application/octet"),
    ],
)
def test_frames_in_the_forms_that_viewers_take(
    client: httpx.Client, slices: list[Dataset], accept: str, kind: str
) -> None:
    """Who names a compressed form gets the stored codestream, who does not, or takes any, gets pixels."""
    ds = slices[4]
    address = f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}/instances/{ds.SOPInstanceUID}/frames/1"
    answer = client.get(address, headers={"Accept": accept})
    assert answer.status_code == 200
    told = parts(answer)[0][0] if answer.headers["content-type"].startswith("multipart") else answer.headers
    assert kind in str(told)


def test_pictures_as_viewers_ask_for_them(client: httpx.Client, slices: list[Dataset]) -> None:
    """Thumbnails and rendered pictures come by query parameter and by header, at every level, in the asked size."""
    ds = slices[0]
    study = f"/studies/{ds.StudyInstanceUID}"
    series = f"{study}/series/{ds.SeriesInstanceUID}"
    instance = f"{series}/instances/{ds.SOPInstanceUID}"
    for address in (study, series, instance, f"{instance}/frames/1"):
        for query in (
            "thumbnail?accept=image/jpeg",
            "thumbnail?viewport=150,150",
            "rendered?viewport=64,64&quality=80",
        ):
            answer = client.get(f"{address}/{query}", headers={"Accept": "*/*"})
            assert answer.status_code == 200, query
            assert answer.content.startswith(b"\xff\xd8")
    png = client.get(f"{instance}/rendered?window=40,400,linear&accept=image%2Fpng", headers={"Accept": "*/*"})
    assert png.content.startswith(b"\x89PNG")


def test_what_was_read_before_need_not_come_again(client: httpx.Client, slices: list[Dataset]) -> None:
    """Metadata, frames and pictures carry an ETag; asked for with it, they are 304 until something is different."""
    ds = slices[0]
    series = f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
    instance = f"{series}/instances/{ds.SOPInstanceUID}"
    for address in (f"{series}/metadata", f"{instance}/frames/1", f"{instance}/rendered", f"{instance}/thumbnail"):
        first = client.get(address)
        tag = first.headers["etag"]
        assert first.headers["cache-control"] == "no-store", "no browser may keep it"
        again = client.get(address, headers={"If-None-Match": f'"other", {tag}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == tag
        assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200
    tags = {
        client.get(f"{instance}/{query}", headers={"Accept": accept}).headers["etag"]
        for query, accept in (
            ("rendered", "image/png"),
            ("rendered", "image/jpeg"),
            ("rendered?window=1,2,linear", "image/jpeg"),
            ("frames/1", ANY_FRAME),
            ("frames/1", "application/octet-stream"),
        )
    }
    assert len(tags) == 5, "another form is another thing"
    before = client.get(f"{series}/metadata").headers["etag"]
    other = copy.deepcopy(ds)
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5.6"
    headers, body = multipart([written(other)])
    assert client.post("/studies", content=body, headers=headers).status_code == 200
    assert client.get(f"{series}/metadata", headers={"If-None-Match": before}).status_code == 200


def test_pages_are_stable_while_more_comes(client: httpx.Client, slices: list[Dataset]) -> None:
    """Who goes on with an offset sees no instance twice and misses none that was there, though others came between."""
    ds = slices[0]
    series = f"/studies/{ds.StudyInstanceUID}/series/{ds.SeriesInstanceUID}"
    first = client.get(f"{series}/instances?limit=2", headers=JSON).json()
    other = copy.deepcopy(ds)
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5.7"
    other.InstanceNumber = 9999
    headers, body = multipart([written(other)])
    client.post("/studies", content=body, headers=headers)
    rest = client.get(f"{series}/instances?limit=10&offset=2", headers=JSON).json()
    seen = [one["00080018"]["Value"][0] for one in [*first, *rest]]
    assert len(seen) == len(set(seen)) == 5


def test_other_methods_and_addresses(client: httpx.Client, slices: list[Dataset]) -> None:
    """What is not there is 404, what cannot be done with it 405, and an address that is too long no fault."""
    study = f"/studies/{slices[0].StudyInstanceUID}"
    for method, address, status in (
        ("DELETE", study, 405),
        ("PUT", "/studies", 405),
        ("POST", f"{study}/series", 405),
        ("GET", "/workitems", 404),
        ("GET", f"{study}/series/1.2/instances/1.3/frames/", 404),
        ("GET", f"{study}/series/1.2/instances/1.3/frames/1/nothing", 404),
        ("GET", f"/studies/{'1' * 65}", 404),
        ("GET", f"/studies?PatientName={'x' * 20000}", 204),
    ):
        answer = client.request(method, address)
        assert answer.status_code in {status, 400}, (method, address, answer.status_code)
        if answer.status_code >= 400:
            assert answer.json()["message"], address


def test_query_that_is_no_text(served: Served) -> None:
    """Bytes in the address that are no ASCII are refused or read, and break nothing."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        lines = [b"GET /dicom-web/studies?PatientName=\xe9\x80 HTTP/1.1", b"Host: 127.0.0.1", b"Connection: close",
                 f"Authorization: Bearer {served.token()}".encode()]  # fmt: skip
        connection.sendall(b"\r\n".join([*lines, b"", b""]))
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert int(answer.split(b" ", 2)[1]) in {200, 204, 400}, answer[:80]


KEYS = ["PatientName", "PatientID", "StudyDate", "ModalitiesInStudy", "SeriesNumber", "InstanceNumber", "Modality",
        "StudyInstanceUID", "SOPInstanceUID", "limit", "offset", "includefield", "AccessionNumber", "0020000D",
        "accept", "PatientBirthDate", "StudyDescription", "fuzzymatching"]  # fmt: skip
VALUES = st.one_of(
    st.text(max_size=20),
    st.text("*?%_\\\\,;'\"-0123456789", max_size=12),
    st.sampled_from(["0", "-1", "99999999999999", "20200101-", "-20200101", "00000000", "99991231-99991231", "all",
                     "10000101", "2147483648", "\0", "CT", "9" * 70, "00080018"]),
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    resource=st.sampled_from(["/studies", "/series", "/instances"]),
    asked=st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=4),
    accept=st.one_of(st.just("*/*"), st.text("mutiple/rad;=*,\"'1-.q0", max_size=40).map(str.strip)),
)
def test_no_question_brings_a_fault(
    client: httpx.Client, resource: str, asked: list[tuple[str, str]], accept: str
) -> None:
    """Whatever is asked of a real record is answered, or refused in words: never with an error of ours."""
    answer = client.get(resource, params=asked, headers={"Accept": accept})
    assert answer.status_code in {200, 204, 400, 406}, (answer.status_code, answer.text[:200])
    if answer.status_code >= 400:
        assert list(answer.json()) == ["message"]
