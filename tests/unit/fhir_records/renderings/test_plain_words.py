"""The words in which a result is told: true to the answer, and never surer than the model."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_records.errors import RenderingError
from fhir_records.model import Code, Finding, Presence, Refusal, ResultStatus
from fhir_records.renderings import plain_words
from tests.unit.fhir_records.renderings.sr_reports import ABSENT, LIMIT, PRESENT, REFUSAL, header, ref, result_of

UNDETERMINED = replace(ABSENT, presence=Presence.UNDETERMINED, probability=None)
PITUITARY = replace(
    PRESENT,
    code=Code("SCT", "254956000", "Pituitary adenoma (disorder)"),
    site=Code("SCT", "56329008", "Pituitary"),
    probability=0.999,
)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (PRESENT, "Glioma of the brain: present, probability 93 %"),
        (ABSENT, "No neoplasm of the brain (probability 97 %)"),
        (UNDETERMINED, "Neoplasm of the brain: undetermined"),
        (PITUITARY, "Pituitary adenoma: present, probability over 99 %"),
        (REFUSAL, "Not read, because the study has CT images and this model reads MR only"),
    ],
)
def test_headline(said: Finding | Refusal, line: str) -> None:
    """One line says what was looked for, the answer and its probability; a refusal says why."""
    assert plain_words.headline(result_of(said)) == line


def test_withdrawn_headline() -> None:
    """A result entered in error says so before anything else."""
    withdrawn = replace(result_of(ABSENT), status=ResultStatus.ENTERED_IN_ERROR)
    assert plain_words.headline(withdrawn) == "Entered in error: no neoplasm of the brain (probability 97 %)"
    assert "do not use" in plain_words.sentences(withdrawn)[-1]
    assert "taken back" in plain_words.patient_words(withdrawn)


@given(st.floats(0, 1))
def test_probability_is_never_certain(probability: float) -> None:
    """No probability is told as 100 % or 0 %, and what is told is within half a percent of the truth."""
    words = plain_words.probability_words(probability)
    number = int(re.fullmatch(r"(?:over |under )?(\d+) %", words)[1])  # type: ignore[index]
    assert 1 <= number <= 99
    if words.startswith(("over", "under")):
        assert probability >= 0.99 or probability <= 0.01
    else:
        assert abs(number - probability * 100) <= 0.5 + 1e-9


@pytest.mark.parametrize("probability", [-0.01, 1.01, float("nan")])
def test_probability_out_of_range(probability: float) -> None:
    """What is no probability is refused rather than told."""
    with pytest.raises(RenderingError):
        plain_words.probability_words(probability)


@given(st.text(max_size=80), st.text(max_size=80), st.sampled_from(Presence))
def test_title_fits_and_keeps_the_answer(name: str, site: str, presence: Presence) -> None:
    """However long the names are, a title has at most 64 characters and still says the answer and "preliminary"."""
    finding = replace(ABSENT, presence=presence, code=Code("SCT", "1", name), site=Code("SCT", "2", site))
    title = plain_words.title(result_of(finding))
    assert len(title) <= 64
    assert title.endswith("(preliminary)")
    no = {Presence.ABSENT: ("no ", "absent"), Presence.PRESENT: ("present",), Presence.UNDETERMINED: ("undetermined",)}
    assert any(word in title for word in no[presence])


def test_titles() -> None:
    """A title says the answer; that of a refusal, that nothing was read."""
    assert plain_words.title(result_of(ABSENT)) == "Wetread AI read: no neoplasm of the brain (preliminary)"
    assert plain_words.title(result_of(REFUSAL)) == "Wetread AI read: not read (preliminary)"


def test_every_line_of_a_no_says_no() -> None:
    """Each text that can stand alone says "no" or "not" where the answer is no."""
    result = result_of(ABSENT)
    lines = (plain_words.headline(result), plain_words.title(result), plain_words.patient_words(result))
    for text in (*lines, plain_words.about(ABSENT)):
        assert re.search(r"\bno\b", text, re.IGNORECASE), text


def test_sentences_say_everything() -> None:
    """The sentences hold the answer, the answers weighed, the limits, the maker and the standing, in that order."""
    read = plain_words.sentences(result_of(ABSENT, [ref(header())]))
    assert read == (
        "No neoplasm of the brain (probability 97 %).",
        "Answers weighed: no neoplasm 97 %, glioma 3 %, pituitary adenoma under 1 %.",
        LIMIT,
        "Read by Brain MR tumour, version 1.0.0, from 1 image.",
        "AI finding, preliminary: not signed by a person, and not the radiology report.",
    )
    assert plain_words.sentences(result_of(REFUSAL))[0] == REFUSAL.sentence


def test_patient_words() -> None:
    """A patient is told in everyday words what was found, that nobody checked it, and whom to ask."""
    present, refused = (plain_words.patient_words(result_of(said)) for said in (PRESENT, REFUSAL))
    assert "signs of a glioma (a kind of brain tumour) in the brain" in present
    assert "no doctor has checked its answer yet" in present
    assert "says nothing about your health" in refused
    for text in (present, refused):
        assert text.endswith("Please ask your doctor what it means for you.")


def test_contradictory_result() -> None:
    """A result with neither finding nor refusal cannot be told."""
    with pytest.raises(RenderingError, match="either"):
        plain_words.headline(replace(result_of(ABSENT), finding=None))
