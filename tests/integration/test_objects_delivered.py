"""Every kind of object at real peers: it arrives byte for byte, and Orthanc knows it as what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_listener.received import split_file
from dicom_listener.sender import send
from dicom_listener.settings import Node, SenderSettings
from fhir_records.renderings.dicom_file import DicomObject
from tests.integration.object_sources import objects_about
from tests.peers import OrthancPeer, StoreScpPeer
from tests.unit.fhir_records.renderings.sr_reports import PRESENT

US = SenderSettings(ae_title="WETREAD")


@pytest.fixture(scope="module")
def objects(test_data: Path) -> dict[str, DicomObject]:
    """Every object about ten slices of the real head."""
    paths = sorted((test_data / "dicom/philips_brain_mr").glob("*.dcm"))[80:90]
    return objects_about(paths, PRESENT)[1]


def test_every_kind_arrives_at_storescp_byte_for_byte(storescp: StoreScpPeer, objects: dict[str, DicomObject]) -> None:
    """DCMTK takes each kind, and what lies there is what was rendered."""
    for made in objects.values():
        node = Node("the PACS", storescp.ae_title, storescp.host, storescp.dicom_port)
        assert send(made.content, node, US).status == 0, made.kind
    arrived = {dcmread(path).SOPInstanceUID: bytes(split_file(path.read_bytes())[1]) for path in storescp.files()}
    assert arrived == {made.sop_uid: bytes(split_file(made.content)[1]) for made in objects.values()}


def test_every_kind_is_known_to_orthanc(orthanc: OrthancPeer, objects: dict[str, DicomObject]) -> None:
    """Orthanc stores each kind in the one study, a series each, and draws the page."""
    for made in objects.values():
        node = Node("orthanc", orthanc.ae_title, orthanc.host, orthanc.dicom_port)
        assert send(made.content, node, US).status == 0, made.kind
    assert len(orthanc.studies()) == 1
    assert len(orthanc.series()) == len(objects)
    modalities = sorted(series["MainDicomTags"]["Modality"] for series in orthanc.series())
    assert modalities == sorted(["SR", "OT", "OT", "KO", "DOC"])
    pages = [
        one for one in orthanc.instances() if orthanc.json(f"/instances/{one}/simplified-tags").get("Rows") == "1024"
    ]
    assert len(pages) == 1
    assert orthanc.rest(f"/instances/{pages[0]}/preview").startswith(b"\x89PNG")
