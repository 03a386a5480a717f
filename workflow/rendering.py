"""A result is said in every form at once, from one report, and the bytes are kept."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
import structlog
from sqlalchemy.orm import Session

from dicom_listener.pixels import display_frame, read_header
from fhir_records import audit
from fhir_records.database import Database
from fhir_records.errors import PixelsNotReadable, RenderingError
from fhir_records.identities import log_id
from fhir_records.jobs import request_delivery
from fhir_records.model import AuditEntry, FhirResource, Installation, Outlines, Report, ResultStatus, SaliencyMap
from fhir_records.renderings import kinds
from fhir_records.renderings.conformance import faults_of
from fhir_records.renderings.dicom_file import DicomObject
from fhir_records.renderings.fhir import render_report
from fhir_records.renderings.frame_place import pixel_aspect
from fhir_records.renderings.objects import NotRendered, render_objects
from fhir_records.renderings.result_page import KeyPicture
from fhir_records.renderings.segment_masks import drawn_on, segments_of
from fhir_records.store import deliveries, fhir, outlines, results, saliency, steps, succession
from workflow.superseding import in_its_place, superseded_reports, withdraw_earlier

log = structlog.get_logger(__name__)


Display = Callable[[Path, int], npt.NDArray[np.uint8]]
_BY_DEFAULT = frozenset({kinds.SR})
_WITH_PICTURE = frozenset({kinds.SECONDARY_CAPTURE, kinds.ENCAPSULATED_PDF})


@dataclass(frozen=True, slots=True)
class RenderResult:
    """The job: render a result, store the bytes, and set its documents on their way.

    Attributes:
        now: gives the instant; only for when deliveries are due, never for what is rendered.
        releases: how each destination wants results: "at_once" or "after_signing".
        objects: the kinds of object that each destination gets; the structured report alone where it is not named.
        display: draws a frame of a file as it is meant to be seen; raises PixelsNotReadable.
    """

    database: Database
    installation: Installation
    path_of: Callable[[str], Path]  # a file key's place on the disk
    now: Callable[[], dt.datetime]
    releases: Mapping[str, str]
    objects: Mapping[str, frozenset[str]] = field(default_factory=dict)
    display: Display = display_frame

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
            written: Mapping[str, str] = {}
            if report.result.status is not ResultStatus.ENTERED_IN_ERROR and report.superseded_at is None:
                written = self._write(session, report)
            audit.record(
                session,
                AuditEntry(
                    action="render",
                    actor="wetread",
                    study_uid=report.study.study_uid,
                    detail={"result": result_id, "version": report.result.version, "documents": dict(written)},
                ),
            )
        status = report.result.status.value
        log.info("result rendered", study=log_id(report.study.study_uid), status=status, objects=sorted(written))

    def _write(self, session: Session, report: Report) -> Mapping[str, str]:
        """Write the objects, once, and set them on their way; the SOP Instance UID of each kind."""
        evidence = self._evidence(report)
        finding = report.result.finding
        maps = saliency.maps_of(session, report.read.id)
        drawn = outlines.outlines_of(session, report.read.id)
        picture = self._picture(report, evidence, maps, drawn)
        segments = segments_of(finding, drawn)
        written: dict[str, str] = {}
        signature = report.result.signature
        signer = signature.signer.display_name if signature is not None else ""
        for made in render_objects(
            report, evidence, self._wanted(report), maps=maps, picture=picture, segments=segments, signer=signer
        ):
            if isinstance(made, NotRendered):
                _note_not_rendered(session, report, made)
                continue
            written[made.kind] = made.sop_uid
            self._set_on_its_way(session, report, made)
        return written

    def _wanted(self, report: Report) -> frozenset[str]:
        """The kinds that any of the result's destinations gets."""
        return frozenset(kind for to in report.read.results_to for kind in self.objects.get(to, _BY_DEFAULT))

    def _set_on_its_way(self, session: Session, report: Report, made: DicomObject) -> None:
        faults = faults_of(made.content)
        document_id = deliveries.add_document(
            session,
            report.result.id,
            kind=made.kind,
            variant="",
            sop_uid=made.sop_uid,
            sop_class_uid=made.sop_class_uid,
            content=made.content,
            faults=faults,
        )
        gets = [to for to in report.read.results_to if made.kind in self.objects.get(to, _BY_DEFAULT)]
        deliveries.add_filtered(session, document_id, [to for to in report.read.results_to if to not in gets])
        if faults:
            log.error("object held by the conformance gate", kind=made.kind, faults=faults)
            deliveries.add_refused(session, document_id, gets)
            return
        at_once = [to for to in gets if report.result.is_signed or self._is_at_once(to)]
        for delivery_id in deliveries.add_deliveries(session, document_id, at_once, self.now()):
            request_delivery(session, delivery_id, priority=report.read.priority)
        deliveries.add_held(session, document_id, [to for to in gets if to not in at_once])

    def _picture(
        self,
        report: Report,
        evidence: Sequence[pydicom.Dataset],
        maps: Sequence[SaliencyMap],
        drawn: Outlines | None,
    ) -> KeyPicture | None:
        """The most telling key image, drawn; None where there is none, or it cannot be decoded."""
        finding = report.result.finding
        if finding is None or not finding.key_images or not self._wanted(report) & _WITH_PICTURE:
            return None
        image = finding.key_images[0]
        place = next(place for place, one in enumerate(report.instances) if one.sop_uid == image.sop_uid)
        try:
            pixels = self.display(self.path_of(report.instances[place].file_key), image.frame or 1)
        except (OSError, PixelsNotReadable) as error:
            log.warning("key image not drawn", study=log_id(report.study.study_uid), error=type(error).__name__)
            return None
        speaks = (one for one in maps if one.image == image and one.label == finding.label)
        aspect = pixel_aspect(evidence[place], image.frame)
        return KeyPicture(image, pixels, next(speaks, None), aspect, drawn_on(image, finding, drawn))

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


def _note_not_rendered(session: Session, report: Report, made: NotRendered) -> None:
    log.error("object not rendered", study=log_id(report.study.study_uid), kind=made.kind, why=made.reason)
    audit.record(
        session,
        AuditEntry(
            action="render",
            actor="wetread",
            outcome="failure",
            study_uid=report.study.study_uid,
            detail={"result": report.result.id, "kind": made.kind, "why": made.reason},
        ),
    )


def _not_older(report: Report, resources: Sequence[FhirResource]) -> tuple[FhirResource, ...]:
    """Without what says of patient and study less than is known since newer images have come."""
    if report.read.revision == report.study.revision:
        return tuple(resources)
    return tuple(resource for resource in resources if resource.type not in ("Patient", "ImagingStudy"))
