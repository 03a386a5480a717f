"""Everything that the page of one study shows."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session, joinedload

from fhir_records import tables
from fhir_records.errors import NotFound
from fhir_records.model import Delivery, DeliveryState, Finding, ImageRef, Read, Result, Standing, Study
from fhir_records.store.deliveries import delivery_record
from fhir_records.store.results import read_record, result_record
from fhir_records.store.studies import study_record


@dataclass(frozen=True, slots=True)
class DocumentLine:
    """A document without its bytes."""

    id: int
    kind: str
    variant: str
    sop_class_uid: str
    size: int  # bytes
    created_at: dt.datetime
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True)
class ResultLine:
    """A document version of a read's result, and what was rendered from it."""

    result: Result
    documents: tuple[DocumentLine, ...]


@dataclass(frozen=True, slots=True)
class ReadHistory:
    """A read with all its document versions, newest first."""

    read: Read
    results: tuple[ResultLine, ...]

    @property
    def newest(self) -> ResultLine | None:
        """The version that stands."""
        return self.results[0] if self.results else None


@dataclass(frozen=True, slots=True)
class RevisionLine:
    """One complete state of the study."""

    number: int
    reason: str
    created_at: dt.datetime
    arrived: int | None  # instances that were here then, where a number was expected
    expected: int | None  # that number
    images: int

    @property
    def is_short(self) -> bool:
        """Whether fewer came than somebody said that there are."""
        return self.expected is not None and (self.arrived or 0) < self.expected


@dataclass(frozen=True, slots=True)
class FhirLink:
    """A FHIR resource about the study."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class KeyImage:
    """Where a key image, or one that a person marked, stands in the study, in numbers that a viewer shows too."""

    sop_uid: str
    series_number: int | None
    series_description: str
    instance_number: int | None


@dataclass(frozen=True, slots=True)
class StudyPage:
    """One study with its history."""

    study: Study
    provisional: bool  # the patient is not settled
    reads: tuple[ReadHistory, ...]  # newest revision first
    revisions: tuple[RevisionLine, ...]  # newest first
    fhir: tuple[FhirLink, ...]
    key_images: tuple[KeyImage, ...]

    @property
    def current(self) -> tuple[ReadHistory, ...]:
        """The reads of the newest revision that has any."""
        return tuple(line for line in self.reads if line.read.revision == self.reads[0].read.revision)

    @property
    def signed_before(self) -> tuple[ReadHistory, ...]:
        """Signed results of earlier images that stand until a person acts on the newer ones."""
        if not self.reads:
            return ()
        settled = {line.read.model for line in self.current if line.newest is not None and line.newest.result.is_signed}
        standing: dict[str, ReadHistory] = {}
        for line in self.reads[len(self.current) :]:
            if line.newest is not None and line.newest.result.is_signed and line.read.model not in settled:
                standing.setdefault(line.read.model, line)
        return tuple(standing.values())

    @property
    def sent_before(self) -> tuple[tuple[ResultLine, DocumentLine, Delivery], ...]:
        """Deliveries of results that stand no more, as far as anything was, or may have been, sent."""
        if not self.reads:
            return ()
        standing = {line.newest.result.id for line in (*self.current, *self.signed_before) if line.newest}
        return tuple(
            (line, document, delivery)
            for history in self.reads
            for line in history.results
            if line.result.id not in standing
            for document in line.documents
            for delivery in document.deliveries
            if delivery.state is not DeliveryState.FILTERED
        )


def study_page(session: Session, study_uid: str) -> StudyPage:
    """All about the study with this Study Instance UID.

    Raises:
        NotFound: there is none.
    """
    row = session.scalar(select(tables.Study).where(tables.Study.study_uid == study_uid))
    if row is None:
        raise NotFound("There is no such study.")
    reads = _reads(session, row.id)
    return StudyPage(
        study=study_record(session, row),
        provisional=row.patient.provisional,
        reads=reads,
        key_images=_key_images(session, row.id, reads),
        revisions=_revisions(session, row.id),
        fhir=_fhir(session, row),
    )


def study_document(session: Session, study_uid: str, document_id: int, kind: str) -> tables.Document:
    """A document of this study, with its bytes.

    Raises:
        NotFound: the study has no such document.
    """
    row = session.scalar(
        select(tables.Document)
        .join(tables.Document.result)
        .join(tables.Result.read)
        .join(tables.Read.study)
        .where(tables.Document.id == document_id, tables.Document.kind == kind, tables.Study.study_uid == study_uid)
        .options(joinedload(tables.Document.result))
    )
    if row is None:
        raise NotFound("The study has no such document.")
    return row


def read_in_study(session: Session, study_uid: str, read_id: int) -> tables.Read:
    """The read, where it is this study's.

    Raises:
        NotFound: it is not.
    """
    row = session.scalar(
        select(tables.Read)
        .join(tables.Read.study)
        .where(tables.Read.id == read_id, tables.Study.study_uid == study_uid)
    )
    if row is None:
        raise NotFound("The study has no such read.")
    return row


def delivery_in_study(session: Session, study_uid: str, delivery_id: int) -> tables.Delivery:
    """The delivery, where it is of this study's documents.

    Raises:
        NotFound: it is not.
    """
    row = session.scalar(
        select(tables.Delivery)
        .join(tables.Delivery.document)
        .join(tables.Document.result)
        .join(tables.Result.read)
        .join(tables.Read.study)
        .where(tables.Delivery.id == delivery_id, tables.Study.study_uid == study_uid)
    )
    if row is None:
        raise NotFound("The study has no such delivery.")
    return row


def _reads(session: Session, study_id: int) -> tuple[ReadHistory, ...]:
    reads = session.scalars(
        select(tables.Read)
        .where(tables.Read.study_id == study_id)
        .order_by(tables.Read.revision.desc(), tables.Read.id.desc())
    ).all()
    results = session.scalars(
        select(tables.Result)
        .where(tables.Result.read_id.in_([read.id for read in reads]))
        .order_by(tables.Result.version.desc())
    ).all()
    documents = _documents(session, [result.id for result in results])
    by_read: dict[int, list[ResultLine]] = defaultdict(list)
    for result in results:
        by_read[result.read_id].append(ResultLine(result_record(result), tuple(documents.get(result.id, ()))))
    return tuple(ReadHistory(read_record(read), tuple(by_read[read.id])) for read in reads)


def _documents(session: Session, result_ids: Sequence[int]) -> Mapping[int, list[DocumentLine]]:
    deliveries: dict[int, list[Delivery]] = defaultdict(list)
    for row in session.scalars(
        select(tables.Delivery)
        .join(tables.Document, tables.Document.id == tables.Delivery.document_id)
        .where(tables.Document.result_id.in_(result_ids))
        .order_by(tables.Delivery.id)
    ):
        deliveries[row.document_id].append(delivery_record(row))
    document = tables.Document
    by_result: dict[int, list[DocumentLine]] = defaultdict(list)
    for line in session.execute(
        select(
            document.id,
            document.result_id,
            document.kind,
            document.variant,
            document.sop_class_uid,
            document.created_at,
            func.octet_length(document.content).label("size"),
        )
        .where(document.result_id.in_(result_ids))
        .order_by(document.id)
    ):
        by_result[line.result_id].append(
            DocumentLine(
                line.id,
                line.kind,
                line.variant,
                line.sop_class_uid,
                line.size,
                line.created_at,
                tuple(deliveries[line.id]),
            )
        )
    return by_result


def _key_images(session: Session, study_id: int, reads: Sequence[ReadHistory]) -> tuple[KeyImage, ...]:
    findings = [line.result.finding for history in reads for line in history.results if line.result.finding]
    instance = tables.Instance
    rows = session.execute(
        select(instance.sop_uid, instance.series_number, instance.series_description, instance.instance_number)
        .where(
            instance.study_id == study_id,
            instance.standing == Standing.CURRENT,
            instance.sop_uid.in_({image.sop_uid for finding in findings for image in _shown(finding)}),
        )
        .order_by(instance.id)
    )
    return tuple(KeyImage(*row) for row in rows)


def _shown(finding: Finding) -> tuple[ImageRef, ...]:
    """The images that the page names: the key images, and the one that a person marked."""
    return finding.key_images if finding.region is None else (*finding.key_images, finding.region.image)


def _revisions(session: Session, study_id: int) -> tuple[RevisionLine, ...]:
    revision = tables.Revision
    rows = session.execute(
        select(
            revision.number,
            revision.reason,
            revision.created_at,
            revision.arrived,
            revision.expected,
            func.count(tables.RevisionInstance.instance_id),
        )
        .outerjoin(tables.RevisionInstance, tables.RevisionInstance.revision_id == revision.id)
        .where(revision.study_id == study_id)
        .group_by(revision.id)
        .order_by(revision.number.desc())
    )
    return tuple(RevisionLine(*row) for row in rows)


def _fhir(session: Session, study: tables.Study) -> tuple[FhirLink, ...]:
    resource = tables.FhirResource
    rows = session.execute(
        select(resource.type, resource.id)
        .where(
            (resource.study_id == study.id) | ((resource.type == "Patient") & (resource.patient_id == study.patient_id))
        )
        .order_by(resource.type, resource.last_updated.desc())
    )
    return tuple(FhirLink(*row) for row in rows)
