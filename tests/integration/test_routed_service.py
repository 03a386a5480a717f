"""Routing in a whole running Wetread: two models on one study, images sent on, and rules that are refused."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from sqlalchemy import select

from dicom_listener.received import split_file
from fhir_records import tables
from fhir_records.model import DeliveryState, ReadState
from tests.peers import StoreScpPeer, storescp_server, storescu
from tests.service import Service, running, until

RULES = """
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = {pacs}
timeout_seconds = 30

[[destination]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive}
timeout_seconds = 30

[[route]]
name = "both models"
when = 'series.exists(s, s.Modality == "MR" && s.images > 3)'
models = ["brain_mr_tumour", "chest_xr_pneumonia"]
results_to = ["pacs"]
forward_to = ["archive"]
"""


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[tuple[StoreScpPeer, StoreScpPeer]]:
    with (
        storescp_server(tmp_path / "pacs", ae_title="PACS") as pacs,
        storescp_server(tmp_path / "archive", ae_title="ARCHIVE") as archive,
    ):
        yield pacs, archive


def data_sets(paths: list[Path]) -> set[bytes]:
    return {bytes(split_file(path.read_bytes())[1]) for path in paths}


def received(service: Service) -> list[Path]:
    """What the service keeps; storescu has encoded the files anew before it sent them."""
    return [path for path in (service.home / "spool").rglob("*.dcm") if "quarantine" not in path.parts]


def send(service: Service, files: list[Path], calling: str = "CT1") -> None:
    assert storescu(files, "127.0.0.1", service.dicom_port, called="WETREAD", calling=calling).status == 0


def forwards(service: Service) -> list[tuple[int, DeliveryState]]:
    with service.database() as database, database.session() as session:
        rows = session.scalars(select(tables.Forward).order_by(tables.Forward.id))
        return [(row.revision, row.state) for row in rows]


def test_one_study_goes_where_its_rules_say(
    peers: tuple[StoreScpPeer, StoreScpPeer], home: Path, tmp_path: Path, test_data: Path
) -> None:
    """One model reads it and another refuses it, both answers are delivered, the images are sent on: all, once."""
    pacs, archive = peers
    files = sorted((test_data / "dicom" / "philips_brain_mr").glob("*.dcm"))[::6]
    first, later = files[:-4], files[-4:]
    rules = RULES.format(pacs=pacs.dicom_port, archive=archive.dicom_port)
    with running(home, rules, idle=2) as service:
        send(service, first)
        until(lambda: len(pacs.files()) == 2, what="both answers in the PACS")
        until(lambda: forwards(service) == [(1, DeliveryState.DELIVERED)], what="the images in the archive")
        assert data_sets(archive.files()) == data_sets(received(service))
        assert len(archive.files()) == len(first)
        with service.database() as database, database.session() as session:
            states = {row.model: row.state for row in session.scalars(select(tables.Read))}
        assert states == {"brain_mr_tumour": ReadState.READ, "chest_xr_pneumonia": ReadState.REFUSED}
        assert {str(dcmread(path, stop_before_pixels=True).Modality) for path in pacs.files()} == {"SR"}

        # The archive sends the study back, as archives do, and more of it comes: only that goes to the archive.
        send(service, [*archive.files(), *later], calling="ARCHIVE2")
        until(lambda: forwards(service)[1:] == [(2, DeliveryState.DELIVERED)], what="the later images in the archive")
        assert data_sets(archive.files()) == data_sets(received(service))
        assert len(archive.files()) == len(files)

        # What the archive itself has sent stays here.
        other = tmp_path / "other"
        other.mkdir()
        for path in first[:5]:
            ds = dcmread(path)
            ds.StudyInstanceUID += ".9"
            ds.SeriesInstanceUID += ".9"
            ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ds.SOPInstanceUID}.9"
            ds.save_as(other / path.name)
        send(service, [other], calling="ARCHIVE")
        until(lambda: len(pacs.files()) == 6, what="the answers to the archive's own study")
        assert len(forwards(service)) == 2 and len(archive.files()) == len(files)

        # A rule that is wrong leaves the service as it is, and says where.
        assert service.process is not None
        before = service.pids("work")
        path = home / "wetread.toml"
        path.write_text(path.read_text().replace("s.images > 3", "s.imges > 3"))
        service.process.send_signal(signal.SIGHUP)
        until(lambda: "an entry of series has no imges (is images meant?)" in service.log(), what="the complaint")
        assert "column 50 of" in service.log()
        assert service.pids("work") == before
    done = service.run("prepare")
    assert done.returncode == 1
    assert "has no imges" in done.stderr
