"""The objects of a study that are no pictures: listed for its page, opened, and handed out."""

from __future__ import annotations

from pathlib import Path

import structlog
from fastapi import APIRouter, Depends, Request
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, Response

from dicom_listener.transfer_syntaxes import TRANSFER_SYNTAXES
from fhir_records import audit
from fhir_records.database import Database
from fhir_records.errors import NotFound, RenderingError
from fhir_records.identities import log_id
from fhir_records.model import AuditEntry, Instance
from fhir_records.store.study_objects import StudyObjects, object_in_study, study_objects
from fhir_records.store.study_page import study_page
from web.auth import Auth, person_of
from web.kinds import ENCAPSULATED_PDF, kind_words, shown_object
from web.pages import Pages
from web.sr_text import read_report

log = structlog.get_logger(__name__)

# A browser shows the document by itself; nothing in it may run, load or be framed. (A sandbox would hide it.)
PDF_POLICY = "default-src 'none'; object-src 'self'; frame-ancestors 'none'; base-uri 'none'"
MAX_DOCUMENT_BYTES = 256 * 1024**2
_SHOWN = tuple(uid for uid, syntax in TRANSFER_SYNTAXES.items() if syntax.is_decoded)


def objects_of(session: Session, study_uid: str) -> StudyObjects:
    """What the study holds besides pictures."""
    return study_objects(session, study_uid, _SHOWN)


def study_objects_router(auth: Auth, pages: Pages, database: Database) -> APIRouter:
    """An object as the file that it is, the PDF in one, and the text of a report from elsewhere."""
    router = APIRouter(
        prefix="/studies/{study_uid}/objects/{instance_id}",
        include_in_schema=False,
        dependencies=[Depends(auth.person), Depends(auth.csrf)],
    )

    def found(request: Request, study_uid: str, instance_id: int, action: str) -> tuple[Instance, Path]:
        with database.session() as session:
            instance = object_in_study(session, study_uid, instance_id)
            actor = person_of(request).user.username
            audit.record(session, AuditEntry(action, actor, study_uid=study_uid, detail={"instance_id": instance_id}))
        path = pages.settings.spool_root / instance.file_key
        if not path.is_file():
            log.error("stored file is missing", instance_id=log_id(instance.sop_uid))
            raise HTTPException(500)
        return instance, path

    @router.get("")
    def whole(request: Request, study_uid: str, instance_id: int) -> Response:
        _, path = found(request, study_uid, instance_id, "object downloaded")
        return FileResponse(path, media_type="application/dicom", filename=f"object-{instance_id}.dcm")

    @router.get("/document")
    def document(request: Request, study_uid: str, instance_id: int) -> Response:
        instance, path = found(request, study_uid, instance_id, "document viewed")
        if instance.sop_class_uid != ENCAPSULATED_PDF:
            raise NotFound("The object holds no PDF document.")
        content = pdf_in(path)
        headers = {
            "Content-Disposition": f'inline; filename="document-{instance_id}.pdf"',
            "Content-Security-Policy": PDF_POLICY,
        }
        return Response(content, media_type="application/pdf", headers=headers)

    @router.get("/text")
    def text(request: Request, study_uid: str, instance_id: int) -> Response:
        instance, path = found(request, study_uid, instance_id, "report viewed")
        if not shown_object(instance).is_report or instance.size > MAX_DOCUMENT_BYTES:
            raise NotFound("The object is no structured report.")
        try:
            report = read_report(path.read_bytes())
        except RenderingError as error:
            return pages.message(
                request, 422, "This report cannot be read", f"{error} It can be downloaded as it was received."
            )
        with database.session() as session:
            study = study_page(session, study_uid).study
        return pages.page(
            request,
            "object.html",
            study=study,
            instance=instance,
            kind=kind_words(instance.sop_class_uid),
            report=report,
        )

    return router


def pdf_in(path: Path) -> bytes:
    """The document in an Encapsulated PDF object (PS3.3 section C.24.2).

    Raises:
        NotFound: there is none that begins as a PDF does.
    """
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise NotFound("The document is too large to be shown; the object can be downloaded.")
    try:
        ds = dcmread(path, specific_tags=["EncapsulatedDocument", "EncapsulatedDocumentLength"])
        content, length = ds.get("EncapsulatedDocument"), ds.get("EncapsulatedDocumentLength")
    except (InvalidDicomError, EOFError, ValueError, NotImplementedError, AttributeError) as error:
        raise NotFound("The document cannot be read; the object can be downloaded.") from error
    if not isinstance(content, bytes) or not content.lstrip()[:5] == b"%PDF-":
        raise NotFound("The object says that it holds a PDF document, and holds something else.")
    # The value is padded to an even length; the document's own length may be said beside it.
    return content[:length] if isinstance(length, int) and 0 < length <= len(content) else content
