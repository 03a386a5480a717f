"""Associations as the wire sees them, byte by byte."""

from __future__ import annotations

import datetime as dt
import errno
import os
import socket
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import build_context

from dicom_listener import dimse
from dicom_listener.acceptor import utc_now
from dicom_listener.conversation import House, converse
from dicom_listener.gate import Admitted, Rejection
from dicom_listener.handover import Ended, Ending, Note, Opened, Quarantined, Rejected, Stored
from dicom_listener.pdu_stream import Limits
from dicom_listener.received import read_received
from dicom_listener.spool import Spool
from dicom_listener.storing import Store
from tests.chaos.verdict import half_written
from tests.peers import wait_until
from tests.unit.dicom_listener.objects import MR_IMAGE, encoded, image

VERIFICATION = "1.2.840.10008.1.1"
MAX_PDU = 4096
RELEASE_RQ = struct.pack(">BxL4x", 5, 4)
RELEASE_RP = struct.pack(">BxL4x", 6, 4)


class Doorkeeper:
    """A gate that lets everybody in, or nobody, and counts."""

    def __init__(self) -> None:
        self.rejection: Rejection | None = None
        self.inside = 0

    def connected(self, address: str) -> str:
        """Let on."""
        return ""

    def secured(self, connection: socket.socket, *, tls: bool) -> socket.socket:
        """As it is."""
        return connection

    def requested(
        self, calling: str, called: str, address: str, connection: socket.socket | None = None
    ) -> Admitted | Rejection:
        """Let in, or not."""
        if self.rejection is not None:
            return self.rejection
        self.inside += 1
        return Admitted(address, 0)

    def left(self, admitted: Admitted) -> None:
        """Count."""
        self.inside -= 1

    def disconnected(self, address: str) -> None:
        """Not counted here."""


class Peer:
    """The other end of a connection that is being held, and what is told of it."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.notes: list[Note] = []
        self.gate = Doorkeeper()
        self.spool = Spool(folder)
        self.stopping, self.aborting = threading.Event(), threading.Event()
        max_object_bytes = limits.pop("max_object_bytes", 1 << 30)
        told = {"max_pdu": MAX_PDU, "artim_s": 5.0, "message_s": 5.0, "min_bytes_per_second": 1024, "idle_s": 5.0}
        house = House(
            gate=self.gate,
            handover=self,
            store=Store(self.spool, max_object_bytes, utc_now),
            limits=Limits(**{**told, **limits}),
            clock=lambda: dt.datetime.now(dt.UTC),
            stopping=self.stopping.is_set,
            aborting=self.aborting.is_set,
        )
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(10)
        self._thread = threading.Thread(target=converse, args=(theirs, "10.0.0.5", house), kwargs={"tls": False})
        self._thread.start()

    def tell(self, note: Note) -> None:
        """A handover."""
        self.notes.append(note)

    def noted(self) -> Note:
        """What was told of the last object: behind its answer."""
        wait_until(lambda: isinstance(self.notes[-1], Stored | Quarantined), what="a note")
        return self.notes[-1]

    def close(self) -> None:
        """End the connection, and wait until the other end has."""
        self.socket.close()
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert self.gate.inside == 0
        assert not half_written(self.spool.root)

    def send(self, *parts: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(b"".join(parts))

    def receive(self) -> tuple[int, bytes]:
        """The type and the body of the next PDU; (0, b"") at the end of the connection."""
        head = self._exactly(6)
        return (head[0], self._exactly(int.from_bytes(head[2:], "big"))) if head else (0, b"")

    def associate(self, *contexts: tuple[str, str], **changed: Any) -> A_ASSOCIATE_AC:
        """Be let in."""
        self.send(
            proposal(
                *(contexts or ((MR_IMAGE, ExplicitVRLittleEndian), (VERIFICATION, "1.2.840.10008.1.2"))), **changed
            )
        )
        kind, body = self.receive()
        assert kind == 2
        pdu = A_ASSOCIATE_AC()
        pdu.decode(b"\x02\0" + len(body).to_bytes(4, "big") + body)
        return pdu

    def status(self) -> int:
        """Of the next response."""
        kind, body = self.receive()
        assert kind == 4, (kind, body)
        values = dict(dimse._elements(body[6:]))
        return int.from_bytes(values[0x0900], "little")

    def aborted(self) -> tuple[int, int]:
        """Source and reason of the A-ABORT that comes now, after which the connection ends."""
        kind, body = self.receive()
        assert kind == 7, (kind, body)
        self.socket.shutdown(socket.SHUT_WR)
        assert self.receive() == (0, b"")
        return body[2], body[3]

    def release(self) -> None:
        """End the association in good order."""
        self.send(RELEASE_RQ)
        assert self.receive() == (6, bytes(4))

    @property
    def ended(self) -> Ended:
        """The last note, which is the association's end."""
        note = self.notes[-1]
        assert isinstance(note, Ended)
        return note

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            part = self.socket.recv(size - len(found))
            if not part:
                return b""
            found += part
        return found


@pytest.fixture
def meet(tmp_path: Path) -> Iterator[Callable[..., Peer]]:
    """Makes peers, and sees that nothing is left of them."""
    peers: list[Peer] = []

    def make(**limits: Any) -> Peer:
        peers.append(Peer(tmp_path / "spool", **limits))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


def proposal(
    *contexts: tuple[str, str],
    application_context: str = "1.2.840.10008.3.1.1.1",
    roles: tuple[str, ...] = (),
    syntaxes: int = 1,
) -> bytes:
    """An A-ASSOCIATE-RQ with contexts 1, 3, …; as their SCP where a class is among ``roles``.

    Each names its transfer syntax and so many others in all.
    """
    primitive = A_ASSOCIATE()
    primitive.application_context_name = application_context
    primitive.calling_ae_title, primitive.called_ae_title = "CT1", "WETREAD"
    proposed = []
    for number, (abstract, transfer) in enumerate(contexts):
        proposed.append(build_context(abstract, [transfer, *(f"1.2.840.10008.9.{one}" for one in range(1, syntaxes))]))
        proposed[-1].context_id = 2 * number + 1
    primitive.presentation_context_definition_list = proposed
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16384
    implementation.implementation_class_uid = "1.2.3"
    items: list[Any] = [length, implementation]
    for uid in roles:
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = uid, False, True
        items.append(role)
    primitive.user_information = items
    encoded_pdu: bytes = A_ASSOCIATE_RQ(primitive).encode()
    return encoded_pdu


def pdv(fragment: bytes, *, command: bool = False, last: bool = False, context: int = 1) -> bytes:
    """A presentation data value item."""
    return struct.pack(">LBB", len(fragment) + 2, context, command | last << 1) + fragment


def p_data(*pdvs: bytes) -> bytes:
    """A P-DATA-TF PDU."""
    body = b"".join(pdvs)
    return struct.pack(">BxL", 4, len(body)) + body


def pieces(content: bytes, size: int, *, command: bool = False, context: int = 1) -> list[bytes]:
    """``content`` as PDVs of so many bytes."""
    starts = range(0, max(1, len(content)), size)
    return [
        pdv(content[at : at + size], command=command, last=at + size >= len(content), context=context) for at in starts
    ]


def request(command: int, *, has_data_set: bool, uid: str = "1.2.3.4", sop_class: str = MR_IMAGE) -> bytes:
    """A command set."""

    def element(number: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHL", 0, number, len(value)) + value

    elements = b"".join(
        (
            element(0x0002, sop_class.encode()),
            element(0x0100, command.to_bytes(2, "little")),
            element(0x0110, b"\x05\x00"),
            element(0x0800, b"\x01\x00" if has_data_set else b"\x01\x01"),
            element(0x1000, uid.encode()),
        )
    )
    return struct.pack("<HHLL", 0, 0, 4, len(elements)) + elements


def store(ds: Any, size: int = 4000) -> tuple[list[bytes], list[bytes]]:
    """The PDVs of a C-STORE of this object: command, data set."""
    command = request(dimse.C_STORE_RQ, has_data_set=True, uid=ds.SOPInstanceUID)
    return pieces(command, size, command=True), pieces(encoded(ds), size)


@pytest.mark.parametrize("way", ["a PDU each", "one-byte values", "all in one PDU", "many values a PDU", "dribbled"])
def test_fragments_of_any_kind_make_the_same_object(meet: Callable[..., Peer], way: str) -> None:
    """However command and data set are cut and packed, the object lies in the spool as it was sent."""
    peer, ds = meet(max_pdu=65536), image()
    peer.associate()
    command, data = store(ds, 1 if way in ("one-byte values", "many values a PDU") else 300)
    if way in ("a PDU each", "one-byte values"):
        peer.send(*(p_data(one) for one in command + data))
    elif way == "dribbled":
        for byte in b"".join(p_data(one) for one in command + data):
            peer.send(bytes([byte]))
    elif way == "all in one PDU":
        peer.send(p_data(*command, *data))
    else:
        values = command + data
        peer.send(*(p_data(*values[at : at + 50]) for at in range(0, len(values), 50)))
    assert peer.status() == 0
    (key,) = peer.spool.object_keys()
    received, stored = read_received(peer.spool.path(key))
    assert bytes(stored) == encoded(ds)
    assert (received.caller, received.called, received.address) == ("CT1", "WETREAD", "10.0.0.5")
    peer.release()
    opened, note, ended = peer.notes
    assert isinstance(opened, Opened)
    assert isinstance(note, Stored)
    assert (note.key, note.association_id) == (key, opened.association.id)
    assert note.seen is not None
    assert (note.seen.size, note.seen.received_at) == (peer.spool.path(key).stat().st_size, received.received_at)
    assert isinstance(ended, Ended)
    assert (ended.association, ended.ending, ended.stored, ended.refused) == (
        opened.association,
        Ending.RELEASED,
        1,
        0,
    )


def test_many_objects_and_echoes_on_one_association(meet: Callable[..., Peer]) -> None:
    """C-ECHO between C-STOREs, two contexts, and requests that come before the last answer was read."""
    peer = meet()
    peer.associate()
    echo = p_data(
        pdv(request(dimse.C_ECHO_RQ, has_data_set=False, sop_class=VERIFICATION), command=True, last=True, context=3)
    )
    for _ in range(3):
        command, data = store(image())
        peer.send(p_data(*command, *data), echo)
    assert [peer.status() for _ in range(6)] == [0] * 6
    assert len(list(peer.spool.object_keys())) == 3
    peer.release()
    assert (peer.ended.stored, peer.ended.refused) == (3, 0)


def test_pdus_that_come_faster_than_they_are_taken(meet: Callable[..., Peer]) -> None:
    """The beginning of a long PDU that came with the one before is kept, wherever in the buffer it lies."""
    peer = meet()
    peer.associate()
    sent = b""
    for number in range(40):
        ds = image(Rows=100, Columns=100 + number, PixelData=bytes(2 * 100 * (100 + number)))
        command, data = store(ds, MAX_PDU - 6)
        sent += b"".join(p_data(one) for one in command + data)
    thread = threading.Thread(target=peer.send, args=(sent,))
    thread.start()
    assert [peer.status() for _ in range(40)] == [0] * 40
    thread.join()


def test_long_proposal_is_read_whole(meet: Callable[..., Peer]) -> None:
    """128 presentation contexts with 40 transfer syntaxes each need more than the buffer of a P-DATA-TF."""
    peer = meet()
    sent = proposal(
        *((f"1.2.840.10008.5.1.4.1.1.{number}", ExplicitVRLittleEndian) for number in range(1, 129)), syntaxes=40
    )
    assert len(sent) > 65536
    peer.send(sent)
    kind, body = peer.receive()
    assert kind == 2
    pdu = A_ASSOCIATE_AC()
    pdu.decode(b"\x02\0" + len(body).to_bytes(4, "big") + body)
    assert [item.result_reason for item in pdu.presentation_context] == [0] * 128


@pytest.mark.parametrize("command", [dimse.N_EVENT_REPORT_RQ, 0x0020, 0x0021, 0x0010, 0x0140, 0x7FFF])
@pytest.mark.parametrize("has_data_set", [True, False])
def test_what_is_not_offered_is_answered_so(meet: Callable[..., Peer], command: int, has_data_set: bool) -> None:
    """Any other service is an unrecognized operation, its data set is read, and the association goes on."""
    peer = meet()
    peer.associate()
    peer.send(p_data(pdv(request(command, has_data_set=has_data_set), command=True, last=True)))
    if has_data_set:
        peer.send(p_data(pdv(bytes(1000))), p_data(pdv(bytes(10), last=True)))
    assert peer.status() == dimse.UNRECOGNIZED_OPERATION
    store_command, data = store(image())
    peer.send(p_data(*store_command, *data))
    assert peer.status() == 0


def test_cancel_has_no_answer(meet: Callable[..., Peer]) -> None:
    """C-CANCEL of nothing is passed over (PS3.7 section 9.3.2.3)."""
    peer = meet()
    peer.associate()
    peer.send(p_data(pdv(request(dimse.C_CANCEL_RQ, has_data_set=False), command=True, last=True)))
    peer.send(p_data(pdv(request(dimse.C_ECHO_RQ, has_data_set=False), command=True, last=True)))
    assert peer.status() == 0
    peer.release()


def test_storage_needs_a_context_for_it(meet: Callable[..., Peer]) -> None:
    """C-STORE on the Verification context, or where the peer is the storing one, is not supported there."""
    peer = meet()
    peer.associate((VERIFICATION, "1.2.840.10008.1.2"), (MR_IMAGE, ExplicitVRLittleEndian), roles=(MR_IMAGE,))
    for context in (1, 3):
        command = request(dimse.C_STORE_RQ, has_data_set=True)
        peer.send(p_data(pdv(command, command=True, last=True, context=context)))
        peer.send(p_data(pdv(encoded(image()), last=True, context=context)))
        assert peer.status() == dimse.SOP_CLASS_NOT_SUPPORTED
    assert list(peer.spool.object_keys()) == []


@pytest.mark.parametrize("announced", [True, False])
def test_empty_data_set_is_not_understood(meet: Callable[..., Peer], announced: bool) -> None:
    """A C-STORE without a data set, or with one of no bytes, is refused and kept."""
    peer = meet()
    peer.associate()
    peer.send(p_data(pdv(request(dimse.C_STORE_RQ, has_data_set=announced), command=True, last=True)))
    if announced:
        peer.send(p_data(pdv(b"", last=True)))
    assert peer.status() == dimse.CANNOT_UNDERSTAND
    note = peer.noted()
    assert isinstance(note, Quarantined)
    assert "SOPClassUID is missing" in note.reason
    assert list(peer.spool.quarantined_keys()) == [note.key]
    peer.release()
    assert (peer.ended.stored, peer.ended.refused) == (0, 1)


BREACHES = {
    "a PDU longer than agreed": (struct.pack(">BxL", 4, MAX_PDU + 1), (2, 6)),
    "a PDU of gigabytes": (struct.pack(">BxL", 4, 2**32 - 1), (2, 6)),
    "an unknown PDU": (struct.pack(">BxL", 9, 0), (2, 1)),
    "a second A-ASSOCIATE-RQ": (proposal((MR_IMAGE, ExplicitVRLittleEndian)), (2, 2)),
    "an A-ASSOCIATE-RJ": (struct.pack(">BxL4x", 3, 4), (2, 2)),
    "an A-RELEASE-RP": (RELEASE_RP, (2, 2)),
    "an A-RELEASE-RQ that is too long": (struct.pack(">BxL", 5, 400), (2, 6)),
    "P-DATA without a value": (struct.pack(">BxL", 4, 0), (2, 6)),
    "a value longer than its PDU": (struct.pack(">BxLLBB", 4, 6, 100, 1, 3), (2, 6)),
    "a value without its header": (struct.pack(">BxLLBB", 4, 6, 0, 1, 3), (2, 6)),
    "a context that was not accepted": (p_data(pdv(b"", command=True, context=77)), (2, 6)),
    "a data set without a command": (p_data(pdv(b"x", last=True)), (2, 6)),
    "a command of noise": (p_data(pdv(b"\x93noise" * 9, command=True, last=True)), (2, 6)),
    "a response": (p_data(pdv(request(0x8001, has_data_set=False), command=True, last=True)), (2, 6)),
    "an endless command": (p_data(pdv(bytes(4000), command=True)) * 20, (2, 6)),
    "a message in two contexts": (
        p_data(pdv(b"\0", command=True), pdv(b"\0", command=True, context=3)),
        (2, 6),
    ),
    "a release within a message": (p_data(pdv(b"\0", command=True)) + RELEASE_RQ, (2, 2)),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_breach_of_the_protocol_ends_the_association_alone(meet: Callable[..., Peer], breach: str) -> None:
    """A-ABORT as service provider with the reason (PS3.8 table 9-26), and a note that says which breach it was."""
    peer = meet()
    peer.associate()
    sent, expected = BREACHES[breach]
    peer.send(sent)
    assert peer.aborted() == expected
    assert peer.ended.ending is Ending.ABORTED
    assert peer.ended.reason


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        RELEASE_RQ,
        p_data(pdv(b"x")),
        struct.pack(">BxL", 1, 2**31),
        struct.pack(">BxL", 1, 4) + b"\0\1\0\0",
        proposal((MR_IMAGE, ExplicitVRLittleEndian))[:-3] + b"\xff\xff\xff",
    ],
)
def test_what_is_no_request_comes_to_no_association(meet: Callable[..., Peer], sent: bytes) -> None:
    """Before an association everything but a sound A-ASSOCIATE-RQ is aborted as service user (PS3.8 action AA-1)."""
    peer = meet()
    peer.send(sent)
    assert peer.aborted() == (0, 0)
    (note,) = peer.notes
    assert isinstance(note, Rejected)
    assert note.reason


def test_rejections_say_why(meet: Callable[..., Peer]) -> None:
    """The gate's verdict goes out as it is; another application context than DICOM's is not supported."""
    peer = meet()
    peer.gate.rejection = Rejection(2, 3, 2, "too many")
    peer.send(proposal((MR_IMAGE, ExplicitVRLittleEndian)))
    assert peer.receive() == (3, b"\0\2\3\2")
    (note,) = peer.notes
    assert isinstance(note, Rejected)
    assert (note.caller, note.called, note.address, note.reason) == ("CT1", "WETREAD", "10.0.0.5", "too many")
    other = meet()
    other.send(proposal((MR_IMAGE, ExplicitVRLittleEndian), application_context="1.2.3"))
    assert other.receive() == (3, b"\0\1\1\2")


def test_who_only_looks_whether_the_port_is_open_leaves_no_note(meet: Callable[..., Peer]) -> None:
    """A connection that is closed without a word asked for nothing."""
    peer = meet()
    peer.close()
    assert peer.notes == []


@pytest.mark.parametrize("sent", [b"", b"\x01", proposal((MR_IMAGE, ExplicitVRLittleEndian))[:50]])
def test_artim_ends_a_connection_that_does_not_ask(meet: Callable[..., Peer], sent: bytes) -> None:
    """The whole A-ASSOCIATE-RQ has so much time, also where it begins (PS3.8 section 9.1.5)."""
    peer = meet(artim_s=0.3)
    began = time.monotonic()
    peer.send(sent)
    assert peer.receive() == (0, b"")
    assert 0.2 < time.monotonic() - began < 5
    (note,) = peer.notes
    assert isinstance(note, Rejected)
    assert "within 0.3 seconds" in note.reason


def test_silence_has_an_end(meet: Callable[..., Peer]) -> None:
    """An association over which nothing comes is aborted, as service user."""
    peer = meet(idle_s=0.3)
    peer.associate()
    assert peer.aborted() == (0, 0)
    assert "silent" in peer.ended.reason


@pytest.mark.parametrize("byte_by_byte", [True, False])
def test_slow_sender_is_aborted(meet: Callable[..., Peer], byte_by_byte: bool) -> None:
    """A message that stops moving, or trickles slower than allowed, holds its place for a while only."""
    peer = meet(message_s=0.4)
    peer.associate()
    command, data = store(image())
    peer.send(p_data(*command), p_data(*data)[:100])
    stop = threading.Event()

    def trickle() -> None:
        while byte_by_byte and not stop.wait(0.05):
            try:
                peer.send(b"\0")
            except OSError:
                return

    thread = threading.Thread(target=trickle)
    thread.start()
    try:
        assert peer.receive() == (7, b"\0\0\2\0")
    finally:
        stop.set()
        thread.join()
    assert "too slowly" in peer.ended.reason


def test_connection_cut_in_a_data_set_leaves_nothing(meet: Callable[..., Peer]) -> None:
    """What is not whole when the peer is gone is no object, and its half-written file is removed."""
    peer = meet()
    peer.associate()
    command, data = store(image())
    peer.send(p_data(*command), p_data(*data)[:-20])
    peer.close()
    assert peer.ended.ending is Ending.LOST
    assert list(peer.spool.object_keys()) == []
    assert list(peer.spool.quarantined_keys()) == []


def test_abort_of_the_peer_is_told_from_a_loss(meet: Callable[..., Peer]) -> None:
    """A-ABORT ends the association, and the note says whose it was."""
    peer = meet()
    peer.associate()
    peer.send(struct.pack(">BxL2xBB", 7, 4, 2, 1))
    assert peer.receive() == (0, b"")
    assert (peer.ended.ending, peer.ended.reason) == (Ending.ABORTED_BY_PEER, "service provider, reason 1")


def test_object_larger_than_any_may_be_aborts(meet: Callable[..., Peer]) -> None:
    """The limit on a data set's size is kept while it comes."""
    peer = meet(max_object_bytes=500)
    peer.associate()
    command, data = store(image(PixelData=bytes(4000), Rows=50, Columns=40), 300)
    peer.send(*(p_data(one) for one in command + data))
    assert peer.aborted() == (0, 0)
    assert "more than 500 bytes" in peer.ended.reason
    assert list(peer.spool.object_keys()) == []


def test_disk_that_fills_while_an_object_comes_is_out_of_resources(
    meet: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the object is read, A700 answered, nothing left; when there is room again, objects go in."""
    peer = meet()
    peer.associate()
    write, writes = os.writev, []

    def full(descriptor: int, parts: Any) -> int:
        writes.append(descriptor)
        if len(writes) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, parts)

    monkeypatch.setattr(os, "writev", full)
    command, data = store(image(), 200)
    peer.send(*(p_data(one) for one in command + data))
    assert peer.status() == dimse.OUT_OF_RESOURCES
    assert not half_written(peer.spool.root)
    monkeypatch.setattr(os, "writev", write)
    command, data = store(image())
    peer.send(p_data(*command, *data))
    assert peer.status() == 0


def test_success_is_not_answered_before_everything_is_synchronised(
    meet: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file or its folder cannot be synchronised, the object is not stored."""
    peer = meet()
    peer.associate()
    for name in ("fdatasync", "fsync"):
        with monkeypatch.context() as patch:

            def fail(descriptor: int) -> None:
                raise OSError(errno.EIO, "Input/output error")

            patch.setattr(os, name, fail)
            command, data = store(image())
            peer.send(p_data(*command, *data))
            assert peer.status() == dimse.PROCESSING_FAILURE
        assert list(peer.spool.object_keys()) == []
    assert not [note for note in peer.notes if isinstance(note, Stored)]


def test_stop_aborts_what_is_still_open(meet: Callable[..., Peer]) -> None:
    """When the grace is over, an association is aborted although its peer is silent."""
    peer = meet(idle_s=60.0, message_s=60.0, artim_s=60.0)
    peer.associate()
    peer.aborting.set()
    assert peer.aborted() == (0, 0)
    assert peer.ended.reason == "the listener stops"


def test_stop_does_not_wait_for_who_has_not_asked(meet: Callable[..., Peer]) -> None:
    """A connection without an association is closed as soon as the listener is to stop, one with it goes on."""
    silent, open_ = meet(), meet()
    open_.associate()
    for peer in (silent, open_):
        peer.stopping.set()
    assert silent.aborted() == (0, 0)
    command, data = store(image())
    open_.send(p_data(*command, *data))
    assert open_.status() == 0
    open_.release()


def test_large_object_is_not_held_in_memory(meet: Callable[..., Peer]) -> None:
    """While 64 MB of one object come in, hardly more than the buffer of one PDU is in use."""
    peer = meet(max_pdu=65536)
    peer.associate()
    pixels = 64 * 2**20
    ds = image(Rows=8192, Columns=4096, PixelData=b"")
    head = encoded(ds)[:-12] + struct.pack("<HH2sxxL", 0x7FE0, 0x0010, b"OW", pixels)
    command = pdv(request(dimse.C_STORE_RQ, has_data_set=True, uid=ds.SOPInstanceUID), command=True, last=True)
    part = p_data(pdv(bytes(65530)))
    peer.send(p_data(command), p_data(pdv(head)))
    tracemalloc.start()
    try:
        left = pixels
        while left > 65530:
            peer.send(part)
            left -= 65530
        peer.send(p_data(pdv(bytes(left), last=True)))
        assert peer.status() == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20
    (key,) = peer.spool.object_keys()
    assert peer.spool.path(key).stat().st_size > pixels


def test_what_is_accepted_is_what_is_offered(meet: Callable[..., Peer]) -> None:
    """Our limit on PDUs, who we are, and no window for asynchronous operations."""
    answer = meet().associate()
    told = {type(item).__name__: item for item in answer.user_information.user_data}
    assert told["MaximumLengthSubItem"].maximum_length_received == MAX_PDU
    assert told["ImplementationVersionNameSubItem"].implementation_version_name == "WETREAD"
    assert "AsynchronousOperationsWindowSubItem" not in told
    assert [item.result_reason for item in answer.presentation_context] == [0, 0]
