"""TLS for DICOM: what is refused, what is trusted, and files that change while the server runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_listener.admission import Admission
from dicom_listener.gate import Admitted, NothingSaid, Rejection
from dicom_listener.settings import Caller, ClientTls, ListenerSettings, TlsSettings
from dicom_listener.tls import CIPHERS, ServerTls, certificate_sha256, client_context
from fhir_records.errors import SettingsError
from tests.certificates import Authority, Issued, authority
from tests.peers import HOST


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def server(ours: Authority) -> Issued:
    return ours.issue("server")


@pytest.fixture(scope="module")
def scanner(ours: Authority) -> Issued:
    return ours.issue("scanner")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Issued:
    return authority(tmp_path_factory.mktemp("theirs"), "others").issue("stranger")


def settings(server: Issued, client_ca: Path | None = None) -> TlsSettings:
    return TlsSettings(certificate=server.certificate, key=server.key, client_ca=client_ca)


Secure = Callable[[socket.socket], socket.socket]


def meet(secure: Secure, client: Callable[[socket.socket], object]) -> socket.socket | str:
    """What ``secure`` makes of a connection over which ``client`` talks: the connection, or why there is none."""
    with socket.create_server((HOST, 0)) as listening:

        def talk() -> None:
            address = listening.getsockname()
            with socket.create_connection(address, timeout=10) as connection, contextlib.suppress(OSError):
                client(connection)

        thread = threading.Thread(target=talk)
        thread.start()
        connection, _ = listening.accept()
    try:
        return secure(connection)
    except ConnectionError as error:
        return str(error)
    finally:
        thread.join(15)
        assert not thread.is_alive()


def shaking(context: ssl.SSLContext, word: bytes = b"") -> Callable[[socket.socket], object]:
    """A client that shakes hands, and then says ``word``."""

    def talk(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_hostname=HOST) as secured:
            secured.sendall(word or b"hello")

    return talk


def trusting(ours: Authority, own: Issued | None = None) -> ssl.SSLContext:
    return client_context(ClientTls(ours.certificate, *((own.certificate, own.key) if own else ())))


def test_a_handshake_ends_in_a_connection(ours: Authority, server: Issued) -> None:
    """A client that trusts our authority talks to us over TLS, and what it says arrives."""
    found = meet(ServerTls(settings(server), 5).secure, shaking(trusting(ours), b"words"))
    assert isinstance(found, ssl.SSLSocket)
    with found:
        assert found.version() == "TLSv1.3"
        assert found.recv(5) == b"words"
        assert found.gettimeout() is None
        assert certificate_sha256(found) == ""


@pytest.mark.parametrize(
    ("version", "ciphers", "works"),
    [
        (ssl.TLSVersion.TLSv1_2, CIPHERS, True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-GCM-SHA256", True),
        (ssl.TLSVersion.TLSv1_2, "ECDHE-ECDSA-AES128-SHA256", False),  # no authenticated encryption
        (ssl.TLSVersion.TLSv1_2, "AES128-GCM-SHA256", False),  # no forward secrecy
        (ssl.TLSVersion.TLSv1_2, "NULL:@SECLEVEL=0", False),
        (ssl.TLSVersion.TLSv1_1, "ALL:@SECLEVEL=0", False),
        (ssl.TLSVersion.TLSv1, "ALL:@SECLEVEL=0", False),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_weak_versions_and_ciphers_are_refused(
    ours: Authority, server: Issued, version: ssl.TLSVersion, ciphers: str, works: bool
) -> None:
    """TLS 1.2 with ECDHE and AES-GCM is the least that BCP 195 allows, and the least that is taken."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ours.certificate)
    context.minimum_version = context.maximum_version = version
    context.set_ciphers(ciphers)
    found = meet(ServerTls(settings(server), 5).secure, shaking(context))
    if works:
        assert isinstance(found, ssl.SSLSocket)
        found.close()
    else:
        assert isinstance(found, str)
        assert found.startswith("no TLS: ")


def test_mutual_tls_wants_a_certificate_of_our_authority(
    ours: Authority, server: Issued, scanner: Issued, stranger: Issued
) -> None:
    """With a client_ca a caller without a certificate, or with a stranger's, is refused; one of ours is known."""
    tls = ServerTls(settings(server, ours.certificate), 5)
    assert "peer did not return a certificate" in str(meet(tls.secure, shaking(trusting(ours))))
    assert "not trusted" in str(meet(tls.secure, shaking(trusting(ours, stranger))))
    found = meet(tls.secure, shaking(trusting(ours, scanner)))
    assert isinstance(found, ssl.SSLSocket)
    with found:
        assert certificate_sha256(found) == scanner.sha256


def test_an_expired_certificate_is_refused(ours: Authority, server: Issued) -> None:
    """A caller whose certificate has run out does not come in."""
    old = ours.issue("old", days=-1)
    found = meet(ServerTls(settings(server, ours.certificate), 5).secure, shaking(trusting(ours, old)))
    assert "not trusted" in str(found)


def test_a_caller_is_bound_to_its_certificate(ours: Authority, server: Issued, scanner: Issued) -> None:
    """With the certificate that it is listed with a caller is admitted, with another valid one it is not."""
    caller = Caller("CT1", HOST, certificate_sha256=scanner.sha256)
    gate = Admission(ListenerSettings(callers=(caller,), tls=settings(server, ours.certificate)))
    answers = {}
    for who in (scanner, ours.issue("another")):
        found = meet(lambda connection: gate.secured(connection, tls=True), shaking(trusting(ours, who)))
        assert isinstance(found, ssl.SSLSocket)
        with found:
            answers[who.certificate.stem] = gate.requested("CT1", "WETREAD", HOST, found)
    assert isinstance(answers["scanner"], Admitted)
    refusal = answers["another"]
    assert isinstance(refusal, Rejection)
    assert (refusal.result, refusal.source, refusal.reason) == (1, 1, 3)


@pytest.mark.parametrize("words", [b"\x01\x00\x00\x00\x00\xcd", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01" * 99])
def test_what_is_no_handshake_is_refused(server: Issued, words: bytes) -> None:
    """A client that speaks DICOM, HTTP or nonsense at the TLS port, is refused and closed."""
    found = meet(ServerTls(settings(server), 5).secure, lambda connection: connection.sendall(words))
    assert isinstance(found, str)
    assert found.startswith("no TLS: ")


@pytest.mark.parametrize("reset", [False, True])
def test_who_only_looks_whether_the_port_is_open_is_told_apart(server: Issued, reset: bool) -> None:
    """A client that goes without a word, with TCP's FIN or RST, asked for nothing: that is no failed handshake."""

    def look(connection: socket.socket) -> None:
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    server_tls = ServerTls(settings(server), 5)
    told: list[ConnectionError] = []

    def secure(connection: socket.socket) -> socket.socket:
        try:
            return server_tls.secure(connection)
        except ConnectionError as error:
            told.append(error)
            raise

    meet(secure, look)
    assert [type(error) for error in told] == [NothingSaid]


def test_a_handshake_has_a_time_limit(server: Issued) -> None:
    """Bytes that trickle do not hold a handshake open beyond its limit, which is for all of it."""

    def trickle(connection: socket.socket) -> None:
        for byte in b"\x16\x03\x01\x02\x00" + bytes(100):
            connection.sendall(bytes([byte]))
            time.sleep(0.1)

    began = time.monotonic()
    found = meet(lambda connection: ServerTls(settings(server), 0.5).secure(connection), trickle)
    assert "took too long" in str(found)
    assert time.monotonic() - began < 8


def test_a_changed_certificate_is_used_without_a_restart(ours: Authority, tmp_path: Path) -> None:
    """New files are used from the next handshake on; broken ones are not, and the former stay in use."""
    first, second = ours.issue("first"), ours.issue("second")
    there = Issued(tmp_path / "in-use.pem", tmp_path / "in-use.key")

    def put(issued: Issued) -> None:
        shutil.copyfile(issued.certificate, there.certificate)
        shutil.copyfile(issued.key, there.key)

    shown: list[bytes | None] = []

    def look(connection: socket.socket) -> None:
        with trusting(ours).wrap_socket(connection, server_hostname=HOST) as secured:
            shown.append(secured.getpeercert(binary_form=True))

    def showing() -> Issued | None:
        found = meet(tls.secure, look)
        assert isinstance(found, ssl.SSLSocket), found
        found.close()
        return next((one for one in (first, second) if ssl.DER_cert_to_PEM_cert(shown[-1] or b"")
                     in one.certificate.read_text()), None)  # fmt: skip

    put(first)
    tls = ServerTls(settings(there), 5)
    assert showing() is first
    same = tls.context()
    assert tls.context() is same
    shutil.copyfile(second.certificate, there.certificate)  # half of the change: certificate and key do not fit
    assert showing() is first
    shutil.copyfile(second.key, there.key)
    assert showing() is second
    there.certificate.write_text("broken")
    assert showing() is second
    there.certificate.unlink()
    assert showing() is second
    put(first)
    assert showing() is first


def test_an_authority_that_is_taken_away_is_trusted_no_longer(
    ours: Authority, server: Issued, scanner: Issued, stranger: Issued, tmp_path: Path
) -> None:
    """A change of client_ca holds from the next handshake on."""
    trusted = tmp_path / "clients.pem"
    shutil.copyfile(ours.certificate, trusted)
    tls = ServerTls(settings(server, trusted), 5)
    found = meet(tls.secure, shaking(trusting(ours, scanner)))
    assert isinstance(found, ssl.SSLSocket)
    found.close()
    shutil.copyfile(stranger.certificate.with_name("others.pem"), trusted)
    assert "not trusted" in str(meet(tls.secure, shaking(trusting(ours, scanner))))


def test_a_revoked_certificate_is_refused(ours: Authority, server: Issued, scanner: Issued, tmp_path: Path) -> None:
    """Who is on the list is refused from the next handshake on, others are not; a list that has ended refuses all."""
    lost = ours.issue("lost")
    crl = tmp_path / "crl.pem"
    shutil.copyfile(ours.revoke(), crl)
    tls = ServerTls(replace(settings(server, ours.certificate), crl=crl), 5)

    def answer(who: Issued) -> str:
        found = meet(tls.secure, shaking(trusting(ours, who)))
        if isinstance(found, str):
            return found
        found.close()
        return "secured"

    assert [answer(lost), answer(scanner)] == ["secured", "secured"]
    shutil.copyfile(ours.revoke(lost), crl)
    assert "certificate revoked" in answer(lost)
    assert answer(scanner) == "secured"
    crl.write_text("broken")
    assert "certificate revoked" in answer(lost)
    assert answer(scanner) == "secured"
    shutil.copyfile(ours.revoke(ended=True), crl)
    assert "CRL has expired" in answer(scanner)
    shutil.copyfile(ours.revoke(), crl)
    assert answer(scanner) == "secured"


def test_an_authority_without_a_list_lets_nobody_in(ours: Authority, server: Issued, tmp_path: Path) -> None:
    """Where lists are looked at, each authority must have one: whose certificates cannot be judged are refused."""
    others = authority(tmp_path / "others", "others")
    both = tmp_path / "both.pem"
    both.write_text(ours.certificate.read_text() + others.certificate.read_text())
    tls = ServerTls(replace(settings(server, both), crl=ours.revoke()), 5)
    assert "unable to get certificate CRL" in str(meet(tls.secure, shaking(trusting(ours, others.issue("other")))))


def test_a_revoked_server_is_not_talked_to(ours: Authority) -> None:
    """A destination whose certificate was revoked is refused, where we are given its authority's list."""
    stolen = ours.issue("stolen")
    for revoked, works in (((), True), ((stolen,), False)):
        crl = ours.revoke(*revoked)
        outcome: list[str] = []

        def talk(connection: socket.socket, crl: Path = crl, outcome: list[str] = outcome) -> None:
            try:
                context = client_context(ClientTls(ours.certificate, crl=crl))
                with context.wrap_socket(connection, server_hostname=HOST):
                    outcome.append("secured")
            except ssl.SSLError as error:
                outcome.append(str(error))
                raise

        found = meet(ServerTls(settings(stolen), 5).secure, talk)
        if isinstance(found, socket.socket):
            found.close()
        assert outcome[0] == "secured" if works else "revoked" in outcome[0]


def test_files_that_cannot_be_used_are_named(ours: Authority, server: Issued, scanner: Issued, tmp_path: Path) -> None:
    """A missing file, a key of another certificate, an encrypted key and a broken authority are named at the start."""
    good = settings(server)
    encrypted = tmp_path / "encrypted.key"
    os.system(f"openssl pkey -aes256 -passout pass:secret -in {server.key} -out {encrypted}")
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for wrong, words in (
        (replace(good, certificate=tmp_path / "none.pem"), "none.pem"),
        (replace(good, key=scanner.key), "scanner.key"),
        (replace(good, key=encrypted), "a key without a password"),
        (replace(good, client_ca=broken), "broken.pem"),
        (replace(good, crl=broken), "broken.pem"),
        (replace(good, crl=ours.certificate), "nothing besides"),
    ):
        with pytest.raises(SettingsError, match=words):
            ServerTls(wrong, 5)


def test_the_client_checks_the_server(ours: Authority, server: Issued, stranger: Issued) -> None:
    """A peer whose certificate another authority signed, or that names another host, is not talked to."""
    elsewhere = ours.issue("elsewhere", host="pacs.example")
    for issued, name, works in (
        (server, HOST, True),
        (stranger, HOST, False),
        (elsewhere, HOST, False),
        (elsewhere, "pacs.example", True),
    ):
        outcome: list[str] = []

        def talk(connection: socket.socket, name: str = name, outcome: list[str] = outcome) -> None:
            try:
                with trusting(ours).wrap_socket(connection, server_hostname=name):
                    outcome.append("secured")
            except ssl.SSLError as error:
                outcome.append(error.reason or "")

        found = meet(ServerTls(settings(issued), 5).secure, talk)
        if isinstance(found, ssl.SSLSocket):
            found.close()
        assert outcome == (["secured"] if works else ["CERTIFICATE_VERIFY_FAILED"])
