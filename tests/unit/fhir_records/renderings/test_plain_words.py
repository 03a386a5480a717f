"""The words in which a result is told: true to the answer, and never surer than the model."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_records.errors import RenderingError
from fhir_records.model import Act, Code, Finding, Presence, Refusal, ResultStatus
from fhir_records.renderings import plain_words
from tests.unit.fhir_records.renderings.sr_reports import (
    ABSENT,
    LIMIT,
    PRESENT,
    REFUSAL,
    header,
    ref,
    result_of,
    signature,
)

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
    withdrawn = replace(result_of(ABSENT), status=ResultStatus.ENTERED_IN_ERROR, signature=signature(Act.REJECT))
    assert plain_words.headline(withdrawn) == "Entered in error: no neoplasm of the brain (probability 97 %)"
    assert plain_words.sentences(withdrawn)[-2:] == (
        "Entered in error: do not use.",
        "Rejected by Dr Marie Curie, Hôpital Curie on 2026-03-04 at 05:06 UTC.",
    )
    assert "taken back" in plain_words.patient_words(withdrawn)


def test_a_signed_result_says_by_whom() -> None:
    """Name, organization and time stand in the last sentence, and the title says that it is signed."""
    signed = replace(result_of(ABSENT), status=ResultStatus.FINAL, signature=signature(Act.ACCEPT))
    said = "AI finding, signed by Dr Marie Curie, Hôpital Curie on 2026-03-04 at 05:06 UTC; not the radiology report."
    assert plain_words.sentences(signed)[-1] == said
    assert plain_words.title(signed) == "Wetread AI read: no neoplasm of the brain (signed)"
    amended = replace(signed, status=ResultStatus.AMENDED, signature=signature(Act.CORRECT, note="Looked twice"))
    assert plain_words.sentences(amended)[-1] == "Note of the person who signed: Looked twice."
    assert "amended and signed by" in plain_words.sentences(amended)[-2]


def test_a_corrected_result_is_the_persons_and_names_the_machines() -> None:
    """Whose finding it is and what the AI had answered are said; no "no" is lost; patients learn the same."""
    answer = "No neoplasm of the brain (probability 97 %)"
    act = signature(Act.CORRECT, machine_said=answer)
    finding = replace(PRESENT, probability=None, alternatives=(), limits=(), author=act.signer)
    corrected = replace(result_of(finding), status=ResultStatus.FINAL, signature=act)
    sentences = plain_words.sentences(corrected)
    assert sentences[0] == "Glioma of the brain: present."
    assert f"The AI, Brain MR tumour, version 1.0.0, had answered: {answer}." in sentences
    assert sentences[-1].startswith("A person's finding, signed by Dr Marie Curie")
    assert plain_words.title(corrected).startswith("Wetread corrected read: glioma")
    assert "The doctor found signs of a glioma" in plain_words.patient_words(corrected)
    no = replace(corrected, finding=replace(finding, presence=Presence.ABSENT))
    assert "The doctor found no sign of a glioma" in plain_words.patient_words(no)


def test_a_superseded_result_says_so() -> None:
    """The sentence stands before how far it was signed."""
    words = plain_words.standing(result_of(ABSENT), superseded=True)
    assert words[0].startswith("Superseded") and words[1].startswith("AI finding, preliminary")


@pytest.mark.parametrize("status", [ResultStatus.FINAL, ResultStatus.AMENDED, ResultStatus.ENTERED_IN_ERROR])
def test_what_only_a_person_can_say_needs_one(status: ResultStatus) -> None:
    """No text claims a signature that the record does not have."""
    with pytest.raises(RenderingError, match="names who"):
        plain_words.sentences(replace(result_of(ABSENT), status=status))


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
