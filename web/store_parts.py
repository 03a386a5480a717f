"""The body of a store request (PS3.18 section 10.5.1, RFC 2046 section 5.1), part by part as it comes.

Nothing of a part is held here: each piece goes to the part's sink at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from fhir_records.errors import QueryError
from web.media_types import media_type

PREAMBLE_BYTES = 64 << 10
HEADER_BYTES = 16 << 10  # of one part, names and values


class Sink(Protocol):
    """Where a part goes."""

    def write(self, data: memoryview) -> None:
        """Take the next piece."""

    def finish(self) -> None:
        """The part is whole."""

    def drop(self) -> None:
        """It will never be whole."""


class PartReader:
    """Cuts a body into parts.

    Args:
        boundary: of the multipart body; None: the body is a single part.
        begin: called with the media type of each part that begins, in lower case, "" where it names none; gives the
            part's sink.
        kind: media type of a single part.

    Raises:
        QueryError: the boundary is too long.
    """

    def __init__(self, boundary: str | None, begin: Callable[[str], Sink], kind: str = "") -> None:
        self._begin = begin
        self._kind = kind
        self._name, self._value = bytearray(), bytearray()  # of the header that is being read
        self._header_bytes = 0  # of the part, so far
        self._sink: Sink | None = None
        self._ended = boundary is None
        self._preamble: bytearray | None = None if boundary is None else bytearray()
        self._delimiter = b"" if boundary is None else b"--" + boundary.encode("ascii", "replace")
        self._parser: MultipartParser | None = None
        if boundary is not None:
            try:
                self._parser = MultipartParser(boundary.encode("ascii", "replace"), {
                    "on_header_field": lambda data, start, end: self._more_header(self._name, data[start:end]),
                    "on_header_value": lambda data, start, end: self._more_header(self._value, data[start:end]),
                    "on_header_end": self._header,
                    "on_part_data": lambda data, start, end: self._open().write(memoryview(data)[start:end]),
                    "on_part_end": self._end,
                    "on_end": self._all,
                })  # fmt: skip
            except FormParserError as error:
                raise QueryError("The boundary of the multipart body is too long.") from error

    def write(self, data: bytes) -> None:
        """Go on with the body.

        Raises:
            QueryError: it is no multipart body of this boundary.
        """
        if self._parser is None:
            self._open().write(memoryview(data))
        elif not self._ended:  # what stands behind the last delimiter is to be ignored (RFC 2046 section 5.1.1)
            try:
                self._parser.write(self._after_preamble(data))
            except FormParserError as error:
                raise QueryError("The body is not multipart as its Content-Type says.") from error

    def finish(self) -> None:
        """The body is over.

        Raises:
            QueryError: it ended before its last delimiter; the part that was cut off is not taken.
        """
        if self._parser is None:
            self._end()
        elif not self._ended:
            raise QueryError("The body ends before its closing delimiter; the last part was not taken.")

    def close(self) -> None:
        """Let go of a part that is not complete."""
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.drop()

    def _after_preamble(self, data: bytes) -> bytes:
        """``data`` from the first delimiter on (RFC 2046 section 5.1.1)."""
        if self._preamble is None:
            return data
        self._preamble += data
        start = self._preamble.find(self._delimiter)
        while start > 0 and self._preamble[start - 1 : start] != b"\n":
            start = self._preamble.find(self._delimiter, start + 1)
        if start >= 0:
            data, self._preamble = bytes(self._preamble[start:]), None
            return data
        if len(self._preamble) > PREAMBLE_BYTES:
            raise QueryError("The body does not have the boundary that its Content-Type names.")
        return b""

    def _more_header(self, kept: bytearray, data: bytes) -> None:
        self._header_bytes += len(data)
        if self._header_bytes > HEADER_BYTES:
            raise QueryError("The headers of a part are too long.")
        kept += data

    def _header(self) -> None:
        if bytes(self._name).lower() == b"content-type":
            self._kind = media_type(self._value.decode("latin-1"))[0]
        self._name.clear()
        self._value.clear()

    def _open(self) -> Sink:
        if self._sink is None:
            self._sink = self._begin(self._kind)
        return self._sink

    def _end(self) -> None:
        sink = self._open()
        self._sink, self._kind, self._header_bytes = None, "", 0
        sink.finish()

    def _all(self) -> None:
        self._ended = True
