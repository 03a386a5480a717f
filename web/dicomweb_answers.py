"""QIDO-RS answers (PS3.18 section 10.6.3): what the record knows, as DICOM JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag

from fhir_records.model import Instance
from fhir_records.store.image_search import SeriesAnswer, StudyAnswer
from web.dicomweb_json import Json

# What is alike in every object of a study, or of a series, and is read from one of them where it is asked for
# (PS3.3 section C.7.1 to C.7.3.1).
STUDY_FIELDS = frozenset(
    {
        0x00080090,  # Referring Physician's Name
        0x00080201,  # Timezone Offset From UTC
        0x00081032,  # Procedure Code Sequence
        0x00081060,  # Name of Physician(s) Reading Study
        0x00081080,  # Admitting Diagnoses Description
        0x00101000,  # Other Patient IDs
        0x00101010,  # Patient's Age
        0x00101020,  # Patient's Size
        0x00101030,  # Patient's Weight
        0x00104000,  # Patient Comments
        0x00200010,  # Study ID
    }
)
SERIES_FIELDS = STUDY_FIELDS | {
    0x00080021,  # Series Date
    0x00080031,  # Series Time
    0x00080070,  # Manufacturer
    0x00080080,  # Institution Name
    0x00081010,  # Station Name
    0x00081050,  # Performing Physician's Name
    0x00081090,  # Manufacturer's Model Name
    0x00180015,  # Body Part Examined
    0x00181030,  # Protocol Name
    0x00185100,  # Patient Position
    0x00200052,  # Frame of Reference UID
    0x00200060,  # Laterality
    0x00400244,  # Performed Procedure Step Start Date
    0x00400245,  # Performed Procedure Step Start Time
    0x00400275,  # Request Attributes Sequence
}


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
