"""QIDO-RS questions (PS3.18 sections 8.3.4 and 10.6.1): query parameters in, a question to the record out."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from zoneinfo import ZoneInfo

from pydicom.datadict import keyword_for_tag
from starlette.datastructures import QueryParams

from fhir_records.errors import QueryError
from fhir_records.store.image_search import ImageQuery
from web.dicomweb_attributes import tag_of

MAX_STUDIES = 1000  # in one answer; the client goes on with `offset`
MAX_OBJECTS = 1000  # likewise, of series and of instances that are not looked for below a study
MAX_NUMBER = 2**31 - 1  # of a value of IS (PS3.5 table 6.2-1)

CONTROL = frozenset({"limit", "offset", "includefield", "fuzzymatching", "accept"})
STUDY_KEYS = frozenset(
    {
        "AccessionNumber",
        "ModalitiesInStudy",
        "PatientBirthDate",
        "PatientID",
        "PatientName",
        "PatientSex",
        "StudyDate",
        "StudyDescription",
        "StudyInstanceUID",
    }
)
SERIES_KEYS = frozenset({"Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber"})
INSTANCE_KEYS = frozenset({"InstanceNumber", "SOPClassUID", "SOPInstanceUID"})


class Question:
    """The query of one request, its attributes by keyword.

    Raises:
        QueryError: a limit or an offset is no number, or a value is no text.
    """

    def __init__(self, parameters: QueryParams, known: frozenset[str]) -> None:
        self.fields = requested_fields(parameters.getlist("includefield"))
        self.limit = _count(parameters.get("limit"), "limit")
        self.offset = _count(parameters.get("offset"), "offset") or 0
        self.fuzzy = parameters.get("fuzzymatching", "").lower() == "true"
        named = [(_keyword(name), value) for name, value in parameters.multi_items() if name not in CONTROL]
        # Only plain words, because they are repeated in a header. A point parts a sequence from what is in it.
        self.ignored = sorted(
            {name for name, _ in named if name not in known and re.fullmatch(r"[A-Za-z0-9.]{1,128}", name)}
        )
        self._values: dict[str, list[str]] = {}
        for name, value in named:
            if name in known and "\0" in value:
                raise QueryError(f"{name} holds a NUL.")
            if name in known and value:
                self._values.setdefault(name, []).append(value)

    def one(self, keyword: str) -> str:
        """The value asked for, "" where none is."""
        return self._values.get(keyword, [""])[0]

    def several(self, keyword: str) -> tuple[str, ...]:
        """Every value asked for, given apart, or in one parameter with commas or backslashes between."""
        return tuple(part for value in self._values.get(keyword, []) for part in re.split(r"[,\\]", value) if part)

    def numbers(self, keyword: str) -> tuple[int, ...]:
        """Likewise, as numbers.

        Raises:
            QueryError: one is none.
        """
        values = self.several(keyword)
        if not all(re.fullmatch(r"[+-]?[0-9]{1,10}", value) and abs(int(value)) <= MAX_NUMBER for value in values):
            raise QueryError(f"{keyword} takes whole numbers of at most {MAX_NUMBER}.")
        return tuple(int(value) for value in values)

    @property
    def warnings(self) -> list[str]:
        """What was not done as asked (PS3.18 section 8.3.4)."""
        said = [f"not matched: {', '.join(self.ignored)}"] if self.ignored else []
        if self.fuzzy:
            said.append("The fuzzymatching parameter is not supported. Only literal matching has been performed.")
        return said


def image_query(
    question: Question, zone: ZoneInfo, most: int | None, study_uid: str | None = None, series_uid: str | None = None
) -> ImageQuery | None:
    """The question put to the record; days are days in ``zone``. None: it contradicts the path, so nothing fits.

    Args:
        question: as asked.
        zone: the site's.
        most: answers at once, whatever is asked.
        study_uid: below which is looked.
        series_uid: likewise.

    Raises:
        QueryError: a date or a number is none.
    """
    study_uids, series_uids = question.several("StudyInstanceUID"), question.several("SeriesInstanceUID")
    for uid, asked in ((study_uid, study_uids), (series_uid, series_uids)):
        if uid is not None and asked and uid not in asked:
            return None
    first, last = _date_range(question.one("StudyDate"), "StudyDate")
    born_from, born_until = _date_range(question.one("PatientBirthDate"), "PatientBirthDate")
    limits = [limit for limit in (question.limit, most) if limit is not None]
    return ImageQuery(
        study_uids=study_uids if study_uid is None else (study_uid,),
        patient_id=question.one("PatientID"),
        patient_name=question.one("PatientName"),
        sex=question.one("PatientSex"),
        born_from=born_from,
        born_until=born_until,
        accession_number=question.one("AccessionNumber"),
        study_description=question.one("StudyDescription"),
        modalities_in_study=question.several("ModalitiesInStudy"),
        started_from=None if first is None else dt.datetime.combine(first, dt.time(), zone),
        started_before=None if last is None else dt.datetime.combine(last + dt.timedelta(days=1), dt.time(), zone),
        series_uids=series_uids if series_uid is None else (series_uid,),
        modalities=question.several("Modality"),
        series_numbers=question.numbers("SeriesNumber"),
        series_description=question.one("SeriesDescription"),
        sop_uids=question.several("SOPInstanceUID"),
        sop_class_uids=question.several("SOPClassUID"),
        instance_numbers=question.numbers("InstanceNumber"),
        limit=min(limits, default=None),
        offset=question.offset,
    )


def requested_fields(values: Iterable[str]) -> frozenset[int] | None:
    """The tags of `includefield`; None for "all".

    Raises:
        QueryError: one is neither a keyword nor a tag.
    """
    names = [name for value in values for name in value.split(",") if name]
    if "all" in names:
        return None
    try:
        return frozenset(tag_of(name) for name in names)
    except ValueError as error:
        raise QueryError("includefield takes keywords and tags of eight hexadecimal digits.") from error


def _keyword(name: str) -> str:
    return keyword_for_tag(int(name, 16)) if re.fullmatch(r"[0-9a-fA-F]{8}", name) else name


def _count(value: str | None, name: str) -> int | None:
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise QueryError(f"{name} takes a whole number, 0 or greater.")
    return int(value)


def _date_range(value: str, name: str) -> tuple[dt.date | None, dt.date | None]:
    """First and last day of "20261120", "20261101-20261130", "20261101-" or "-20261130" (PS3.4 section C.2.2.2.5)."""
    if not value:
        return None, None
    match = re.fullmatch(r"([0-9]{8})?(-)?([0-9]{8})?", value)
    try:
        if match is None or value == "-":
            raise ValueError
        first = dt.date.fromisoformat(match[1]) if match[1] else None
        last = dt.date.fromisoformat(match[3]) if match[3] else None
        if dt.date.max in (first, last):  # no day follows it
            raise ValueError
    except ValueError as error:
        raise QueryError(f"{name} takes YYYYMMDD or a range YYYYMMDD-YYYYMMDD, either end open.") from error
    return first, last if match[2] else first
