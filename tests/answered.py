"""Studies that a model answered and people signed, for tests of how far they agree. Nobody in here exists."""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass, replace
from itertools import count

from sqlalchemy.orm import Session

from fhir_records import signing, tables
from fhir_records.model import Act, Equipment, Finding, ReadState, Signer
from fhir_records.signing import SigningRequest
from tests import seed

MODEL = seed.ALGORITHM.name
CURIE = Signer("curie", "Curie^Marie", "Dr Marie Curie", "", None)
SKYRA = Equipment("SIEMENS", "Skyra", "MR1", "40123")
SIGNA = Equipment("GE MEDICAL SYSTEMS", "SIGNA Artist", "MR2", "SN-77")
_numbers = count(1000)


@dataclass(frozen=True, slots=True)
class Answered:
    """A study that was read."""

    study_uid: str
    study_id: int
    read_id: int


def answer(
    session: Session,
    label: str = "glioma",
    *,
    at: dt.datetime = seed.NOW,
    version: str = "1.0.0",
    equipment: Equipment | None = None,
    after: Answered | None = None,
) -> Answered:
    """A study, and what the model says of it.

    Args:
        session: the caller's.
        label: the model's answer; "": it refuses.
        at: when it answered.
        version: of the model.
        equipment: the scanner, where the images name it.
        after: the study is this one, of which there are newer images now.
    """
    if after is None:
        study = seed.add_study(session, next(_numbers), images=1)
    else:
        study = session.get_one(tables.Study, after.study_id)
        study.revision += 1
    read = seed.add_read(session, study, ReadState.READ if label else ReadState.REFUSED)
    read.model_version = version
    refusal = None if label else seed.refused_ct()
    result = seed.add_result(session, read, finding=finding(study, label) if label else None, refusal=refusal)
    result.created_at = at
    session.flush()
    session.refresh(result)
    if equipment:
        assert result.series_uid
        row = tables.SeriesEquipment(study_id=study.id, series_uid=result.series_uid, **asdict(equipment))
        session.merge(row)
    return Answered(study.study_uid, study.id, read.id)


def finding(study: tables.Study, label: str) -> Finding:
    """One of the seeded model's four answers, with all of them weighed."""
    likely = seed.glioma(study)
    chosen = {answer.label: answer for answer in likely.alternatives}[label]
    return replace(likely, label=label, code=chosen.code, presence=chosen.presence)


def sign(
    session: Session,
    answered: Answered,
    act: Act = Act.ACCEPT,
    *,
    label: str = "",
    note: str = "",
    version: int = 1,
    wrong_patient: bool = False,
    at: dt.datetime = seed.NOW + dt.timedelta(hours=1),
) -> None:
    """A person signs, as the pages do it."""
    request = SigningRequest(
        answered.study_uid, answered.read_id, version, act, label=label, note=note, wrong_patient=wrong_patient
    )
    signing.sign(session, request, CURIE, at)
