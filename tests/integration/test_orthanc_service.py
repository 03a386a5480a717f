"""The whole service beside a real Orthanc: a study that lies there gets its report there, once."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pydicom
from sqlalchemy import func, select

from deploy.phantom import phantom_study, write_study
from fhir_records import tables
from tests.peers import OrthancPeer, dciodvfy, wait_until
from tests.service import Service, running

ROUTE = """
[[route]]
name = "brain MR"
when = 'study.Modality == "MR"'
models = ["brain_mr_tumour"]
results_to = []
"""


def config(orthanc: OrthancPeer) -> str:
    """Follow this Orthanc; the idle time is so long that it cannot be what makes a study complete."""
    return f'[[orthanc]]\nname = "archive"\nurl = "{orthanc.url}"\npoll_seconds = 0.5\n{ROUTE}'


def reads(service: Service) -> int:
    """How many reads there were."""
    with service.database() as database, database.session() as session:
        return session.execute(select(func.count()).select_from(tables.Read)).scalar_one()


def test_a_study_in_orthanc_gets_one_report_there(orthanc: OrthancPeer, home: Path, tmp_path: Path) -> None:
    """The study is read without an idle time and its report stored back once, over Orthanc's and our own restart."""
    paths = write_study(phantom_study(0), tmp_path / "scan")
    for path in paths:
        orthanc.upload(path.read_bytes())
    with running(home, config(orthanc), idle=3600) as service:
        wait_until(lambda: orthanc.by_modality("SR"), 240, "report in Orthanc")
        (report,) = orthanc.by_modality("SR")
        content = orthanc.file(report)
        # The report itself makes the study stable again.
        wait_until(lambda: orthanc.stable_changes() >= 2, what="study stable with its report")
        assert service.stop() == 0
        orthanc.stop()
        orthanc.start()
        service.start()
        second = write_study(phantom_study(1, 12), tmp_path / "second")
        for path in second:
            orthanc.upload(path.read_bytes())
        wait_until(lambda: len(orthanc.by_modality("SR")) == 2, 240, "second report in Orthanc")
        wait_until(lambda: orthanc.stable_changes() >= 4, what="second study stable with its report")
        # Whatever follows from that would have followed from the first study's by now.
        assert len(orthanc.by_modality("SR")) == 2
        assert reads(service) == 2
        assert orthanc.file(report) == content
    ds = pydicom.dcmread(BytesIO(content))
    assert ds.StudyInstanceUID == pydicom.dcmread(paths[0], stop_before_pixels=True).StudyInstanceUID
    written = tmp_path / "report.dcm"
    written.write_bytes(content)
    assert dciodvfy(written).errors == ()
