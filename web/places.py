"""Images as the viewer names them, and the reads whose findings it may lay over them."""

from __future__ import annotations

from dataclasses import dataclass

from fhir_records.model import ImageRef
from fhir_records.store.study_page import ReadHistory, StudyPage


@dataclass(frozen=True, slots=True)
class Place:
    """An image, or one frame of it, as the viewer names it."""

    series_uid: str
    sop_uid: str
    frame: int | None  # from 1; None: a single-frame image


def place_of(ref: ImageRef) -> Place:
    """The image as the viewer names it."""
    return Place(ref.series_uid, ref.sop_uid, ref.frame)


def standing(page: StudyPage) -> tuple[ReadHistory, ...]:
    """The reads whose findings stand: those of the newest images, then those signed before these came."""
    return (*page.current, *page.signed_before) if page.reads else ()
