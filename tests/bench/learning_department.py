"""A department that nobody has: slices of the public collection as another scanner would show them, read and signed.

The slices are of clusters that the shipped brain model was not trained on. Its answers are its own, behind its guards;
the collection's labels are the radiologists, who accept what is right and correct what is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from sqlalchemy.orm import Session

from fhir_records import signing, tables
from fhir_records.database import Database
from fhir_records.model import (
    Act,
    ClassProbability,
    Code,
    Consent,
    Finding,
    ImageRef,
    Presence,
    ReadState,
    ResultStatus,
)
from fhir_records.store import consent
from inference.answers import Concept
from inference.evaluation import ImageReader
from inference.registered import RegisteredModel
from tests import seed
from tests.integration.signed_results import CURIE, NOW

SIDE = 224  # pixels of the collection's pictures


@dataclass(frozen=True, slots=True)
class Slice:
    """One picture of the collection."""

    file: Path
    label: str
    cluster: int  # of look-alikes: the nearest thing to a person
    held_out: bool  # of the shipped model's training


def collection(root: Path, split: Path) -> list[Slice]:
    """The collection's pictures with their places in the model's stored split."""
    record = json.loads(split.read_text(encoding="utf-8"))
    lines = [(line, part == "calibration") for part in ("train", "calibration") for line in record[part]]
    places = {digest: (number, held) for number, (line, held) in enumerate(lines) for digest in line.split()}
    found = []
    for file in sorted(root.glob("*/*.jpg")):
        place = places.get(hashlib.sha256(file.read_bytes()).hexdigest()[:10])
        if place:
            found.append(Slice(file, file.parent.name, *place))
    return found


def as_shown_there(file: Path, severity: float) -> npt.NDArray[np.uint8]:
    """The picture as the other scanner shows it: coarser, of another contrast, shaded by its coil, noisier.

    Shape (224, 224). `severity` 0 changes nothing but the size; at 1 hardly anything is left to see.
    """
    rng = np.random.default_rng(int(hashlib.sha256(file.read_bytes()).hexdigest()[:8], 16))
    small = round(SIDE * (1 - 0.5 * severity))
    with Image.open(file) as picture:
        resized = picture.convert("F").resize((small, small), Image.Resampling.BOX)
    grey = np.asarray(resized, dtype=np.float32) / 255
    curved = grey ** (1 - 0.45 * severity) - 0.55 * severity * np.clip(grey - 0.5, 0, None)
    grey = np.where(grey > 0.04, curved, grey)
    row, column = np.mgrid[-1 : 1 : small * 1j, -1 : 1 : small * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    grey = grey * np.exp(-0.9 * severity * (row * np.cos(angle) + column * np.sin(angle) + 0.3))
    grey = grey / max(1e-6, float(np.percentile(grey, 99.8)))
    noise = rng.normal(0, 0.07 * severity, (2, small, small))
    grey = np.clip(np.hypot(grey + noise[0], noise[1]) / 1.2, 0, 1)  # Rician, as of a magnitude picture
    shown = Image.fromarray(grey.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.rint(np.asarray(shown).clip(0, 1) * 255).astype(np.uint8)


def write_pictures(folder: Path, slices: Sequence[Slice], severity: float | None) -> None:
    """One sub-folder a class, as `wetread evaluate` and `wetread train` read them; None: the files as they are."""
    for one in slices:
        (folder / one.label).mkdir(parents=True, exist_ok=True)
        if severity is None:
            (folder / one.label / one.file.name).symlink_to(one.file.resolve())
        else:
            Image.fromarray(as_shown_there(one.file, severity)).save(folder / one.label / f"{one.file.stem}.png")


def add_cases(
    database: Database, spool: Path, model: RegisteredModel, slices: Sequence[Slice], severity: float, work: Path
) -> dict[str, int]:
    """A person with a signed study of one image for each slice; how many were accepted, corrected, and not read."""
    write_pictures(work, slices, severity)
    files = [work / one.label / f"{one.file.stem}.png" for one in slices]
    counts = {"accepted": 0, "corrected": 0, "refused": 0}
    answers = ImageReader.of(model).judge(files)
    for number, (one, file, said) in enumerate(zip(slices, files, answers, strict=True), start=1):
        if said is None:  # nobody can sign an answer that there is not
            counts["refused"] += 1
            continue
        with database.session() as session:
            study = seed.add_study(session, number, images=1)
            _write_image(session, spool, study, file)
            read_id, answer = _add_answer(session, study, model, said.tolist())
            act, label = (Act.ACCEPT, "") if answer == one.label else (Act.CORRECT, one.label)
            signing.sign(session, signing.SigningRequest(study.study_uid, read_id, 1, act, label=label), CURIE, NOW)
            uid = study.patient.patient_uid
            consent.record_consent(session, uid, Consent.GIVEN, said_by="the patient", recorded_by="admin")
        counts["accepted" if answer == one.label else "corrected"] += 1
    return counts


def _write_image(session: Session, spool: Path, study: tables.Study, file: Path) -> None:
    with Image.open(file) as picture:
        pixels = np.asarray(picture, dtype=np.uint16) * 4
    (ds,) = seed.write_images(spool, session, study.id)
    ds.Rows, ds.Columns, ds.PixelData = SIDE, SIDE, pixels.tobytes()
    ds.save_as(spool / f"{ds.SOPInstanceUID}.dcm", enforce_file_format=True)


def _add_answer(
    session: Session, study: tables.Study, model: RegisteredModel, probabilities: Sequence[float]
) -> tuple[int, str]:
    """The model's answer in the record: the number of its read, and the label."""
    read = tables.Read(
        study_id=study.id,
        revision=1,
        model=model.name,
        model_version=model.version,
        state=ReadState.READ,
        queued_at=NOW,
    )
    session.add(read)
    session.flush()
    uid = seed.series_uid(study)
    image = ImageRef(uid, f"{uid}.1", seed.MR)
    weighed = sorted(zip(model.contract.classes, probabilities, strict=True), key=lambda pair: -pair[1])
    answer, probability = weighed[0]
    finding = Finding(
        label=answer.label,
        code=_code(answer.code),
        presence=Presence(answer.presence),
        probability=probability,
        site=_code(answer.site),
        key_images=(image,),
        limits=(),
        alternatives=tuple(
            ClassProbability(item.label, _code(item.code), Presence(item.presence), share) for item, share in weighed
        ),
        tracking_id="1",
        tracking_uid=f"2.25.{read.id}",
    )
    content = {
        "finding": asdict(finding),
        "refusal": None,
        "algorithm": asdict(replace(seed.ALGORITHM, name=model.name, version=model.version)),
        "images_read": [asdict(image)],
    }
    session.add(
        tables.Result(read_id=read.id, version=1, status=ResultStatus.PRELIMINARY, content=content, created_at=NOW)
    )
    session.flush()
    return read.id, answer.label


def _code(concept: Concept) -> Code:
    return Code(concept.scheme, concept.value, concept.meaning)
