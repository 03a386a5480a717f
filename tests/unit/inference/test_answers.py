"""Answers as JSON."""

from __future__ import annotations

import json

import pytest

from inference.answers import (
    ActivationMap,
    Alternative,
    Answer,
    Classified,
    Concept,
    KeyImage,
    Refused,
    answer_from_json,
    answer_to_json,
)

CLASSIFIED = Classified(
    label="glioma",
    wording="Glioma",
    code=Concept("SCT", "393564001", "Glioma"),
    presence="present",
    probability=0.8125,
    site=Concept("SCT", "12738006", "Brain"),
    key_images=(KeyImage("1.2", "1.2.3", "1.2.840.10008.5.1.4.1.1.4.1", 7), KeyImage("1.2", "1.2.4", "1.2", None)),
    limits=("It is only a test.",),
    alternatives=(Alternative("glioma", 0.8125), Alternative("notumor", 0.1875)),
    images_read=20,
    series_uid="1.2",
    activation=(ActivationMap(KeyImage("1.2", "1.2.4", "1.2", None), "glioma", 2, 1, 0.5, "AP8="),),
    prediction_set=("glioma", "notumor"),
)


@pytest.mark.parametrize("answer", [CLASSIFIED, Refused("modality", "Not read, because it is a test.")])
def test_an_answer_survives_json(answer: Answer) -> None:
    """What is written as JSON text and read again is the same answer, types included."""
    assert answer_from_json(json.loads(json.dumps(answer_to_json(answer)))) == answer


@pytest.mark.parametrize("values", [{}, {"kind": "poem"}, {"kind": "refused", "code": "x"}])
def test_what_is_no_answer_is_not_taken_for_one(values: dict[str, str]) -> None:
    """Other JSON raises one of the three errors that the reader of a pipe expects."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        answer_from_json(values)
