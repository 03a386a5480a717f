"""DICOMweb over HTTP (PS3.18 chapter 10): QIDO-RS to search, WADO-RS to retrieve.

Objects are delivered in the transfer syntax in which they are stored, frames always in Explicit VR Little Endian.
Every error is a JSON body with one `message` for people, never with patient data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import structlog
from fastapi import APIRouter, Request
from fastapi.params import Depends
from fastapi.responses import Response, StreamingResponse
from pydicom.uid import ExplicitVRLittleEndian
from starlette.exceptions import HTTPException

from dicom_listener import pixels
from fhir_records.database import Database
from fhir_records.errors import NotFound, PixelsNotReadable, QueryError
from fhir_records.identities import log_id
from fhir_records.model import Instance
from fhir_records.store import instances as store
from web import dicomweb_objects as objects
from web.dicomweb_query import (
    INSTANCE_KEYS,
    SERIES_KEYS,
    STUDY_KEYS,
    UID,
    Question,
    instance_json,
    series_json,
    study_json,
    study_query,
)
from web.dicomweb_requests import (
    DicomwebRoute,
    address_of,
    base_of,
    frame_numbers,
    media_ranges,
    need,
    not_acceptable,
    size_of,
    window_of,
    with_pixels,
)
from web.media_types import DICOM, DICOM_JSON, JPEG, JSON, OCTET_STREAM, PNG, multipart

log = structlog.get_logger(__name__)

STUDY = "/studies/{study_uid}"
SERIES = STUDY + "/series/{series_uid}"
INSTANCE = SERIES + "/instances/{sop_uid}"
LITTLE_ENDIAN = str(ExplicitVRLittleEndian)


@dataclass(frozen=True, slots=True)
class Archive:
    """Where the routes find instances and their files."""

    database: Database
    spool_root: Path
    decoder: pixels.Decoder = pixels

    def instances(self, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None) -> list[Instance]:
        """The current instances below a path of UIDs, at least one.

        Raises:
            QueryError: a UID is none.
            NotFound: there are none.
        """
        for uid in (study_uid, series_uid, sop_uid):
            if uid is not None and not UID.fullmatch(uid):
                raise QueryError("A UID has at most 64 digits and dots.")
        with self.database.session() as session:
            if series_uid is not None and sop_uid is not None:
                return [store.instance(session, study_uid, series_uid, sop_uid)]
            found = store.instances_of(session, study_uid, series_uid)
        if not found:
            raise NotFound("There is no such study." if series_uid is None else "There is no such series.")
        return found

    def path(self, instance: Instance) -> Path:
        """The file of an instance.

        Raises:
            HTTPException: 500, it is not there.
        """
        path = self.spool_root / instance.file_key
        if not path.is_file():
            log.error("stored file is missing", instance_id=log_id(instance.sop_uid))
            raise HTTPException(500, "The stored file of this image is missing. Tell your administrator.")
        return path

    def attributes(self, instance: Instance, address: str, tags: frozenset[int] | None) -> objects.Json:
        """The attributes in the file; none where it cannot be parsed, for one bad object must not hide the others."""
        try:
            return objects.attributes(self.path(instance), instance, address, tags)
        except PixelsNotReadable as error:
            log.warning("attributes cannot be read", instance_id=log_id(instance.sop_uid), reason=str(error))
            return {}


def dicomweb_router(
    database: Database,
    spool_root: Path,
    zone: ZoneInfo,
    dependencies: Sequence[Depends] = (),
    decoder: pixels.Decoder = pixels,
) -> APIRouter:
    """The routes, to be mounted below `/dicom-web`.

    Args:
        database: the record.
        spool_root: where instances' file keys start.
        zone: the site's time zone, for StudyDate and StudyTime.
        dependencies: run before every request; they raise where the caller may not see images.
        decoder: of the frames; by default in this very process, without a limit of time.
    """
    router = APIRouter(route_class=DicomwebRoute, dependencies=list(dependencies), include_in_schema=False)
    archive = Archive(database, spool_root, decoder)
    _search_routes(router, archive, zone)
    _object_routes(router, archive)
    _frame_routes(router, archive)
    _picture_routes(router, archive)
    return router


def _search_routes(router: APIRouter, archive: Archive, zone: ZoneInfo) -> None:
    """QIDO-RS (PS3.18 section 10.6)."""

    @router.get("/studies")
    def studies(request: Request) -> Response:
        question = Question(request.query_params, STUDY_KEYS)
        with archive.database.session() as session:
            found = store.search_studies(session, study_query(question, zone))
        return _answers([study_json(study, base_of(request), zone) for study in found], question, request)

    @router.get(STUDY + "/series")
    def series(request: Request, study_uid: str) -> Response:
        question = Question(request.query_params, SERIES_KEYS)
        archive.instances(study_uid)  # a study that is not here is another thing than one without such series
        with archive.database.session() as session:
            found = [
                one
                for one in store.series_of(session, study_uid)
                if question.asks("Modality", one.modality)
                and question.asks("SeriesInstanceUID", one.series_uid)
                and question.asks("SeriesNumber", one.series_number)
            ]
        return _answers([series_json(one, base_of(request)) for one in question.page(found)], question, request)

    @router.get(STUDY + "/instances")
    @router.get(SERIES + "/instances")
    def instances(request: Request, study_uid: str, series_uid: str | None = None) -> Response:
        question = Question(request.query_params, INSTANCE_KEYS)
        found = [
            one
            for one in archive.instances(study_uid, series_uid)
            if question.asks("SOPInstanceUID", one.sop_uid)
            and question.asks("SOPClassUID", one.sop_class_uid)
            and question.asks("InstanceNumber", one.instance_number)
            and question.asks("SeriesInstanceUID", one.series_uid)
            and question.asks("Modality", one.modality)
        ]
        answers = []
        for one in question.page(found):
            address = address_of(request, one)
            wanted = question.fields is None or question.fields
            more = archive.attributes(one, address, question.fields) if wanted else {}
            answers.append(more | instance_json(one, address))
        return _answers(answers, question, request)


def _object_routes(router: APIRouter, archive: Archive) -> None:
    """WADO-RS: whole objects and their attributes (PS3.18 sections 10.4.1.1.1 and 10.4.1.1.2)."""

    @router.get(STUDY)
    @router.get(SERIES)
    @router.get(INSTANCE)
    def objects_below(
        request: Request, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
    ) -> Response:
        found = [(one, archive.path(one)) for one in archive.instances(study_uid, series_uid, sop_uid)]
        stored = {one.transfer_syntax_uid for one, _ in found}
        for wanted in media_ranges(request):
            if wanted.transfer_syntax not in ("", "*") and stored != {wanted.transfer_syntax}:
                continue
            if wanted.covers_parts(DICOM):
                parts = ((_type(DICOM, one.transfer_syntax_uid), objects.file_chunks(path)) for one, path in found)
                kind, body = multipart(DICOM, parts)
                return StreamingResponse(body, headers={"Content-Type": kind})
            if wanted.covers(DICOM) and len(found) == 1:
                return StreamingResponse(objects.file_chunks(found[0][1]), media_type=DICOM)
        raise not_acceptable(f'multipart/related; type="{DICOM}", in the transfer syntax in which they are stored,')

    @router.get(STUDY + "/metadata")
    @router.get(SERIES + "/metadata")
    @router.get(INSTANCE + "/metadata")
    def metadata(
        request: Request, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
    ) -> Response:
        need(request, DICOM_JSON, JSON)
        found = archive.instances(study_uid, series_uid, sop_uid)
        for one in found:
            archive.path(one)  # once the answer has begun, nothing can be said any more

        def body() -> Iterator[str]:
            separator = "["
            for one in found:
                address = address_of(request, one)
                answer = archive.attributes(one, address, None) or instance_json(one, address)
                yield separator + objects.as_text(answer)
                separator = ","
            yield "]"

        return StreamingResponse(body(), media_type=DICOM_JSON)


def _frame_routes(router: APIRouter, archive: Archive) -> None:
    """WADO-RS: the pixels as bytes (PS3.18 sections 10.4.1.1.5 and 10.4.1.1.6)."""

    @router.get(INSTANCE + "/frames/{frames}")
    def some_frames(request: Request, study_uid: str, series_uid: str, sop_uid: str, frames: str) -> Response:
        instance = archive.instances(study_uid, series_uid, sop_uid)[0]
        return _frames(request, archive, instance, frame_numbers(frames, instance), apart=True)

    @router.get(INSTANCE + "/bulkdata/7FE00010")
    def all_frames(request: Request, study_uid: str, series_uid: str, sop_uid: str) -> Response:
        instance = with_pixels(archive.instances(study_uid, series_uid, sop_uid)[0])
        return _frames(request, archive, instance, range(1, instance.number_of_frames + 1), apart=False)


def _frames(request: Request, archive: Archive, instance: Instance, numbers: Sequence[int], *, apart: bool) -> Response:
    """Frames in a part each, or as one value; singly, without parts, where the client wants it so."""
    path = archive.path(instance)
    for wanted in media_ranges(request):
        if wanted.transfer_syntax not in ("", "*", LITTLE_ENDIAN):
            continue
        in_parts = wanted.covers_parts(OCTET_STREAM)
        if not in_parts and not (wanted.covers(OCTET_STREAM) and (len(numbers) == 1 or not apart)):
            continue
        # The first one before anything is sent, so that a failure can still be said.
        first = objects.frame_bytes(path, instance, numbers[0], archive.decoder)
        rest = (objects.frame_bytes(path, instance, number, archive.decoder) for number in numbers[1:])
        content_type = _type(OCTET_STREAM, LITTLE_ENDIAN)
        if not in_parts:
            return StreamingResponse(_chained(first, rest), headers=content_type)
        whole = [(content_type, _chained(first, rest))]
        kind, body = multipart(
            OCTET_STREAM, ((content_type, [one]) for one in _chained(first, rest)) if apart else whole
        )
        return StreamingResponse(body, headers={"Content-Type": kind})
    raise not_acceptable(f'multipart/related; type="{OCTET_STREAM}"; transfer-syntax={LITTLE_ENDIAN}')


def _picture_routes(router: APIRouter, archive: Archive) -> None:
    """WADO-RS: rendered frames and thumbnails (PS3.18 sections 10.4.1.1.3 and 10.4.1.1.4)."""

    @router.get(INSTANCE + "/rendered")
    @router.get(INSTANCE + "/frames/{frames}/rendered")
    def rendered(request: Request, study_uid: str, series_uid: str, sop_uid: str, frames: str = "1") -> Response:
        instance = archive.instances(study_uid, series_uid, sop_uid)[0]
        return picture(request, instance, frame_numbers(frames, instance)[0], size_of(request))

    @router.get(STUDY + "/thumbnail")
    @router.get(SERIES + "/thumbnail")
    @router.get(INSTANCE + "/thumbnail")
    @router.get(INSTANCE + "/frames/{frames}/thumbnail")
    def thumbnail(
        request: Request,
        study_uid: str,
        series_uid: str | None = None,
        sop_uid: str | None = None,
        frames: str | None = None,
    ) -> Response:
        images = [one for one in archive.instances(study_uid, series_uid, sop_uid) if one.rows]
        if not images:
            raise NotFound("There is no image here to show.")
        middle = images[len(images) // 2]
        number = (middle.number_of_frames + 1) // 2 if frames is None else frame_numbers(frames, middle)[0]
        return picture(request, middle, number, size_of(request) or objects.THUMBNAIL_SIZE)

    def picture(request: Request, instance: Instance, frame: int, size: tuple[int, int] | None) -> Response:
        kind = need(request, JPEG, PNG)
        path = archive.path(with_pixels(instance))
        content = objects.picture(
            path, frame, png=kind == PNG, window=window_of(request), size=size, decoder=archive.decoder
        )
        return Response(content, media_type=kind)


def _answers(found: Sequence[objects.Json], question: Question, request: Request) -> Response:
    """The answer to a search: 204 where nothing was found (PS3.18 section 10.6.3)."""
    need(request, DICOM_JSON, JSON)
    headers = {"Warning": f'299 wetread "not matched: {", ".join(question.ignored)}"'} if question.ignored else {}
    if not found:
        return Response(status_code=204, headers=headers)
    text = f"[{','.join(objects.as_text(answer) for answer in found)}]"
    return Response(text, media_type=DICOM_JSON, headers=headers)


def _type(kind: str, transfer_syntax_uid: str) -> dict[str, str]:
    return {"Content-Type": f"{kind}; transfer-syntax={transfer_syntax_uid}"}


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
