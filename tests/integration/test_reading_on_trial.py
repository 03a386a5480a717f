"""The read job with a version on trial beside it, on a real PostgreSQL; the models are stand-ins."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.errors import ModelFailed
from fhir_records.model import ImageRef, Installation, ReadState, SaliencyMap
from fhir_records.store import models, saliency
from fhir_records.store.studies import installation_namespace
from inference.answers import ActivationMap, Alternative, Answer, Classified, KeyImage, Refused
from inference.drift import InputFigures
from inference.reading import ImageFile
from inference.registry import RegisteredModel
from tests.integration.test_models_in_use import read_in_record
from tests.unit.inference.samples import contract
from workflow.reading import ReadStudy

FIGURES = InputFigures(12, (0.5, 0.5), (1.0,))


def _model(version: str) -> RegisteredModel:
    made = contract(name="tiny", version=version)
    return RegisteredModel("tiny", version, "Tiny", "Us", f"2.25.{version[2]}", "0" * 64, Path("/nowhere"), made)


def _said(label: str, probability: float = 0.9) -> Classified:
    answer = next(item for item in contract().classes if item.label == label)
    others = tuple(Alternative(item.label, 0.1) for item in contract().classes if item is not answer)
    weighed = (Alternative(label, probability), *others)
    return Classified(
        label=label,
        wording=answer.wording,
        code=answer.code,
        presence=answer.presence,
        probability=probability,
        site=answer.site,
        key_images=(),
        limits=(),
        alternatives=weighed,
        images_read=12,
        series_uid="1.2",
        figures=FIGURES,
    )


@dataclass
class _Shelf:
    """The models that there are."""

    trial: RegisteredModel | None = None

    def find(self, name: str, version: str) -> RegisteredModel | None:
        return _model(version) if version == "0.1.0" else None

    def shadow_of(self, name: str) -> RegisteredModel | None:
        return self.trial


@dataclass
class _Reader:
    """Answers by version; what is an error is raised."""

    answers: dict[str, Answer | Exception]
    asked: list[str] = field(default_factory=list)

    def read(self, model: RegisteredModel, images: Sequence[ImageFile]) -> Answer:
        self.asked.append(model.version)
        answer = self.answers[model.version]
        if isinstance(answer, Exception):
            raise answer
        return answer


def _job(database: Database, reader: _Reader, trial: RegisteredModel | None) -> ReadStudy:
    with database.session() as session:
        installation = Installation(namespace=installation_namespace(session), statement="For evaluation.")
    return ReadStudy(database, reader, _Shelf(trial), installation, Path, lambda: dt.datetime.now(dt.UTC))


def _counts(database: Database) -> dict[str, int]:
    kinds: dict[str, Any] = {
        "reads": tables.Read,
        "results": tables.Result,
        "figures": tables.ReadFigures,
        "shadows": tables.ShadowRead,
    }
    with database.session() as session:
        return {name: session.scalar(select(func.count()).select_from(kind)) or 0 for name, kind in kinds.items()}


def test_a_version_on_trial_reads_apart(database: Database) -> None:
    """Both versions read the study once; one result stands, the other's answer is kept apart and compared."""
    read_id = read_in_record(database, ReadState.QUEUED)
    reader = _Reader({"0.1.0": _said("glioma"), "0.2.0": _said("notumor", 0.7)})
    job = _job(database, reader, _model("0.2.0"))
    job(read_id)
    job(read_id)  # at least once
    assert reader.asked == ["0.1.0", "0.2.0"]
    assert _counts(database) == {"reads": 1, "results": 1, "figures": 1, "shadows": 1}
    with database.session() as session:
        (summary,) = models.shadow_summary(session)
        (week,) = models.weekly(session)
        assert session.scalar(select(tables.Result.content["finding"]["label"].astext)) == "glioma"
    assert (summary.version, summary.disagreeing) == ("0.2.0", 1)
    assert summary.newest_disagreements[0].shadow_label == "notumor"
    assert (week.answers, week.intensity, week.distances) == ({"glioma": 1}, (0.5, 0.5), (1.0,))


@pytest.mark.parametrize("broken", [ModelFailed("It crashed."), RuntimeError("what nobody foresaw")])
def test_a_trial_that_fails_changes_nothing(database: Database, broken: Exception) -> None:
    """Where the version on trial fails, the active one's answer stands, and the failure is counted."""
    read_id = read_in_record(database, ReadState.QUEUED)
    _job(database, _Reader({"0.1.0": _said("glioma"), "0.2.0": broken}), _model("0.2.0"))(read_id)
    with database.session() as session:
        (summary,) = models.shadow_summary(session)
        assert session.get_one(tables.Read, read_id).state is ReadState.READ
    assert (summary.failed, summary.agreeing) == (1, 0)


def test_a_trial_is_made_up_for(database: Database) -> None:
    """A worker that died between the read and the trial costs neither: the job, done again, does the trial alone."""
    read_id = read_in_record(database, ReadState.QUEUED)
    refusal = replace(Refused("unfamiliar", "Not read, because it is a fruit."), figures=FIGURES)
    reader = _Reader({"0.1.0": refusal, "0.2.0": refusal})
    _job(database, reader, None)(read_id)
    _job(database, reader, _model("0.2.0"))(read_id)
    assert reader.asked == ["0.1.0", "0.2.0"]
    with database.session() as session:
        (summary,) = models.shadow_summary(session)
        (week,) = models.weekly(session)
    assert summary.agreeing == 1
    assert (week.refused, week.refusals) == (1, {"unfamiliar": 1})


def test_a_read_that_failed_is_not_tried_by_another(database: Database) -> None:
    """Without an answer of the active version there is nothing to compare, and the trial waits for it."""
    read_id = read_in_record(database, ReadState.QUEUED)
    reader = _Reader({"0.1.0": ModelFailed("It crashed."), "0.2.0": _said("glioma")})
    _job(database, reader, _model("0.2.0"))(read_id)
    assert reader.asked == ["0.1.0"]
    assert _counts(database) == {"reads": 1, "results": 0, "figures": 0, "shadows": 0}


def test_a_version_that_is_gone_fails_in_words(database: Database) -> None:
    """A queued read of a version that was removed meanwhile says so."""
    read_id = read_in_record(database, ReadState.QUEUED, version="0.0.9")
    _job(database, _Reader({}), None)(read_id)
    with database.session() as session:
        error = session.get_one(tables.Read, read_id).error
    assert error == "The model tiny 0.0.9 is not registered on this machine."


def test_the_maps_of_the_version_that_counts_are_kept(database: Database) -> None:
    """A read keeps its saliency maps once, to the byte; those of the version on trial are not kept."""
    read_id = read_in_record(database, ReadState.QUEUED)
    image, levels = KeyImage("1.2", "1.2.3", "1.2.840.10008.5.1.4.1.1.4", 4), bytes(range(6))
    found = ActivationMap(image, "glioma", 2, 3, 1.5, base64.b64encode(levels).decode())
    answer = replace(_said("glioma"), activation=(found, found))
    trial = replace(_said("glioma"), activation=(replace_label(found, "meningioma"),))
    job = _job(database, _Reader({"0.1.0": answer, "0.2.0": trial}), _model("0.2.0"))
    job(read_id)
    job(read_id)
    expected = SaliencyMap(ImageRef(*image), "glioma", 2, 3, 1.5, levels)
    with database.session() as session:
        assert saliency.maps_of(session, read_id) == (expected, expected)
        assert saliency.maps_of(session, read_id + 1) == ()


def replace_label(found: ActivationMap, label: str) -> ActivationMap:
    """The same map, speaking for another class."""
    return found._replace(label=label)
