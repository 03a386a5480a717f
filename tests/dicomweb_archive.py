"""A record with real objects in it, put there without the network, for tests of DICOMweb and of the viewer."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterable
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.identities import new_patient_uid
from fhir_records.model import InstanceKind, Standing


def put(database: Database, paths: Iterable[Path], standing: Standing = Standing.CURRENT) -> None:
    """Make rows for the objects at ``paths``; the spool's root is then the root of the file system."""
    with database.session() as session:
        studies: dict[str, tables.Study] = {row.study_uid: row for row in session.query(tables.Study)}
        for path in paths:
            ds = dcmread(path, stop_before_pixels=True)
            study = studies.get(ds.StudyInstanceUID)
            if study is None:
                study = studies[ds.StudyInstanceUID] = _study(ds)
                session.add(study)
                session.flush()
            if ds.Modality not in study.modalities:
                study.modalities = [*study.modalities, ds.Modality]
            session.add(_instance(ds, path, study.id, standing))


def _study(ds: Dataset) -> tables.Study:
    patient = tables.Patient(patient_uid=new_patient_uid(), name=str(ds.PatientName), sex=ds.get("PatientSex") or "")
    if ds.get("PatientBirthDate"):
        patient.birth_date = dt.datetime.strptime(ds.PatientBirthDate, "%Y%m%d").date()  # noqa: DTZ007 - a day has no zone
    patient.identifiers.append(tables.PatientIdentifier(value=ds.PatientID or "", issuer="TEST"))
    return tables.Study(
        study_uid=ds.StudyInstanceUID,
        patient=patient,
        accession_number=ds.get("AccessionNumber") or "",
        description=ds.get("StudyDescription") or "",
        modalities=[],
        source="dicom:TEST",
    )


def _instance(ds: Dataset, path: Path, study_id: int, standing: Standing) -> tables.Instance:
    content = path.read_bytes()
    return tables.Instance(
        study_id=study_id,
        series_uid=ds.SeriesInstanceUID,
        sop_uid=ds.SOPInstanceUID,
        sop_class_uid=ds.SOPClassUID,
        transfer_syntax_uid=ds.file_meta.TransferSyntaxUID,
        kind=InstanceKind.IMAGE if "Rows" in ds else InstanceKind.OTHER,
        standing=standing,
        modality=ds.Modality,
        series_number=ds.get("SeriesNumber"),
        series_description=ds.get("SeriesDescription") or "",
        instance_number=ds.get("InstanceNumber"),
        number_of_frames=int(ds.get("NumberOfFrames") or 1),
        rows=ds.get("Rows"),
        columns=ds.get("Columns"),
        file_key=str(path.resolve().relative_to("/")),
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        source="dicom:TEST",
    )
