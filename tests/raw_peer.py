"""A peer that costs its machine nothing: an association over a bare socket, for as many at once as one likes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import generate_uid
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

from tests.unit.dicom_listener.objects import MR_IMAGE

EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_CONTEXT = 1
# PS3.8 section 9.3: PDU types.
_ASSOCIATE_AC, _P_DATA, _RELEASE_RQ = 2, 4, 5
# PS3.8 annex E: message control header.
_COMMAND_LAST, _DATA, _DATA_LAST = 3, 0, 2


class RawPeer:
    """An association that is open, with MR Image Storage in explicit little endian accepted.

    Raises:
        ConnectionError: it was not accepted.
    """

    def __init__(self, host: str, port: int, called: str, calling: str = "RAW") -> None:
        self.socket = socket.create_connection((host, port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(_request(called, calling))
        kind, _ = self._receive()
        if kind != _ASSOCIATE_AC:
            raise ConnectionError(f"the association was answered with PDU type {kind}")

    def begin_store(self, sop_uid: str) -> None:
        """Send the command of a C-STORE; its data set is to follow."""
        self._send(_COMMAND_LAST, _store_command(sop_uid))

    def send_data(self, data: bytes, *, last: bool = False) -> None:
        """Send a fragment of the data set."""
        self._send(_DATA_LAST if last else _DATA, data)

    def status(self) -> int:
        """The status of the C-STORE response that comes next."""
        _, body = self._receive()
        command = body[6:]
        while command:
            group, element, length = struct.unpack("<HHL", command[:8])
            if (group, element) == (0x0000, 0x0900):
                return int(struct.unpack("<H", command[8 : 8 + length])[0])
            command = command[8 + length :]
        raise ConnectionError("no C-STORE response came")

    def release(self) -> None:
        """End it in order."""
        self.socket.sendall(struct.pack(">BBL4x", _RELEASE_RQ, 0, 4))
        self._receive()
        self.socket.close()

    def _send(self, control: int, data: bytes) -> None:
        self.socket.sendall(struct.pack(">BBLLBB", _P_DATA, 0, len(data) + 6, len(data) + 2, _CONTEXT, control) + data)

    def _receive(self) -> tuple[int, bytes]:
        kind, length = struct.unpack(">BxL", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise ConnectionError("the listener hung up")
            data += more
        return data


def big_object(sop_uid: str, size: int, frames: int) -> Iterator[bytes]:
    """The data set of a multi-frame image with ``size`` bytes of pixel data, in fragments of 100 kB."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = MR_IMAGE, sop_uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = generate_uid(), generate_uid()
    ds.PatientID, ds.PatientName, ds.Modality = "BIG", "Big^Object", "MR"
    ds.NumberOfFrames = frames
    ds.Rows, ds.Columns = 1024, size // frames // 2048
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    length = frames * ds.Rows * ds.Columns * 2
    head = DicomBytesIO()
    head.is_little_endian, head.is_implicit_VR = True, False
    write_dataset(head, ds)
    # PS3.5 section 7.1.2: tag, VR OW, two reserved bytes, length.
    yield head.getvalue() + struct.pack("<HH2s2xL", 0x7FE0, 0x0010, b"OW", length)
    chunk = bytes(range(250)) * 400
    for begin in range(0, length, len(chunk)):
        yield chunk[: length - begin]


def _request(called: str, calling: str) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    most, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    most.maximum_length_received = 16382
    implementation.implementation_class_uid = "2.25.1"
    primitive.user_information = [most, implementation]
    context = build_context(MR_IMAGE, EXPLICIT_LITTLE_ENDIAN)
    context.context_id = _CONTEXT
    primitive.presentation_context_definition_list = [context]
    request = A_ASSOCIATE_RQ()
    request.from_primitive(primitive)
    return bytes(request.encode())


def _store_command(sop_uid: str) -> bytes:
    """PS3.7 section 9.3.1.1, C-STORE-RQ; command sets are in implicit little endian."""
    elements = [
        (0x0002, _uid(MR_IMAGE)),
        (0x0100, struct.pack("<H", 0x0001)),
        (0x0110, struct.pack("<H", 1)),
        (0x0700, struct.pack("<H", 0)),
        (0x0800, struct.pack("<H", 0x0001)),
        (0x1000, _uid(sop_uid)),
    ]
    body = b"".join(struct.pack("<HHL", 0, element, len(value)) + value for element, value in elements)
    return struct.pack("<HHLL", 0, 0, 4, len(body)) + body


def _uid(uid: str) -> bytes:
    value = uid.encode()
    return value + b"\0" * (len(value) % 2)
