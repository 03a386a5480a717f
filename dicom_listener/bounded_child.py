"""The child process of `bounded`: decodes one frame after another, within a limit of memory, until its input ends.

``python -m dicom_listener.bounded_child MEGABYTES``: requests are lines of JSON on standard input; each answer on
standard output is JSON and pixels, with their lengths before them.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

import numpy as np
import pydicom.config

from dicom_listener import pixels
from dicom_listener.bounded import LENGTH
from dicom_listener.lookup import Array
from fhir_records.errors import PixelsNotReadable


def main() -> None:
    """Answer requests until there are no more."""
    # Values that break their representation's rules are quoted in warnings.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    # Answers go to a descriptor of their own: a decoder's C code may print.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    limit = int(sys.argv[1]) * 1024**2
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))  # private memory, so that mapped libraries do not count
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _send(answers, {"ready": True}, b"")
    for line in sys.stdin.buffer:
        told, found = _answer(json.loads(line))
        if found is None:
            _send(answers, told, b"")
        else:
            values = np.ascontiguousarray(found)
            told |= {"dtype": values.dtype.str, "shape": values.shape}
            _send(answers, told, values.tobytes())
        del found


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], Array | None]:
    path, frame = request["path"], request["frame"]
    try:
        if request["what"] == "display":
            window = request["window"]
            return {}, pixels.display_frame(path, frame, None if window is None else (window[0], window[1]))
        native = pixels.native_frame(path, frame)
    except PixelsNotReadable as error:
        return {"refused": str(error)}, None
    except MemoryError:
        return {"refused": "There is not enough memory to decode the frame."}, None
    attributes = {name: getattr(native, name) for name in native.__slots__ if name != "pixels"}
    return {"attributes": attributes}, native.pixels


def _send(pipe: Any, told: dict[str, Any], raw: bytes) -> None:
    text = json.dumps(told).encode()
    pipe.write(LENGTH.pack(len(text), len(raw)) + text)
    pipe.write(raw)
    pipe.flush()


if __name__ == "__main__":
    main()
