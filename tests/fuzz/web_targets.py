"""What is fuzzed of DICOMweb: functions of bytes, which may refuse them with the errors that they document."""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from zoneinfo import ZoneInfo

from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request

from dicom_listener.data_set import encoding_of
from dicom_listener.file_storing import Fault, FileStoring, Way
from dicom_listener.spool import Spool
from fhir_records.errors import PixelsNotReadable, QueryError
from tests.fuzz.messages import BIG, DEFLATED, EXPLICIT, IMPLICIT
from web import media_types
from web.dicomweb_attributes import as_text, attributes
from web.dicomweb_header import header_of
from web.dicomweb_query import INSTANCE_KEYS, SERIES_KEYS, STUDY_KEYS, Question, image_query
from web.dicomweb_requests import base_of, byte_range, need_attributes, rendering_of
from web.dicomweb_store import boundary_of
from web.store_parts import PartReader

AT = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
BOUNDARY = "a1b2"
CUTS = (1 << 12, 97, 13, 1)  # bytes of a piece


class _Kept:
    """A sink that remembers."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.content = bytearray()
        self.ended = ""

    def write(self, data: memoryview) -> None:
        self.content += data

    def finish(self) -> None:
        self.ended += "whole"

    def drop(self) -> None:
        self.ended += "cut"


def store_body(data: bytes) -> None:
    """The body of a store request falls into the same parts however it is cut, and every part ends once."""
    found = set()
    for size in (len(data) or 1, *CUTS):
        parts: list[_Kept] = []

        def begin(kind: str, parts: list[_Kept] = parts) -> _Kept:
            parts.append(_Kept(kind))
            return parts[-1]

        reader = PartReader(BOUNDARY, begin)
        refused = False
        try:
            for start in range(0, len(data), size):
                reader.write(data[start : start + size])
            reader.finish()
        except QueryError:
            refused = True
        reader.close()
        assert all(part.ended in ("whole", "cut") for part in parts)
        whole = tuple((part.kind, bytes(part.content)) for part in parts if part.ended == "whole")
        found.add((refused, whole))
    assert len(found) == 1, "it depends on how the body was cut"


def arriving_file(data: bytes) -> None:
    """A file that comes in pieces is judged, and kept, alike however it is cut; nothing of it is left behind."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        spool = Spool(Path(folder))
        faults, kept = set(), set()
        for size in (len(data) or 1, 97, 13):
            storing = FileStoring(spool, Way("stow:fuzz", AT))
            for start in range(0, len(data), size):
                storing.take(memoryview(data)[start : start + size])
            fault = storing.finish()
            faults.add(fault is None)
            if fault is None:
                assert storing.offered is not None
                assert storing.offered.sop_uid
                kept.add(spool.path(storing.keep()).read_bytes())
            elif fault[0] is Fault.TOO_LARGE:
                storing.drop()
            else:
                storing.keep_aside(fault[1])
        assert len(faults) == 1
        assert len(kept) <= 1
        assert not list((Path(folder) / "incoming").iterdir())


def header_as_json(data: bytes) -> None:
    """A header comes out as JSON, or is left to pydicom."""
    for syntax in (EXPLICIT, IMPLICIT, BIG):
        header = header_of(data, encoding_of(syntax), "ADDRESS")
        if header is not None:
            assert json.loads(as_text(header.found)) is not None
            assert all(0 <= start < end <= len(data) for _, start, end in header.odd)


class _Row:
    """An object as its row describes it."""

    def __init__(self, syntax: str) -> None:
        self.transfer_syntax_uid = syntax
        self.rows: int | None = 1


def attributes_of_file(data: bytes) -> None:
    """A stored file has attributes, or is refused."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as file:
        file.write(data)
        file.flush()
        for syntax in (EXPLICIT, DEFLATED):
            with suppress(PixelsNotReadable):
                as_text(attributes(Path(file.name), _Row(syntax), "ADDRESS")).encode("utf-8", "replace")


def question(data: bytes) -> None:
    """A query is understood at every level, or refused."""
    text = data.decode("latin-1")
    for keys in (STUDY_KEYS, STUDY_KEYS | SERIES_KEYS, STUDY_KEYS | SERIES_KEYS | INSTANCE_KEYS):
        with suppress(QueryError):
            asked = Question(QueryParams(text), keys)
            for said in asked.warnings:
                said.encode("ascii")
                assert "\n" not in said
            found = image_query(asked, ZoneInfo("Asia/Kolkata"), 1000, "1.2.3")
            if found is not None:
                assert all(abs(number) < 2**31 for number in (*found.series_numbers, *found.instance_numbers))
                assert "\0" not in "".join((found.patient_id, found.patient_name, *found.modalities))


def request_head(data: bytes) -> None:
    """The query string is the first line, the others are headers: what they ask for is understood, or refused."""
    query, accept, content_type, ranges, host = (*data.split(b"\n", 4), b"", b"", b"", b"", b"")[:5]
    headers = [(b"accept", accept), (b"content-type", content_type), (b"range", ranges), (b"host", host)]
    scope = {"type": "http", "method": "GET", "path": "/dicom-web/studies/1/series", "query_string": query,
             "headers": headers, "scheme": "http", "server": ("127.0.0.1", 80)}  # fmt: skip
    readers: list[Callable[[Request], object]] = [
        need_attributes, rendering_of, boundary_of, lambda request: byte_range(request, 1000), base_of,
    ]  # fmt: skip
    for read in readers:
        with suppress(QueryError, HTTPException):
            read(Request(scope))


def accept(data: bytes) -> None:
    """An Accept header is a list of ranges, the most wanted first, and none of them is refused by the client."""
    ranges = media_types.accepted(data.decode("latin-1"))
    assert all(0 < one.quality <= 1 for one in ranges)
    assert [one.quality for one in ranges] == sorted((one.quality for one in ranges), reverse=True)
    for one in ranges:
        one.covers(media_types.JPEG)
        one.covers_parts(media_types.OCTET_STREAM)
        assert isinstance(one.transfer_syntax, str)
