"""A result in plain English: worklist, FHIR, SR and portal all take their words from here, so that they say the same.

Every text that can stand alone says "no" where the answer is no, and "not read" where nothing was read.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from fhir_records.errors import RenderingError
from fhir_records.model import Code, Finding, Presence, Refusal, Region, Result, ResultStatus, SegmentVolume

_STATUS: Final[Mapping[ResultStatus, str]] = MappingProxyType(
    {
        ResultStatus.PRELIMINARY: "preliminary",
        ResultStatus.FINAL: "signed",
        ResultStatus.AMENDED: "signed, amended",
        ResultStatus.ENTERED_IN_ERROR: "entered in error",
    }
)

_UNSIGNED: Final = "AI finding, preliminary: not signed by a person, and not the radiology report."
_IN_ERROR: Final = "Entered in error: do not use."
_SUPERSEDED: Final = "Superseded: newer images of this study have a result of their own."

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
        text = f"Wetread {_kind_of_read(result)}: {_lower(words)} ({_STATUS[result.status]})"
        if len(text) <= length:
            return text
    raise RenderingError(f"A title cannot be said in {length} characters.")


def sentences(result: Result, *, superseded: bool = False) -> tuple[str, ...]:
    """All that a reader must know, a sentence each: the answer, what limits it, who made it and how far it stands."""
    where_it_stands = standing(result, superseded=superseded)
    return (f"{headline(result)}.", *_grounds(_said(result)), _made_by(result), *where_it_stands)


def standing(result: Result, *, superseded: bool = False) -> tuple[str, ...]:
    """How far a result stands, a sentence each: who signed or rejected it, and what that person adds.

    Raises RenderingError where a status that only a person can give has no signature.
    """
    newer = (_SUPERSEDED,) if superseded else ()
    signature = result.signature
    if result.status is ResultStatus.PRELIMINARY:
        return (*newer, _UNSIGNED)
    if signature is None:
        raise RenderingError(f"A result that is {_STATUS[result.status]} names who made it so; this one does not.")
    act = f"by {signed_by(result)} on {signature.signed_at.astimezone(dt.UTC):%Y-%m-%d at %H:%M} UTC"
    if result.status is ResultStatus.ENTERED_IN_ERROR:
        said: tuple[str, ...] = (_IN_ERROR, f"Rejected {act}.")
    else:
        whose = "AI finding" if result.author is None else "A person's finding"
        amended = "amended and " if result.status is ResultStatus.AMENDED else ""
        said = (f"{whose}, {amended}signed {act}; not the radiology report.",)
    note = signature.note.strip()
    return (*newer, *said, *((f"Note of the person who signed: {_full_stop(note)}",) if note else ()))


def signed_by(result: Result) -> str:
    """Who signed or rejected a result, with the organization: "Dr Marie Curie, Hôpital Curie"; "" where nobody did."""
    if result.signature is None:
        return ""
    signer = result.signature.signer
    return f"{signer.display_name}, {signer.organization}" if signer.organization else signer.display_name


def region_words(region: Region) -> str:
    """A marked region: "Marked: columns 40 to 60, rows 30 to 55 of the image 2.25.1, frame 3."."""
    frame = f", frame {region.image.frame}" if region.image.frame is not None else ""
    columns = f"columns {region.left:g} to {region.left + region.width:g}"
    rows = f"rows {region.top:g} to {region.top + region.height:g}"
    return f"Marked: {columns}, {rows} of the image {region.image.sop_uid}{frame}."


def volume_words(volume_mm3: float) -> str:
    """A volume in millilitres, e.g. "9.2 mL"; what is measured voxel by voxel is no finer.

    Raises RenderingError where it is not above nought.
    """
    if not volume_mm3 > 0:
        raise RenderingError("What was outlined has a volume above nought.")
    millilitres = volume_mm3 / 1000
    if millilitres < 0.1:
        return "under 0.1 mL"
    return f"{millilitres:.1f} mL" if round(millilitres, 1) < 100 else f"{millilitres:.0f} mL"


def segment_name(segment: SegmentVolume) -> str:
    """An outlined thing in plain words, and where it is: "tumour core of the brain"."""
    name, site = _lower(segment.wording), _name(segment.site, lower=True)
    return name if site in name.lower() else f"{name} of the {site}"


def segment_words(segment: SegmentVolume) -> str:
    """An outlined thing and its volume: "tumour core 9.2 mL"."""
    return f"{_lower(segment.wording)} {volume_words(segment.volume_mm3)}"


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
    if said.author is not None:
        thing_found = f"no sign of {thing}" if said.presence is Presence.ABSENT else f"signs of {thing}"
        return (
            f"A doctor has looked at your scan, with a computer program beside. The doctor found {thing_found} {where}."
            f" {advice}"
        )
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
    marked = (region_words(said.region),) if said.region is not None else ()
    outlined = ", ".join(segment_words(segment) for segment in said.segments)
    volumes = (f"Outlined by the model: {outlined}.",) if outlined else ()
    return (*marked, *volumes, *weighed, *(_full_stop(limit) for limit in said.limits))


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
    if result.author is not None and result.signature is not None:
        return f"The AI, {maker}, had answered: {result.signature.machine_said}."
    if result.refusal is not None:
        return f"Answered by {maker}."
    count = len(result.images_read)
    return f"Read by {maker}, from {count} {'image' if count == 1 else 'images'}."


def _kind_of_read(result: Result) -> str:
    return "AI read" if result.author is None else "corrected read"


def _name(code: Code, *, lower: bool = False) -> str:
    name = _HIERARCHY_TAG.sub("", code.meaning)
    return _lower(name) if lower else name


def _lower(text: str) -> str:
    # "COVID-19" keeps its capitals.
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _full_stop(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."
