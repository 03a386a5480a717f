"""DICOM messages made by hand, byte by byte: PDUs (PS3.8 section 9.3) and command sets (PS3.7 annex E).

By hand, so that they can be made wrong, and so that no mistake of the product's own encoder is repeated.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT, EXPLICIT, BIG, DEFLATED = (
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
)  # fmt: skip
# What a presentation context is proposed for, by its id.
CONTEXTS = {1: (VERIFICATION, IMPLICIT), 3: (MR_IMAGE, IMPLICIT), 5: (MR_IMAGE, EXPLICIT), 7: (MR_IMAGE, BIG),
            9: (MR_IMAGE, DEFLATED)}  # fmt: skip
C_STORE_RQ, C_ECHO_RQ, C_FIND_RQ, N_EVENT_REPORT_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0020, 0x0100, 0x0FFF


def item(kind: int, content: bytes) -> bytes:
    """An item of an A-ASSOCIATE PDU."""
    return struct.pack(">BxH", kind, len(content)) + content


def pdu(kind: int, content: bytes) -> bytes:
    """A PDU."""
    return struct.pack(">BxL", kind, len(content)) + content


def associate_rq(
    calling: str = "FUZZ",
    called: str = "WETREAD",
    contexts: Iterable[tuple[int, tuple[str, str]]] = tuple(CONTEXTS.items()),
    user_items: bytes = b"",
    max_pdu: int = 16384,
) -> bytes:
    """A-ASSOCIATE-RQ (PS3.8 section 9.3.2)."""
    proposed = b"".join(
        item(0x20, struct.pack(">Bxxx", number) + item(0x30, abstract.encode()) + item(0x40, transfer.encode()))
        for number, (abstract, transfer) in contexts
    )
    user = item(0x51, struct.pack(">L", max_pdu)) + item(0x52, b"1.2.3.4") + user_items + item(0x55, b"FUZZ")
    head = struct.pack(">Hxx", 1) + called.encode().ljust(16) + calling.encode().ljust(16) + bytes(32)
    return pdu(0x01, head + item(0x10, APPLICATION_CONTEXT.encode()) + proposed + item(0x50, user))


def rich_user_items() -> bytes:
    """Asynchronous operations, roles, extended negotiation and user identity (PS3.7 annex D.3.3)."""
    uid = MR_IMAGE.encode()
    return b"".join(
        (
            item(0x53, struct.pack(">HH", 5, 5)),
            item(0x54, struct.pack(">H", len(uid)) + uid + b"\x01\x01"),
            item(0x56, struct.pack(">H", len(uid)) + uid + b"\x02\x00\x03\x00\x01\x00"),
            item(0x57, struct.pack(">H", len(uid)) + uid + struct.pack(">H", 17) + b"1.2.840.10008.4.2"),
            item(0x58, b"\x02\x01" + struct.pack(">H", 4) + b"user" + struct.pack(">H", 6) + b"secret"),
        )
    )


def pdv(context: int, control: int, content: bytes) -> bytes:
    """A presentation data value; ``control``: 1 command, 2 last (PS3.8 annex E)."""
    return struct.pack(">LBB", len(content) + 2, context, control) + content


def data_tf(*values: bytes) -> bytes:
    """P-DATA-TF."""
    return pdu(0x04, b"".join(values))


def release_rq() -> bytes:
    """A-RELEASE-RQ."""
    return pdu(0x05, bytes(4))


def release_rp() -> bytes:
    """A-RELEASE-RP."""
    return pdu(0x06, bytes(4))


def abort() -> bytes:
    """A-ABORT of the service user."""
    return pdu(0x07, bytes(4))


def element(tag: int, value: bytes) -> bytes:
    """An element of a command set: Implicit VR Little Endian (PS3.7 section 6.3.1)."""
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def command(
    kind: int, *, message_id: int = 1, sop_class: str = MR_IMAGE, instance: str = "", data: bool = False
) -> bytes:
    """A command set."""
    elements = [
        element(0x00000002, sop_class.encode()),
        element(0x00000100, struct.pack("<H", kind)),
        element(0x00000110, struct.pack("<H", message_id)),
        element(0x00000700, struct.pack("<H", 0)),
        element(0x00000800, struct.pack("<H", 0x0001 if data else 0x0101)),
    ]
    if instance:
        elements.append(element(0x00001000, instance.encode()))
    content = b"".join(elements)
    return element(0x00000000, struct.pack("<L", len(content))) + content


def echo(context: int = 1, message_id: int = 1) -> bytes:
    """A C-ECHO request as one PDU."""
    return data_tf(pdv(context, 3, command(C_ECHO_RQ, message_id=message_id, sop_class=VERIFICATION)))


def store(data_set: bytes, instance: str, *, context: int = 5, message_id: int = 1, piece: int = 4000) -> list[bytes]:
    """A C-STORE request as PDUs, its data set in pieces."""
    head = command(C_STORE_RQ, message_id=message_id, instance=instance, data=True)
    pieces = [data_set[start : start + piece] for start in range(0, len(data_set), piece)] or [b""]
    values = [pdv(context, 2 if number == len(pieces) else 0, part) for number, part in enumerate(pieces, 1)]
    return [data_tf(pdv(context, 3, head)), *(data_tf(value) for value in values)]
