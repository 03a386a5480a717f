"""Reports that the FHIR tests are made of."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import replace

from fhir_records.model import (
    Algorithm,
    ClassProbability,
    Code,
    Finding,
    Identifier,
    ImageRef,
    Installation,
    Instance,
    InstanceKind,
    Patient,
    Presence,
    Priority,
    Read,
    ReadState,
    Refusal,
    Report,
    Result,
    ResultStatus,
    Signature,
    Standing,
    Study,
    StudyState,
)

STUDY_UID = "2.25.10"
STARTED = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
CREATED = dt.datetime(2026, 3, 4, 6, 0, 0, 80000, tzinfo=dt.UTC)
INSTALLATION = Installation(
    uuid.UUID(int=99), "Not a certified medical device. For evaluation.", "Hôpital <Curie> & Co"
)
NEOPLASM = Code("SCT", "108369006", "Neoplasm")
GLIOMA = Code("SCT", "393564001", "Glioma")
MENINGIOMA = Code("SCT", "393566004", "Meningioma")
BRAIN = Code("SCT", "12738006", "Brain")
ALGORITHM = Algorithm("brain_mr_tumour", "1.0.0", "Brain MR tumour", "Wetread", "2.25.777", "ab" * 32)
PATIENT = Patient(
    id=1,
    patient_uid="1234567890128",
    name="Curie^Marie^Salomea^Dr^",
    birth_date=dt.date(1867, 11, 7),
    sex="F",
    identifiers=(Identifier("P|1", "HOSP"), Identifier("P2", "1.2.3.4"), Identifier("P3", "")),
)


def instance(number: int, *, series: int = 1, modality: str = "MR", instance_number: int | None = None) -> Instance:
    """An MR image of the study."""
    return Instance(
        id=number,
        study_uid=STUDY_UID,
        series_uid=f"2.25.10.{series}",
        sop_uid=f"2.25.10.{series}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        kind=InstanceKind.IMAGE,
        standing=Standing.CURRENT,
        modality=modality,
        series_number=series,
        series_description="T1 <sag>",
        instance_number=number if instance_number is None else instance_number,
        number_of_frames=1,
        rows=224,
        columns=224,
        file_key=f"key{number}",
        sha256="00" * 32,
        size=1000,
        received_at=STARTED,
    )


def image(of: Instance, frame: int | None = None) -> ImageRef:
    """A reference to the instance."""
    return ImageRef(of.series_uid, of.sop_uid, of.sop_class_uid, frame)


INSTANCES = (instance(3, series=2), instance(2), instance(1))
STUDY = Study(
    id=1,
    study_uid=STUDY_UID,
    patient=PATIENT,
    accession_number="ACC 1",
    description="Head & neck",
    modalities=("MR",),
    started_at=STARTED,
    revision=1,
    priority=Priority.ROUTINE,
    state=StudyState.READ,
    hold_reason=None,
    source="dicom:CT1",
    first_seen_at=STARTED,
    last_arrival_at=STARTED,
    image_count=3,
    series_count=2,
)
PRESENT = Finding(
    label="glioma",
    code=GLIOMA,
    presence=Presence.PRESENT,
    probability=0.9312,
    site=BRAIN,
    key_images=(image(INSTANCES[1]),),
    limits=("The model learned from images with contrast agent.",),
    alternatives=(
        ClassProbability("glioma", GLIOMA, Presence.PRESENT, 0.9312),
        ClassProbability("meningioma", MENINGIOMA, Presence.PRESENT, 0.05),
        ClassProbability("notumor", NEOPLASM, Presence.ABSENT, 0.0188),
    ),
    tracking_id="brain_mr_tumour: glioma",
    tracking_uid="2.25.555",
)
ABSENT = replace(
    PRESENT, label="notumor", code=NEOPLASM, presence=Presence.ABSENT, probability=0.9712, tracking_uid="2.25.556"
)
REFUSAL = Refusal("modality", "Not read, because the study has CT images and the model reads MR.", NEOPLASM, BRAIN)
READ = Read(
    id=5,
    study_id=1,
    revision=1,
    model="brain_mr_tumour",
    model_version="1.0.0",
    state=ReadState.READ,
    attempts=1,
    error=None,
    results_to=("pacs",),
    priority=Priority.ROUTINE,
    queued_at=CREATED,
    started_at=CREATED,
    finished_at=CREATED,
)


def report_of(
    said: Finding | Refusal,
    *,
    version: int = 1,
    status: ResultStatus = ResultStatus.PRELIMINARY,
    signature: Signature | None = None,
) -> Report:
    """A report that says this, of the sample study."""
    result = Result(
        id=7,
        read_id=5,
        version=version,
        status=status,
        finding=said if isinstance(said, Finding) else None,
        refusal=said if isinstance(said, Refusal) else None,
        algorithm=ALGORITHM,
        images_read=tuple(image(of) for of in INSTANCES) if isinstance(said, Finding) else (),
        created_at=CREATED,
        signature=signature,
    )
    return Report(INSTALLATION, STUDY, READ, result, INSTANCES)
