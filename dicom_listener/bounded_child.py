"""The child process of `bounded`: decodes one frame after another, within a limit of memory, until its input ends.

``python -m dicom_listener.bounded_child MEGABYTES SECONDS``: requests are lines of JSON on standard input; each answer
on standard output is JSON and pixels, with their lengths before them.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pydicom.config

from dicom_listener import pixels
from dicom_listener.bounded import LENGTH
from dicom_listener.lookup import Array
from fhir_records.errors import PixelsNotReadable

Answer = Callable[[dict[str, Any]], tuple[dict[str, Any], Array | bytes | None]]


def serve(answer: Answer) -> None:
    """Answer requests until there are no more. Runs in a process of its own, which it limits."""
    # Values that break their representation's rules are quoted in warnings.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    # Answers go to a descriptor of their own: a decoder's C code may print.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    limit = int(sys.argv[1]) * 1024**2
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # private memory, so that mapped libraries do not count
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _send(answers, {"ready": True}, b"")
    seconds = float(sys.argv[2])
    for line in sys.stdin.buffer:
        # Who asked ends a child that takes too long, unless it died meanwhile: then the kernel does, also in C code.
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            told, found = answer(json.loads(line))
        except PixelsNotReadable as error:
            told, found = {"refused": str(error)}, None
        except MemoryError:
            told, found = {"refused": "There is not enough memory for this object."}, None
        if isinstance(found, np.ndarray):
            values = np.ascontiguousarray(found)
            told |= {"dtype": values.dtype.str, "shape": values.shape}
            _send(answers, told, values.tobytes())
        else:
            _send(answers, told, found or b"")
        signal.setitimer(signal.ITIMER_REAL, 0)
        del found


def decode(request: dict[str, Any]) -> tuple[dict[str, Any], Array]:
    """A frame.

    Raises:
        PixelsNotReadable: it cannot be decoded.
    """
    path, frame = request["path"], request["frame"]
    if request["what"] == "display":
        window = request["window"]
        centre_and_width = None if window is None else (window[0], window[1])
        return {}, pixels.display_frame(path, frame, centre_and_width, request["function"])
    native = pixels.native_frame(path, frame)
    attributes = {name: getattr(native, name) for name in native.__slots__ if name != "pixels"}
    return {"attributes": attributes}, native.pixels


def _send(pipe: Any, told: dict[str, Any], raw: bytes) -> None:
    text = json.dumps(told).encode()
    pipe.write(LENGTH.pack(len(text), len(raw)) + text)
    pipe.write(raw)
    pipe.flush()


if __name__ == "__main__":
    serve(decode)
