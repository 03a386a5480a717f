"""How values are said to people on the pages: names, times, sizes."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from zoneinfo import ZoneInfo

from fhir_records.agreement import Answer
from fhir_records.model import ClassProbability, Presence, ResultStatus

# FHIR's words for how far a result stands, as people say it.
STATUS_WORDS = {
    ResultStatus.PRELIMINARY: "preliminary",
    ResultStatus.FINAL: "signed",
    ResultStatus.AMENDED: "amended and signed",
    ResultStatus.ENTERED_IN_ERROR: "entered in error",
}
# By which door a study came.
DOOR_WORDS = {"dicom": "over DICOM", "orthanc": "from Orthanc", "stow": "over DICOMweb"}
SEX_WORDS = {"M": "male", "F": "female", "O": "other"}  # PS3.3 PatientSex


def person_name(value: str) -> str:
    """A DICOM person name (PS3.5 section 6.2.1) as people write it: "Doe, Jane M, Dr".

    Of the component groups the alphabetic one goes first, the ideographic one in brackets behind it; the phonetic one
    is shown only where one of the others is missing, because it repeats the sound of the ideographic one.
    """
    groups = [_component_group(group, alphabetic=index == 0) for index, group in enumerate(value.split("=")[:3])]
    first, *others = [words for words in groups if words] or ["No name given"]
    return f"{first} ({others[0]})" if others else first


def _component_group(group: str, *, alphabetic: bool) -> str:
    family, given, middle, prefix, suffix = [*(part.strip() for part in group.split("^")), "", "", "", "", ""][:5]
    if not alphabetic:
        return " ".join(part for part in (prefix, family, given, middle, suffix) if part)
    forenames = " ".join(part for part in (given, middle) if part)
    return ", ".join(part for part in (family, forenames, prefix, suffix) if part)


def sex_words(value: str) -> str:
    """PatientSex in a word, or "sex not given"."""
    return SEX_WORDS.get(value, "sex not given")


def percent(value: float) -> float:
    """A probability as the number that a meter shows, 0 to 100 with one decimal."""
    return round(max(0.0, min(1.0, value)) * 100, 1)


def nobreak(text: str) -> str:
    """``text`` with its percent signs kept beside their numbers."""
    return text.replace(" %", "\u00a0%")


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 image", "2 images"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size(number_of_bytes: int) -> str:
    """A number of bytes in the largest unit that keeps it above 1."""
    value = float(number_of_bytes)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 10 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def clock(zone: ZoneInfo) -> Callable[[dt.datetime | None], str]:
    """A function that says an instant in ``zone``, "20 Nov 2026, 18:32"; the zone is named once a page."""

    def say(instant: dt.datetime | None) -> str:
        return "" if instant is None else f"{instant.astimezone(zone):%-d %b %Y, %H:%M}"

    return say


def day(value: dt.date | None) -> str:
    """A date, "3 May 1961"; empty where there is none."""
    return "" if value is None else f"{value:%-d %b %Y}"


def answer_words(answer: ClassProbability | Answer) -> str:
    """One of the answers that a model weighed: "Glioma", "No neoplasm"; where its code is not known, its own word."""
    if answer.code is None:
        return answer.label
    name = re.sub(r"\s*\((disorder|finding|morphologic abnormality)\)$", "", answer.code.meaning)
    return f"No {name[:1].lower()}{name[1:]}" if answer.presence is Presence.ABSENT else name


def status_words(status: ResultStatus) -> str:
    """How far a result stands."""
    return STATUS_WORDS[status]


def plain_name(name: str) -> str:
    """A name that programs use, for people: "brain_mr_tumour" is "brain mr tumour"."""
    return name.replace("_", " ")


def source_words(source: str) -> str:
    """Where something came from: "CT1, over DICOM" for "dicom:CT1"."""
    door, found, who = source.partition(":")
    words = DOOR_WORDS.get(door)
    return f"{who}, {words}" if found and words else source


def detail_words(value: object) -> str:
    """A detail of the audit trail: lists without brackets, yes and no, a dash for nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(detail_words(part) for part in value) or "–"
    if isinstance(value, dict):
        return ", ".join(f"{plain_name(str(name))} {detail_words(part)}" for name, part in value.items()) or "–"
    return "–" if value is None or value == "" else str(value)
