"""A model's answer in the record's words."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from fhir_records.model import Installation, Presence
from inference.answers import Alternative, Classified, KeyImage
from inference.contract import PredictionSet
from inference.registry import RegisteredModel
from tests.unit.inference.samples import contract
from workflow.reading import finding_of

HERE = Installation(uuid.UUID(int=1), "For evaluation.")


def model(threshold: float | None) -> RegisteredModel:
    calibrated = None if threshold is None else PredictionSet(coverage=0.95, threshold=threshold)
    made = replace(contract(name="tiny"), prediction_set=calibrated)
    return RegisteredModel("tiny", "1", "Tiny", "Us", "2.25.1", "0" * 64, Path("/nowhere"), made)


def answer(probability: float, *possible: str) -> Classified:
    first = contract().classes[0]
    return Classified(
        label=first.label,
        wording=first.wording,
        code=first.code,
        presence=first.presence,
        probability=probability,
        site=first.site,
        key_images=(KeyImage("1.2", "1.2.3", "1.2.840.10008.5.1.4.1.1.4", None),),
        limits=("A limit.",),
        alternatives=tuple(Alternative(item.label, probability) for item in contract().classes),
        images_read=10,
        series_uid="1.2",
        prediction_set=possible,
    )


def test_the_answer_keeps_its_words_codes_and_key_images() -> None:
    """Label, code, presence, probability, key images and limits are those of the answer."""
    finding = finding_of(answer(0.9), model(None), HERE, "1.2.9")
    first = contract().classes[0]
    assert (finding.label, finding.code.value, finding.probability) == (first.label, first.code.value, 0.9)
    assert finding.presence is Presence(first.presence)
    assert finding.key_images[0].sop_uid == "1.2.3"
    assert finding.limits == ("A limit.",)
    assert len(finding.alternatives) == len(contract().classes)


def test_the_tracking_uid_outlives_revisions_and_versions() -> None:
    """The same model's word on the same study has one tracking UID; another study's has another."""
    one = finding_of(answer(0.9), model(None), HERE, "1.2.9")
    again = finding_of(answer(0.5), replace(model(0.4), version="2"), HERE, "1.2.9")
    assert one.tracking_uid == again.tracking_uid
    assert one.tracking_uid != finding_of(answer(0.9), model(None), HERE, "1.2.10").tracking_uid


@pytest.mark.parametrize(
    ("probability", "threshold", "words"),
    [(0.5, 0.6, "less certain of this answer"), (0.7, 0.2, "At 95% coverage the answer may be"), (0.7, 0.6, None)],
)
def test_doubt_is_said_in_words(probability: float, threshold: float, words: str | None) -> None:
    """An answer below the calibrated threshold, or one among several that stay possible, says so as a limit."""
    possible = [item.label for item in contract().classes][: 1 if words is None else 2]
    limits = finding_of(answer(probability, *possible), model(threshold), HERE, "1.2.9").limits
    if words is None:
        assert limits == ("A limit.",)
    else:
        assert words in limits[1]
