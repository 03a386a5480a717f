"""How large a compressed frame says that it is, before a decoder believes it.

A decoder allocates what the codestream promises, whatever Rows and Columns say: a kilobyte can ask for gigabytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

# ISO/IEC 10918-1 table B.1: SOF0 to SOF15 but DHT, JPG and DAC; and SOF55 of JPEG-LS (ISO/IEC 14495-1).
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_START_OF_SCAN = 0xDA
_JPEG = b"\xff\xd8"
# ISO/IEC 15444-1 annex A: SOC, then SIZ.
_JPEG_2000 = b"\xff\x4f\xff\x51"


@dataclass(frozen=True, slots=True)
class Promise:
    """What a codestream says of the frame that it holds."""

    rows: int
    columns: int
    components: int
    precision: int  # bits of a sample, of the first component


def promise_of(encoded: bytes) -> Promise | None:
    """What a JPEG, JPEG-LS, JPEG 2000 or HTJ2K codestream promises; None where it is another or says nothing."""
    if encoded.startswith(_JPEG_2000) and len(encoded) >= 43:
        right, bottom, left, top = struct.unpack_from(">4L", encoded, 8)
        (components,) = struct.unpack_from(">H", encoded, 40)
        return Promise(bottom - top, right - left, components, (encoded[42] & 0x7F) + 1)
    if not encoded.startswith(_JPEG):
        return None
    position = 2
    while position + 10 <= len(encoded) and encoded[position] == 0xFF:
        marker = encoded[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in _START_OF_FRAME:
            precision, rows, columns, components = struct.unpack_from(">BHHB", encoded, position + 4)
            return Promise(rows, columns, components, precision)
        if marker == _START_OF_SCAN:
            return None
        position += 2 + struct.unpack_from(">H", encoded, position + 2)[0]
    return None
