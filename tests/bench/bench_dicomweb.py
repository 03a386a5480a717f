"""How quickly DICOMweb answers, beside Orthanc's DICOMweb plugin where that is installed.

    python -m tests.bench.bench_dicomweb CT_FILE

A CT series of 500 slices is stored by STOW-RS, its metadata and frames are fetched, and studies are searched among
10,000; and an object of 2 GB is stored while our memory is looked at. Servers, database and client share the machine,
and the database syncs. Absolute figures are this machine's.
"""

from __future__ import annotations

import datetime as dt
import io
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
from pydicom import dcmread, dcmwrite
from pydicom.uid import generate_uid
from sqlalchemy import insert, select, text
from sqlalchemy.orm import Session

from deploy.embedded_postgres import EmbeddedPostgres
from deploy.settings import child_environment
from fhir_records import tables
from fhir_records.database import Database
from fhir_records.migrations import migrate
from fhir_records.model import InstanceKind, Standing
from fhir_records.store import tokens
from tests.dicomweb_server import multipart
from tests.peers import HOST, free_port, orthanc_server, wait_until

SLICES = 500
STUDIES = 10_000
FEW_AT_ONCE, MANY_AT_ONCE = 25, 125  # slices in one store request; the published Python client sends all in one
FRAMES = 60
RENDERED = 20
LARGE_FRAMES = 2047  # of 1 MiB each; a value of defined length may not have 4 GiB
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PIXELS = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
TARGET_MS = 100.0  # of a frame


def main(source: Path) -> int:
    """Run it and print a table; 1 where a frame takes longer than it may."""
    with tempfile.TemporaryDirectory() as folder:
        with wetread(Path(folder)) as (client, database, process_id):
            ours = measured(client, source)
            searches = searched(client, database)
            before, most = memory_at_a_large_object(client, source, process_id)
        theirs: dict[str, float] = {}
        if PLUGIN.is_file():
            extra = {"Plugins": [str(PLUGIN)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
            with (
                orthanc_server(Path(folder), extra=extra) as orthanc,
                httpx.Client(base_url=f"http://{HOST}:{orthanc.http_port}/dicom-web", timeout=300) as client,
            ):
                theirs = measured(client, source)
        else:
            print(f"no {PLUGIN} here, so there is nothing to compare with")
    print(f"\na CT series of {SLICES} slices of 512 x 512{'Wetread':>16}{'Orthanc':>12}{'Orthanc/Wetread':>18}")
    for name, value in ours.items():
        other = f"{theirs[name]:12.1f}{theirs[name] / value:18.2f}" if name in theirs else ""
        print(f"{name:<44}{value:16.1f}{other}")
    print(f"\nsearches among {STUDIES} studies, ms")
    for name, value in searches.items():
        print(f"{name:<44}{value:16.1f}")
    print(
        f"\nmemory (PSS) before an object of {LARGE_FRAMES} MiB, and at most meanwhile, MiB: {before:.0f}, {most:.0f}"
    )
    return int(ours["first frame, first request, ms"] > TARGET_MS or ours["a frame, median, ms"] > TARGET_MS)


@contextmanager
def wetread(folder: Path) -> Iterator[tuple[httpx.Client, Database, int]]:
    """The web part in a process of its own: a client with a token, its record, its process."""
    home = folder / "home"
    home.mkdir(mode=0o700)
    server = EmbeddedPostgres(home)
    server.start()
    database = Database(server.url)
    migrate(database)
    with database.session() as session:
        token = tokens.create(session, "bench", "system/*.crs")
    port = free_port()
    environment = child_environment(home) | {"WETREAD_DATABASE_URL": server.url, "WETREAD_HTTP__PORT": str(port)}
    process = subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "web"],
        env=environment | {"PYTHONPATH": str(Path.cwd())},
        stdout=subprocess.DEVNULL,
    )
    try:
        base = f"http://{HOST}:{port}"
        wait_until(lambda: answers(f"{base}/health/live"), 60, "the pages")
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=f"{base}/dicom-web", headers=headers, timeout=300) as client:
            yield client, database, process.pid
    finally:
        process.terminate()
        process.wait(20)
        database.close()
        server.stop(even_if_used=True)


def answers(address: str) -> bool:
    """Whether the address answers with success."""
    try:
        return httpx.get(address).status_code == 200
    except httpx.TransportError:
        return False


def measured(client: httpx.Client, source: Path) -> dict[str, float]:
    """Store the series, then ask for it; figures by name."""
    study, series, files = slices(source)
    half = SLICES // 2
    few, many = stored(client, files[:half], FEW_AT_ONCE), stored(client, files[half:], MANY_AT_ONCE)
    base = f"/studies/{study}/series/{series}"
    instances = client.get(f"{base}/instances", headers={"Accept": "application/dicom+json"}).json()
    uids = [one["00080018"]["Value"][0] for one in instances]
    assert len(uids) == SLICES
    accept = {"Accept": PIXELS}
    first_frame = timed(lambda: client.get(f"{base}/instances/{uids[-1]}/frames/1", headers=accept))
    frames = sorted(
        timed(lambda uid=uid: client.get(f"{base}/instances/{uid}/frames/1", headers=accept))  # type: ignore[misc]
        for uid in uids[:FRAMES]
    )
    json = {"Accept": "application/dicom+json"}
    return {
        f"stored, {FEW_AT_ONCE} in a request, a slice, ms": few,
        f"stored, {MANY_AT_ONCE} in a request, a slice, ms": many,
        "first frame, first request, ms": first_frame,
        "a frame, median, ms": statistics.median(frames),
        "a frame, 95th percentile, ms": frames[int(len(frames) * 0.95)],
        "metadata of the series, first request, ms": timed(lambda: client.get(f"{base}/metadata", headers=json)),
        "metadata of the series again, ms": timed(lambda: client.get(f"{base}/metadata", headers=json)),
        "search of its instances, ms": timed(lambda: client.get(f"{base}/instances", headers=json)),
        "a rendered frame, median, ms": statistics.median(
            timed(lambda uid=uid: client.get(f"{base}/instances/{uid}/rendered"))  # type: ignore[misc]
            for uid in uids[:RENDERED]
        ),
    }


def stored(client: httpx.Client, files: Sequence[bytes], at_once: int) -> float:
    """Milliseconds for one of ``files``, so many of them in a request."""
    requests = [multipart(list(files[first : first + at_once])) for first in range(0, len(files), at_once)]
    started = time.perf_counter()
    for headers, body in requests:
        response = client.post("/studies", content=body, headers={**headers, "Accept": "application/dicom+json"})
        assert response.status_code == 200, response.text
    return (time.perf_counter() - started) * 1000 / len(files)


def memory_at_a_large_object(client: httpx.Client, source: Path, process_id: int) -> tuple[float, float]:
    """MiB of the server before a large multi-frame object, and at most while it comes."""
    ds = dcmread(source)
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    ds.SeriesInstanceUID, ds.NumberOfFrames, ds.Rows, ds.Columns = generate_uid(), LARGE_FRAMES, 512, 1024
    ds.PixelData = bytes(2)
    buffer = io.BytesIO()
    dcmwrite(buffer, ds)
    head = buffer.getvalue()[:-6] + (LARGE_FRAMES << 20).to_bytes(4, "little")
    figures = [memory_of(process_id)]

    def body() -> Iterator[bytes]:
        yield b"--a1b2\r\nContent-Type: application/dicom\r\n\r\n" + head
        frame = bytes(range(256)) * 4096
        for _ in range(LARGE_FRAMES):
            yield frame
        yield b"\r\n--a1b2--\r\n"

    done = threading.Event()

    def look() -> None:
        while not done.wait(0.1):
            figures.append(memory_of(process_id))

    watch = threading.Thread(target=look)
    watch.start()
    try:
        headers, _ = multipart([])
        response = client.post("/studies", content=body(), headers=headers | {"Accept": "application/dicom+json"})
        assert response.status_code == 200, response.text
    finally:
        done.set()
        watch.join()
    return figures[0], max(figures)


def memory_of(process_id: int) -> float:
    """MiB of proportional memory of a process, without its children."""
    rollup = Path(f"/proc/{process_id}/smaps_rollup").read_text()
    return int(rollup.split("Pss:")[1].split()[0]) / 1024


def slices(source: Path) -> tuple[str, str, list[bytes]]:
    """The object as a series of its own: study and series UID, and the files."""
    ds = dcmread(source)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    files = []
    for number in range(SLICES):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        ds.InstanceNumber = number + 1
        ds.PixelData = ds.PixelData[2:] + ds.PixelData[:2]
        buffer = io.BytesIO()
        dcmwrite(buffer, ds)
        files.append(buffer.getvalue())
    return ds.StudyInstanceUID, ds.SeriesInstanceUID, files


def searched(client: httpx.Client, database: Database) -> dict[str, float]:
    """Search among many studies of four instances each; milliseconds, the median of five, by question."""
    with database.session() as session:
        fill(session)
    with database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("ANALYZE"))
    asked = {
        "the newest 25": "/studies?limit=25",
        "a patient's ID": "/studies?PatientID=BENCH-5000",
        "a name that begins so": "/studies?PatientName=Bench5*&limit=25",
        "a month": "/studies?StudyDate=20200101-20200131&limit=25",
        "a modality, from the middle on": "/studies?ModalitiesInStudy=CT&limit=25&offset=5000",
        "a series by its modality": "/series?Modality=CT&limit=25",
        "an instance by its UID": "/instances?SOPInstanceUID=2.25.5000.1.1",
        "1,000 studies": "/studies?limit=1000",
    }
    found = {}
    for name, question in asked.items():
        client.get(question)
        found[name] = statistics.median(timed(lambda: client.get(question)) for _ in range(5))  # noqa: B023 - called here
    return found


def timed(call: Callable[[], httpx.Response]) -> float:
    """Milliseconds of a request, to the last byte of its answer."""
    started = time.perf_counter()
    response = call()
    assert response.status_code == 200, response.text[:200]
    return (time.perf_counter() - started) * 1000


def fill(session: Session) -> None:
    """Studies of a CT series of four instances, each of a patient of its own; nothing of them is in the spool."""
    numbers = range(1, STUDIES + 1)
    session.execute(
        insert(tables.Patient), [{"patient_uid": f"bench{n}", "name": f"Bench{n}^Test", "sex": "O"} for n in numbers]
    )
    patients = dict(session.execute(select(tables.Patient.patient_uid, tables.Patient.id)).tuples().all())
    session.execute(
        insert(tables.PatientIdentifier),
        [{"patient_id": patients[f"bench{n}"], "value": f"BENCH-{n}", "issuer": ""} for n in numbers],
    )
    start = dt.datetime(2010, 1, 1, tzinfo=dt.UTC)
    session.execute(
        insert(tables.Study),
        [
            {
                "study_uid": f"2.25.{n}",
                "patient_id": patients[f"bench{n}"],
                "modalities": ["CT"],
                "started_at": start + n * dt.timedelta(hours=9),
                "source": "dicom:BENCH",
            }
            for n in numbers
        ],
    )
    studies = dict(session.execute(select(tables.Study.study_uid, tables.Study.id)).tuples().all())
    session.execute(
        insert(tables.Instance),
        [
            {
                "study_id": studies[f"2.25.{n}"],
                "series_uid": f"2.25.{n}.1",
                "sop_uid": f"2.25.{n}.1.{slice_}",
                "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
                "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                "kind": InstanceKind.IMAGE,
                "standing": Standing.CURRENT,
                "modality": "CT",
                "series_number": 1,
                "instance_number": slice_,
                "rows": 512,
                "columns": 512,
                "file_key": f"bench/{n}/{slice_}",
                "sha256": "",
                "size": 1,
                "source": "dicom:BENCH",
            }
            for n in numbers
            for slice_ in range(1, 5)
        ],
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
