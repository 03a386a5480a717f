"""What a DICOMweb request asks for beside its path, and how a refusal is said (PS3.18 sections 8.3 and 8.5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from fhir_records.errors import DatabaseUnavailable, NotAllowed, NotFound, PixelsNotReadable, QueryError, WetreadError
from fhir_records.model import Instance
from web.media_types import MediaRange, accepted

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


def window_of(request: Request) -> tuple[float, float] | None:
    """Centre and width of "window=center,width,function" (PS3.18 section 8.3.5.1.4).

    Raises:
        QueryError: it is none, or of a function other than linear.
    """
    value = request.query_params.get("window")
    if value is None:
        return None
    try:
        center, width, function = value.split(",")
        window = float(center), float(width)
    except ValueError as error:
        raise QueryError("window takes center,width,function.") from error
    if function not in ("linear", "linear-exact") or not 0 < window[1] < 1e12 or not abs(window[0]) < 1e12:
        raise QueryError("The width of a window is greater than 0, its function linear or linear-exact.")
    return window


def size_of(request: Request) -> tuple[int, int] | None:
    """Width and height of "viewport=width,height" (PS3.18 section 8.3.5.1.3).

    Raises:
        QueryError: it is none.
    """
    value = request.query_params.get("viewport")
    if value is None:
        return None
    parts = value.split(",")
    numbers = [int(part) for part in parts if part.isascii() and part.isdigit() and len(part) < 6]
    if len(parts) != 2 or len(numbers) != 2 or not all(0 < number <= MAX_SIDE for number in numbers):
        raise QueryError(f"viewport takes width,height in pixels, each from 1 to {MAX_SIDE}.")
    return numbers[0], numbers[1]


def base_of(request: Request) -> str:
    """The address at which the routes are mounted."""
    return str(request.url).split("?", 1)[0].split("/studies", 1)[0]


def address_of(request: Request, instance: Instance) -> str:
    """The address of an instance (RetrieveURL)."""
    series = f"{base_of(request)}/studies/{instance.study_uid}/series/{instance.series_uid}"
    return f"{series}/instances/{instance.sop_uid}"
