"""The child process of `dicomweb_reader`: parses headers and decodes frames, within a limit of time and of memory.

``python -m web.dicomweb_child MEGABYTES SECONDS``, spoken to as `dicom_listener.bounded_child` is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_listener.bounded_child import decode, serve
from dicom_listener.lookup import Array
from fhir_records.errors import NotFound, PixelsNotReadable
from web.dicomweb_attributes import as_text, attributes, bulk_value, explicit_head


@dataclass(frozen=True, slots=True)
class _Asked:
    """An object as the parent describes it."""

    path: Path
    transfer_syntax_uid: str
    rows: int | None
    address: str


def answer(request: dict[str, Any]) -> tuple[dict[str, Any], Array | bytes]:
    """Attributes, a value, a head, or a frame.

    Raises:
        PixelsNotReadable: it cannot be had.
    """
    if request["what"] == "attributes":
        return {}, b"\n".join(_text(_Asked(Path(one[0]), *one[1:]), request["tags"]) for one in request["objects"])
    if request["what"] == "bulk":
        try:
            return {}, bulk_value(Path(request["path"]), request["place"])
        except NotFound as error:
            return {"absent": str(error)}, b""
    if request["what"] == "head":
        asked = _Asked(Path(request["path"]), request["syntax"], request["rows"], "")
        return {}, explicit_head(asked.path, asked)
    return decode(request)


def _text(asked: _Asked, tags: list[int] | None) -> bytes:
    """JSON without a line break in it; empty where the object cannot be parsed."""
    try:
        return as_text(attributes(asked.path, asked, asked.address, tags)).encode("utf-8", "replace")
    except PixelsNotReadable:
        return b""


if __name__ == "__main__":
    serve(answer)
