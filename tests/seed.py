"""Studies as they stand in the record in every state, for tests of what is shown. Nobody in here exists."""

from __future__ import annotations

import datetime as dt
import hashlib
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from sqlalchemy import select
from sqlalchemy.orm import Session

from fhir_records import identities, tables
from fhir_records.model import (
    Algorithm,
    ClassProbability,
    Code,
    DeliveryState,
    Finding,
    ImageRef,
    Installation,
    InstanceKind,
    Presence,
    Priority,
    ReadState,
    Refusal,
    ResultStatus,
    SaliencyMap,
    Standing,
)
from fhir_records.renderings.dicom_sr import render_sr
from fhir_records.store import models, saliency
from fhir_records.store.results import load_report

NOW = dt.datetime(2026, 11, 20, 9, 30, tzinfo=dt.UTC)
BRAIN = Code("SCT", "12738006", "Brain")
NEOPLASM = Code("SCT", "108369006", "Neoplasm")
GLIOMA = Code("SCT", "393564001", "Glioma (disorder)")
MENINGIOMA = Code("SCT", "302820008", "Intracranial meningioma (disorder)")
ADENOMA = Code("SCT", "254956000", "Pituitary adenoma (disorder)")
ALGORITHM = Algorithm("brain_mr_tumour", "1.0.0", "Brain MR tumour", "Wetread", "2.25.7", "ab" * 32)
MR = "1.2.840.10008.5.1.4.1.1.4"
SPOT = (0.25, -0.1)  # of the phantom, across and down from its middle, in halves of its side
MAP_CELLS = 32  # a side
ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"


@dataclass(frozen=True, slots=True)
class Seeded:
    """What was made for one study."""

    study_id: int
    study_uid: str
    read_id: int | None = None
    result_id: int | None = None
    document_id: int | None = None
    delivery_id: int | None = None


def add_study(
    session: Session,
    number: int,
    *,
    name: str = "Doe^Jane",
    description: str = "MR head",
    priority: Priority = Priority.ROUTINE,
    complete: bool = True,
    routed: bool = True,
    hold_reason: str | None = None,
    images: int = 3,
) -> tables.Study:
    """A study with its patient and the rows of its images; later numbers came later."""
    patient = tables.Patient(
        patient_uid=identities.new_patient_uid(),
        name=name,
        birth_date=dt.date(1961, 5, 3),
        sex="F",
        provisional=hold_reason is not None,
    )
    patient.identifiers.append(tables.PatientIdentifier(value=f"PID{number:03}", issuer="HOSP"))
    study = tables.Study(
        study_uid=f"1.2.826.0.1.3680043.8.498.{number}",
        patient=patient,
        hold_reason=hold_reason,
        accession_number=f"ACC{number:04}",
        description=description,
        modalities=["MR"],
        started_at=NOW - dt.timedelta(hours=1),
        priority=priority,
        source="dicom:CT1",
        revision=1 if complete else 0,
        routed_revision=1 if complete and routed else 0,
        first_seen_at=NOW + dt.timedelta(minutes=number),
        last_arrival_at=NOW + dt.timedelta(minutes=number),
        open_since=None if complete else NOW,
    )
    session.add(study)
    session.flush()
    rows = [_image(study, index) for index in range(1, images + 1)]
    session.add_all(rows)
    if complete:
        revision = tables.Revision(study_id=study.id, number=1, reason="Nothing arrived for 60 s.", created_at=NOW)
        session.add(revision)
        session.flush()
        session.add_all(tables.RevisionInstance(revision_id=revision.id, instance_id=row.id) for row in rows)
    session.flush()
    return study


def add_read(session: Session, study: tables.Study, state: ReadState, error: str | None = None) -> tables.Read:
    """A read of the study's newest revision."""
    read = tables.Read(
        study_id=study.id,
        revision=study.revision,
        model=ALGORITHM.name,
        model_version=ALGORITHM.version,
        state=state,
        error=error,
        attempts=1,
        priority=study.priority,
        results_to=["pacs"],
        queued_at=NOW,
        started_at=NOW,
        finished_at=NOW if state in (ReadState.READ, ReadState.REFUSED, ReadState.FAILED) else None,
    )
    session.add(read)
    session.flush()
    return read


def add_result(
    session: Session, read: tables.Read, *, finding: Finding | None = None, refusal: Refusal | None = None
) -> tables.Result:
    """The first document version of a read's result."""
    uid = series_uid(session.get_one(tables.Study, read.study_id))
    result = tables.Result(
        read_id=read.id,
        version=1,
        status=ResultStatus.PRELIMINARY,
        content={
            "finding": asdict(finding) if finding else None,
            "refusal": asdict(refusal) if refusal else None,
            "algorithm": asdict(ALGORITHM),
            "images_read": [asdict(ImageRef(uid, f"{uid}.{index}", MR)) for index in (1, 2, 3)],
        },
        created_at=NOW,
    )
    session.add(result)
    session.flush()
    return result


def add_delivery(
    session: Session, result: tables.Result, state: DeliveryState, content: bytes = b"SR", error: str | None = None
) -> tables.Delivery:
    """A structured report of the result, and its delivery to the PACS."""
    document = tables.Document(
        result_id=result.id,
        kind="dicom_sr",
        variant="",
        sop_uid=f"2.25.{result.id}",
        sop_class_uid=ENHANCED_SR,
        content=content,
        sha256=hashlib.sha256(content).hexdigest(),
    )
    session.add(document)
    session.flush()
    delivery = tables.Delivery(
        document_id=document.id,
        destination="pacs",
        state=state,
        attempts=1,
        last_error=error,
        next_attempt_at=NOW if state is DeliveryState.WAITING else None,
        delivered_at=NOW if state is DeliveryState.DELIVERED else None,
    )
    session.add(delivery)
    session.flush()
    return delivery


def glioma(study: tables.Study, probability: float = 0.931) -> Finding:
    """A glioma, with limits, alternatives and key images."""
    uid = series_uid(study)
    rest = 1 - probability
    return Finding(
        label="glioma",
        code=GLIOMA,
        presence=Presence.PRESENT,
        probability=probability,
        site=BRAIN,
        key_images=(ImageRef(uid, f"{uid}.2", MR), ImageRef(uid, f"{uid}.1", MR)),
        limits=(
            "The model was trained on slices with contrast agent; this study names none.",
            "1 of 3 images could not be decoded.",
        ),
        alternatives=(
            ClassProbability("glioma", GLIOMA, Presence.PRESENT, probability),
            ClassProbability("meningioma", MENINGIOMA, Presence.PRESENT, rest * 0.6),
            ClassProbability("notumor", NEOPLASM, Presence.ABSENT, rest * 0.3),
            ClassProbability("pituitary", ADENOMA, Presence.PRESENT, rest * 0.1),
        ),
        tracking_id="1",
        tracking_uid="2.25.1",
    )


def no_neoplasm(study: tables.Study) -> Finding:
    """Nothing there."""
    uid = series_uid(study)
    return Finding(
        label="notumor",
        code=NEOPLASM,
        presence=Presence.ABSENT,
        probability=0.974,
        site=BRAIN,
        key_images=(ImageRef(uid, f"{uid}.2", MR),),
        limits=(),
        alternatives=(
            ClassProbability("notumor", NEOPLASM, Presence.ABSENT, 0.974),
            ClassProbability("glioma", GLIOMA, Presence.PRESENT, 0.026),
        ),
        tracking_id="1",
        tracking_uid="2.25.2",
    )


def refused_ct() -> Refusal:
    """A study of the wrong modality."""
    sentence = "Not read, because the study has CT images and this model reads MR only."
    return Refusal("modality", sentence, NEOPLASM, BRAIN)


def read_study(
    session: Session, number: int, *, delivery: DeliveryState = DeliveryState.DELIVERED, content: bytes = b"SR"
) -> Seeded:
    """A study with a glioma, a report and a delivery."""
    study = add_study(session, number)
    read = add_read(session, study, ReadState.READ)
    result = add_result(session, read, finding=glioma(study))
    error = None if delivery is DeliveryState.DELIVERED else "The PACS does not answer."
    sent = add_delivery(session, result, delivery, content, error)
    return Seeded(study.id, study.study_uid, read.id, result.id, sent.document_id, sent.id)


def add_maps(session: Session, study: tables.Study, read_id: int) -> None:
    """Maps of a glioma's key images: on slice 2 the model looked at the bright spot, on slice 1 at nothing."""
    uid, cells = series_uid(study), MAP_CELLS
    y, x = (np.mgrid[0:cells, 0:cells] + 0.5) / cells * 2 - 1
    levels = np.clip(255 * np.exp(-(((x - SPOT[0]) ** 2 + (y - SPOT[1]) ** 2) / 0.02)), 0, 255).astype(np.uint8)
    blank = bytes(cells * cells)
    saliency.add_maps(
        session,
        read_id,
        [
            SaliencyMap(ImageRef(uid, f"{uid}.2", MR), "glioma", cells, cells, 4.2, levels.tobytes()),
            SaliencyMap(ImageRef(uid, f"{uid}.1", MR), "glioma", cells, cells, 0.0, blank),
        ],
    )


def every_state(session: Session, after: int = 0) -> dict[str, tables.Study]:
    """A study in each of the states that the worklist knows, by a word for it; numbered from ``after`` + 1."""
    made = {
        "read": add_study(session, after + 1, name="García^María Luz", description="MR head with contrast"),
        "absent": add_study(session, after + 2, name="Yamada^Tarou=山田^太郎=やまだ^たろう"),
        "refused": add_study(session, after + 3, name="Müller^Jörg^^Dr.", description="CT thorax"),
        "failed": add_study(session, after + 4, name="O'Neil^Sam"),
        "not routed": add_study(session, after + 5, name="Nguyen^Thi", description="MR knee"),
        "queued": add_study(session, after + 6, name="Smith^Adam", priority=Priority.URGENT),
        "reading": add_study(session, after + 7, name="Okafor^Ada", priority=Priority.STAT),
        "arriving": add_study(
            session, after + 8, name="Rossi^Anna", complete=False, hold_reason="Other birth date than before."
        ),
    }
    read = add_result(session, add_read(session, made["read"], ReadState.READ), finding=glioma(made["read"]))
    add_delivery(session, read, DeliveryState.DELIVERED)
    absent = add_read(session, made["absent"], ReadState.READ)
    no = add_result(session, absent, finding=no_neoplasm(made["absent"]))
    add_delivery(session, no, DeliveryState.WAITING, error="The PACS does not answer.")
    refused = add_result(session, add_read(session, made["refused"], ReadState.REFUSED), refusal=refused_ct())
    add_delivery(session, refused, DeliveryState.REFUSED, error="The PACS answered A700, out of resources.")
    add_read(session, made["failed"], ReadState.FAILED, error="The model's process was killed after 120 s.")
    add_read(session, made["queued"], ReadState.QUEUED)
    add_read(session, made["reading"], ReadState.READING)
    return made


def series_uid(study: tables.Study) -> str:
    """The one series of a seeded study."""
    return f"{study.study_uid}.1"


def write_images(root: Path, session: Session, study_id: int) -> list[Dataset]:
    """Write the files of a seeded study's images, round phantoms with a bright spot, and return their data sets."""
    study = session.get_one(tables.Study, study_id)
    rows = session.scalars(
        select(tables.Instance).where(tables.Instance.study_id == study_id).order_by(tables.Instance.instance_number)
    )
    written = [_dataset(study, row) for row in rows]
    for ds in written:
        ds.save_as(root / f"{ds.SOPInstanceUID}.dcm", enforce_file_format=True)
    return written


def rendered_report(session: Session, result_id: int, evidence: list[Dataset]) -> bytes:
    """The structured report that the product renders of a seeded result."""
    installation = Installation(uuid.UUID(int=7), "Not a certified medical device. For evaluation.")
    report = load_report(session, result_id, installation)
    return render_sr(report, evidence).content


def _dataset(study: tables.Study, row: tables.Instance) -> Dataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = row.sop_class_uid
    meta.MediaStorageSOPInstanceUID = row.sop_uid
    ds = Dataset()
    ds.file_meta = meta
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = row.sop_class_uid, row.sop_uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study.study_uid, row.series_uid
    ds.FrameOfReferenceUID = f"{row.series_uid}.0"
    ds.PatientName, ds.PatientID, ds.PatientSex, ds.PatientBirthDate = study.patient.name, "PID1", "F", "19610503"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20261120", "083000", "1", study.accession_number
    ds.ReferringPhysicianName, ds.StudyDescription = "", study.description
    ds.Modality, ds.SeriesNumber, ds.SeriesDescription = "MR", 1, row.series_description
    ds.InstanceNumber, ds.Manufacturer, ds.ImageType = row.instance_number, "Phantom", ["ORIGINAL", "PRIMARY", "M"]
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 128, 128, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelSpacing, ds.SliceThickness, ds.ImageOrientationPatient = [1.8, 1.8], 5, [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [0, 0, 5 * (row.instance_number or 0)]
    ds.WindowCenter, ds.WindowWidth = 500, 1000
    ds.PixelData = _phantom(row.instance_number or 1).tobytes()
    return ds


def _phantom(slice_number: int) -> np.ndarray:
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    skull, brain = np.hypot(x / 0.75, y / 0.9) < 1, np.hypot(x / 0.68, y / 0.83) < 1
    spot = np.hypot(x - SPOT[0], y - SPOT[1]) < 0.05 * slice_number
    image = (
        skull * 700.0 - brain * 350 + brain * 60 * np.sin(9 * x + slice_number) * np.cos(8 * y) + (spot & brain) * 450
    )
    return np.clip(image, 0, 1000).astype(np.uint16)


def _image(study: tables.Study, index: int) -> tables.Instance:
    uid = f"{series_uid(study)}.{index}"
    return tables.Instance(
        study_id=study.id,
        series_uid=series_uid(study),
        sop_uid=uid,
        sop_class_uid=MR,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        kind=InstanceKind.IMAGE,
        standing=Standing.CURRENT,
        modality="MR",
        series_number=1,
        series_description="T1 axial",
        instance_number=index,
        number_of_frames=1,
        rows=128,
        columns=128,
        file_key=f"{uid}.dcm",
        sha256="0" * 64,
        size=1000,
        source="dicom:CT1",
        received_at=NOW,
    )


def shadow_read(session: Session, read_id: int) -> None:
    """What a version on trial, 9.9.9, said in the shadow of this read: a meningioma, unlike the active version."""
    models.record_shadow(
        session,
        models.ShadowOutcome(
            read_id=read_id,
            model="brain_mr_tumour",
            version="9.9.9",
            label="meningioma",
            probability=0.7,
            refusal=None,
            error=None,
            agrees=False,
            seconds=2.5,
        ),
    )
