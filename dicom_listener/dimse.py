"""DIMSE command sets: requests decoded, responses encoded once (PS3.7 sections 6.3 and 9.3).

Command sets are Implicit VR Little Endian whatever was negotiated, and small: decoding them by hand costs
microseconds, and they come once an object.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

# PS3.7 table E.1-1: command fields.
C_STORE_RQ: Final = 0x0001
C_ECHO_RQ: Final = 0x0030
N_EVENT_REPORT_RQ: Final = 0x0100
C_CANCEL_RQ: Final = 0x0FFF
RESPONSE: Final = 0x8000  # set in every response

SUCCESS: Final = 0x0000
# PS3.4 table B.2-1.
OUT_OF_RESOURCES: Final = 0xA700
DOES_NOT_MATCH_SOP_CLASS: Final = 0xA900
CANNOT_UNDERSTAND: Final = 0xC000
# PS3.7 annex C.
PROCESSING_FAILURE: Final = 0x0110
SOP_CLASS_NOT_SUPPORTED: Final = 0x0122
UNRECOGNIZED_OPERATION: Final = 0x0211

# No command set of the standard comes near.
MAX_COMMAND_BYTES: Final = 65536
_NO_DATA_SET: Final = 0x0101
_MAX_COMMENT: Final = 64  # LO

_ELEMENT: Final = struct.Struct("<HHL")
_US: Final = struct.Struct("<HHLH")
_PDV: Final = struct.Struct(">BxLLBB")
# PS3.8 section 9.3.5.1: what a PDV has before its fragment, and the bits of its message control header.
PDV_HEAD: Final = 6
COMMAND_BIT: Final = 1
LAST_BIT: Final = 2


class NotDimse(Exception):
    """These bytes are no DIMSE command set."""


@dataclass(frozen=True, slots=True)
class Request:
    """A DIMSE request."""

    command: int  # Command Field (0000,0100)
    message_id: int
    sop_class_uid: str  # affected, or requested
    sop_instance_uid: str  # likewise
    has_data_set: bool
    event_type_id: int | None = None


def decode(command_set: bytes | bytearray) -> Request:
    """A request from its encoded command set.

    Raises:
        NotDimse: it is none, and says why.
    """
    values = _elements(command_set)
    command = _number(values, 0x0100)
    if command is None:
        raise NotDimse("the command set has no Command Field")
    message_id = _number(values, 0x0110)
    if message_id is None and not command & RESPONSE and command != C_CANCEL_RQ:
        raise NotDimse("the request has no Message ID")
    return Request(
        command=command,
        message_id=message_id or 0,
        sop_class_uid=_uid(values, 0x0002) or _uid(values, 0x0003),
        sop_instance_uid=_uid(values, 0x1000) or _uid(values, 0x1001),
        has_data_set=_number(values, 0x0800) != _NO_DATA_SET,
        event_type_id=_number(values, 0x1002),
    )


def response(request: Request, status: int, comment: str = "") -> bytes:
    """The encoded command set that answers a request, without a data set."""
    told = comment[:_MAX_COMMENT].encode("ascii", "replace")
    elements = b"".join(
        (
            _text(0x0002, request.sop_class_uid, b"\0") if request.sop_class_uid else b"",
            _US.pack(0, 0x0100, 2, request.command | RESPONSE),
            _US.pack(0, 0x0120, 2, request.message_id),
            _US.pack(0, 0x0800, 2, _NO_DATA_SET),
            _US.pack(0, 0x0900, 2, status),
            _text(0x0902, told.decode("ascii"), b" ") if told else b"",
            _text(0x1000, request.sop_instance_uid, b"\0") if request.sop_instance_uid else b"",
            _US.pack(0, 0x1002, 2, request.event_type_id) if request.event_type_id is not None else b"",
        )
    )
    return _ELEMENT.pack(0, 0, 4) + len(elements).to_bytes(4, "little") + elements


def command_pdus(context_id: int, command_set: bytes, max_pdu: int) -> bytes:
    """A command set in P-DATA-TF PDUs (PS3.8 section 9.3.5) that the peer takes.

    Args:
        context_id: the presentation context.
        command_set: encoded.
        max_pdu: the longest PDU that the peer takes, without its own header, in bytes; 0: any.
    """
    room = max(1, max_pdu - PDV_HEAD) if max_pdu else len(command_set)
    pdus = []
    for start in range(0, len(command_set), room):
        part = command_set[start : start + room]
        last = LAST_BIT if start + room >= len(command_set) else 0
        pdus.append(_PDV.pack(0x04, len(part) + PDV_HEAD, len(part) + 2, context_id, COMMAND_BIT | last) + part)
    return b"".join(pdus)


def _elements(command_set: bytes | bytearray) -> dict[int, bytes]:
    command_set = bytes(command_set)
    values: dict[int, bytes] = {}
    position, size = 0, len(command_set)
    while position < size:
        if position + 8 > size:
            raise NotDimse("the command set ends early")
        group, number, length = _ELEMENT.unpack_from(command_set, position)
        value, position = position + 8, position + 8 + length
        if group != 0:
            raise NotDimse("the command set holds an element of another group")
        if position > size:
            raise NotDimse("the command set ends early")
        values[number] = command_set[value:position]
    return values


def _number(values: dict[int, bytes], number: int) -> int | None:
    value = values.get(number, b"")
    return int.from_bytes(value, "little") if len(value) == 2 else None


def _uid(values: dict[int, bytes], number: int) -> str:
    return values.get(number, b"").rstrip(b"\0 ").decode("ascii", "replace").strip()


def _text(number: int, value: str, pad: bytes) -> bytes:
    encoded = value.encode("ascii", "replace")
    encoded += pad * (len(encoded) % 2)
    return _ELEMENT.pack(0, number, len(encoded)) + encoded
