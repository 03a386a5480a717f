"""What the index has to know of an object, read from its encoded data set before its pixels are looked at."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from dicom_listener.data_set import Element, encoding_of, inflated
from dicom_listener.header_text import HeaderText, header_text
from dicom_listener.received import Received
from fhir_records.errors import ObjectNotStorable
from fhir_records.model import Equipment, Identifier, InstanceKind
from fhir_records.store.arrivals import Arrival, RelatedNumbers
from fhir_records.store.patients import PatientIdentity

# Manufacturer's Model Name of our own equipment in everything that we write.
OWN_MODEL_NAME = "Wetread"

# SOP classes whose pixels are statements about images, not images (PS3.4 section B.5).
_NOT_IMAGES = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.66.4",  # Segmentation
        "1.2.840.10008.5.1.4.1.1.66.7",  # Label Map Segmentation
        "1.2.840.10008.5.1.4.1.1.66.8",  # Height Map Segmentation
        "1.2.840.10008.5.1.4.1.1.30",  # Parametric Map
        "1.2.840.10008.5.1.4.1.1.481.2",  # RT Dose
    }
)

_EQUIPMENT = ("Manufacturer", "ManufacturerModelName", "StationName", "DeviceSerialNumber")
_RELATED = ("NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances")
_PATIENT = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex")
_DEMOGRAPHICS = (*_PATIENT, "StudyInstanceUID", "AccessionNumber")
_BITS = {0x7FE00008: 32, 0x7FE00009: 64}  # of Float Pixel Data, and of Double Float Pixel Data
TOO_SHORT = "the pixel data is shorter than the header says"
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# Wider than PS3.5 section 9.1: de-identified archives hold UIDs with letters, and those are images too.
_UID = re.compile(r"[0-9A-Za-z._-]{1,64}")
# The largest that a column of type integer holds.
_INTEGER = 2**31 - 1
# No value that the index keeps is longer in any real object; PostgreSQL indexes no text of several thousand bytes.
_LONGEST = 500

# Images of a series say the same of their study, patient and scanner, one after another.
_KEPT = 512


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an object came from, and where it lies."""

    transfer_syntax_uid: str
    source: str  # "dicom:AE" or "orthanc:NAME"
    caller: str  # calling AE title; "" by another door
    received_at: dt.datetime
    file_key: str = ""
    size: int = 0  # bytes, of the file


def describe(
    data: bytes | memoryview,
    received: Received,
    timezone: dt.tzinfo,
    issuer: str = "",
    *,
    file_key: str = "",
    size: int = 0,
) -> Arrival:
    """Read what the index needs from the data set ``data`` in its transfer syntax.

    Args:
        data: the encoded data set.
        received: how it came.
        timezone: of times that name none.
        issuer: of patient identifiers that name none.
        file_key: of the file that it lies in.
        size: of that file, in bytes.

    Returns:
        The index entry; its kind is OWN only where the object itself says that Wetread wrote it.

    Raises:
        ObjectNotStorable: it is no data set, ends early, or lacks a UID that storage needs; the message says which.
    """
    syntax = received.transfer_syntax_uid
    header = header_text(inflated(data, syntax), encoding_of(syntax))
    origin = Origin(syntax, received.source, received.caller, received.received_at, file_key, size)
    return describe_header(header, origin, timezone, issuer)


def describe_header(header: HeaderText, origin: Origin, timezone: dt.tzinfo, issuer: str = "") -> Arrival:
    """As `describe`, of what was read already.

    Raises:
        ObjectNotStorable: as `describe`.
    """
    values = header.values  # has an entry for every keyword
    for keyword in _UIDS:
        if not is_uid(values[keyword]):
            raise ObjectNotStorable(f"{keyword} is missing or not a UID")
    pixels = header.pixels
    if pixels is not None:
        check_pixel_length(values, pixels)
    return Arrival(
        study_uid=values["StudyInstanceUID"],
        patient=_identity(issuer, *map(values.__getitem__, _PATIENT)),
        accession_number=values["AccessionNumber"][:_LONGEST],
        study_description=values["StudyDescription"][:_LONGEST],
        started_at=started_at(header, timezone),
        series_uid=values["SeriesInstanceUID"],
        modality=values["Modality"][:_LONGEST],
        series_number=_whole(values["SeriesNumber"]),
        series_description=values["SeriesDescription"][:_LONGEST],
        sop_uid=values["SOPInstanceUID"],
        sop_class_uid=values["SOPClassUID"],
        transfer_syntax_uid=origin.transfer_syntax_uid,
        kind=InstanceKind.OWN if _says_own(header) else _kind(header, pixels),
        instance_number=_whole(values["InstanceNumber"]),
        number_of_frames=max(1, _whole(values["NumberOfFrames"], _INTEGER) or 1),
        rows=_whole(values["Rows"], _INTEGER),
        columns=_whole(values["Columns"], _INTEGER),
        file_key=origin.file_key,
        demographics_sha256=_demographics_sha256(*map(values.__getitem__, _DEMOGRAPHICS)),
        size=origin.size,
        source=origin.source,
        caller=origin.caller,
        received_at=origin.received_at,
        numbers=_numbers(*map(values.__getitem__, _RELATED)),
        equipment=_equipment(*map(values.__getitem__, _EQUIPMENT)),
    )


def is_uid(text: str) -> bool:
    """Whether an object may be filed under this as a UID."""
    return _UID.fullmatch(text) is not None


def started_at(header: HeaderText, timezone: dt.tzinfo) -> dt.datetime | None:
    """StudyDate and StudyTime in UTC, by TimezoneOffsetFromUTC or else ``timezone``; None where there is no date."""
    return _started_at(header["StudyDate"], header["StudyTime"], header["TimezoneOffsetFromUTC"], timezone)


@lru_cache(_KEPT)
def _started_at(day: str, clock: str, offset: str, timezone: dt.tzinfo) -> dt.datetime | None:
    date = _date(day)
    if date is None:
        return None
    digits = re.match(r"(\d{2})(\d{2})?(\d{2})?(?:\.(\d{1,6}))?", clock.replace(":", ""))
    hour, minute, second, fraction = digits.groups() if digits else (None, None, None, None)
    try:
        # 60 is a leap second in DICOM, and none in Python.
        seconds, microseconds = min(int(second or 0), 59), int((fraction or "0").ljust(6, "0"))
        time = dt.time(int(hour or 0), int(minute or 0), seconds, microseconds)
        local = dt.datetime.combine(date, time, _offset(offset) or timezone)
        return local.astimezone(dt.UTC)
    except (ValueError, OverflowError):
        return None


def _offset(text: str) -> dt.tzinfo | None:
    """PS3.3 section C.12.1.1.8: "&ZZXX" with a sign."""
    match = re.fullmatch(r"([+-])(\d{2})(\d{2})", text)
    if not match:
        return None
    minutes = int(match[2]) * 60 + int(match[3])
    return dt.timezone(dt.timedelta(minutes=-minutes if match[1] == "-" else minutes)) if minutes < 1440 else None


def _date(text: str) -> dt.date | None:
    match = re.fullmatch(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})", text)
    try:
        return dt.date(int(match[1]), int(match[2]), int(match[3])) if match else None
    except ValueError:
        return None


@lru_cache(_KEPT)
def _identity(site_issuer: str, patient_id: str, issuer: str, name: str, birth_date: str, sex: str) -> PatientIdentity:
    # Cut like any other text, it might be another patient's.
    known = patient_id and len(patient_id) <= _LONGEST
    return PatientIdentity(
        identifier=Identifier(patient_id, issuer[:_LONGEST] or site_issuer) if known else None,
        name=name[:_LONGEST],
        birth_date=_date(birth_date),
        sex=sex.upper() if sex.upper() in {"M", "F", "O"} else "",
    )


@lru_cache(_KEPT)
def _numbers(series: str, instances: str, of_series: str) -> RelatedNumbers:
    return RelatedNumbers(_whole(series, _INTEGER), _whole(instances, _INTEGER), _whole(of_series, _INTEGER))


@lru_cache(_KEPT)
def _equipment(manufacturer: str, model_name: str, station_name: str, serial_number: str) -> Equipment:
    return Equipment(manufacturer[:_LONGEST], model_name[:_LONGEST], station_name[:_LONGEST], serial_number[:_LONGEST])


def _whole(text: str, largest: int = 2**63 - 1) -> int | None:
    """A whole number that the database can hold, or None."""
    if not text:
        return None
    try:
        value = int(float(text.split("\\", maxsplit=1)[0]))
    except (ValueError, OverflowError):
        return None
    return value if abs(value) <= largest else None


def _kind(header: HeaderText, pixels: Element | None) -> InstanceKind:
    if pixels is None or header["SOPClassUID"] in _NOT_IMAGES or _whole(header["Rows"]) is None:
        return InstanceKind.OTHER
    return InstanceKind.IMAGE


def _says_own(header: HeaderText) -> bool:
    return OWN_MODEL_NAME in (header["ManufacturerModelName"], *header.models)


def check_pixel_length(values: Mapping[str, str], pixels: Element) -> None:
    """See that native pixels are not shorter than the header says (PS3.5 section 8.1.1).

    Raises:
        ObjectNotStorable: they are.
    """
    if not pixels.undefined_length and pixels.end - pixels.value < least_pixel_bytes(values, pixels.tag):
        raise ObjectNotStorable(TOO_SHORT)


def least_pixel_bytes(values: Mapping[str, str], tag: int) -> int:
    """How long native pixels are at least, by the values that tell it; 0 where these do not."""
    bits = _BITS.get(tag) or _whole(values["BitsAllocated"])
    rows, columns = _whole(values["Rows"]), _whole(values["Columns"])
    if bits is None or rows is None or columns is None:
        return 0
    frame_bits = rows * columns * bits * (_whole(values["SamplesPerPixel"]) or 1)
    if values["PhotometricInterpretation"] in {"YBR_FULL_422", "YBR_PARTIAL_422"}:
        frame_bits = frame_bits * 2 // 3
    return -(-frame_bits * max(1, _whole(values["NumberOfFrames"]) or 1) // 8)


@lru_cache(_KEPT)
def _demographics_sha256(*told: str) -> str:
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()
