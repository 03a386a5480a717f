"""What a DICOMweb request asks for beside its path, and how a refusal is said (PS3.18 sections 8.3 and 8.5)."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from fhir_records.errors import DatabaseUnavailable, NotAllowed, NotFound, PixelsNotReadable, QueryError, WetreadError
from fhir_records.model import Instance
from web.dicomweb_objects import JPEG_QUALITY, Rendering
from web.dicomweb_xml import as_xml
from web.media_types import DICOM_JSON, DICOM_XML, JSON, MediaRange, accepted, multipart

# Digits and dots by the standard; letters are met in the wild.
UID = re.compile(r"[0-9A-Za-z._-]{1,64}")
MAX_SIDE = 8192  # pixels, of a rendered picture that is asked for

_STATUS: tuple[tuple[type[WetreadError], int], ...] = (
    (NotFound, 404),
    (QueryError, 400),
    (NotAllowed, 403),
    (PixelsNotReadable, 406),
    (DatabaseUnavailable, 503),
)


class DicomwebRoute(APIRoute):
    """Answers an error of ours with its status and its message as JSON."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """The route's own handler, its errors turned into answers."""
        handle: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except HTTPException as error:
                return JSONResponse({"message": str(error.detail)}, error.status_code, headers=error.headers)
            except WetreadError as error:
                status = next((status for kind, status in _STATUS if isinstance(error, kind)), None)
                if status is None:
                    raise
                return JSONResponse({"message": str(error)}, status)

        return answer


def media_ranges(request: Request) -> list[MediaRange]:
    """What the client accepts, the most wanted first."""
    return accepted(request.headers.get("accept", ""), request.query_params.get("accept", ""))


def need(request: Request, *kinds: str) -> str:
    """That one of ``kinds`` which the client most wants, the first where it wants all alike.

    Raises:
        HTTPException: 406, it wants none of them.
    """
    for wanted in media_ranges(request):
        for kind in kinds:
            if wanted.covers(kind):
                return kind
    raise not_acceptable(" or ".join(kinds))


def need_attributes(request: Request) -> str:
    """As what the client wants attributes: `DICOM_JSON`, or `DICOM_XML` in parts (PS3.18 section 8.7.3.2).

    Raises:
        HTTPException: 406, as nothing that there is.
    """
    for wanted in media_ranges(request):
        if wanted.covers(DICOM_JSON) or wanted.covers(JSON):
            return DICOM_JSON
        if wanted.covers_parts(DICOM_XML):
            return DICOM_XML
    raise not_acceptable(f'{DICOM_JSON}, or as multipart/related; type="{DICOM_XML}",')


def attributes_answer(texts: Iterable[str], kind: str, headers: Mapping[str, str]) -> Response:
    """Attributes of objects, each as JSON text, in a JSON array or as XML in a part each."""
    if kind == DICOM_XML:
        parts = (({"Content-Type": DICOM_XML}, [as_xml(json.loads(text))]) for text in texts)
        content_type, body = multipart(DICOM_XML, parts)
        return StreamingResponse(body, headers={**headers, "Content-Type": content_type})
    return StreamingResponse(_array(texts), media_type=DICOM_JSON, headers=dict(headers))


def _array(texts: Iterable[str]) -> Iterator[str]:
    separator = "["
    for text in texts:
        yield separator + text
        separator = ","
    yield "]" if separator == "," else "[]"


def not_acceptable(delivered: str) -> HTTPException:
    """The refusal of a request that accepts nothing that there is."""
    return HTTPException(406, f"This is delivered as {delivered} only.")


def frame_numbers(frames: str, instance: Instance) -> list[int]:
    """The frames of a list such as "1,4".

    Raises:
        QueryError: it is no such list.
        NotFound: the object has no such frame.
    """
    parts = frames.split(",")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise QueryError("Frames are given as numbers from 1 with commas between.")
    numbers = [int(part) for part in parts]
    if not all(1 <= number <= with_pixels(instance).number_of_frames for number in numbers):
        raise NotFound(f"The object has the frames 1 to {instance.number_of_frames}.")
    return numbers


def with_pixels(instance: Instance) -> Instance:
    """``instance`` itself.

    Raises:
        NotFound: it has no pixels.
    """
    if not instance.rows:
        raise NotFound("The object has no image.")
    return instance


def rendering_of(request: Request) -> Rendering:
    """How a rendered picture is wanted (PS3.18 section 8.3.5.1).

    Raises:
        QueryError: a parameter cannot be understood.
    """
    window, function = _window(request.query_params.get("window"))
    size, region = _viewport(request.query_params.get("viewport"))
    quality = request.query_params.get("quality", str(JPEG_QUALITY))
    if not (quality.isascii() and quality.isdigit() and 1 <= int(quality[:4]) <= 100):
        raise QueryError("quality takes a whole number from 1 to 100.")
    return Rendering(window, function, size, region, int(quality))


def byte_range(request: Request, size: int) -> tuple[int, int] | None:
    """First byte and length of the one range that is asked for of ``size`` bytes; None: all of them.

    Several ranges, and what is no range, are answered with all (RFC 9110 section 14.2).

    Raises:
        HTTPException: 416, the range lies outside.
    """
    match = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", request.headers.get("range", ""))
    if match is None or not any(match.groups()):
        return None
    if not match[1]:
        first, last = max(0, size - int(match[2])), size - 1
    else:
        first, last = int(match[1]), min(int(match[2] or size), size - 1)
    if first > last:
        if match[2] and match[1] and int(match[1]) > int(match[2]):
            return None
        raise HTTPException(416, f"The value has {size} bytes.", headers={"Content-Range": f"bytes */{size}"})
    return first, last - first + 1


def _window(value: str | None) -> tuple[tuple[float, float] | None, str]:
    """Centre, width and function of "window=center,width,function" (PS3.18 section 8.3.5.1.4)."""
    if value is None:
        return None, "LINEAR_EXACT"
    try:
        center, width, function = value.split(",")
        window = float(center), float(width)
    except ValueError as error:
        raise QueryError("window takes center,width,function.") from error
    name = function.strip().upper().replace("-", "_")
    if name not in ("LINEAR", "LINEAR_EXACT", "SIGMOID") or not 0 < window[1] < 1e12 or not abs(window[0]) < 1e12:
        raise QueryError("The width of a window is greater than 0, its function linear, linear-exact or sigmoid.")
    return window, name


def _viewport(
    value: str | None,
) -> tuple[tuple[int, int] | None, tuple[float, float, float, float] | None]:
    """Size and region of "viewport=vw,vh" or "viewport=vw,vh,sx,sy,sw,sh" (PS3.18 section 8.3.5.1.3)."""
    if value is None:
        return None, None
    parts = value.split(",")
    numbers = [int(part) for part in parts[:2] if part.isascii() and part.isdigit() and len(part) < 6]
    if len(parts) not in (2, 6) or len(numbers) != 2 or not all(0 < number <= MAX_SIDE for number in numbers):
        raise QueryError(f"viewport takes width,height in pixels, each from 1 to {MAX_SIDE}, and sx,sy,sw,sh after it.")
    size = numbers[0], numbers[1]
    if len(parts) == 2:
        return size, None
    try:
        left, top, width, height = (
            float(part or empty) for part, empty in zip(parts[2:], (0, 0, 1e9, 1e9), strict=True)
        )
    except ValueError as error:
        raise QueryError("The region of viewport takes numbers.") from error
    if not (0 <= left < 1e9 and 0 <= top < 1e9 and 0 < abs(width) <= 1e9 and 0 < abs(height) <= 1e9):
        raise QueryError("The region of viewport begins within the image, and is larger than nothing.")
    return size, (left, top, width, height)


def base_of(request: Request, public_url: str = "") -> str:
    """The address at which the routes are mounted, as the client reaches them.

    Args:
        request: of any of the routes.
        public_url: as people reach us. Where the request names the same host, this decides: some clients' Host header
            leaves the port out, and behind a proxy the scheme is another.
    """
    path = request.scope["path"]
    for resource in ("/studies", "/series", "/instances"):
        path = path.split(resource, 1)[0]
    came = request.base_url  # not `url`, which decodes the query
    ours = urlsplit(public_url)
    if ours.hostname and ours.hostname == came.hostname:
        return f"{ours.scheme}://{ours.netloc}{path}"
    return f"{came.scheme}://{came.netloc}{path}"
