"""What the worker and the model's process say to each other: JSON with its length before it. Never pickle."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

_LENGTH = struct.Struct(">I")
LONGEST = 64 * 1024 * 1024  # bytes of one message; a study's list of images is far below


def encode(message: Mapping[str, Any]) -> bytes:
    """The message with its length, as it goes into the pipe. Raises ValueError where it is longer than `LONGEST`."""
    body = json.dumps(message).encode()
    if len(body) > LONGEST:
        raise ValueError(f"A message of {len(body)} bytes; {LONGEST} are allowed.")
    return _LENGTH.pack(len(body)) + body


def receive(read_exactly: Callable[[int], bytes]) -> dict[str, Any]:
    """The next message of a pipe.

    `read_exactly(n)` gives n bytes or raises EOFError. Raises ValueError for what is no message.
    """
    (length,) = _LENGTH.unpack(read_exactly(_LENGTH.size))
    if length > LONGEST:
        raise ValueError(f"A message of {length} bytes; {LONGEST} are allowed.")
    message = json.loads(read_exactly(length))
    if not isinstance(message, dict):
        raise ValueError("A message that is no JSON object.")
    return message
