"""A model that outlines bright masses, and studies of the head phantom that it reads into a record."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from sqlalchemy import select

from deploy import phantom_head
from deploy.phantom import phantom_study
from fhir_records import signing, tables
from fhir_records.database import Database
from fhir_records.model import Act, Installation, ReadState, Report, Result
from fhir_records.renderings.kinds import KIND_OF_WORD
from fhir_records.signing import SigningRequest
from fhir_records.store import deliveries, results
from inference.registry import RegisteredModel, Registry
from inference.runner import ModelRunner
from tests import seed
from tests.integration.signed_results import CURIE
from tests.unit.inference.outlining_bundles import write_blob_bundle
from workflow.reading import ReadStudy
from workflow.rendering import RenderResult

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
INSTALLATION = Installation(uuid.UUID(int=7), "Not a certified medical device. For evaluation.", "Hôpital Curie")
EVERY = frozenset(KIND_OF_WORD.values())
SLICES = 24
VOXEL_MM3 = phantom_head.PIXEL_MM**2 * phantom_head.slice_spacing(SLICES)


def register(folder: Path) -> RegisteredModel:
    """The mean over a centimetre: bright there is only the phantom's mass, which is larger than 15 mL."""
    bundle = write_blob_bundle(
        folder / "bundle",
        kernel=5,
        level=0.68,
        steep=30.0,
        spacing=(2, 2, 2),
        window=(64, 64, 64),
        high=3000,
        minimum=15,
    )
    return Registry(folder / "models").add(bundle)


def true_mass(number: int) -> npt.NDArray[np.bool_]:
    """The voxels at least half of which the mass of phantom `number` takes up, (slices, rows, columns), feet first."""
    random = np.random.default_rng(number)
    lesion = phantom_head.random_lesion(random)
    return phantom_head.head_and_mass(random, SLICES, lesion)[1] >= 0.5


@dataclass
class OutlinedStudy:
    """One phantom's study in a record of its own, read by the model in its process."""

    database: Database
    root: Path
    model: RegisteredModel
    study_id: int = 0
    study_uid: str = ""
    read_id: int = 0
    written: dict[int, list[bytes]] = field(default_factory=dict)

    def read(self, number: int, *, lesion: bool = True, **header: object) -> Result:
        """The result of a study of phantom `number`; `header` changes what its images say."""
        with self.database.session() as session:
            study = seed.add_study(session, 1, images=SLICES)
            self.study_id, self.study_uid = study.id, study.study_uid
            rows = session.scalars(select(tables.Instance).order_by(tables.Instance.instance_number)).all()
            for ds, row in zip(phantom_study(number, SLICES, lesion), rows, strict=True):
                self._save(ds, row, header)
            read = seed.add_read(session, study, ReadState.QUEUED)
            read.model, read.model_version, read.finished_at = self.model.name, self.model.version, None
            self.read_id = read.id
        with ModelRunner() as runner:
            ReadStudy(self.database, runner, self, INSTALLATION, self.root.joinpath, lambda: NOW)(self.read_id)
        return self.latest()

    def _save(self, ds: Dataset, row: tables.Instance, header: dict[str, object]) -> None:
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = self.study_uid, row.series_uid, row.sop_uid
        ds.file_meta.MediaStorageSOPInstanceUID = row.sop_uid
        for keyword, value in header.items():
            setattr(ds, keyword, value)
        row.rows = row.columns = phantom_head.SIDE
        ds.save_as(self.root / row.file_key, enforce_file_format=True)

    def find(self, name: str, version: str) -> RegisteredModel | None:
        """The one model that there is."""
        return self.model

    def shadow_of(self, name: str) -> RegisteredModel | None:
        """None is on trial."""
        return None

    def render(self, result_id: int) -> dict[str, bytes]:
        """Every object of a result, by kind."""
        RenderResult(self.database, INSTALLATION, self.root.joinpath, lambda: NOW, {}, objects={"pacs": EVERY})(
            result_id
        )
        with self.database.session() as session:
            found = {kind: deliveries.find_document(session, result_id, kind, "") for kind in EVERY | {"dicom_sr"}}
        assert all(not document.faults for document in found.values() if document), found
        return {kind: document.content for kind, document in found.items() if document}

    def sign(self, act: Act, version: int = 1, **more: object) -> Result:
        """A person signs."""
        request = SigningRequest(self.study_uid, self.read_id, version, act, **more)  # type: ignore[arg-type]
        with self.database.session() as session:
            return signing.sign(session, request, CURIE, NOW + dt.timedelta(minutes=version))

    def latest(self) -> Result:
        """The newest version of the result; an error of the test where the read came to none."""
        with self.database.session() as session:
            found = results.latest_result(session, self.read_id)
            error = session.get_one(tables.Read, self.read_id).error
        assert found is not None, error
        return found

    def report(self, result_id: int) -> Report:
        """What the renderings take."""
        with self.database.session() as session:
            return results.load_report(session, result_id, INSTALLATION)
