"""What a client accepts, and bodies of several parts (RFC 9110 section 12.5.1, RFC 2387, PS3.18 section 8.7)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
DICOM_XML = "application/dicom+xml"
JSON = "application/json"
XML = "application/xml"
OCTET_STREAM = "application/octet-stream"
MULTIPART = "multipart/related"
JPEG = "image/jpeg"
PNG = "image/png"
GIF = "image/gif"


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One entry of an Accept header."""

    kind: str  # "type/subtype" in lower case, either part may be "*"
    parameters: dict[str, str] = field(default_factory=dict)  # names in lower case; without q
    quality: float = 1.0

    @property
    def transfer_syntax(self) -> str:
        """The transfer syntax asked for, "" where none is named, "*" for any (PS3.18 section 8.7.3.5.2)."""
        return self.parameters.get("transfer-syntax", "")

    def covers(self, kind: str) -> bool:
        """Whether ``kind`` fits this range. ``*/*`` and ``image/*`` are ranges."""
        family = kind.split("/", 1)[0]
        return self.kind in (kind, "*/*", f"{family}/*")

    def covers_parts(self, kind: str) -> bool:
        """Whether a multipart body with parts of ``kind`` fits this range."""
        if self.kind != MULTIPART:
            return self.kind == "*/*"
        return self.parameters.get("type", kind).lower() in (kind, "*/*", f"{kind.split('/', 1)[0]}/*")


def accepted(header: str, query: str = "") -> list[MediaRange]:
    """The media ranges of an Accept ``header``, the most wanted first; ``query`` is the `accept` query parameter.

    The query parameter goes before the header (PS3.18 section 8.3.3.1). Nothing at all means anything.
    """
    ranges = [_media_range(entry) for entry in _split(query or header or "*/*", ",")]
    return sorted((one for one in ranges if one.quality > 0), key=lambda one: -one.quality)


def multipart(kind: str, parts: Iterable[tuple[dict[str, str], Iterable[bytes]]]) -> tuple[str, Iterator[bytes]]:
    """A multipart/related body of ``parts``, each its headers and its content in pieces, and its content type."""
    boundary = secrets.token_hex(16)

    def body() -> Iterator[bytes]:
        for headers, content in parts:
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            yield f"--{boundary}\r\n{lines}\r\n".encode("ascii")
            yield from content
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode("ascii")

    return f'{MULTIPART}; type="{kind}"; boundary={boundary}', body()


def media_type(header: str) -> tuple[str, dict[str, str]]:
    """A Content-Type's media type in lower case, "" where there is none; its parameters, names in lower case."""
    kind, *rest = _split(header, ";") or [""]
    parameters: dict[str, str] = {}
    for entry in rest:
        name, _, value = entry.partition("=")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] == '"':
            value = re.sub(r"\\(.)", r"\1", value[1:-1])  # RFC 9110 section 5.6.4
        parameters.setdefault(name.strip().lower(), value.strip())
    return kind.lower(), parameters


def _media_range(entry: str) -> MediaRange:
    kind, parameters = media_type(entry)
    quality = parameters.pop("q", "1")
    try:
        weight = min(1.0, max(0.0, float(quality)))
    except ValueError:
        weight = 0.0
    return MediaRange(kind, parameters, weight)


def _split(text: str, separator: str) -> list[str]:
    """``text`` at its separators outside quotation marks."""
    entries, current, quoted = [], "", False
    for character in text:
        quoted ^= character == '"'
        if character == separator and not quoted:
            entries.append(current)
            current = ""
        else:
            current += character
    return [entry.strip() for entry in [*entries, current] if entry.strip()]
