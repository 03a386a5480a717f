"""Reports and headers that the SR tests are made of."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import replace

from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from fhir_records.model import (
    Act,
    Algorithm,
    ClassProbability,
    Code,
    Finding,
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
    Signer,
    Standing,
    Study,
    StudyState,
)

NOW = dt.datetime(2026, 3, 4, 5, 6, 7, 80000, tzinfo=dt.UTC)
STATEMENT = "Not a certified medical device. For evaluation."
NEOPLASM = Code("SCT", "108369006", "Neoplasm")
GLIOMA = Code("SCT", "393564001", "Glioma")
BRAIN = Code("SCT", "12738006", "Brain")
ALGORITHM = Algorithm(
    "brain_mr_tumour", "1.0.0", "Brain MR tumour", "Wetread", "2.25.329800735698586629295641978511506172918", "ab" * 32
)
LIMIT = "The images are without contrast agent; the model learned from images with it."

ABSENT = Finding(
    label="notumor",
    code=NEOPLASM,
    presence=Presence.ABSENT,
    probability=0.9712,
    site=BRAIN,
    key_images=(),
    limits=(LIMIT,),
    alternatives=(
        ClassProbability("notumor", NEOPLASM, Presence.ABSENT, 0.9712),
        ClassProbability("glioma", GLIOMA, Presence.PRESENT, 0.0283),
        ClassProbability("pituitary", Code("SCT", "254956000", "Pituitary adenoma"), Presence.PRESENT, 0.0005),
    ),
    tracking_id="brain_mr_tumour: Neoplasm",
    tracking_uid="2.25.31415926535897932384626433832795028841",
)
PRESENT = replace(ABSENT, label="glioma", code=GLIOMA, presence=Presence.PRESENT, probability=0.93)
REFUSAL = Refusal(
    code="modality",
    sentence="Not read, because the study has CT images and this model reads MR only.",
    question=NEOPLASM,
    site=BRAIN,
)


def result_of(said: Finding | Refusal, images_read: Sequence[ImageRef] = ()) -> Result:
    """A preliminary result that says this."""
    return Result(
        id=7,
        read_id=5,
        version=1,
        status=ResultStatus.PRELIMINARY,
        finding=said if isinstance(said, Finding) else None,
        refusal=said if isinstance(said, Refusal) else None,
        algorithm=ALGORITHM,
        images_read=tuple(images_read),
        created_at=NOW,
    )


CURIE = Signer("curie", "Curie^Marie^^Dr", "Dr Marie Curie", "Hôpital Curie", Code("NPI", "12345", "Dr Marie Curie"))


def signature(act: Act, *, note: str = "", machine_said: str = "", signer: Signer = CURIE) -> Signature:
    """What a person did with version 1."""
    return Signature(act, signer, NOW, 1, act is Act.CORRECT, machine_said, note)


def header(number: int = 1, **attributes: object) -> Dataset:
    """A faultless MR header; attributes given as None are left out."""
    ds = Dataset()
    values: dict[str, object] = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": f"2.25.1000{number}",
        "StudyInstanceUID": "2.25.10",
        "SeriesInstanceUID": "2.25.100",
        "PatientName": "Curie^Marie",
        "PatientID": "P1",
        "PatientBirthDate": "18671107",
        "PatientSex": "F",
        "StudyDate": "20260301",
        "StudyTime": "120000",
        "ReferringPhysicianName": "",
        "StudyID": "S1",
        "AccessionNumber": "A1",
        "StudyDescription": "MR head",
        "Modality": "MR",
        "FrameOfReferenceUID": "2.25.1",
        "Rows": 256,
        "Columns": 192,
        "PixelSpacing": [0.5, 0.75],
        **attributes,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(ds, keyword, value)
    return ds


def ref(ds: Dataset, frame: int | None = None) -> ImageRef:
    """A reference to the image that `ds` is the header of."""
    return ImageRef(ds.SeriesInstanceUID, ds.SOPInstanceUID, ds.SOPClassUID, frame)


def report_of(
    evidence: Sequence[Dataset],
    said: Finding | Refusal,
    *,
    images_read: Sequence[ImageRef] | None = None,
    key_images: Sequence[ImageRef] | None = None,
) -> Report:
    """A report on a study with these headers; every image is read and the first is key, unless said otherwise."""
    if isinstance(said, Finding):
        said = replace(said, key_images=tuple([ref(evidence[0])] if key_images is None else key_images))
        images_read = [ref(ds) for ds in evidence] if images_read is None else images_read
    return Report(
        installation=Installation(uuid.UUID(int=99), STATEMENT, "Hôpital Curie"),
        study=_study(evidence[0].StudyInstanceUID),
        read=_read(),
        result=result_of(said, images_read or ()),
        instances=tuple(_instance(number, ds) for number, ds in enumerate(evidence)),
    )


def _study(study_uid: str) -> Study:
    return Study(
        id=1,
        study_uid=study_uid,
        patient=Patient(1, "1234567890123", "Curie^Marie", None, "F"),
        accession_number="A1",
        description="MR head",
        modalities=("MR",),
        started_at=None,
        revision=1,
        priority=Priority.ROUTINE,
        state=StudyState.READ,
        hold_reason=None,
        source="dicom:MR1",
        first_seen_at=NOW,
        last_arrival_at=NOW,
    )


def _read() -> Read:
    return Read(
        id=5,
        study_id=1,
        revision=1,
        model=ALGORITHM.name,
        model_version=ALGORITHM.version,
        state=ReadState.READ,
        attempts=1,
        error=None,
        results_to=("pacs",),
        priority=Priority.ROUTINE,
        queued_at=NOW,
        started_at=NOW,
        finished_at=NOW,
    )


def _instance(number: int, ds: Dataset) -> Instance:
    return Instance(
        id=number,
        study_uid=ds.StudyInstanceUID,
        series_uid=ds.SeriesInstanceUID,
        sop_uid=ds.SOPInstanceUID,
        sop_class_uid=ds.SOPClassUID,
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        kind=InstanceKind.IMAGE,
        standing=Standing.CURRENT,
        modality=ds.get("Modality", "OT"),
        series_number=None,
        series_description="",
        instance_number=number,
        number_of_frames=int(ds.get("NumberOfFrames") or 1),
        rows=ds.get("Rows"),
        columns=ds.get("Columns"),
        file_key="k",
        sha256="00",
        size=1,
        received_at=NOW,
    )
