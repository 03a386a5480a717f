"""DICOM over TLS with other makers' programs: DCMTK's storescp takes what we send, and only over TLS that fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_listener.sender import echo, send
from dicom_listener.settings import ClientTls, Node, SenderSettings
from fhir_records.errors import PeerUnavailable
from tests.certificates import Authority, Issued, authority
from tests.peers import HOST, StoreScpPeer, storescp_server
from tests.unit.dicom_listener.objects import as_file, report

US = SenderSettings(ae_title="WETREAD")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def pacs(ours: Authority) -> Issued:
    return ours.issue("pacs")


@pytest.fixture(scope="module")
def wetread(ours: Authority) -> Issued:
    return ours.issue("wetread")


@pytest.fixture
def secured(tmp_path: Path, ours: Authority, pacs: Issued) -> Iterator[StoreScpPeer]:
    """DCMTK's storescp, which talks TLS only and wants to see a certificate of our authority."""
    options = ["+tls", str(pacs.key), str(pacs.certificate), "+cf", str(ours.certificate), "--require-peer-cert"]
    with storescp_server(tmp_path, options=["--accept-all", *options]) as scp:
        yield scp


def node(scp: StoreScpPeer, tls: ClientTls | None) -> Node:
    return Node("the PACS", scp.ae_title, HOST, scp.dicom_port, timeout_s=30, tls=tls)


def test_results_are_sent_over_mutual_tls(secured: StoreScpPeer, ours: Authority, wetread: Issued) -> None:
    """A destination that wants to see our certificate gets it, and takes the object."""
    there = node(secured, ClientTls(ours.certificate, wetread.certificate, wetread.key))
    echo(there, US)
    assert send(as_file(report()), there, US).status == 0
    assert len(secured.files()) == 1


def test_a_destination_that_is_not_who_it_says_gets_nothing(
    secured: StoreScpPeer, ours: Authority, wetread: Issued, tmp_path: Path
) -> None:
    """Another authority, another name, or no TLS at all: nothing is sent, and the error says why."""
    good = ClientTls(ours.certificate, wetread.certificate, wetread.key)
    others = authority(tmp_path / "others", "others")
    for tls, words in (
        (replace(good, ca=others.certificate), "not trusted"),
        (replace(good, server_name="pacs.example"), "not trusted"),
        (replace(good, certificate=None, key=None), "TLS"),
        (replace(good, ca=tmp_path / "none.pem"), r"none\.pem"),
        (None, "cannot be reached, or ended"),
    ):
        with pytest.raises(PeerUnavailable, match=words):
            send(as_file(report()), node(secured, tls), US)
    assert secured.files() == []
