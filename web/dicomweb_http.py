"""DICOMweb over HTTP (PS3.18 chapter 10): QIDO-RS to search, WADO-RS to retrieve.

Every error is a JSON body with one `message` for people, never with patient data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Request
from fastapi.params import Depends
from fastapi.responses import Response

from fhir_records.database import Database
from fhir_records.model import Instance
from web.dicomweb_answers import instance_json
from web.dicomweb_archive import Archive
from web.dicomweb_attributes import as_text
from web.dicomweb_conditional import conditional
from web.dicomweb_frames import frame_routes
from web.dicomweb_pictures import picture_routes
from web.dicomweb_reader import BoundedReader
from web.dicomweb_requests import DicomwebRoute, attributes_answer, need_attributes
from web.dicomweb_search import search_routes
from web.dicomweb_whole import whole_routes

STUDY = "/studies/{study_uid}"
SERIES = STUDY + "/series/{series_uid}"
INSTANCE = SERIES + "/instances/{sop_uid}"


def dicomweb_router(
    database: Database,
    spool_root: Path,
    zone: ZoneInfo,
    dependencies: Sequence[Depends] = (),
    reader: BoundedReader | None = None,
    public_url: str = "",
    version: str = "",
) -> APIRouter:
    """The routes, to be mounted below `/dicom-web`.

    Args:
        database: the record.
        spool_root: where instances' file keys start.
        zone: the site's time zone, for StudyDate and StudyTime.
        dependencies: run before every request; they raise where the caller may not see images.
        reader: of headers and frames. Its children start with the first of them, and end with this process.
        public_url: as people reach us.
        version: of Wetread.
    """
    router = APIRouter(route_class=DicomwebRoute, dependencies=list(dependencies), include_in_schema=False)
    archive = Archive(database, spool_root, zone, reader or BoundedReader(), public_url, version)
    search_routes(router, archive)
    whole_routes(router, archive)
    _metadata_routes(router, archive)
    frame_routes(router, archive)
    picture_routes(router, archive)
    return router


def _metadata_routes(router: APIRouter, archive: Archive) -> None:
    """WADO-RS: the attributes of objects (PS3.18 section 10.4.1.1.2)."""

    @router.get(STUDY + "/metadata")
    @router.get(SERIES + "/metadata")
    @router.get(INSTANCE + "/metadata")
    def metadata(
        request: Request, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
    ) -> Response:
        kind = need_attributes(request)
        found = archive.instances(study_uid, series_uid, sop_uid)
        for one in found:
            archive.path(one)  # once the answer has begun, nothing can be said any more
        return conditional(
            request, archive, found, lambda: attributes_answer(_texts(request, archive, found), kind, {})
        )


def _texts(request: Request, archive: Archive, found: Sequence[Instance]) -> Iterator[str]:
    """The attributes of each; what the record knows where the file cannot be read."""
    for text, one in zip(archive.attributes(request, found, None), found, strict=True):
        yield text or as_text(instance_json(one, archive.address(request, one)))
