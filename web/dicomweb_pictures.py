"""WADO-RS: rendered pictures and thumbnails (PS3.18 sections 10.4.1.1.3 and 10.4.1.1.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from PIL.Image import Image

from dicom_listener.transfer_syntaxes import transfer_syntax
from fhir_records.errors import NotFound
from fhir_records.model import Instance
from web import dicomweb_objects as objects
from web.dicomweb_archive import Archive
from web.dicomweb_conditional import conditional
from web.dicomweb_objects import THUMBNAIL_SIZE, Rendering
from web.dicomweb_requests import frame_numbers, media_ranges, need, not_acceptable, rendering_of, with_pixels
from web.media_types import GIF, JPEG, MULTIPART, PNG, MediaRange, multipart

STUDY = "/studies/{study_uid}"
SERIES = STUDY + "/series/{series_uid}"
INSTANCE = SERIES + "/instances/{sop_uid}"
KINDS = (JPEG, PNG, GIF)
MAX_GIF_PICTURES = 512  # in one moving picture
IGNORED = ("annotation", "charset", "iccprofile")  # parameters of PS3.18 section 8.3.5 that change nothing here

Frame = tuple[Instance, int]  # its number from 1


def picture_routes(router: APIRouter, archive: Archive) -> None:
    """Add the rendered resources and the thumbnails."""

    def rendered(request: Request) -> Response:
        found, frames = _asked(request, archive)
        if "sop_uid" in request.path_params:
            numbers = _numbers(with_pixels(found[0])) if frames is None else frame_numbers(frames, found[0])
            shown = [(found[0], number) for number in numbers]
        else:
            shown = [(one, number) for one in _images(found) for number in _numbers(one)]
        picture = _Rendered(archive, shown, rendering_of(request))
        return conditional(request, archive, found, lambda: picture.answer(request))

    def thumbnail(request: Request) -> Response:
        found, frames = _asked(request, archive)
        images = _images(found)
        middle = images[len(images) // 2]
        number = (middle.number_of_frames + 1) // 2 if frames is None else frame_numbers(frames, middle)[0]
        rendering = rendering_of(request)
        rendering = replace(rendering, size=rendering.size or THUMBNAIL_SIZE)
        kind = need(request, *KINDS)
        image = _Rendered(archive, [(middle, number)], rendering)
        return conditional(request, archive, images, lambda: Response(image.file(kind, image.frames), media_type=kind))

    for level in (STUDY, SERIES, INSTANCE, INSTANCE + "/frames/{frames}"):
        router.get(level + "/rendered")(rendered)
        router.get(level + "/thumbnail")(thumbnail)


def _asked(request: Request, archive: Archive) -> tuple[list[Instance], str | None]:
    """The instances below the path, and the frames that it names."""
    study_uid, series_uid, sop_uid = (request.path_params.get(name) for name in ("study_uid", "series_uid", "sop_uid"))
    return archive.instances(study_uid or "", series_uid, sop_uid), request.path_params.get("frames")


class _Rendered:
    """Frames to be shown, and how."""

    def __init__(self, archive: Archive, frames: Sequence[Frame], rendering: Rendering) -> None:
        self.archive = archive
        self.frames = frames
        self.rendering = rendering

    def answer(self, request: Request) -> Response:
        """One picture, or one in a part each where parts are asked for, or a moving one.

        Of several frames, one picture is of the one in the middle, and a warning says so.
        """
        ignored = [name for name in IGNORED if name in request.query_params]
        said = [f"not done: {', '.join(ignored)}"] if ignored else []
        for wanted in media_ranges(request):
            if wanted.kind == MULTIPART:
                if (kind := _first_covered(wanted, parts=True)) is not None:
                    return self._parts(kind, said)
            elif (kind := _first_covered(wanted, parts=False)) is not None:
                return self._single(kind, said)
        raise not_acceptable(f"{', '.join(KINDS)}, or several as multipart/related of these,")

    def file(self, kind: str, frames: Sequence[Frame]) -> bytes:
        """A file of these frames."""
        return objects.written(self._images(frames), kind, self.rendering.quality)

    def _single(self, kind: str, said: list[str]) -> Response:
        chosen = self.frames
        if kind != GIF or len(chosen) > MAX_GIF_PICTURES:
            middle = len(chosen) // 2 if len({one.sop_uid for one, _ in chosen}) > 1 else 0
            if len(chosen) > 1:
                said = [*said, f"picture {middle + 1} of {len(chosen)}; all come as multipart/related"]
            chosen = [chosen[middle]]
        return Response(self.file(kind, chosen), media_type=kind, headers=_warning(said))

    def _parts(self, kind: str, said: list[str]) -> Response:
        first = self.file(kind, self.frames[:1])  # before anything is sent: a failure can still be said

        def parts() -> Iterator[tuple[dict[str, str], list[bytes]]]:
            yield {"Content-Type": kind}, [first]
            for frame in self.frames[1:]:
                yield {"Content-Type": kind}, [self.file(kind, [frame])]

        content_type, body = multipart(kind, parts())
        return StreamingResponse(body, headers={"Content-Type": content_type, **_warning(said)})

    def _images(self, frames: Sequence[Frame]) -> Iterator[Image]:
        for instance, number in frames:
            yield objects.picture(self.archive.path(instance), number, self.rendering, self.archive.reader)


def _images(found: Sequence[Instance]) -> list[Instance]:
    """Those of which a picture can be made, at least one.

    Raises:
        NotFound: there is none.
    """
    images = [one for one in found if one.rows and transfer_syntax(one.transfer_syntax_uid).is_decoded]
    # A single object that has pixels is let pass: its refusal then says why there is no picture.
    images = images or [one for one in found if one.rows and len(found) == 1]
    if not images:
        raise NotFound("There is no image here to show.")
    return images


def _numbers(instance: Instance) -> range:
    return range(1, instance.number_of_frames + 1)


def _first_covered(wanted: MediaRange, *, parts: bool) -> str | None:
    return next((kind for kind in KINDS if (wanted.covers_parts(kind) if parts else wanted.covers(kind))), None)


def _warning(said: Sequence[str]) -> dict[str, str]:
    return {"Warning": ", ".join(f'299 wetread "{words}"' for words in said)} if said else {}
