"""A result in plain English: worklist, FHIR, SR and portal all take their words from here, so that they say the same.

Every text that can stand alone says "no" where the answer is no, and "not read" where nothing was read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from fhir_records.errors import RenderingError
from fhir_records.model import Code, Finding, Presence, Refusal, Result, ResultStatus

_STATUS: Final[Mapping[ResultStatus, str]] = MappingProxyType(
    {
        ResultStatus.PRELIMINARY: "preliminary",
        ResultStatus.FINAL: "final",
        ResultStatus.AMENDED: "amended",
        ResultStatus.ENTERED_IN_ERROR: "entered in error",
    }
)

_STANDING: Final[Mapping[ResultStatus, str]] = MappingProxyType(
    {
        ResultStatus.PRELIMINARY: "AI finding, preliminary: not signed by a person, and not the radiology report.",
        ResultStatus.FINAL: "AI finding, signed by a person; not the radiology report.",
        ResultStatus.AMENDED: "AI finding, amended and signed by a person; not the radiology report.",
        ResultStatus.ENTERED_IN_ERROR: "Entered in error: do not use.",
    }
)

_FOR_PATIENTS: Final[Mapping[ResultStatus, str]] = MappingProxyType(
    {
        ResultStatus.PRELIMINARY: "The program can be wrong, and no doctor has checked its answer yet.",
        ResultStatus.FINAL: "A doctor has checked this answer.",
        ResultStatus.AMENDED: "A doctor has checked this answer and corrected it.",
        ResultStatus.ENTERED_IN_ERROR: "",
    }
)

# SNOMED CT concepts as a patient would call them.
_LAY_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "108369006": "a tumour",
        "4147007": "a mass",
        "393564001": "a glioma (a kind of brain tumour)",
        "393566004": "a meningioma (a tumour of the lining around the brain)",
        "302820008": "a meningioma (a tumour of the lining around the brain)",
        "254956000": "a pituitary adenoma (a growth of the pituitary gland)",
        "233604007": "pneumonia (an infection of the lungs)",
    }
)

_HIERARCHY_TAG = re.compile(r"\s*\((disorder|finding|body structure|morphologic abnormality)\)$")


def probability_words(probability: float) -> str:
    """A probability in whole percent, e.g. "93 %"; never "100 %" or "0 %", for a model is never certain.

    Raises RenderingError where it is not between 0 and 1.
    """
    if not 0 <= probability <= 1:
        raise RenderingError("A probability lies between 0 and 1.")
    percent = round(probability * 100)
    if percent >= 100:
        return "over 99 %"
    if percent <= 0:
        return "under 1 %"
    return f"{percent} %"


def percent(probability: float) -> float:
    """A probability in percent as numbers say it: never 0 or 100, for a model is never certain, and to two places.

    Raises RenderingError where it is not between 0 and 1.
    """
    if not 0 <= probability <= 1:
        raise RenderingError("A probability lies between 0 and 1.")
    return min(max(round(probability * 100, 2), 0.01), 99.99)


def headline(result: Result) -> str:
    """One line that can stand alone, without a full stop.

    "Glioma of the brain: present, probability 93 %", "No neoplasm of the brain (probability 97 %)" or
    "Not read, because …".
    """
    line = _answer_with_probability(_said(result))
    return f"Entered in error: {_lower(line)}" if result.status is ResultStatus.ENTERED_IN_ERROR else line


def title(result: Result, *, length: int = 64) -> str:
    """A name for a document or series: "Wetread AI read: no neoplasm of the brain (preliminary)".

    At most `length` characters (LO has 64), and nothing that matters is ever cut off: where the words are too long, the
    site goes first, then the finding's name.
    """
    said = _said(result)
    if isinstance(said, Refusal):
        candidates: tuple[str, ...] = ("not read",)
    else:
        candidates = (_answer(said), _answer(said, with_site=False), said.presence.value)
    for words in candidates:
        text = f"Wetread AI read: {_lower(words)} ({_STATUS[result.status]})"
        if len(text) <= length:
            return text
    raise RenderingError(f"A title cannot be said in {length} characters.")


def sentences(result: Result) -> tuple[str, ...]:
    """All that a reader must know, a sentence each: the answer, what limits it, who made it and how far it stands."""
    return (f"{headline(result)}.", *_grounds(_said(result)), _made_by(result), _STANDING[result.status])


def patient_words(result: Result) -> str:
    """The result for the patient: what was looked for, the answer, how sure it is, and what it is not."""
    said = _said(result)
    if result.status is ResultStatus.ENTERED_IN_ERROR:
        return "An earlier answer of the computer program was taken back. Please ask your doctor about your scan."
    advice = "Please ask your doctor what it means for you."
    if isinstance(said, Refusal) or said.presence is Presence.UNDETERMINED:
        return f"A computer program could not read your scan. This says nothing about your health. {advice}"
    thing = _LAY_WORDS.get(said.code.value) or _name(said.code, lower=True)
    where = f"in the {_name(said.site, lower=True)}"
    if said.presence is Presence.ABSENT:
        answer = f"It found no sign of {thing} {where}."
    else:
        answer = f"It found signs of {thing} {where}."
    sure = "" if said.probability is None else f" How sure it is: {probability_words(said.probability)}."
    return f"A computer program has looked at your scan. {answer}{sure} {_FOR_PATIENTS[result.status]} {advice}"


def about(finding: Finding) -> str:
    """What a finding's probability is the probability of, e.g. "that no neoplasm of the brain is present"."""
    no = "no " if finding.presence is Presence.ABSENT else ""
    state = "undetermined" if finding.presence is Presence.UNDETERMINED else "present"
    return f"that {no}{_lower(_what(finding))} is {state}"


def _said(result: Result) -> Finding | Refusal:
    said = [one for one in (result.finding, result.refusal) if one is not None]
    if len(said) != 1:
        raise RenderingError("A result has either a finding or a refusal.")
    return said[0]


def _answer_with_probability(said: Finding | Refusal) -> str:
    if isinstance(said, Refusal):
        reason = said.sentence.strip().rstrip(".")
        return reason if reason.lower().startswith("not read") else f"Not read: {reason}"
    answer = _answer(said)
    if said.probability is None:
        return answer
    words = f"probability {probability_words(said.probability)}"
    return f"{answer} ({words})" if said.presence is Presence.ABSENT else f"{answer}, {words}"


def _grounds(said: Finding | Refusal) -> tuple[str, ...]:
    if isinstance(said, Refusal):
        return ()
    weighed = (_weighed(said),) if len(said.alternatives) > 1 else ()
    return (*weighed, *(_full_stop(limit) for limit in said.limits))


def _answer(finding: Finding, *, with_site: bool = True) -> str:
    what = _what(finding) if with_site else _name(finding.code)
    if finding.presence is Presence.ABSENT:
        return f"No {_lower(what)}"
    return f"{what}: {finding.presence.value}"


def _what(finding: Finding) -> str:
    name, site = _name(finding.code), _name(finding.site, lower=True)
    # "Pituitary adenoma of the pituitary" says nothing more than its first two words.
    return name if site in name.lower() else f"{name} of the {site}"


def _weighed(finding: Finding) -> str:
    answers = []
    for alternative in finding.alternatives:
        no = "no " if alternative.presence is Presence.ABSENT else ""
        answers.append(f"{no}{_name(alternative.code, lower=True)} {probability_words(alternative.probability)}")
    return f"Answers weighed: {', '.join(answers)}."


def _made_by(result: Result) -> str:
    maker = f"{result.algorithm.title}, version {result.algorithm.version}"
    if result.refusal is not None:
        return f"Answered by {maker}."
    count = len(result.images_read)
    return f"Read by {maker}, from {count} {'image' if count == 1 else 'images'}."


def _name(code: Code, *, lower: bool = False) -> str:
    name = _HIERARCHY_TAG.sub("", code.meaning)
    return _lower(name) if lower else name


def _lower(text: str) -> str:
    # "COVID-19" keeps its capitals.
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _full_stop(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
