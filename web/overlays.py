"""What may be laid over a study's images: where the model looked, what it outlined, and what a person marked.

The maps are those that were stored with the read; nothing is computed here. A finding that was entered in error lays
nothing over an image.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from fastapi import APIRouter, Depends, Request
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from fhir_records.database import Database
from fhir_records.model import Result, ResultStatus, SaliencyMap
from fhir_records.renderings import plain_words
from fhir_records.store.saliency import maps_of
from fhir_records.store.study_page import ReadHistory, StudyPage, study_page
from web.auth import Auth
from web.outlines import LaidOutlines, laid_outlines
from web.places import Place, place_of, standing
from web.settings import WebSettings
from web.words import answer_words
from web.worklist import etag


@dataclass(frozen=True, slots=True)
class LaidMap:
    """A saliency map over the whole of one frame."""

    image: Place
    model: str  # its title
    words: str  # what is seen, and what is not, for people
    rows: int
    columns: int
    levels: str  # base64 of rows x columns bytes, row by row; 255 is the strongest evidence; "" where there is none


@dataclass(frozen=True, slots=True)
class LaidRegion:
    """A rectangle that a person marked, in pixels of the frame from its top left corner."""

    image: Place
    left: float
    top: float
    width: float
    height: float
    words: str  # who marked it


@dataclass(frozen=True, slots=True)
class Overlays:
    """All that the viewer can lay over the images of a study, and the images that the findings rest on."""

    key_images: tuple[Place, ...]  # the most telling first
    maps: tuple[LaidMap, ...]
    regions: tuple[LaidRegion, ...]
    outlines: tuple[LaidOutlines, ...]  # their masks are asked for when they are to be seen


def overlays_router(auth: Auth, settings: WebSettings, database: Database) -> APIRouter:
    """The overlays of a study as JSON, for whoever may see its page."""
    router = APIRouter(
        prefix="/studies/{study_uid}", include_in_schema=False, dependencies=[Depends(auth.person), Depends(auth.csrf)]
    )

    @router.get("/overlays")
    def overlays(request: Request, study_uid: str) -> Response:
        # Part of a page whose viewing was written down when it was opened.
        with database.session() as session:
            content = overlays_of(session, study_page(session, study_uid))
        tag = etag(content, settings.version)
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        return JSONResponse(asdict(content), headers={"ETag": tag})

    return router


def overlays_of(session: Session, page: StudyPage) -> Overlays:
    """What the findings that stand lay over the study's images."""
    histories = standing(page)
    return Overlays(
        key_images=tuple(key_images(page)),
        maps=tuple(one for history in histories for one in _maps(session, history)),
        regions=tuple(one for history in histories for one in _regions(history)),
        outlines=laid_outlines(page),
    )


def key_images(page: StudyPage) -> dict[Place, int]:
    """The key images of the findings that stand, each with its number, from 1; the most telling first."""
    numbers: dict[Place, int] = {}
    for history in standing(page):
        if history.newest is not None and history.newest.result.finding is not None:
            for ref in history.newest.result.finding.key_images:
                numbers.setdefault(place_of(ref), len(numbers) + 1)
    return numbers


def region_numbers(page: StudyPage) -> dict[int, int]:
    """The number, from 1, of the region that a person marked, by the read that it belongs to."""
    marked = [history.read.id for history in standing(page) if any(_regions(history))]
    return {read_id: number for number, read_id in enumerate(marked, start=1)}


def _maps(session: Session, history: ReadHistory) -> Iterator[LaidMap]:
    result = _standing_result(history)
    if result is None:
        return
    for found in maps_of(session, history.read.id):
        seen = found.peak > 0 and len(found.levels) == found.rows * found.columns
        yield LaidMap(
            image=place_of(found.image),
            model=result.algorithm.title,
            words=_map_words(found, history, seen=seen),
            rows=found.rows,
            columns=found.columns,
            levels=base64.b64encode(found.levels).decode("ascii") if seen else "",
        )


def _map_words(found: SaliencyMap, history: ReadHistory, *, seen: bool) -> str:
    answer = _answer(found.label, history)
    said = f" for its answer “{answer}”" if answer else ""
    if not seen:
        return f"Nowhere in this image did the model see evidence{said}."
    corrected = history.results[0].result.author is not None
    since = ", which a person has corrected" if corrected and found.label != _label(history) else ""
    return f"Where the model looked{said}{since}. Not a contour."


def _answer(label: str, history: ReadHistory) -> str:
    """What people call the class that a map speaks for; "" where the model weighed no such class."""
    machine = history.results[-1].result.finding
    weighed = machine.alternatives if machine else ()
    return next((answer_words(one) for one in weighed if one.label == label), "")


def _label(history: ReadHistory) -> str:
    finding = history.results[0].result.finding
    return finding.label if finding else ""


def _regions(history: ReadHistory) -> Iterator[LaidRegion]:
    result = _standing_result(history)
    region = result.finding.region if result is not None and result.finding else None
    if result is None or region is None:
        return
    words = f"Marked by {_marked_by(result)}"
    yield LaidRegion(place_of(region.image), region.left, region.top, region.width, region.height, words)


def _marked_by(result: Result) -> str:
    """The person whose finding it is; that may be another one than who signed last."""
    author = result.author
    return author.display_name if author is not None else plain_words.signed_by(result) or "a person"


def _standing_result(history: ReadHistory) -> Result | None:
    """The result that stands, where it has a finding; None where it is in error, or says nothing."""
    if history.newest is None or history.newest.result.finding is None:
        return None
    result = history.newest.result
    return None if result.status is ResultStatus.ENTERED_IN_ERROR else result
