"""A result is said in every form at once, from one report, and the bytes are kept."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
import structlog

from dicom_listener.pixels import read_header
from fhir_records import audit
from fhir_records.database import Database
from fhir_records.errors import PixelsNotReadable, RenderingError
from fhir_records.identities import log_id
from fhir_records.jobs import request_delivery
from fhir_records.model import AuditEntry, FhirResource, Installation, Report
from fhir_records.renderings.dicom_sr import render_sr
from fhir_records.renderings.fhir import render_report
from fhir_records.store import deliveries, fhir, results, steps

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
            document = render_sr(report, self._evidence(report))
            document_id = deliveries.add_document(
                session,
                result_id,
                kind="dicom_sr",
                variant="",
                sop_uid=document.sop_uid,
                sop_class_uid=document.sop_class_uid,
                content=document.content,
            )
            at_once = [to for to in report.read.results_to if self.releases.get(to, "at_once") == "at_once"]
            for delivery_id in deliveries.add_deliveries(session, document_id, at_once, self.now()):
                request_delivery(session, delivery_id, priority=report.read.priority)
            deliveries.add_held(session, document_id, [to for to in report.read.results_to if to not in at_once])
            fhir.put(
                session,
                _not_older(report, render_report(report)),
                patient_id=report.study.patient.id,
                study_id=report.study.id,
            )
            audit.record(
                session,
                AuditEntry(
                    action="render",
                    actor="wetread",
                    study_uid=report.study.study_uid,
                    detail={"result": result_id, "document": document.sop_uid},
                ),
            )
        log.info("result rendered", study=log_id(report.study.study_uid), deliveries=len(report.read.results_to))

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
