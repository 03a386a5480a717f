"""What models outlined, for the viewer to lay over images: the segments of the findings that stand, and their masks.

The masks are those that were stored with the read; nothing is computed here. A finding that a person corrected or
rejected has none: they were the machine's.
"""

from __future__ import annotations

import base64
import itertools
import zlib
from dataclasses import asdict, dataclass
from typing import Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from fhir_records.database import Database
from fhir_records.errors import NotFound, RenderingError
from fhir_records.model import Finding, Outlines, ResultStatus
from fhir_records.renderings import plain_words
from fhir_records.store.outlines import outlines_of
from fhir_records.store.study_page import ReadHistory, StudyPage, study_page
from web.auth import Auth
from web.places import Place, place_of, standing
from web.settings import WebSettings
from web.worklist import etag

# Lengths of strokes and gaps in CSS pixels: who cannot tell the colours apart tells the lines apart.
DASHES: Final = ("", "8 4", "2 4", "12 4 2 4", "16 6", "6 3 2 3 2 3")
_SIGNED_BEFORE: Final = ", signed before the newest images"
_DAMAGED: Final = "A kept outline is damaged; run `wetread doctor`."


@dataclass(frozen=True, slots=True)
class LaidSegment:
    """One thing that was outlined."""

    key: str  # in the page's addresses: "#outline-" and this
    number: int  # in the masks, from 1
    name: str  # in plain words
    words: str  # its name and the volume over all slices
    colour: tuple[int, int, int]  # red, green, blue, 0 to 255; as in the other objects of the result
    dash: str  # SVG's stroke-dasharray; "" for a whole line


@dataclass(frozen=True, slots=True)
class LaidOutlines:
    """All that one read's model outlined."""

    words: str  # whose they are
    address: str  # of the masks
    segments: tuple[LaidSegment, ...]


@dataclass(frozen=True, slots=True)
class LaidMask:
    """One segment on one image."""

    segment: int  # its number, from 1
    place: int  # of the image in `images`, from 0
    pixels: int  # inside it
    bits: str  # base64 of zlib of the mask's bits, row by row, the first in the highest bit


@dataclass(frozen=True, slots=True)
class LaidMasks:
    """Where each segment lies, on the images' own pixels."""

    rows: int
    columns: int
    images: tuple[Place, ...]  # that the model looked at
    masks: tuple[LaidMask, ...]


def outlines_router(auth: Auth, settings: WebSettings, database: Database) -> APIRouter:
    """The masks of a read as JSON, for whoever may see the study's page."""
    router = APIRouter(
        prefix="/studies/{study_uid}", include_in_schema=False, dependencies=[Depends(auth.person), Depends(auth.csrf)]
    )

    @router.get("/outlines/{read_id}")
    def masks(request: Request, study_uid: str, read_id: int) -> Response:
        # Part of a page whose viewing was written down when it was opened.
        with database.session() as session:
            history = _outlined(study_page(session, study_uid), read_id)
            finding = _finding(history)
            tag = etag((read_id, history.results[0].result.id), settings.version)
            if request.headers.get("if-none-match") == tag:
                return Response(status_code=304, headers={"ETag": tag})
            content = _masks(finding, outlines_of(session, read_id))
        return JSONResponse(asdict(content), headers={"ETag": tag})

    return router


def laid_outlines(page: StudyPage) -> tuple[LaidOutlines, ...]:
    """What the findings that stand speak of as outlined, a read after the other."""
    study_uid = page.study.study_uid
    dashes = itertools.cycle(DASHES)
    return tuple(
        LaidOutlines(
            words=history.results[0].result.algorithm.title + _SIGNED_BEFORE * (history in page.signed_before),
            address=f"/studies/{study_uid}/outlines/{history.read.id}",
            segments=tuple(
                LaidSegment(
                    key=segment_key(history.read.id, number),
                    number=number,
                    name=segment.wording,
                    words=plain_words.segment_words(segment),
                    colour=segment.colour,
                    dash=next(dashes),
                )
                for number, segment in enumerate(finding.segments, start=1)
            ),
        )
        for history in standing(page)
        if (finding := _finding(history)) is not None
    )


def segment_key(read_id: int, number: int) -> str:
    """What a segment is called in the page's addresses."""
    return f"{read_id}-{number}"


def laid_segments(page: StudyPage) -> dict[str, LaidSegment]:
    """Every segment that can be laid over the images, by its key."""
    return {segment.key: segment for outlines in laid_outlines(page) for segment in outlines.segments}


def _finding(history: ReadHistory) -> Finding | None:
    """The finding that stands, where it speaks of something outlined."""
    if history.newest is None or history.newest.result.status is ResultStatus.ENTERED_IN_ERROR:
        return None
    finding = history.newest.result.finding
    return finding if finding is not None and finding.segments else None


def _outlined(page: StudyPage, read_id: int) -> ReadHistory:
    for history in standing(page):
        if history.read.id == read_id and _finding(history) is not None:
            return history
    raise NotFound("This study has no such outlines, or they stand no more.")


def _masks(finding: Finding | None, outlines: Outlines | None) -> LaidMasks:
    """The stored masks. Raises NotFound where none is kept, RenderingError where one is damaged."""
    if finding is None or outlines is None:
        raise NotFound("The result speaks of outlines, and none of them is kept. Tell your administrator.")
    return LaidMasks(
        rows=outlines.rows,
        columns=outlines.columns,
        images=tuple(place_of(image) for image in outlines.images),
        masks=tuple(
            LaidMask(
                segment=mask.segment,
                place=mask.place,
                pixels=_pixels(mask.bits, outlines.rows * outlines.columns),
                bits=base64.b64encode(mask.bits).decode("ascii"),
            )
            for mask in outlines.masks
            if mask.segment <= len(finding.segments)
        ),
    )


def _pixels(bits: bytes, pixels: int) -> int:
    """How many of a mask's ``pixels`` are inside. Raises RenderingError where the mask is damaged."""
    try:
        packed = zlib.decompress(bits)
    except zlib.error as error:
        raise RenderingError(_DAMAGED) from error
    if len(packed) != (pixels + 7) // 8:
        raise RenderingError(_DAMAGED)
    return int.from_bytes(packed, "big").bit_count()
