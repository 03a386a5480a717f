"""A result is said in every form at once, from one report, and the bytes are kept."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
import structlog
from sqlalchemy.orm import Session

from dicom_listener.pixels import read_header
from fhir_records import audit
from fhir_records.database import Database
from fhir_records.errors import PixelsNotReadable, RenderingError
from fhir_records.identities import log_id
from fhir_records.jobs import request_delivery
from fhir_records.model import AuditEntry, FhirResource, Installation, Report, ResultStatus
from fhir_records.renderings.dicom_sr import render_sr
from fhir_records.renderings.fhir import render_report
from fhir_records.store import deliveries, fhir, results, steps, succession
from workflow.superseding import in_its_place, superseded_reports, withdraw_earlier

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RenderResult:
    """The job: render a result, store the bytes, and set its documents on their way.

    Attributes:
        now: gives the instant; only for when deliveries are due, never for what is rendered.
        releases: how each destination wants results: "at_once" or "after_signing".
    """

    database: Database
    installation: Installation
    path_of: Callable[[str], Path]  # a file key's place on the disk
    now: Callable[[], dt.datetime]
    releases: Mapping[str, str]

    def __call__(self, result_id: int) -> None:
        """Render the result with this number; nothing happens where that is done.

        Raises:
            RenderingError: a rendering does not come out; the job is tried again and then shown as failed.
        """
        with self.database.session() as session:
            if not steps.finish(session, f"result:{result_id}", 1, "render"):
                return
            report = results.load_report(session, result_id, self.installation)
            succession.lock_study(session, report.study.id)
            place = succession.succession(session, report.result)
            report = in_its_place(session, report, place)
            if place.outdated:
                return  # a person was faster than this job: the later version is rendered, and this one goes nowhere
            withdraw_earlier(session, report, place, self.now())
            self._put_fhir(session, report, place)
            if report.result.status is not ResultStatus.ENTERED_IN_ERROR and report.superseded_at is None:
                self._send(session, report)
            audit.record(
                session,
                AuditEntry(
                    action="render",
                    actor="wetread",
                    study_uid=report.study.study_uid,
                    detail={"result": result_id, "version": report.result.version},
                ),
            )
        log.info("result rendered", study=log_id(report.study.study_uid), status=report.result.status.value)

    def _send(self, session: Session, report: Report) -> None:
        """Write the document, once, and set it on its way."""
        document = render_sr(report, self._evidence(report))
        document_id = deliveries.add_document(
            session,
            report.result.id,
            kind="dicom_sr",
            variant="",
            sop_uid=document.sop_uid,
            sop_class_uid=document.sop_class_uid,
            content=document.content,
        )
        now_too = [to for to in report.read.results_to if report.result.is_signed or self._is_at_once(to)]
        for delivery_id in deliveries.add_deliveries(session, document_id, now_too, self.now()):
            request_delivery(session, delivery_id, priority=report.read.priority)
        deliveries.add_held(session, document_id, [to for to in report.read.results_to if to not in now_too])

    def _is_at_once(self, destination: str) -> bool:
        return self.releases.get(destination, "at_once") == "at_once"

    def _put_fhir(self, session: Session, report: Report, place: succession.Succession) -> None:
        """Write the FHIR resources, and those of older reads again, which now say that they are superseded."""
        for superseded in (report, *superseded_reports(session, report, place)):
            fhir.put(
                session,
                _not_older(superseded, render_report(superseded)),
                patient_id=report.study.patient.id,
                study_id=report.study.id,
            )

    def _evidence(self, report: Report) -> list[pydicom.Dataset]:
        try:
            return [read_header(self.path_of(instance.file_key)) for instance in report.instances]
        except (OSError, PixelsNotReadable) as error:
            raise RenderingError("A source image's file cannot be read; run `wetread doctor`.") from error


def _not_older(report: Report, resources: Sequence[FhirResource]) -> tuple[FhirResource, ...]:
    """Without what says of patient and study less than is known since newer images have come."""
    if report.read.revision == report.study.revision:
        return tuple(resources)
    return tuple(resource for resource in resources if resource.type not in ("Patient", "ImagingStudy"))
