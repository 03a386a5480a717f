"""QIDO-RS questions and answers (PS3.18 section 10.6): query parameters in, DICOM JSON out."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.tag import Tag
from starlette.datastructures import QueryParams

from fhir_records.errors import QueryError
from fhir_records.model import Instance
from fhir_records.store.instances import SeriesAnswer, StudyAnswer, StudyQuery
from web.dicomweb_objects import Json, tag_of

T = TypeVar("T")

MAX_STUDIES = 1000  # in one answer; the client goes on with `offset`
# Digits and dots by the standard; letters are met in the wild.
UID = re.compile(r"[0-9A-Za-z._-]{1,64}")

CONTROL = frozenset({"limit", "offset", "includefield", "fuzzymatching", "accept"})
STUDY_KEYS = frozenset(
    {"PatientID", "PatientName", "StudyDate", "AccessionNumber", "ModalitiesInStudy", "StudyInstanceUID"}
)
SERIES_KEYS = frozenset({"Modality", "SeriesInstanceUID", "SeriesNumber"})
INSTANCE_KEYS = frozenset({"SOPInstanceUID", "SOPClassUID", "InstanceNumber", "SeriesInstanceUID", "Modality"})


class Question:
    """The query of one request, its attributes by keyword.

    Raises:
        QueryError: a limit or an offset is no number.
    """

    def __init__(self, parameters: QueryParams, known: frozenset[str]) -> None:
        self.fields = requested_fields(parameters.getlist("includefield"))
        self.limit = _count(parameters.get("limit"), "limit")
        self.offset = _count(parameters.get("offset"), "offset") or 0
        named = [(_keyword(name), value) for name, value in parameters.multi_items() if name not in CONTROL]
        # Only plain words, because they are repeated in a header.
        self.ignored = sorted(
            {name for name, _ in named if name not in known and re.fullmatch("[A-Za-z0-9]{1,64}", name)}
        )
        self._values: dict[str, list[str]] = {}
        for name, value in named:
            if name in known and value:
                self._values.setdefault(name, []).append(value)

    def one(self, keyword: str) -> str:
        """The value asked for, "" where none is."""
        return self._values.get(keyword, [""])[0]

    def several(self, keyword: str) -> tuple[str, ...]:
        """Every value asked for, given apart, or in one parameter with commas or backslashes between."""
        return tuple(part for value in self._values.get(keyword, []) for part in re.split(r"[,\\]", value) if part)

    def asks(self, keyword: str, value: object) -> bool:
        """Whether ``value`` fits what is asked of this attribute."""
        wanted = self.several(keyword)
        return not wanted or str("" if value is None else value) in wanted

    def page(self, answers: Sequence[T]) -> Sequence[T]:
        """The part of ``answers`` that is asked for."""
        return answers[self.offset : None if self.limit is None else self.offset + self.limit]


def study_query(question: Question, zone: ZoneInfo) -> StudyQuery:
    """The question put to the record; dates are days in ``zone``.

    Raises:
        QueryError: a date is none.
    """
    first, last = _date_range(question.one("StudyDate"))
    return StudyQuery(
        study_uids=question.several("StudyInstanceUID"),
        patient_id=question.one("PatientID"),
        patient_name=question.one("PatientName"),
        accession_number=question.one("AccessionNumber"),
        modalities=question.several("ModalitiesInStudy"),
        started_from=None if first is None else dt.datetime.combine(first, dt.time(), zone),
        started_before=None if last is None else dt.datetime.combine(last + dt.timedelta(days=1), dt.time(), zone),
        limit=MAX_STUDIES if question.limit is None else min(question.limit, MAX_STUDIES),
        offset=question.offset,
    )


def study_json(study: StudyAnswer, base: str, zone: ZoneInfo) -> Json:
    """A study as DICOM JSON (PS3.18 table 10.6.3-3)."""
    started = study.started_at.astimezone(zone) if study.started_at else None
    return json_of(
        {
            "StudyDate": f"{started:%Y%m%d}" if started else None,
            "StudyTime": f"{started:%H%M%S}" if started else None,
            "AccessionNumber": study.accession_number,
            "InstanceAvailability": "ONLINE",
            "ModalitiesInStudy": list(study.modalities),
            "StudyDescription": study.description,
            "RetrieveURL": f"{base}/studies/{study.study_uid}",
            "PatientName": {"Alphabetic": study.patient_name} if study.patient_name else None,
            "PatientID": study.patient_id,
            "IssuerOfPatientID": study.issuer,
            "PatientBirthDate": f"{study.birth_date:%Y%m%d}" if study.birth_date else None,
            "PatientSex": study.sex,
            "StudyInstanceUID": study.study_uid,
            "NumberOfStudyRelatedSeries": study.series_count,
            "NumberOfStudyRelatedInstances": study.instance_count,
        }
    )


def series_json(series: SeriesAnswer, base: str) -> Json:
    """A series as DICOM JSON (PS3.18 table 10.6.3-4)."""
    return json_of(
        {
            "Modality": series.modality,
            "SeriesDescription": series.description,
            "RetrieveURL": f"{base}/studies/{series.study_uid}/series/{series.series_uid}",
            "StudyInstanceUID": series.study_uid,
            "SeriesInstanceUID": series.series_uid,
            "SeriesNumber": series.series_number,
            "NumberOfSeriesRelatedInstances": series.instance_count,
        }
    )


def instance_json(instance: Instance, address: str) -> Json:
    """An instance as DICOM JSON (PS3.18 table 10.6.3-5)."""
    return json_of(
        {
            "SOPClassUID": instance.sop_class_uid,
            "SOPInstanceUID": instance.sop_uid,
            "InstanceAvailability": "ONLINE",
            "Modality": instance.modality,
            "RetrieveURL": address,
            "StudyInstanceUID": instance.study_uid,
            "SeriesInstanceUID": instance.series_uid,
            "InstanceNumber": instance.instance_number,
            "NumberOfFrames": instance.number_of_frames if instance.rows else None,
            "Rows": instance.rows,
            "Columns": instance.columns,
        }
    )


def json_of(values: Mapping[str, Any]) -> Json:
    """DICOM JSON of values by keyword; an empty one is there without a value (PS3.18 section F.2.5)."""
    found: Json = {}
    for keyword, value in values.items():
        tag = Tag(keyword)
        element: dict[str, Any] = {"vr": dictionary_VR(tag)}
        if value not in (None, "", []):
            element["Value"] = value if isinstance(value, list) else [value]
        found[f"{int(tag):08X}"] = element
    return dict(sorted(found.items()))


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


def _date_range(value: str) -> tuple[dt.date | None, dt.date | None]:
    """First and last day of "20261120", "20261101-20261130", "20261101-" or "-20261130" (PS3.4 section C.2.2.2.5)."""
    if not value:
        return None, None
    match = re.fullmatch(r"([0-9]{8})?(-)?([0-9]{8})?", value)
    try:
        if match is None or value == "-":
            raise ValueError
        first = dt.date.fromisoformat(match[1]) if match[1] else None
        last = dt.date.fromisoformat(match[3]) if match[3] else None
    except ValueError as error:
        raise QueryError("StudyDate takes YYYYMMDD or a range YYYYMMDD-YYYYMMDD, either end open.") from error
    return first, last if match[2] else first
