"""The door of the acceptor, tried from outside: who comes in, over what, how many, and what is said of the others."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dicom_listener.acceptor import Acceptor
from dicom_listener.admission import Admission
from dicom_listener.handover import Ended, Ending, Note, Opened, Rejected, Stored
from dicom_listener.settings import Caller, ClientTls, ListenerSettings, TlsSettings
from dicom_listener.spool import Spool
from dicom_listener.tls import client_context
from tests.certificates import Authority, Issued, authority
from tests.fuzz import messages
from tests.fuzz.tls_wire import openings
from tests.peers import HOST, ProgramRun, run_program, storescu, wait_until
from tests.unit.dicom_listener.objects import as_file, encoded, image

ACCEPTED, REJECTED, DATA, RELEASED, ABORTED = 0x02, 0x03, 0x04, 0x06, 0x07


@dataclass
class Door:
    """An acceptor with its notes."""

    port: int
    tls_port: int
    spool: Spool
    notes: list[Note] = field(default_factory=list)

    def tell(self, note: Note) -> None:
        """Keep a note."""
        self.notes.append(note)

    def of(self, kind: type[Note]) -> list[Any]:
        """The notes of a kind."""
        return [note for note in self.notes if isinstance(note, kind)]

    def reasons(self) -> list[str]:
        """Why somebody was turned away, each time."""
        return [note.reason for note in self.of(Rejected)]


Open = Callable[..., Door]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens doors, and closes them after the test."""
    acceptors: list[Acceptor] = []

    def open_one(**changed: Any) -> Door:
        settings = ListenerSettings(**{"min_free_bytes": 0, "acse_timeout": 3.0, "dimse_timeout": 3.0, **changed})
        spool = Spool(tmp_path / "spool")
        spool.prepare()
        plain, tls = socket.create_server((HOST, 0)), socket.create_server((HOST, 0))
        door = Door(plain.getsockname()[1], tls.getsockname()[1], spool)
        acceptor = Acceptor(settings, spool, door, Admission(settings))
        acceptor.serve(plain, tls if settings.tls is not None else None)
        if settings.tls is None:
            tls.close()
        acceptors.append(acceptor)
        return door

    yield open_one
    for acceptor in acceptors:
        acceptor.stop(0.2)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def server(ours: Authority) -> Issued:
    return ours.issue("server")


@pytest.fixture(scope="module")
def scanner(ours: Authority) -> Issued:
    return ours.issue("scanner")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """An object of several PDUs."""
    path = tmp_path / "scan.dcm"
    path.write_bytes(as_file(image(Rows=512, Columns=512, PixelData=bytes(range(256)) * 2048)))
    return path


def secured_by(own: Issued, ours: Authority, *more: str) -> list[str]:
    """Options of DCMTK's programs."""
    return ["+tls", str(own.key), str(own.certificate), "+cf", str(ours.certificate), *more]


def tls(server: Issued, client_ca: Path | None = None) -> TlsSettings:
    return TlsSettings(certificate=server.certificate, key=server.key, client_ca=client_ca)


def connect(door: Door) -> socket.socket:
    return socket.create_connection((HOST, door.port), timeout=15)


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """The next PDU: its type and content; (0, b"") where the connection is closed instead."""
    head = b""
    try:
        while len(head) < 6 and (more := connection.recv(6 - len(head))):
            head += more
        if len(head) < 6:
            return 0, b""
        body, length = b"", int.from_bytes(head[2:], "big")
        while len(body) < length and (more := connection.recv(length - len(body))):
            body += more
    except ConnectionResetError:
        return 0, b""
    return head[0], body


def ask(door: Door, **request: Any) -> tuple[socket.socket, int, bytes]:
    """A connection over which an association was asked for, and the answer."""
    connection = connect(door)
    connection.sendall(messages.associate_rq(**request))
    return connection, *answer(connection)


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["--profile-bcp195-nd", "--profile-bcp195", "--profile-bcp195-ex"])
def test_dcmtk_stores_over_tls(
    opened: Open, server: Issued, scanner: Issued, ours: Authority, scan: Path, profile: str
) -> None:
    """DCMTK's storescu stores in each of its profiles of BCP 195, and the object lies there whole."""
    door = opened(tls=tls(server, ours.certificate))
    done = storescu([scan], HOST, door.tls_port, options=secured_by(scanner, ours, profile))
    assert done.status == 0, done.output
    (stored,) = door.of(Stored)
    whole = door.spool.path(stored.key).read_bytes()
    assert whole.endswith(bytes(range(256)) * 2048)


def test_tls_without_certificates_of_callers(opened: Open, server: Issued, ours: Authority, scan: Path) -> None:
    """Without a client_ca a caller need not show one."""
    door = opened(tls=tls(server))
    done = storescu([scan], HOST, door.tls_port, options=["+tla", "+cf", str(ours.certificate)])
    assert done.status == 0, done.output


def test_who_is_not_known_by_certificate_does_not_come_in(
    opened: Open, server: Issued, scanner: Issued, ours: Authority, scan: Path, tmp_path: Path
) -> None:
    """No certificate, a stranger's, encryption that is none, and no TLS at all are refused, with the reason told."""
    door = opened(tls=tls(server, ours.certificate))
    stranger = authority(tmp_path / "others", "others").issue("stranger")
    refused: list[ProgramRun] = [
        storescu([scan], HOST, door.tls_port, options=["+tla", "+cf", str(ours.certificate)]),
        storescu([scan], HOST, door.tls_port, options=secured_by(stranger, ours)),
        storescu([scan], HOST, door.tls_port, options=secured_by(scanner, ours, "--profile-null")),
        storescu([scan], HOST, door.tls_port),
        storescu([scan], HOST, door.port, options=secured_by(scanner, ours)),
    ]
    assert all(run.status != 0 for run in refused)
    wait_until(lambda: len(door.reasons()) == 5, what="five reasons")
    assert "did not return a certificate" in door.reasons()[0]
    assert "not trusted" in door.reasons()[1]
    assert all(reason.startswith("no TLS: ") for reason in door.reasons()[:4])
    assert door.of(Opened) == []
    assert storescu([scan], HOST, door.tls_port, options=secured_by(scanner, ours)).status == 0


def test_who_only_looks_whether_a_port_is_open_is_not_told(
    opened: Open, server: Issued, scanner: Issued, ours: Authority, scan: Path
) -> None:
    """A balancer that connects and goes without a word, at either port, was not turned away: it asked for nothing."""
    door = opened(tls=tls(server, ours.certificate))
    for port in (door.port, door.tls_port):
        socket.create_connection((HOST, port), timeout=10).close()
    assert storescu([scan], HOST, door.tls_port, options=secured_by(scanner, ours)).status == 0
    assert storescu([scan], HOST, door.tls_port).status != 0
    wait_until(door.reasons, what="the reason")
    (reason,) = door.reasons()
    assert reason.startswith("no TLS: ")


def test_a_revoked_scanner_does_not_come_in(
    opened: Open, server: Issued, scanner: Issued, ours: Authority, scan: Path
) -> None:
    """DCMTK with a certificate on the list is refused, the reason told; with another one it stores."""
    lost = ours.issue("lost")
    settings = replace(tls(server, ours.certificate), crl=ours.revoke(lost))
    door = opened(tls=settings)
    assert storescu([scan], HOST, door.tls_port, options=secured_by(lost, ours)).status != 0
    wait_until(door.reasons, what="the reason")
    assert door.reasons() == ["no TLS: the certificate is not trusted (certificate revoked)"]
    assert storescu([scan], HOST, door.tls_port, options=secured_by(scanner, ours)).status == 0


def test_a_caller_is_who_its_certificate_says(
    opened: Open, server: Issued, scanner: Issued, ours: Authority, scan: Path
) -> None:
    """A title that is bound to a certificate is not to be had with another one, nor without TLS."""
    caller = Caller("CT1", HOST, certificate_sha256=scanner.sha256)
    door = opened(tls=tls(server, ours.certificate), callers=(caller,))
    another = ours.issue("another")
    runs = [
        storescu([scan], HOST, door.tls_port, calling="CT1", options=secured_by(another, ours)),
        storescu([scan], HOST, door.port, calling="CT1"),
        storescu([scan], HOST, door.tls_port, calling="CT1", options=secured_by(scanner, ours)),
    ]
    assert [run.status == 0 for run in runs] == [False, False, True]
    assert all("Calling AE Title Not Recognized" in run.output for run in runs[:2])
    assert all("certificate" in reason for reason in door.reasons())


def test_openssl_finds_no_weak_way_in(opened: Open, server: Issued, ours: Authority) -> None:
    """OpenSSL's own client gets TLS 1.2 and 1.3, nothing older, and no cipher without forward secrecy."""
    door = opened(tls=tls(server))
    target = ["-connect", f"{HOST}:{door.tls_port}", "-CAfile", str(ours.certificate), "-verify_return_error"]
    for options, works in (
        (["-tls1_3"], True),
        (["-tls1_2"], True),
        (["-tls1_2", "-cipher", "AES256-GCM-SHA384"], False),
        (["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-SHA384"], False),
        (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], False),
        (["-tls1", "-cipher", "ALL:@SECLEVEL=0"], False),
    ):
        # Standard input is closed: the handshake is made, and then the client leaves.
        run = run_program("sh", "-c", f"openssl s_client {' '.join([*target, *options])} </dev/null", timeout_s=30)
        assert (run.status == 0) is works, (options, run.output)


def test_renegotiation_is_not_to_be_had(opened: Open, server: Issued, ours: Authority) -> None:
    """OpenSSL's client asks for another handshake within TLS 1.2 and is told no; the listener goes on."""
    door = opened(tls=tls(server))
    target = f"-connect {HOST}:{door.tls_port} -CAfile {ours.certificate} -tls1_2"
    run = run_program("sh", "-c", f"(sleep 1; echo R; sleep 1) | openssl s_client {target}", timeout_s=30)
    assert "RENEGOTIATING" in run.output
    assert "no renegotiation" in run.output
    assert run_program("sh", "-c", f"openssl s_client {target} </dev/null", timeout_s=30).status == 0


def test_every_wrong_handshake_is_told(opened: Open, server: Issued, ours: Authority) -> None:
    """One note for each connection to the TLS port that came to nothing, whatever was said over it."""
    door = opened(tls=tls(server, ours.certificate), acse_timeout=1.0)
    said = openings(client_context(ClientTls(ours.certificate)), random.Random(1))
    held = []
    for words in said:
        held.append(socket.create_connection((HOST, door.tls_port), timeout=15))
        with suppress(OSError):
            held[-1].sendall(words)
    # Those that waited too long are told by then, too; of one reason so many are told singly.
    wait_until(lambda: len(door.reasons()) == len(said), what="a note for each")
    for connection in held:
        connection.close()
    assert all(reason.startswith("no TLS: ") for reason in door.reasons())
    assert len(set(door.reasons())) > 4
    assert door.of(Opened) == []


# --- titles, addresses, places ------------------------------------------------------------------------------------


def test_rejections_say_why(opened: Open) -> None:
    """Wrong called title, unlisted title: A-ASSOCIATE-RJ with PS3.8's numbers, and a note with the words."""
    door = opened(callers=(Caller("CT1", HOST),))
    for request, expected in (
        ({"calling": "CT1", "called": "OTHER"}, (1, 1, 7)),
        ({"calling": "CT2"}, (1, 1, 3)),
        ({"calling": "CT1"}, None),
    ):
        connection, kind, body = ask(door, **request)
        with connection:
            assert (kind, tuple(body[1:])) == (REJECTED, expected) if expected else kind == ACCEPTED
    assert door.reasons() == [
        "the called AE title is not ours",
        "no caller of this AE title is listed for this address",
    ]
    assert [(note.caller, note.called) for note in door.of(Rejected)] == [("CT1", "OTHER"), ("CT2", "WETREAD")]


def test_an_address_that_nobody_has_is_closed_at_once(opened: Open) -> None:
    """A stranger hears no word, not even when it asks for an association."""
    door = opened(callers=(Caller("CT1", "10.0.0.5"),))
    with connect(door) as connection:
        assert answer(connection) == (0, b"")
    wait_until(door.reasons, what="the reason")
    assert door.reasons() == ["the address is not that of a caller"]


@pytest.mark.parametrize("leave", ["release", "abort", "reset", "close"])
def test_places_are_limited_and_come_back(opened: Open, leave: str) -> None:
    """One association more than may be is rejected for now; however one ends, its place is free again."""
    door = opened(max_associations=3)
    held = [ask(door) for _ in range(3)]
    assert [kind for _, kind, _ in held] == [ACCEPTED] * 3
    connection, kind, body = ask(door)
    connection.close()
    assert (kind, tuple(body[1:])) == (REJECTED, (2, 3, 2))
    first = held[0][0]
    if leave == "release":
        first.sendall(messages.release_rq())
        assert answer(first)[0] == RELEASED
    elif leave == "abort":
        first.sendall(messages.abort())
    elif leave == "reset":
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    first.close()
    wait_until(lambda: len(door.of(Ended)) == 1, what="the end")
    connection = _when_there_is_room(door)
    endings = {"release": Ending.RELEASED, "abort": Ending.ABORTED_BY_PEER, "reset": Ending.LOST, "close": Ending.LOST}
    assert door.of(Ended)[0].ending is endings[leave]
    for one in (connection, *(other for other, _, _ in held[1:])):
        one.close()


def _when_there_is_room(door: Door) -> socket.socket:
    """An association, asked for until it is accepted: a place is free a moment after its association's end is told."""
    accepted: list[socket.socket] = []

    def ask_again() -> bool:
        connection, kind, _ = ask(door)
        if kind == ACCEPTED:
            accepted.append(connection)
        else:
            connection.close()
        return bool(accepted)

    wait_until(ask_again, what="a place")
    return accepted[0]


def test_one_address_may_not_take_all(opened: Open) -> None:
    """Places of one address are limited, too."""
    door = opened(max_associations_per_caller=2)
    held = [ask(door) for _ in range(3)]
    assert [kind for _, kind, _ in held] == [ACCEPTED, ACCEPTED, REJECTED]
    for connection, _, _ in held:
        connection.close()


def test_too_many_connections_are_closed_and_told_by_their_number(opened: Open) -> None:
    """Of a thousand connections within a minute two hundred may ask; the rest is closed, in a few notes."""
    door = opened(max_connections_per_minute=200)
    heard = 0
    for _ in range(1000):
        with connect(door) as connection:
            try:
                connection.sendall(messages.associate_rq(called="OTHER"))
                heard += answer(connection)[0] == REJECTED
            except OSError:
                continue
    assert 195 <= heard <= 200 * 1.5
    assert len(door.notes) < 50


# --- time and size ------------------------------------------------------------------------------------------------


def test_silence_before_an_association_ends(opened: Open) -> None:
    """Who connects and says nothing, or one byte after another, is cut off when the ARTIM timer has run out."""
    door = opened(acse_timeout=1.0)
    for trickle in (False, True):
        began = time.monotonic()
        with connect(door) as connection:
            for byte in messages.associate_rq() if trickle else b"":
                try:
                    connection.sendall(bytes([byte]))
                except OSError:
                    break
                time.sleep(0.05)
                if time.monotonic() - began > 8:
                    break
            assert answer(connection)[0] in (0, ABORTED)
        assert time.monotonic() - began < 8
    assert any("within 1 seconds" in reason for reason in door.reasons())


def test_slow_and_endless_data_sets_are_aborted(opened: Open) -> None:
    """A data set that trickles, and one that is larger than any may be, end in an abort, and leave nothing behind."""
    data = encoded(image())
    door = opened(dimse_timeout=1.0, min_bytes_per_second=1000, max_object_bytes=100_000)
    connection, _, _ = ask(door)
    with connection:
        first, second, *_ = messages.store(data, "1.2.3", piece=100)
        connection.sendall(first + second)
        for _ in range(100):
            try:
                connection.sendall(messages.data_tf(messages.pdv(5, 0, b"\0")))
            except OSError:
                break
            time.sleep(0.1)
        assert answer(connection)[0] in (0, ABORTED)
    connection, _, _ = ask(door)
    with connection:
        connection.sendall(first)
        for _ in range(100):
            try:
                connection.sendall(messages.data_tf(messages.pdv(5, 0, bytes(10_000))))
            except OSError:
                break
        assert answer(connection)[0] in (0, ABORTED)
    wait_until(lambda: len(door.of(Ended)) == 2, what="two ends")
    slow, endless = door.of(Ended)
    assert "too slowly" in slow.reason
    assert "100000 bytes" in endless.reason
    assert [path for path in door.spool.root.rglob("*") if path.is_file()] == []


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uid", ["../../../../../../../tmp/escaped", "/tmp/escaped", "..", "1.2.3\0/../x", "1" * 300, ""]
)
def test_no_uid_leads_out_of_the_spool(opened: Open, tmp_path: Path, uid: str) -> None:
    """Whatever stands where UIDs and titles should, files get names of our own, below the spool's folder."""
    door = opened()
    announced = encoded(image())
    told = encoded(image(SOPInstanceUID=uid[:60], StudyInstanceUID=uid[:60], SOPClassUID=uid[:60]))
    connection, kind, _ = ask(door, calling="../../etc/cron"[:16])
    with connection:
        assert kind == ACCEPTED
        for data, instance in ((announced, uid), (told, uid), (told, "1.2.3")):
            for pdu in messages.store(data, instance):
                connection.sendall(pdu)
            assert answer(connection)[0] == DATA
    wait_until(lambda: door.of(Ended), what="the end")
    assert {path.name for path in tmp_path.iterdir()} == {"spool"}
    files = [path for path in door.spool.root.rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        assert set(path.stem) <= set("0123456789abcdef-"), path.name
        assert path.suffix in {".dcm", ".bin", ".json"}
