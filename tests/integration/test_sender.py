"""The sender, against DCMTK's storescp, Orthanc, and an acceptor that answers what it is told."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE, evt
from pynetdicom.events import Event

from dicom_listener.library import prepare_library
from dicom_listener.received import split_file
from dicom_listener.sender import FileOutcome, echo, send, send_files
from dicom_listener.settings import Node, SenderSettings
from fhir_records.errors import ObjectNotStorable, PeerRefused, PeerUnavailable
from tests.peers import HOST, OrthancPeer, StoreScpPeer, free_port, storescp_server
from tests.unit.dicom_listener.objects import BASIC_TEXT_SR, MR_IMAGE, as_file, image, report

US = SenderSettings(ae_title="WETREAD")


def _node(port: int, ae_title: str = "STORESCP", timeout_s: float = 10) -> Node:
    return Node("the PACS", ae_title, HOST, port, timeout_s=timeout_s)


@contextmanager
def _acceptor(status: int, received: list[bytes], *syntaxes: str, sop_class: str = MR_IMAGE) -> Iterator[Node]:
    """An acceptor that takes one SOP class and answers every C-STORE with ``status``."""

    def answer(event: Event) -> int:
        received.append(event.request.DataSet.getvalue())
        return status

    ae = AE(ae_title="STORESCP")
    ae.add_supported_context(sop_class, list(syntaxes) or [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    # The library's switch for storing anything is for the whole process, and this acceptor is to be choosy.
    prepare_library()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pynetdicom._config.UNRESTRICTED_STORAGE_SERVICE", False)
        patch.setattr("dicom_listener.sender.prepare_library", lambda: None)
        server = ae.start_server((HOST, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, answer)])
        assert server is not None
        try:
            yield _node(server.server_address[1])
        finally:
            server.shutdown()


def test_object_arrives_at_storescp_byte_for_byte(storescp: StoreScpPeer) -> None:
    """The bytes that are sent are the bytes that were given."""
    content = as_file(report())
    outcome = send(content, _node(storescp.dicom_port), US)
    assert (outcome.status, outcome.meaning) == (0, "success")
    (path,) = storescp.files()
    assert bytes(split_file(path.read_bytes())[1]) == bytes(split_file(content)[1])


def test_object_arrives_in_orthanc(orthanc: OrthancPeer, tmp_path: Path) -> None:
    """An object given as a path is stored in Orthanc."""
    path = tmp_path / "object.dcm"
    path.write_bytes(as_file(image()))
    assert send(path, Node("orthanc", orthanc.ae_title, orthanc.host, orthanc.dicom_port), US).status == 0
    assert len(orthanc.instances()) == 1


def test_echo_is_answered(storescp: StoreScpPeer) -> None:
    """C-ECHO of a node that is there succeeds, of one that is not is unavailable."""
    echo(_node(storescp.dicom_port), US)
    with pytest.raises(PeerUnavailable):
        echo(_node(free_port()), US)


def test_peer_that_is_down_is_unavailable() -> None:
    """Nobody listens: to try again may help."""
    with pytest.raises(PeerUnavailable, match="cannot be reached"):
        send(as_file(image()), _node(free_port()), US)


def test_rejected_association_is_unavailable(tmp_path: Path) -> None:
    """A peer that rejects the association may be set right by a person; nothing is lost until then."""
    with storescp_server(tmp_path, refuse=True) as peer, pytest.raises(PeerUnavailable, match="rejected"):
        send(as_file(image()), _node(peer.dicom_port), US)


@pytest.mark.parametrize("fault", ["abort_after", "abort_during"])
def test_aborted_association_is_unavailable(tmp_path: Path, fault: str) -> None:
    """Delivered is claimed only on the peer's answer."""
    with storescp_server(tmp_path, **{fault: True}) as peer, pytest.raises(PeerUnavailable):
        send(as_file(image()), _node(peer.dicom_port), US)


def test_silent_peer_is_unavailable(tmp_path: Path) -> None:
    """No answer in time is no success."""
    with storescp_server(tmp_path, sleep_during_s=8) as peer, pytest.raises(PeerUnavailable):
        send(as_file(image()), _node(peer.dicom_port, timeout_s=1), US)


@pytest.mark.parametrize("status", [0xA900, 0xC000, 0xC123, 0x0122, 0x0124, 0x0117])
def test_refusal_carries_its_status(status: int) -> None:
    """A failure that stays is a refusal."""
    with _acceptor(status, []) as node, pytest.raises(PeerRefused) as caught:
        send(as_file(image()), node, US)
    assert caught.value.status == status
    assert f"{status:04X}" in str(caught.value)


@pytest.mark.parametrize("status", [0xA700, 0xA7FF, 0x0110, 0x0213])
def test_passing_failure_is_unavailable_with_its_status(status: int) -> None:
    """Out of resources may pass."""
    with _acceptor(status, []) as node, pytest.raises(PeerUnavailable) as caught:
        send(as_file(image()), node, US)
    assert caught.value.status == status


@pytest.mark.parametrize("status", [0xB000, 0xB006, 0xB007, 0x0107])
def test_warning_is_delivered_and_told(status: int) -> None:
    """A warning means that the object was taken."""
    with _acceptor(status, []) as node:
        outcome = send(as_file(image()), node, US)
    assert outcome.status == status
    assert outcome.meaning.startswith("Warning")


def test_peer_that_takes_no_such_object_refuses() -> None:
    """No accepted presentation context is the status SOP Class Not Supported."""
    with _acceptor(0, [], sop_class=BASIC_TEXT_SR) as node, pytest.raises(PeerRefused) as caught:
        send(as_file(image()), node, US)
    assert caught.value.status == 0x0122


def test_object_is_encoded_anew_for_a_peer_that_takes_implicit_only() -> None:
    """Where the peer does not take the object's transfer syntax, another uncompressed one is used; values stay."""
    ds, received = image(), []
    with _acceptor(0, received, ImplicitVRLittleEndian) as node:
        assert send(as_file(ds), node, US).status == 0
    expected = bytes(split_file(as_file(ds, ImplicitVRLittleEndian))[1])
    assert received == [expected]


@pytest.mark.parametrize(
    ("own", "other"),
    [(ExplicitVRLittleEndian, ImplicitVRLittleEndian), (ImplicitVRLittleEndian, ExplicitVRLittleEndian)],
)
def test_sequences_are_encoded_anew_to_their_last_item(own: str, other: str) -> None:
    """A structured report, all of whose content is in nested sequences, says the same in the other encoding."""
    ds, received = report(), []
    inner = Dataset()
    inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = "121327", "DCM", "Full fidelity image"
    item = Dataset()
    item.ConceptNameCodeSequence, item.ValueType, item.TextValue = [inner], "TEXT", "inside"
    ds.ContentSequence = [item]
    with _acceptor(0, received, other, sop_class=BASIC_TEXT_SR) as node:
        assert send(as_file(ds, own), node, US).status == 0
    came = read_dataset(io.BytesIO(received[0]), other == ImplicitVRLittleEndian, True)
    assert came.ContentSequence[0].ConceptNameCodeSequence[0].CodeMeaning == "Full fidelity image"
    assert came.to_json_dict() == ds.to_json_dict()


def test_object_that_cannot_be_encoded_anew_is_refused() -> None:
    """Pixels are never changed on the way out."""
    big_endian = image(PixelData=bytes(48))
    with _acceptor(0, [], ImplicitVRLittleEndian) as node, pytest.raises(PeerRefused) as caught:
        send(as_file(big_endian, ExplicitVRBigEndian), node, US)
    assert caught.value.status == 0x0122


def test_what_is_no_dicom_file_is_not_sent() -> None:
    """Noise is refused before a peer is asked."""
    with pytest.raises(ObjectNotStorable):
        send(b"noise" * 100, _node(free_port()), US)


def test_many_files_go_over_one_association(storescp: StoreScpPeer, tmp_path: Path, test_data: Path) -> None:
    """Files of many classes and syntaxes go in, in order; what is no DICOM file is told and passed over."""
    noise = tmp_path / "noise.txt"
    noise.write_text("noise")
    paths = [noise, *sorted((test_data / "dicom" / "transfer_syntaxes").glob("*.dcm"))]
    told: list[FileOutcome] = []
    outcomes = list(send_files(paths, _node(storescp.dicom_port), US, told.append))
    assert [outcome.path for outcome in outcomes] == paths
    assert told == outcomes
    # storescp does not take the JPEG processes 6, 8, 10, 12, and 14 without its first-order prediction.
    refused = {outcome.path.name: outcome.status for outcome in outcomes if not outcome.delivered}
    assert refused.pop("noise.txt") is None
    assert set(refused.values()) == {0x0122}, refused
    assert {name.split("Process")[1].split("T")[0] for name in refused} == {"6_8", "10_12", "14"}
    log = storescp.peer.log_path.read_text()
    assert log.count("Association Acknowledged") == 1
    sent = {_announced(path) for path in paths[1:] if path.name not in refused}
    assert {_announced(path) for path in storescp.files()} == sent


def _announced(path: Path) -> str:
    return str(read_file_meta_info(path).MediaStorageSOPInstanceUID)


def test_more_kinds_than_an_association_holds_take_two(tmp_path: Path) -> None:
    """130 private SOP classes go over as many associations as they need."""
    prepare_library()
    got: list[str] = []
    associations: list[Event] = []
    ae = AE(ae_title="STORESCP")
    ae.add_supported_context("1.2.840.10008.1.1")

    def answer(event: Event) -> int:
        got.append(event.request.AffectedSOPClassUID)
        return 0

    handlers = [(evt.EVT_C_STORE, answer), (evt.EVT_ACCEPTED, associations.append)]
    server = ae.start_server((HOST, 0), block=False, evt_handlers=handlers)
    assert server is not None
    paths = []
    for number in range(130):
        path = tmp_path / f"{number:03}.dcm"
        path.write_bytes(as_file(image(SOPClassUID=generate_uid(prefix="1.3.6.1.4.1.99999."))))
        paths.append(path)
    try:
        outcomes = list(send_files(paths, _node(server.server_address[1]), US))
    finally:
        server.shutdown()
    assert all(outcome.delivered for outcome in outcomes)
    assert len(set(got)) == 130
    assert len(associations) == 3


def test_lost_association_ends_the_sending(tmp_path: Path) -> None:
    """What was not answered is not told as delivered."""
    paths = []
    for number in range(3):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(as_file(image()))
        paths.append(path)
    delivered: list[FileOutcome] = []
    with storescp_server(tmp_path, abort_after=True) as peer, pytest.raises(PeerUnavailable):
        list(send_files(paths, _node(peer.dicom_port), US, delivered.append))
    assert delivered == []
