"""STOW-RS over a socket: what is stored, what is refused, and what is said."""

from __future__ import annotations

import datetime as dt
import io
import os
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from sqlalchemy import select

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.model import Role, Standing
from fhir_records.store import users, web_sessions
from tests.dicomweb_server import Served, multipart, serving
from web.dicomweb_xml import NAMESPACE


@pytest.fixture
def served(database: Database, tmp_path: Path) -> Iterator[Served]:
    """A server with an empty record."""
    with serving(database, tmp_path / "spool") as running:
        yield running


@pytest.fixture
def slices(test_data: Path) -> list[bytes]:
    """Three slices of a real series."""
    return [path.read_bytes() for path in sorted((test_data / "dicom" / "philips_brain_mr").iterdir())[:3]]


def written(ds: Dataset) -> bytes:
    """``ds`` as a file."""
    buffer = io.BytesIO()
    ds.save_as(buffer)
    return buffer.getvalue()


def changed(content: bytes, **values: Any) -> bytes:
    """The object with other values; its file meta information follows its UID."""
    ds = dcmread(io.BytesIO(content))
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return written(ds)


def spooled(served: Served) -> list[Path]:
    return list(served.settings.spool_root.rglob("*.dcm"))


def audit_of(served: Served) -> list[tables.AuditEvent]:
    with served.database.session() as session:
        found = list(session.scalars(select(tables.AuditEvent).where(tables.AuditEvent.action == "store")))
        session.expunge_all()
    return found


def test_objects_are_stored_as_they_were_sent(served: Served, slices: list[bytes]) -> None:
    """Each object is in the spool byte for byte and in the index, and the answer says where it can be had."""
    headers, body = multipart(slices)
    with served.http() as client:
        response = client.post("/studies", content=body, headers=headers)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/dicom+json"
        module = response.json()
        addresses = [item["00081190"]["Value"][0] for item in module["00081199"]["Value"]]
        data_sets = [dcmread(io.BytesIO(content)) for content in slices]
        assert [item["00081155"]["Value"] for item in module["00081199"]["Value"]] == [
            [ds.SOPInstanceUID] for ds in data_sets
        ]
        assert module["00081190"]["Value"] == [f"{served.base}/studies/{data_sets[0].StudyInstanceUID}"]
        assert "00081198" not in module
        for address, sent in zip(addresses, data_sets, strict=True):
            got = client.get(address, headers={"Accept": "application/dicom; transfer-syntax=*"})
            stored = dcmread(io.BytesIO(got.content))
            assert stored.PixelData == sent.PixelData
            assert stored == sent
            assert b"stow:test" in got.content[:2000]
    with served.database.session() as session:
        rows = list(session.scalars(select(tables.Instance)))
        assert {row.standing for row in rows} == {Standing.CURRENT}
        assert all(row.source.startswith("stow:test ") for row in rows)
    (entry,) = audit_of(served)
    assert entry.actor.startswith("token:test ")
    assert entry.study_uid == data_sets[0].StudyInstanceUID
    assert entry.detail["objects"] == 3


def test_sent_again_changes_nothing(served: Served, slices: list[bytes]) -> None:
    """The same objects a second time are answered with success, and are there once."""
    headers, body = multipart(slices)
    with served.http() as client:
        for _ in range(2):
            assert client.post("/studies", content=body, headers=headers).status_code == 200
    assert len(spooled(served)) == 3


def test_other_pixels_under_a_known_uid_are_kept_apart_and_said(served: Served, slices: list[bytes]) -> None:
    """An object with a known UID and other pixels is safe, is not delivered, and the answer warns of it."""
    ds = dcmread(io.BytesIO(slices[0]))
    other = changed(slices[0], PixelData=bytes(len(ds.PixelData)))
    with served.http() as client:
        for content in (slices[0], other):
            headers, body = multipart([content])
            response = client.post("/studies", content=body, headers=headers)
            assert response.status_code == 200
        assert "kept apart" in response.headers["warning"]
    assert len(spooled(served)) == 2


def test_parts_that_cannot_be_stored_do_not_hold_up_the_others(served: Served, slices: list[bytes]) -> None:
    """What is broken, of another study or misnamed fails with its reason; the rest is stored; the answer is 202."""
    first = dcmread(io.BytesIO(slices[0]))
    study = first.StudyInstanceUID
    misnamed = dcmread(io.BytesIO(slices[2]))
    misnamed.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    parts = [
        slices[0],
        b"no DICOM at all",
        changed(slices[1], StudyInstanceUID="1.2.3"),
        slices[1][:-1000],
        written(misnamed),
    ]
    headers, body = multipart(parts)
    with served.http() as client:
        response = client.post(f"/studies/{study}", content=body, headers=headers)
    assert response.status_code == 202
    module = response.json()
    assert [item["00081155"]["Value"][0] for item in module["00081199"]["Value"]] == [first.SOPInstanceUID]
    reasons = [item["00081197"]["Value"][0] for item in module["00081198"]["Value"]]
    assert reasons == [0xA901, 0xC000, 0xA900]
    assert [item["00081197"]["Value"][0] for item in module["0008119A"]["Value"]] == [0xC000]
    assert "1 of 5: of another study than the request's" in response.headers["warning"]
    assert len(spooled(served)) == 1
    assert [entry.outcome for entry in audit_of(served)] == ["success", "failure"]


def test_statuses_of_requests_of_which_nothing_is_stored(served: Served, slices: list[bytes]) -> None:
    """Nothing readable is 400, nothing of the named study 409, other media types 415, and no body 400."""
    other = f"/studies/{dcmread(io.BytesIO(slices[0])).StudyInstanceUID}9"
    dicom, octets = multipart(slices[:1])
    related = 'multipart/related; boundary=x; type="application/dicom+json"'
    nonsense, noise = multipart([b"nonsense"])
    picture, jpeg = multipart([b"\xff\xd8"], kind="image/jpeg")
    asked = [
        ("/studies", nonsense, noise, 400),
        (other, dicom, octets, 409),
        ("/studies", {"Content-Type": related}, b"", 415),
        ("/studies", {"Content-Type": "image/jpeg"}, b"\xff\xd8", 415),
        ("/studies", {**dicom, "Content-Encoding": "gzip"}, zlib.compress(octets), 415),
        ("/studies", picture, jpeg, 415),
        ("/studies", {"Content-Type": "multipart/related; type=application/dicom"}, octets, 400),
        ("/studies", dicom, octets.replace(b"--a1b2", b"--other"), 400),
        ("/studies", dicom, b"", 400),
        ("/studies", {**dicom, "Accept": "text/html"}, octets, 406),
        ("/studies/a b", dicom, octets, 400),
    ]
    with served.http() as client:
        for path, headers, body, status in asked:
            response = client.post(path, content=body, headers=headers)
            assert response.status_code == status, (path, headers, response.text)
            said = response.json()
            assert said.get("message") or response.headers["warning"]
    assert not spooled(served)


def test_one_object_alone_and_without_a_type_of_its_own(served: Served, slices: list[bytes]) -> None:
    """A body that is one object, a part without headers, and text around the parts are all taken."""
    _, body = multipart(slices[1:2])
    bare = body.replace(b"Content-Type: application/dicom\r\n", b"")
    headers = {"Content-Type": "multipart/related; type=application/dicom; boundary=a1b2"}
    with served.http() as client:
        alone = client.post("/studies", content=slices[0], headers={"Content-Type": "application/dicom"})
        assert alone.status_code == 200
        framed = client.post("/studies", content=b"a preamble\r\n" + bare + b"an epilogue", headers=headers)
        assert framed.status_code == 200, framed.text
    assert len(spooled(served)) == 2


def test_answer_in_xml(served: Served, slices: list[bytes]) -> None:
    """Where XML is asked for, the response module is a Native DICOM Model document."""
    headers, body = multipart(slices[:1])
    with served.http() as client:
        response = client.post("/studies", content=body, headers={**headers, "Accept": "application/dicom+xml"})
    assert response.headers["content-type"] == "application/dicom+xml"
    found = fromstring(response.content).findall(
        f".//{{{NAMESPACE}}}DicomAttribute[@keyword='ReferencedSOPInstanceUID']"
    )
    assert [one[0].text for one in found] == [dcmread(io.BytesIO(slices[0])).SOPInstanceUID]


def test_who_may_store(served: Served, slices: list[bytes]) -> None:
    """Without a log-in 401; a reading token 403; a log-in needs its CSRF token in a header, and the right role."""
    headers, body = multipart(slices[:1])
    with served.http("system/*.rs") as client:
        assert client.post("/studies", content=body, headers=headers).status_code == 403
        unknown = client.post("/studies", content=body, headers={**headers, "Authorization": "Bearer wetread_x"})
        assert unknown.status_code == 401
        assert unknown.headers["www-authenticate"] == "Bearer"
    with served.database.session() as session:
        now = dt.datetime.now(dt.UTC)
        for role in (Role.RADIOLOGIST, Role.CLINICIAN):
            users.add(session, role.value, "correct horse battery", role, role.value)
        cookies = {
            user.role: web_sessions.open_session(session, user, now, dt.timedelta(hours=1))
            for user in users.list_users(session)
        }
        csrf = {
            role: found.csrf_token
            for role, cookie in cookies.items()
            if (found := web_sessions.find_session(session, cookie, now, dt.timedelta(hours=1)))
        }
    with served.http("system/ImagingStudy.c") as client:
        assert client.get("/studies").status_code == 403, "who may only store may not look"
        for role, given, status in [
            (Role.RADIOLOGIST, "", 403),
            (Role.CLINICIAN, csrf[Role.CLINICIAN], 403),
            (Role.RADIOLOGIST, csrf[Role.RADIOLOGIST], 200),
        ]:
            person = {"Authorization": "", "Cookie": f"wetread={cookies[role]}", "X-CSRF-Token": given}
            assert client.post("/studies", content=body, headers=headers | person).status_code == status
        assert client.post("/studies", content=body, headers=headers).status_code == 200
    assert len(spooled(served)) == 1


def test_limits_of_size_and_number(database: Database, tmp_path: Path, slices: list[bytes]) -> None:
    """Too large an object fails alone, whatever its size; more objects than a request may have are refused."""
    large = changed(slices[1], PixelData=bytes(12 << 20), Rows=2048, Columns=3072)
    with serving(database, tmp_path, store_max_object_bytes=8 << 20, store_max_objects=2) as served:
        with served.http() as client:
            headers, body = multipart([large, slices[0]])
            response = client.post("/studies", content=body, headers=headers)
            assert response.status_code == 202
            (failure,) = response.json()["00081198"]["Value"]
            assert failure["00081155"]["Value"] == [dcmread(io.BytesIO(large)).SOPInstanceUID]
            assert failure["00081197"]["Value"] == [0xA701]
            headers, body = multipart([large])
            assert client.post("/studies", content=body, headers=headers).status_code == 413
            headers, body = multipart(slices)
            assert client.post("/studies", content=body, headers=headers).status_code == 413
        assert len(spooled(served)) == 2


def test_deflation_bomb_is_refused_before_it_is_inflated(served: Served, slices: list[bytes]) -> None:
    """A small deflated object that would grow to a gigabyte is refused as too large, quickly."""
    ds = dcmread(io.BytesIO(slices[0]), stop_before_pixels=True)
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    head = written(ds)
    meta = 144 + int.from_bytes(head[140:144], "little")
    plain = zlib.decompress(head[meta:], -15) + b"\xe0\x7f\x10\x00OW\x00\x00" + (1 << 30).to_bytes(4, "little")
    squeeze = zlib.compressobj(9, wbits=-15)
    bomb = head[:meta] + squeeze.compress(plain)
    for _ in range(1024):
        bomb += squeeze.compress(bytes(1 << 20))
    bomb += squeeze.flush()
    assert len(bomb) < 4 << 20
    headers, body = multipart([bomb])
    with served.http() as client:
        response = client.post("/studies", content=body, headers=headers)
    assert response.status_code == 413
    assert response.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA701]


def test_full_disk_is_503_before_anything_is_read(served: Served, slices: list[bytes]) -> None:
    """Below the watermark a request is turned away with the time to come again, and nothing is kept."""
    with serving(served.database, served.settings.spool_root, min_free_bytes=1 << 60) as full, full.http() as client:
        headers, body = multipart(slices)
        response = client.post("/studies", content=body, headers=headers)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
    assert not spooled(served)


def test_cut_connection_keeps_what_was_complete(served: Served, slices: list[bytes]) -> None:
    """Where the connection ends within the second object, the first is stored and the second leaves nothing."""
    headers, body = multipart(slices[:2])
    sent = body[: len(body) - 1000]
    lines = [
        "POST /dicom-web/studies HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {served.token()}",
        f"Content-Type: {headers['Content-Type']}",
        f"Content-Length: {len(body)}",
    ]
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + sent)
    deadline = time.monotonic() + 60
    while not audit_of(served) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [entry.detail["objects"] for entry in audit_of(served)] == [1]
    assert len(spooled(served)) == 1


def test_memory_stays_flat_while_a_large_object_comes(served: Served, slices: list[bytes]) -> None:
    """A 300 MB multi-frame object costs the server far less memory than its size."""
    ds = dcmread(io.BytesIO(slices[0]))
    ds.NumberOfFrames, ds.Rows, ds.Columns = 150, 1024, 1024
    ds.PixelData = bytes(2 << 20)
    content = written(ds)
    # The value's length, and the rest of the value, which no test needs to hold at once.
    head = content[: -(2 << 20) - 4] + (300 << 20).to_bytes(4, "little")

    def body() -> Iterator[bytes]:
        yield b"--a1b2\r\nContent-Type: application/dicom\r\n\r\n" + head
        for _ in range(300):
            yield os.urandom(1 << 20)
        yield b"\r\n--a1b2--\r\n"

    headers, _ = multipart([])
    before = private_bytes()
    with served.http() as client:
        response = client.post("/studies", content=watched(body(), peak := [0]), headers=headers)
    assert response.status_code == 200, response.text
    assert peak[0] - before < 80 << 20, f"{(peak[0] - before) >> 20} MiB more than before"


def watched(body: Iterator[bytes], peak: list[int]) -> Iterator[bytes]:
    for chunk in body:
        peak[0] = max(peak[0], private_bytes())
        yield chunk


def private_bytes() -> int:
    """Memory of this process that is not a mapped file."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024
