"""What a routing rule sees of a study: every name with its type, and the values of one study.

Names of attributes are DICOM's own keywords (PS3.6). `docs/configuration.md` has the same table; a test compares them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any

from fhir_records.model import Instance, Priority, Study

Facts = Mapping[str, Any]


class Kind(Enum):
    """The type of a value that a rule sees, with its words for people."""

    TEXT = "text"
    NUMBER = "whole number"
    TEXTS = "list of texts"


# What there is to see, by name. Of `series` and `instance` there is a list.
SEEN: Mapping[str, Mapping[str, Kind]] = MappingProxyType(
    {
        "study": {
            "StudyInstanceUID": Kind.TEXT,
            "Modality": Kind.TEXT,
            "modalities": Kind.TEXTS,
            "StudyDescription": Kind.TEXT,
            "AccessionNumber": Kind.TEXT,
            "RequestedProcedurePriority": Kind.TEXT,
            "RequestedProcedureDescription": Kind.TEXT,
            "InstitutionName": Kind.TEXT,
            "images": Kind.NUMBER,
            "series": Kind.NUMBER,
            "days_ago": Kind.NUMBER,
        },
        "series": {
            "SeriesInstanceUID": Kind.TEXT,
            "Modality": Kind.TEXT,
            "SeriesNumber": Kind.NUMBER,
            "SeriesDescription": Kind.TEXT,
            "ProtocolName": Kind.TEXT,
            "BodyPartExamined": Kind.TEXT,
            "ContrastBolusAgent": Kind.TEXT,
            "Manufacturer": Kind.TEXT,
            "ManufacturerModelName": Kind.TEXT,
            "StationName": Kind.TEXT,
            "ImageType": Kind.TEXTS,
            "images": Kind.NUMBER,
        },
        "instance": {
            "SOPInstanceUID": Kind.TEXT,
            "SOPClassUID": Kind.TEXT,
            "TransferSyntaxUID": Kind.TEXT,
            "SeriesInstanceUID": Kind.TEXT,
            "Modality": Kind.TEXT,
            "InstanceNumber": Kind.NUMBER,
            "NumberOfFrames": Kind.NUMBER,
            "Rows": Kind.NUMBER,
            "Columns": Kind.NUMBER,
        },
        "patient": {"PatientSex": Kind.TEXT, "age": Kind.NUMBER},
        "caller": {"ae_title": Kind.TEXT, "source": Kind.TEXT},
        "image": {"anatomy": Kind.TEXT},
        "now": {
            "hour": Kind.NUMBER,
            "minute": Kind.NUMBER,
            "weekday": Kind.NUMBER,
            "time": Kind.TEXT,
            "date": Kind.TEXT,
        },
    }
)
LISTS = frozenset({"series", "instance"})

# Read from the header of the first image of each series: the index has no column for them.
SERIES_KEYWORDS = (
    "ProtocolName",
    "BodyPartExamined",
    "ContrastBolusAgent",
    "Manufacturer",
    "ManufacturerModelName",
    "StationName",
    "ImageType",
)
STUDY_KEYWORDS = ("RequestedProcedurePriority", "RequestedProcedureDescription", "InstitutionName")

# PS3.3 section C.4.12 (Requested Procedure Priority); MEDIUM is "normal" and LOW is less than that.
ORDER_PRIORITIES: Mapping[str, Priority] = MappingProxyType(
    {"STAT": Priority.STAT, "HIGH": Priority.URGENT, "URGENT": Priority.URGENT}
)


@dataclass(frozen=True, slots=True)
class Headers:
    """What was read from the files, besides what the index knows."""

    study: Mapping[str, str] = field(default_factory=dict)  # by keyword of STUDY_KEYWORDS
    series: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by series UID, then SERIES_KEYWORDS

    @property
    def order_priority(self) -> Priority:
        """The priority of the order that the images name."""
        return ORDER_PRIORITIES.get(self.study.get("RequestedProcedurePriority", ""), Priority.ROUTINE)


def facts_of(
    study: Study,
    caller: str,
    instances: Sequence[Instance],
    anatomy: str = "",
    *,
    headers: Headers | None = None,
    now: dt.datetime,
) -> Facts:
    """What the rules may know of a study's revision.

    Args:
        study: the study.
        caller: calling AE title of its first object.
        instances: the revision's images.
        anatomy: what their pixels show; "" where nobody looked.
        headers: what their headers say.
        now: the instant, in the site's zone.
    """
    headers = headers or Headers()
    series = by_series(instances)
    modalities = list(dict.fromkeys(instance.modality for instance in instances))
    told = {keyword: headers.study.get(keyword, "") for keyword in STUDY_KEYWORDS}
    return {
        "study": {
            "StudyInstanceUID": study.study_uid,
            "Modality": modalities[0] if modalities else "",
            "modalities": modalities,
            "StudyDescription": study.description,
            "AccessionNumber": study.accession_number,
            **told,
            "images": len(instances),
            "series": len(series),
            "days_ago": max(0, (now - study.started_at).days) if study.started_at else -1,
        },
        "series": [_series(images, headers.series.get(images[0].series_uid, {})) for images in series],
        "instance": [_instance(instance) for instance in instances],
        "patient": {"PatientSex": study.patient.sex, "age": _age(study)},
        "caller": {"ae_title": caller, "source": study.source},
        "image": {"anatomy": anatomy},
        "now": {
            "hour": now.hour,
            "minute": now.minute,
            "weekday": now.isoweekday(),
            "time": f"{now:%H:%M}",
            "date": f"{now:%Y-%m-%d}",
        },
    }


def by_series(instances: Sequence[Instance]) -> list[list[Instance]]:
    """The instances of each series, the series in the order in which they are met."""
    series: dict[str, list[Instance]] = {}
    for instance in instances:
        series.setdefault(instance.series_uid, []).append(instance)
    return list(series.values())


def _series(images: Sequence[Instance], header: Mapping[str, Any]) -> dict[str, Any]:
    first = images[0]
    told = {keyword: header.get(keyword, [] if keyword == "ImageType" else "") for keyword in SERIES_KEYWORDS}
    return {
        "SeriesInstanceUID": first.series_uid,
        "Modality": first.modality,
        "SeriesNumber": first.series_number or 0,
        "SeriesDescription": first.series_description,
        **told,
        "images": len(images),
    }


def _instance(instance: Instance) -> dict[str, Any]:
    return {
        "SOPInstanceUID": instance.sop_uid,
        "SOPClassUID": instance.sop_class_uid,
        "TransferSyntaxUID": instance.transfer_syntax_uid,
        "SeriesInstanceUID": instance.series_uid,
        "Modality": instance.modality,
        "InstanceNumber": instance.instance_number or 0,
        "NumberOfFrames": instance.number_of_frames,
        "Rows": instance.rows or 0,
        "Columns": instance.columns or 0,
    }


def _age(study: Study) -> int:
    """Whole years at the study; -1 where that is not known."""
    birth, started = study.patient.birth_date, study.started_at
    if not birth or not started:
        return -1
    had_birthday = (started.month, started.day) >= (birth.month, birth.day)
    return started.year - birth.year - (0 if had_birthday else 1)
