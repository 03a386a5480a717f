"""A read study whose result people sign: the record, its rendering and its way, without a network."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from sqlalchemy import select
from sqlalchemy.orm import Session

from fhir_records import signing, tables
from fhir_records.database import Database
from fhir_records.model import Act, Code, Delivery, Installation, ReadState, Refusal, Result, Signer
from fhir_records.signing import SigningRequest
from fhir_records.store import deliveries, results
from fhir_records.store.deliveries import delivery_record
from tests import seed
from workflow.delivery import Deliver
from workflow.rendering import RenderResult
from workflow.withdrawal import Way, Withdraw

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
CURIE = Signer("curie", "Curie^Marie^^Dr", "Dr Marie Curie", "Hôpital Curie", Code("NPI", "12345", "Dr Marie Curie"))
INSTALLATION = Installation(uuid.UUID(int=7), "Not a certified medical device. For evaluation.", "Hôpital Curie")


@dataclass(slots=True)
class Bench:
    """One study in a record of its own, and the jobs that act on it, done by hand."""

    database: Database
    root: Path
    releases: dict[str, str] = field(default_factory=lambda: {"pacs": "at_once"})
    ways: dict[str, Way] = field(default_factory=dict)
    sent: list[bytes] = field(default_factory=list)
    study_uid: str = ""
    study_id: int = 0
    read_id: int = 0

    def read(self, *, absent: bool = False, refusal: Refusal | None = None) -> int:
        """A study that was read, and its result rendered; the result's number."""
        with self.database.session() as session:
            study = seed.add_study(session, 1)
            self.study_uid, self.study_id = study.study_uid, study.id
            seed.write_images(self.root, session, study.id)
        return self.read_again(absent=absent, refusal=refusal)

    def read_again(self, *, absent: bool = False, refusal: Refusal | None = None, new_images: bool = False) -> int:
        """A read of the study, of a revision of its own where images are new; the result's number."""
        with self.database.session() as session:
            study = session.get_one(tables.Study, self.study_id)
            if new_images:
                self._revise(session, study)
            read = seed.add_read(session, study, ReadState.REFUSED if refusal else ReadState.READ)
            finding = None if refusal else seed.no_neoplasm(study) if absent else seed.glioma(study)
            result = seed.add_result(session, read, finding=finding, refusal=refusal)
            self.read_id, result_id = read.id, result.id
        self.render(result_id)
        return result_id

    def _revise(self, session: Session, study: tables.Study) -> None:
        images = session.scalars(select(tables.Instance).where(tables.Instance.study_id == study.id)).all()
        study.revision += 1
        revision = tables.Revision(study_id=study.id, number=study.revision, reason="More came.", created_at=NOW)
        session.add(revision)
        session.flush()
        session.add_all(tables.RevisionInstance(revision_id=revision.id, instance_id=image.id) for image in images)

    def sign(self, act: Act, *, version: int = 1, signer: Signer = CURIE, read_id: int = 0, **more: object) -> Result:
        """A person signs, and the new version is rendered."""
        request = SigningRequest(self.study_uid, read_id or self.read_id, version, act, **more)  # type: ignore[arg-type]
        with self.database.session() as session:
            result = signing.sign(session, request, signer, NOW + dt.timedelta(minutes=version))
        self.render(result.id)
        return result

    def render(self, result_id: int) -> None:
        """The job."""
        RenderResult(
            self.database, INSTALLATION, lambda key: self.root / Path(key).name, lambda: NOW, dict(self.releases)
        )(result_id)

    def deliver(self) -> None:
        """Every delivery that waits for a time is sent, and arrives."""
        for delivery in self.deliveries():
            Deliver(self.database, {"pacs": self._take}, lambda: NOW)(delivery.id)

    def _take(self, content: bytes) -> tuple[int, str]:
        self.sent.append(content)
        return 0, "success"

    def withdraw(self) -> None:
        """Every open withdrawal is attempted once."""
        for delivery in self.deliveries():
            Withdraw(self.database, INSTALLATION, self.ways, lambda: NOW)(delivery.id)

    def deliveries(self) -> list[Delivery]:
        """Every delivery, the first one first."""
        with self.database.session() as session:
            rows = session.scalars(select(tables.Delivery).order_by(tables.Delivery.id))
            return [delivery_record(row) for row in rows]

    def states(self) -> list[str]:
        """The state of every delivery."""
        return [delivery.state.value for delivery in self.deliveries()]

    def report(self, result_id: int, kind: str = "dicom_sr") -> Dataset:
        """The structured report that was rendered of a result."""
        with self.database.session() as session:
            document = deliveries.find_document(session, result_id, kind, "")
        assert document is not None
        return dcmread(DicomBytesIO(document.content))

    def resource(self, type: str, status: str = "") -> list[dict[str, object]]:
        """The stored FHIR resources of a type."""
        with self.database.session() as session:
            rows = session.scalars(
                select(tables.FhirResource)
                .where(tables.FhirResource.type == type)
                .order_by(tables.FhirResource.date, tables.FhirResource.id)
            )
            return [json.loads(row.text) for row in rows if not status or row.status == status]

    def latest(self) -> Result:
        """The newest version of the present read's result."""
        with self.database.session() as session:
            found = results.latest_result(session, self.read_id)
        assert found is not None
        return found
