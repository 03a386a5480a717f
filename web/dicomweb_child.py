"""The child process of `dicomweb_reader`: parses headers and decodes frames, within a limit of time and of memory.

``python -m web.dicomweb_child MEGABYTES SECONDS``, spoken to as `dicom_listener.bounded_child` is.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_listener.bounded_child import decode, serve
from dicom_listener.lookup import Array
from fhir_records.errors import NotFound, PixelsNotReadable
from web.dicomweb_attributes import as_text, attributes, bulk_value, explicit_head

# Characters. No header of a real object comes near; whoever asked has to hold it.
MAX_TEXT = 64 << 20


@dataclass(frozen=True, slots=True)
class _Asked:
    """An object as the parent describes it."""

    path: Path
    transfer_syntax_uid: str
    rows: int | None


def answer(request: dict[str, Any]) -> tuple[dict[str, Any], Array | bytes]:
    """Attributes, a value, a head, or a frame.

    Attributes are JSON text, compressed (RFC 1950), one behind the other; `lengths` says how long each is, and 0 where
    an object cannot be parsed.

    Raises:
        PixelsNotReadable: it cannot be had.
    """
    if request["what"] == "attributes":
        found = [_packed(_Asked(Path(one[0]), *one[1:]), request) for one in request["objects"]]
        return {"lengths": [len(one) for one in found]}, b"".join(found)
    if request["what"] == "bulk":
        try:
            return {}, bulk_value(Path(request["path"]), request["place"])
        except NotFound as error:
            return {"absent": str(error)}, b""
    if request["what"] == "head":
        asked = _Asked(Path(request["path"]), request["syntax"], request["rows"])
        return {}, explicit_head(asked.path, asked)
    return decode(request)


def _packed(asked: _Asked, request: dict[str, Any]) -> bytes:
    try:
        text = as_text(attributes(asked.path, asked, request["address"], request["tags"]))
    except PixelsNotReadable:
        return b""
    return zlib.compress(text.encode("utf-8", "replace"), 1) if len(text) <= MAX_TEXT else b""


if __name__ == "__main__":
    serve(answer)
