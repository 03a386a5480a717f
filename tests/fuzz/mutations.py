"""Bytes made wrong, in the ways in which broken and hostile peers make them wrong."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence

Mutation = Callable[[bytearray, random.Random], None]

# Lengths and counts at the edges.
NUMBERS = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFE, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000,
           0xFFFFFFFE, 0xFFFFFFFF)  # fmt: skip
# What means something to a reader of DICOM.
TOKENS = (
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",  # an item of undefined length
    b"\xfe\xff\x0d\xe0\x00\x00\x00\x00",  # its end
    b"\xfe\xff\xdd\xe0\x00\x00\x00\x00",  # a sequence's end
    b"\x40\x00\x30\xa7SQ\x00\x00\xff\xff\xff\xff",  # Content Sequence of undefined length
    b"\x08\x00\x05\x00CS\x0e\x00\\ISO 2022 IR 87",  # code extensions
    b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 192",
    b"\xe0\x7f\x10\x00OW\x00\x00\xff\xff\xff\xff",  # encapsulated pixels
    b"UN\x00\x00\xff\xff\xff\xff",
    b"\x1b$B",
    b"../../../../tmp/escaped",
    b"\\" * 40,
    b"^=" * 20,
    bytes(300),
    b"\x01\x00\x00\x00\x00\xcd",
    b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01\x03",
    b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00",
)


def mutated(data: bytes, others: Sequence[bytes], rng: random.Random, most: int = 6) -> bytes:
    """``data`` with one to ``most`` things wrong; parts of ``others`` may come in."""
    made = bytearray(data)
    for _ in range(rng.randint(1, most)):
        if rng.random() < 0.15 and others:
            _splice(made, rng.choice(list(others)), rng)
        else:
            rng.choice(MUTATIONS)(made, rng)
    return bytes(made)


def _place(made: bytearray, rng: random.Random, width: int = 1) -> int:
    # Headers are where decisions are made.
    end = max(0, len(made) - width)
    return rng.randint(0, min(end, 400)) if rng.random() < 0.5 else rng.randint(0, end)


def _flip(made: bytearray, rng: random.Random) -> None:
    if made:
        made[_place(made, rng)] ^= 1 << rng.randrange(8)


def _byte(made: bytearray, rng: random.Random) -> None:
    if made:
        made[_place(made, rng)] = rng.choice(NUMBERS) & 0xFF


def _number(made: bytearray, rng: random.Random) -> None:
    code = rng.choice(("<H", ">H", "<L", ">L"))
    width = struct.calcsize(code)
    if len(made) >= width:
        at = _place(made, rng, width)
        value = rng.choice(NUMBERS) if rng.random() < 0.7 else len(made) + rng.randint(-9, 9)
        made[at : at + width] = struct.pack(code, value % (1 << 8 * width))


def _nudge(made: bytearray, rng: random.Random) -> None:
    """A number a little larger or smaller: lengths that are off by one."""
    code = rng.choice(("<H", ">H", "<L", ">L"))
    width = struct.calcsize(code)
    if len(made) >= width:
        at = _place(made, rng, width)
        (value,) = struct.unpack_from(code, made, at)
        struct.pack_into(code, made, at, (value + rng.choice((-2, -1, 1, 2))) % (1 << 8 * width))


def _drop(made: bytearray, rng: random.Random) -> None:
    at = _place(made, rng)
    del made[at : at + rng.choice((1, 1, 2, 4, 8, 64, 1024))]


def _repeat(made: bytearray, rng: random.Random) -> None:
    at = _place(made, rng)
    part = bytes(made[at : at + rng.choice((1, 2, 8, 64, 512))])
    made[at:at] = part * rng.choice((1, 1, 2, 20))


def _noise(made: bytearray, rng: random.Random) -> None:
    at = _place(made, rng)
    made[at:at] = rng.randbytes(rng.choice((1, 2, 8, 64)))


def _token(made: bytearray, rng: random.Random) -> None:
    at, token = _place(made, rng), rng.choice(TOKENS)
    made[at : at + (len(token) if rng.random() < 0.5 else 0)] = token


def _cut(made: bytearray, rng: random.Random) -> None:
    del made[_place(made, rng) :]


def _splice(made: bytearray, other: bytes, rng: random.Random) -> None:
    if other:
        start = rng.randrange(len(other))
        at = _place(made, rng)
        made[at:at] = other[start : start + rng.choice((4, 16, 128, 1024))]


MUTATIONS: Sequence[Mutation] = (_flip, _byte, _number, _nudge, _drop, _repeat, _noise, _token, _cut)
