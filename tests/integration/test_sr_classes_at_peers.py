"""Which SR class reaches real nodes: DCMTK's storescp and dcmrecv with what they may take, Orthanc, and our own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import UID, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.events import Event

from dicom_listener import orthanc as orthanc_rest
from dicom_listener import sender
from dicom_listener.commitment import request_commitment
from dicom_listener.library import prepare_library
from dicom_listener.query import has_object
from dicom_listener.settings import Node
from fhir_records.database import Database
from fhir_records.errors import PeerRefused, PeerUnavailable
from fhir_records.model import Act
from fhir_records.renderings.kinds import SR_CLASSES
from fhir_records.store import deliveries
from tests.integration.liar import liar, report_listener
from tests.integration.signed_results import INSTALLATION, NOW, Bench
from tests.integration.sr_classes import COMPREHENSIVE, COMPREHENSIVE_3D, ENHANCED, US, Way, sends_to
from tests.peers import HOST, OrthancPeer, Peer, dciodvfy, dsrdump, free_port, listens, need, orthanc_server
from workflow.confirmation import ByCommitment, Confirm, TakeCommitmentReport
from workflow.withdrawal import ByDeletion

KEYWORDS = {
    COMPREHENSIVE_3D: "Comprehensive3DSRStorage",
    COMPREHENSIVE: "ComprehensiveSRStorage",
    ENHANCED: "EnhancedSRStorage",
}
KO = "KeyObjectSelectionDocumentStorage"


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    """A record without studies."""
    return Bench(database, tmp_path)


@dataclass(frozen=True)
class Scp:
    """A running storage SCP of DCMTK's."""

    node: Node
    folder: Path

    def files(self) -> list[Path]:
        """What it stored, the first one first."""
        return sorted((path for path in self.folder.iterdir() if path.is_file()), key=lambda path: path.stat().st_mtime)


@contextmanager
def dcmtk(folder: Path, program: str, classes: Sequence[str], *, verification: bool = True) -> Iterator[Scp]:
    """`storescp` or `dcmrecv` with a configuration file that has these SOP classes alone."""
    kept = folder / program
    kept.mkdir()
    accepted = [*(["VerificationSOPClass"] if verification else []), *classes]
    lines = "\n".join(f"PresentationContext{number} = {name}\\Plain" for number, name in enumerate(accepted, start=1))
    config = folder / f"{program}.cfg"
    config.write_text(
        "[[TransferSyntaxes]]\n[Plain]\n"
        "TransferSyntax1 = LittleEndianExplicit\nTransferSyntax2 = LittleEndianImplicit\n"
        f"[[PresentationContexts]]\n[Few]\n{lines}\n[[Profiles]]\n[Default]\nPresentationContexts = Few\n"
    )
    port = free_port()
    options = ["--output-directory", str(kept), "--aetitle", "PACS", "--config-file", str(config), "Default"]
    peer = Peer([need(program), *options, str(port)], folder / f"{program}.log", lambda: listens(port))
    peer.start()
    try:
        yield Scp(Node("pacs", "PACS", HOST, port, timeout_s=10), kept)
    finally:
        peer.stop()


@pytest.mark.parametrize("verification", [True, False])
@pytest.mark.parametrize("program", ["storescp", "dcmrecv"])
@pytest.mark.parametrize("taken", [COMPREHENSIVE_3D, COMPREHENSIVE, ENHANCED])
def test_a_node_that_takes_one_class_gets_it(
    bench: Bench, tmp_path: Path, taken: str, program: str, verification: bool
) -> None:
    """Unsigned and signed, one object each arrives, conforms, and the second names the first."""
    bench.read()
    with dcmtk(tmp_path, program, [KEYWORDS[taken]], verification=verification) as scp:
        way = Way(bench, {"pacs": sends_to(scp.node)})
        way.deliver()
        bench.sign(Act.ACCEPT)
        way.deliver()
        paths = scp.files()
    first, signed = map(dcmread, paths)
    assert first.SOPClassUID == signed.SOPClassUID == taken
    assert (first.VerificationFlag, signed.VerificationFlag) == ("UNVERIFIED", "VERIFIED")
    (series,) = signed.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == first.SOPInstanceUID
    for path in paths:
        assert dciodvfy(path).errors == ()
        assert INSTALLATION.statement in dsrdump(path)


def test_a_node_that_rejects_an_association_of_which_it_takes_nothing(bench: Bench, tmp_path: Path) -> None:
    """All classes are proposed at once: else nobody could tell that it takes another one, and the report would wait."""
    first = bench.read()
    with bench.database.session() as session:
        document = deliveries.find_document(session, first, "dicom_sr", "")
    assert document is not None
    with dcmtk(tmp_path, "dcmrecv", [KEYWORDS[ENHANCED]], verification=False) as scp:
        with pytest.raises(PeerUnavailable, match="rejected the association"):
            sender.send(document.content, scp.node, US)
        with pytest.raises(PeerRefused) as refused:
            sender.send(document.content, scp.node, US, SR_CLASSES)
        assert refused.value.status == 0x0122
        with pytest.raises(PeerUnavailable, match="rejected the association"):
            sender.send(document.content, scp.node, US, (COMPREHENSIVE, ENHANCED))  # its own is not among them


def test_a_node_that_takes_no_report_says_so(bench: Bench, tmp_path: Path) -> None:
    """Nothing arrives, and the delivery is refused where a person sees it."""
    bench.read()
    with dcmtk(tmp_path, "storescp", [KO]) as scp:
        way = Way(bench, {"pacs": sends_to(scp.node)})
        way.deliver()
        assert scp.files() == []
    assert [state for *_, state in way.lines()] == ["filtered", "filtered", "refused"]


@contextmanager
def says_0122(takes: str) -> Iterator[tuple[Node, list[tuple[str, str]]]]:
    """A node that accepts every SR class in the negotiation, and answers C-STORE of all but one with 0122."""
    offered: list[tuple[str, str]] = []

    def answer(event: Event) -> int:
        offered.append((str(event.request.AffectedSOPClassUID), str(event.request.AffectedSOPInstanceUID)))
        return 0x0000 if event.request.AffectedSOPClassUID == takes else 0x0122

    ae = AE(ae_title="PACS")
    for uid in KEYWORDS:
        ae.add_supported_context(UID(uid), ExplicitVRLittleEndian)
    prepare_library()
    server = ae.start_server((HOST, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)])
    assert server is not None
    try:
        yield Node("pacs", "PACS", HOST, server.server_address[1], timeout_s=10), offered
    finally:
        server.shutdown()


def test_a_node_that_refuses_by_status_gets_the_next_class(bench: Bench) -> None:
    """Status 0122 says the same as a rejected presentation context."""
    bench.read()
    with says_0122(ENHANCED) as (node, offered):
        Way(bench, {"pacs": sends_to(node)}).deliver()
    assert [uid for uid, _ in offered] == [COMPREHENSIVE_3D, COMPREHENSIVE, ENHANCED]
    assert len({uid for _, uid in offered}) == 3  # an object of its own each


def test_commitment_is_asked_for_what_was_sent(bench: Bench) -> None:
    """A destination that gets Enhanced SR confirms the Enhanced SR."""
    bench.read()
    with liar() as peer:
        take = TakeCommitmentReport(bench.database, {"pacs": "LIAR"}, lambda: NOW)
        with report_listener(take) as port:
            peer.report_to = port
            way = Way(bench, {"pacs": sends_to(peer.node)}, {"pacs": (ENHANCED,)}, confirmed=("pacs",))
            way.deliver()
            ask = ByCommitment(partial(request_commitment, peer.node, US))
            delivered = next(one for one in bench.deliveries() if one.state.value == "delivered")
            Confirm(bench.database, {"pacs": ask}, take, lambda: NOW)(delivered.id)
    assert [state for *_, state in way.lines()] == ["filtered", "confirmed"]
    (asked,) = peer.asked
    (reference,) = asked.ReferencedSOPSequence
    assert reference.ReferencedSOPClassUID == ENHANCED
    assert [reference.ReferencedSOPInstanceUID] == peer.stored


def test_orthanc_takes_the_report_as_it_was_rendered(bench: Bench, orthanc: OrthancPeer) -> None:
    """A node that takes every class gets Comprehensive 3D SR, and nothing else."""
    first = bench.read()
    Way(bench, {"pacs": sends_to(_node(orthanc))}).deliver()
    (kept,) = orthanc.by_modality("SR")
    ds = orthanc.json(f"instances/{kept}/simplified-tags")
    assert ds["SOPInstanceUID"] == bench.report(first).SOPInstanceUID


@pytest.mark.parametrize("chosen", [COMPREHENSIVE, ENHANCED])
def test_orthanc_gets_the_class_that_the_site_fixed(bench: Bench, tmp_path: Path, chosen: str) -> None:
    """Over its REST API, too: it is stored, found there by C-FIND, and deleted when the result is rejected."""
    with orthanc_server(tmp_path, extra={"DicomAlwaysAllowFind": True}) as orthanc:
        node = orthanc_rest.OrthancNode("pacs", orthanc.url)

        def upload(content: bytes) -> tuple[int, str]:
            return 200, orthanc_rest.upload(node, content).value

        bench.ways["pacs"] = ByDeletion(partial(orthanc_rest.remove, node))
        bench.read()
        Way(bench, {"pacs": upload}, {"pacs": (chosen,)}).deliver()
        (kept,) = orthanc.by_modality("SR")
        ds = orthanc.json(f"instances/{kept}/simplified-tags")
        assert ds["SOPClassUID"] == chosen
        assert has_object(_node(orthanc), US, ds["StudyInstanceUID"], ds["SeriesInstanceUID"], ds["SOPInstanceUID"])
        bench.sign(Act.REJECT)
        bench.withdraw()
        assert orthanc.by_modality("SR") == []
        assert bench.states() == ["filtered", "withdrawn"]


def test_an_orthanc_that_filters_by_class_needs_the_setting(bench: Bench, tmp_path: Path) -> None:
    """Orthanc's REST API says that it filtered, not why: the report is refused until the site names a class."""
    script = tmp_path / "filter.lua"
    script.write_text(
        "function ReceivedInstanceFilter(dicom, origin, info)\n"
        f"  return dicom['SOPClassUID'] ~= '{COMPREHENSIVE_3D}'\nend\n"
    )
    with orthanc_server(tmp_path, extra={"LuaScripts": [str(script)]}) as peer:
        node = orthanc_rest.OrthancNode("pacs", peer.url)

        def upload(content: bytes) -> tuple[int, str]:
            return 200, orthanc_rest.upload(node, content).value

        bench.read()
        way = Way(bench, {"pacs": upload})
        way.deliver()
        assert way.lines() == [(COMPREHENSIVE_3D, "pacs", "refused")]
        bench.read_again(new_images=True)
        way = Way(bench, {"pacs": upload}, {"pacs": (ENHANCED,)})
        way.deliver()
        assert way.lines()[-1] == (ENHANCED, "pacs", "delivered")


def _node(orthanc: OrthancPeer) -> Node:
    return Node("pacs", orthanc.ae_title, orthanc.host, orthanc.dicom_port)
