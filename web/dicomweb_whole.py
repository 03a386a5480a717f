"""WADO-RS: whole objects (PS3.18 section 10.4.1.1.1), as they are stored or in Explicit VR Little Endian.

That is the transfer syntax of a request that names none (PS3.18 section 8.7.3.5.2). What cannot be written in it, such
as a video, then goes out as it is stored, and each part says which it is in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from pydicom.uid import ExplicitVRLittleEndian

from dicom_listener.transfer_syntaxes import transfer_syntax
from fhir_records.errors import PixelsNotReadable
from fhir_records.identities import log_id
from fhir_records.model import Instance
from web import dicomweb_objects as objects
from web.dicomweb_archive import Archive
from web.dicomweb_requests import media_ranges, not_acceptable
from web.media_types import DICOM, MediaRange, multipart

log = structlog.get_logger(__name__)

STUDY = "/studies/{study_uid}"
SERIES = STUDY + "/series/{series_uid}"
INSTANCE = SERIES + "/instances/{sop_uid}"
LITTLE_ENDIAN = str(ExplicitVRLittleEndian)
LONGEST = 0xFFFFFFFE  # bytes of a value of defined length (PS3.5 section 7.1.1)

Delivered = tuple[str, Iterator[bytes]]  # transfer syntax, file


def whole_routes(router: APIRouter, archive: Archive) -> None:
    """Add the resources of studies, series and instances."""

    @router.get(STUDY)
    @router.get(SERIES)
    @router.get(INSTANCE)
    def objects_below(
        request: Request, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None
    ) -> Response:
        found = [(one, archive.path(one)) for one in archive.instances(study_uid, series_uid, sop_uid)]
        for wanted in media_ranges(request):
            in_parts = wanted.covers_parts(DICOM)
            if not in_parts and not (wanted.covers(DICOM) and len(found) == 1):
                continue
            if not all(_can_be_had(one, wanted) for one, _ in found):
                continue
            first = _delivered(archive, *found[0], wanted)  # before anything is sent: a failure can still be said
            if not in_parts:
                return StreamingResponse(first[1], headers=_type(first[0]))
            content_type, body = multipart(DICOM, _parts(archive, first, found[1:], wanted))
            return StreamingResponse(body, headers={"Content-Type": content_type})
        raise not_acceptable(
            f'multipart/related; type="{DICOM}", in the transfer syntax in which they are stored or, '
            f"where they can be decoded, {LITTLE_ENDIAN}"
        )


def _can_be_had(instance: Instance, wanted: MediaRange) -> bool:
    """Whether it can be delivered in the transfer syntax that is wanted, as far as the record tells."""
    if wanted.transfer_syntax == LITTLE_ENDIAN:
        return not instance.rows or transfer_syntax(instance.transfer_syntax_uid).is_decoded
    return wanted.transfer_syntax in ("", "*", instance.transfer_syntax_uid)


def _delivered(archive: Archive, instance: Instance, path: Path, wanted: MediaRange) -> Delivered:
    """The object as it is wanted.

    Raises:
        PixelsNotReadable: it cannot be written in Explicit VR Little Endian, and nothing else is wanted.
    """
    stored = instance.transfer_syntax_uid
    if wanted.transfer_syntax in ("*", stored) or stored == LITTLE_ENDIAN:
        return stored, objects.file_chunks(path)
    try:
        return LITTLE_ENDIAN, _explicit(archive, instance, path)
    except PixelsNotReadable as error:
        if wanted.transfer_syntax == LITTLE_ENDIAN:
            raise
        log.info("delivered as it is stored", instance_id=log_id(instance.sop_uid), reason=str(error))
        return stored, objects.file_chunks(path)


def _explicit(archive: Archive, instance: Instance, path: Path) -> Iterator[bytes]:
    """The object in Explicit VR Little Endian, frame after frame.

    Raises:
        PixelsNotReadable: at once, it cannot be written like that.
    """
    head = archive.reader.explicit_head(path, instance)
    if not instance.rows:
        return iter([head])
    first = objects.frame_bytes(path, instance, 1, archive.reader)
    length = len(first) * instance.number_of_frames
    place = objects.native_pixels(path)
    single_bits = place is not None and place.single_bits and place.frame_bits % 8 and instance.number_of_frames > 1
    if length + length % 2 > LONGEST or single_bits:
        raise PixelsNotReadable("The decoded frames make no value of one element.")

    def chunks() -> Iterator[bytes]:
        # (7FE0,0010), OW: a value of words has no order of bytes but this one here (PS3.5 section A.2).
        yield head + b"\xe0\x7f\x10\x00OW\x00\x00" + (length + length % 2).to_bytes(4, "little")
        yield first
        for number in range(2, instance.number_of_frames + 1):
            yield objects.frame_bytes(path, instance, number, archive.reader)
        yield bytes(length % 2)

    return chunks()


def _parts(
    archive: Archive, first: Delivered, rest: Sequence[tuple[Instance, Path]], wanted: MediaRange
) -> Iterator[tuple[dict[str, str], Iterator[bytes]]]:
    yield _type(first[0]), first[1]
    for instance, path in rest:
        syntax, content = _delivered(archive, instance, path, wanted)
        yield _type(syntax), content


def _type(syntax: str) -> dict[str, str]:
    return {"Content-Type": f"{DICOM}; transfer-syntax={syntax}"}
