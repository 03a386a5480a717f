"""The body of a store request (PS3.18 section 10.5.1, RFC 2046 section 5.1), part by part as it comes.

One part at a time is held: in memory while it is small, else in a file without a name on the spool's disk, which is
gone with this process.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from fhir_records.errors import OutOfSpace, QueryError
from web.media_types import media_type

IN_MEMORY_BYTES = 4 << 20
HEAD_BYTES = 1 << 20  # kept of a part that is too long, to say which object it was
PREAMBLE_BYTES = 64 << 10

Content = bytes | bytearray | mmap.mmap


class Cut(Enum):
    """Why a part is not whole."""

    TOO_LARGE = "too large"
    NO_SPACE = "no space"


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the body."""

    kind: str  # its media type in lower case; "" where it names none
    content: Content  # the first bytes only, where it is cut
    cut: Cut | None = None


class PartReader:
    """Cuts a body into parts, and calls for each in turn.

    Args:
        boundary: of the multipart body; None: the body is a single part.
        folder: where long parts lie while they come.
        max_bytes: how long a part may be; of a longer one the beginning is handed on.
        take: called with each part.
        kind: media type of a single part.
        check_space: called with the number of bytes before they are written to ``folder``; raises OutOfSpace.
    """

    def __init__(
        self,
        boundary: str | None,
        *,
        folder: Path,
        max_bytes: int,
        take: Callable[[Part], None],
        kind: str = "",
        check_space: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._take = take
        self._kind = kind
        self._check_space = check_space
        self._name, self._value = bytearray(), bytearray()  # of the header that is being read
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._size = 0  # of the part so far
        self._cut: Cut | None = None
        self._ended = boundary is None
        self._preamble: bytearray | None = None if boundary is None else bytearray()
        self._delimiter = b"" if boundary is None else b"--" + boundary.encode("ascii", "replace")
        self._parser: MultipartParser | None = None
        if boundary is not None:
            try:
                self._parser = MultipartParser(boundary.encode("ascii", "replace"), {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._header,
                    "on_part_data": lambda data, start, end: self._more(memoryview(data)[start:end]),
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
            self._more(memoryview(data))
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
        self._begin()

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

    def _begin(self) -> None:
        self._kind = ""
        self._size, self._cut = 0, None
        self._memory = bytearray()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _header(self) -> None:
        if bytes(self._name).lower() == b"content-type":
            self._kind = media_type(self._value.decode("latin-1"))[0]
        self._name.clear()
        self._value.clear()

    def _more(self, data: memoryview) -> None:
        self._size += len(data)
        if self._cut is None and self._size > self._max_bytes:
            self._cut = Cut.TOO_LARGE
            if self._file is None:
                self._memory += data[:HEAD_BYTES]
        if self._cut is not None:
            return
        if self._file is None and len(self._memory) + len(data) <= IN_MEMORY_BYTES:
            self._memory += data
            return
        try:
            self._check_space(len(data))
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - open until the part is taken
                self._file.write(self._memory)
                del self._memory[HEAD_BYTES:]
            self._file.write(data)
        except (OutOfSpace, OSError):
            self._cut = Cut.NO_SPACE

    def _end(self) -> None:
        content: Content = self._memory
        if self._file is not None and self._cut is None:
            self._file.flush()
            content = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        part = Part(self._kind, content, self._cut)
        self._begin()  # the mapping keeps the bytes for as long as they are looked at
        self._take(part)

    def _all(self) -> None:
        self._ended = True
