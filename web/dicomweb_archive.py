"""Where the DICOMweb routes find instances, their files and their addresses."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import structlog
from fastapi import Request
from starlette.exceptions import HTTPException

from fhir_records.database import Database
from fhir_records.errors import NotFound, QueryError
from fhir_records.identities import log_id
from fhir_records.model import Instance
from fhir_records.store import image_search
from fhir_records.store import instances as store
from web.dicomweb_reader import BoundedReader
from web.dicomweb_requests import UID, base_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Archive:
    """The record and the spool, as the routes see them."""

    database: Database
    spool_root: Path
    zone: ZoneInfo  # the site's, for StudyDate and StudyTime
    reader: BoundedReader
    public_url: str = ""  # as people reach us
    version: str = ""  # of Wetread

    def instances(self, study_uid: str, series_uid: str | None = None, sop_uid: str | None = None) -> list[Instance]:
        """The current instances below a path of UIDs, at least one.

        Raises:
            QueryError: a UID is none.
            NotFound: there are none.
        """
        check_uids(study_uid, series_uid, sop_uid)
        with self.database.session() as session:
            if series_uid is not None and sop_uid is not None:
                return [store.instance(session, study_uid, series_uid, sop_uid)]
            found = store.instances_of(session, study_uid, series_uid)
        if not found:
            raise _nothing(series_uid)
        return found

    def check(self, study_uid: str | None, series_uid: str | None) -> None:
        """See that the study, or this series of it, is here; None is always here.

        Raises:
            QueryError: a UID is none.
            NotFound: it is not.
        """
        check_uids(study_uid, series_uid)
        if study_uid is None:
            return
        with self.database.session() as session:
            if not image_search.is_here(session, study_uid, series_uid):
                raise _nothing(series_uid)

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

    def attributes(self, request: Request, found: Sequence[Instance], tags: Collection[int] | None) -> Iterator[str]:
        """The attributes in each file as JSON text, "" where they cannot be read: one must not hide the others."""
        objects = [(self.path(one), one, self.address(request, one)) for one in found]
        return self.reader.attributes(objects, tags)

    def base(self, request: Request) -> str:
        """The address at which the routes are mounted, as the client reaches them."""
        return base_of(request, self.public_url)

    def address(self, request: Request, instance: Instance) -> str:
        """The address of an instance (RetrieveURL)."""
        series = f"{self.base(request)}/studies/{instance.study_uid}/series/{instance.series_uid}"
        return f"{series}/instances/{instance.sop_uid}"


def check_uids(*uids: str | None) -> None:
    """See that these are UIDs.

    Raises:
        QueryError: one is none.
    """
    for uid in uids:
        if uid is not None and not UID.fullmatch(uid):
            raise QueryError("A UID has at most 64 digits and dots.")


def _nothing(series_uid: str | None) -> NotFound:
    return NotFound("There is no such study." if series_uid is None else "There is no such series.")
