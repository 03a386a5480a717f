"""WADO-RS: pixels and other long values as bytes (PS3.18 sections 10.4.1.1.5 and 10.4.1.1.6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydicom.uid import ExplicitVRLittleEndian

from dicom_listener.decoding import encoded_frame
from dicom_listener.transfer_syntaxes import Way, transfer_syntax
from fhir_records.errors import QueryError
from fhir_records.model import Instance
from web import dicomweb_objects as objects
from web.dicomweb_archive import Archive
from web.dicomweb_attributes import NATIVE, PIXEL_DATA, PLACE
from web.dicomweb_conditional import conditional
from web.dicomweb_requests import byte_range, frame_numbers, media_ranges, not_acceptable, with_pixels
from web.media_types import OCTET_STREAM, MediaRange, multipart

INSTANCE = "/studies/{study_uid}/series/{series_uid}/instances/{sop_uid}"
LITTLE_ENDIAN = str(ExplicitVRLittleEndian)
_ROOT = "1.2.840.10008.1.2."

# As what compressed frames go out as they are stored (PS3.18 table 8.7.3-5).
ENCODED: Final = MappingProxyType(
    {
        **dict.fromkeys((f"{_ROOT}4.50", f"{_ROOT}4.51", f"{_ROOT}4.57", f"{_ROOT}4.70"), "image/jpeg"),
        **dict.fromkeys((f"{_ROOT}4.80", f"{_ROOT}4.81"), "image/jls"),
        **dict.fromkeys((f"{_ROOT}4.90", f"{_ROOT}4.91"), "image/jp2"),
        **dict.fromkeys((f"{_ROOT}4.92", f"{_ROOT}4.93"), "image/jpx"),
        **dict.fromkeys((f"{_ROOT}4.110", f"{_ROOT}4.111", f"{_ROOT}4.112"), "image/jxl"),
        **dict.fromkeys((f"{_ROOT}4.201", f"{_ROOT}4.202", f"{_ROOT}4.203"), "image/jphc"),
        f"{_ROOT}5": "image/dicom-rle",
    }
)


def frame_routes(router: APIRouter, archive: Archive) -> None:
    """Add the resources of frames and of bulk data."""

    @router.get(INSTANCE + "/frames/{frames}")
    def some_frames(request: Request, study_uid: str, series_uid: str, sop_uid: str, frames: str) -> Response:
        instance = archive.instances(study_uid, series_uid, sop_uid)[0]
        numbers = frame_numbers(frames, instance)
        return conditional(request, archive, [instance], lambda: _frames(request, archive, instance, numbers))

    @router.get(INSTANCE + "/bulkdata/{place:path}")
    def value(request: Request, study_uid: str, series_uid: str, sop_uid: str, place: str) -> Response:
        instance = archive.instances(study_uid, series_uid, sop_uid)[0]
        place = place.upper()
        if not PLACE.fullmatch(place):
            raise QueryError("Bulk data are named by tags of eight hexadecimal digits, with items' numbers between.")
        if place == PIXEL_DATA:
            return _pixels(request, archive, with_pixels(instance))
        return _value(request, archive, instance, place)


def _frames(request: Request, archive: Archive, instance: Instance, numbers: Sequence[int]) -> Response:
    """Frames in a part each; a single one without parts, where the client wants it so."""
    path = archive.path(instance)
    stored = instance.transfer_syntax_uid
    encoded = ENCODED.get(stored, "")
    for wanted in media_ranges(request):
        if _takes_plain(wanted) and (parts := _in_parts(wanted, OCTET_STREAM, len(numbers) == 1)) is not None:
            # The first one before anything is sent, so that a failure can still be said.
            first = objects.frame_bytes(path, instance, numbers[0], archive.reader)
            rest = (objects.frame_bytes(path, instance, number, archive.reader) for number in numbers[1:])
            return _answer(_chained(first, rest), OCTET_STREAM, LITTLE_ENDIAN, parts)
        if encoded and wanted.transfer_syntax in ("", "*", stored):
            if (parts := _in_parts(wanted, encoded, len(numbers) == 1)) is None:
                continue
            first = encoded_frame(path, numbers[0])
            rest = (encoded_frame(path, number) for number in numbers[1:])
            return _answer(_chained(first, rest), encoded, stored, parts)
    also = f", or as {encoded} in the transfer syntax in which they are stored," if encoded else ""
    raise not_acceptable(f'multipart/related; type="{OCTET_STREAM}"; transfer-syntax={LITTLE_ENDIAN}{also}')


def _pixels(request: Request, archive: Archive, instance: Instance) -> Response:
    """All frames as one value."""
    path = archive.path(instance)
    place = objects.native_pixels(path)
    whole = 0 if place is None else -(-place.frames * place.frame_bits // 8)
    if place is not None and instance.transfer_syntax_uid in NATIVE and 0 < whole <= place.length:
        return _span(request, path, place.start, place.length)
    if transfer_syntax(instance.transfer_syntax_uid).way is Way.VIDEO:
        raise not_acceptable("a part of the whole object")
    first = objects.frame_bytes(path, instance, 1, archive.reader)

    def chunks(start: int, length: int) -> Iterator[bytes]:
        number, skip = start // len(first) + 1, start % len(first)
        while length > 0:
            frame = first if number == 1 else objects.frame_bytes(path, instance, number, archive.reader)
            piece = frame[skip : skip + length]
            yield piece
            length -= len(piece)
            number, skip = number + 1, 0

    return _ranged(request, len(first) * instance.number_of_frames, chunks)


def _value(request: Request, archive: Archive, instance: Instance, place: str) -> Response:
    """Another binary value: read from its place in the file, or by a child where it has to be looked for."""
    path = archive.path(instance)
    if "/" not in place and (found := objects.value_place(path, int(place, 16))) is not None:
        return _span(request, path, *found)
    content = archive.reader.bulk_value(path, place)
    return _ranged(request, len(content), lambda start, length: iter([content[start : start + length]]))


def _span(request: Request, path: Path, start: int, length: int) -> Response:
    return _ranged(request, length, lambda skip, count: objects.file_chunks(path, start + skip, count))


def _ranged(request: Request, size: int, chunks: Callable[[int, int], Iterator[bytes]]) -> Response:
    """A value of ``size`` bytes, or the range of it that is asked for; ``chunks`` gives bytes from a start on."""
    asked = byte_range(request, size)
    start, length = asked or (0, size)
    headers = {"Accept-Ranges": "bytes"}
    part = {"Content-Type": f"{OCTET_STREAM}; transfer-syntax={LITTLE_ENDIAN}"}
    if asked is not None:
        part["Content-Range"] = f"bytes {start}-{start + length - 1}/{size}"
    status = 200 if asked is None else 206
    for wanted in media_ranges(request):
        if not _takes_plain(wanted) or (parts := _in_parts(wanted, OCTET_STREAM, True)) is None:
            continue
        if not parts:
            headers |= part | {"Content-Length": str(length)}
            return StreamingResponse(chunks(start, length), status, headers=headers)
        content_type, body = multipart(OCTET_STREAM, [(part, chunks(start, length))])
        return StreamingResponse(body, status, headers=headers | {"Content-Type": content_type})
    raise not_acceptable(f'{OCTET_STREAM}, or as multipart/related; type="{OCTET_STREAM}",')


def _takes_plain(wanted: MediaRange) -> bool:
    return wanted.transfer_syntax in ("", "*", LITTLE_ENDIAN)


def _in_parts(wanted: MediaRange, kind: str, single: bool) -> bool | None:
    """Whether values of ``kind`` go out in parts; None: not at all."""
    if wanted.covers_parts(kind):
        return True
    return False if single and wanted.covers(kind) else None


def _answer(values: Iterator[bytes], kind: str, syntax: str, parts: bool) -> Response:
    content_type = {"Content-Type": f"{kind}; transfer-syntax={syntax}"}
    if not parts:
        return StreamingResponse(values, headers=content_type)
    content, body = multipart(kind, ((content_type, [one]) for one in values))
    return StreamingResponse(body, headers={"Content-Type": content})


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
