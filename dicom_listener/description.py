"""What the index has to know of an object, read from its encoded data set before its pixels are looked at."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from dicom_listener.data_set import PIXEL_DATA, Element, Encoding, encoding_of, inflated
from dicom_listener.header_text import HeaderText, header_text
from dicom_listener.received import Received
from dicom_listener.transfer_syntaxes import transfer_syntax
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

_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# Wider than PS3.5 section 9.1: de-identified archives hold UIDs with letters, and those are images too.
_UID = re.compile(r"[0-9A-Za-z._-]{1,64}")
# The largest that a column of type integer holds.
_INTEGER = 2**31 - 1
# No value that the index keeps is longer in any real object; PostgreSQL indexes no text of several thousand bytes.
_LONGEST = 500

# Of the bytes from one position of the data set to another: the SHA-256 in hex.
Sha256Of = Callable[[int, int], str]


@dataclass(frozen=True, slots=True)
class Described:
    """An object's index entry but for its file, and whether it says itself that Wetread wrote it."""

    arrival: Arrival  # file_key, sha256 and size still empty
    says_own: bool

    def stored_as(self, file_key: str, sha256: str, size: int, *, own: bool) -> Arrival:
        """The entry of the object now that it lies in this file."""
        kind = InstanceKind.OWN if own or self.says_own else self.arrival.kind
        return replace(self.arrival, file_key=file_key, sha256=sha256, size=size, kind=kind)


def describe(
    data: bytes | memoryview,
    received: Received,
    timezone: dt.tzinfo,
    issuer: str = "",
    sha256_of: Sha256Of | None = None,
) -> Described:
    """Read what the index needs from the data set ``data`` in its transfer syntax.

    Args:
        data: the encoded data set.
        received: how it came.
        timezone: of times that name none.
        issuer: of patient identifiers that name none.
        sha256_of: hashes a part of ``data`` where that is better not done in memory.

    Raises:
        ObjectNotStorable: it is no data set, ends early, or lacks a UID that storage needs; the message says which.
    """
    encoding = encoding_of(received.transfer_syntax_uid)
    plain = inflated(data, received.transfer_syntax_uid)
    header = header_text(plain, encoding)
    for keyword in _UIDS:
        if not is_uid(header[keyword]):
            raise ObjectNotStorable(f"{keyword} is missing or not a UID")
    pixels = header.pixels
    if pixels is not None:
        check_pixel_length(header, pixels)
    if sha256_of is None or plain is not data:
        sha256_of = _in_memory(plain)
    arrival = Arrival(
        study_uid=header["StudyInstanceUID"],
        patient=_identity(header, issuer),
        accession_number=header["AccessionNumber"][:_LONGEST],
        study_description=header["StudyDescription"][:_LONGEST],
        started_at=started_at(header, timezone),
        series_uid=header["SeriesInstanceUID"],
        modality=header["Modality"][:_LONGEST],
        series_number=_number(header, "SeriesNumber"),
        series_description=header["SeriesDescription"][:_LONGEST],
        sop_uid=header["SOPInstanceUID"],
        sop_class_uid=header["SOPClassUID"],
        transfer_syntax_uid=received.transfer_syntax_uid,
        kind=_kind(header, pixels),
        instance_number=_number(header, "InstanceNumber"),
        number_of_frames=max(1, _number(header, "NumberOfFrames", _INTEGER) or 1),
        rows=_number(header, "Rows", _INTEGER),
        columns=_number(header, "Columns", _INTEGER),
        file_key="",
        sha256="",
        demographics_sha256=_demographics_sha256(header),
        pixels_sha256=_pixels_sha256(pixels, received.transfer_syntax_uid, encoding, sha256_of),
        size=0,
        source=received.source,
        caller=received.caller,
        received_at=received.received_at,
        numbers=RelatedNumbers(
            study_series=_number(header, "NumberOfStudyRelatedSeries", _INTEGER),
            study_instances=_number(header, "NumberOfStudyRelatedInstances", _INTEGER),
            series_instances=_number(header, "NumberOfSeriesRelatedInstances", _INTEGER),
        ),
        equipment=Equipment(
            manufacturer=header["Manufacturer"][:_LONGEST],
            model_name=header["ManufacturerModelName"][:_LONGEST],
            station_name=header["StationName"][:_LONGEST],
            device_serial_number=header["DeviceSerialNumber"][:_LONGEST],
        ),
    )
    return Described(arrival, _says_own(header))


def is_uid(text: str) -> bool:
    """Whether an object may be filed under this as a UID."""
    return _UID.fullmatch(text) is not None


def started_at(header: HeaderText, timezone: dt.tzinfo) -> dt.datetime | None:
    """StudyDate and StudyTime in UTC, by TimezoneOffsetFromUTC or else ``timezone``; None where there is no date."""
    date = _date(header["StudyDate"])
    if date is None:
        return None
    digits = re.match(r"(\d{2})(\d{2})?(\d{2})?(?:\.(\d{1,6}))?", header["StudyTime"].replace(":", ""))
    hour, minute, second, fraction = digits.groups() if digits else (None, None, None, None)
    try:
        # 60 is a leap second in DICOM, and none in Python.
        seconds, microseconds = min(int(second or 0), 59), int((fraction or "0").ljust(6, "0"))
        time = dt.time(int(hour or 0), int(minute or 0), seconds, microseconds)
        local = dt.datetime.combine(date, time, _offset(header["TimezoneOffsetFromUTC"]) or timezone)
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


def _identity(header: HeaderText, issuer: str) -> PatientIdentity:
    # Cut like any other text, it might be another patient's.
    patient_id = header["PatientID"] if len(header["PatientID"]) <= _LONGEST else ""
    sex = header["PatientSex"].upper()
    return PatientIdentity(
        identifier=Identifier(patient_id, header["IssuerOfPatientID"][:_LONGEST] or issuer) if patient_id else None,
        name=header["PatientName"][:_LONGEST],
        birth_date=_date(header["PatientBirthDate"]),
        sex=sex if sex in {"M", "F", "O"} else "",
    )


def _number(header: HeaderText, keyword: str, largest: int = 2**63 - 1) -> int | None:
    """A whole number that the database can hold, or None."""
    try:
        value = int(float(header[keyword].split("\\", maxsplit=1)[0]))
    except (ValueError, OverflowError):
        return None
    return value if abs(value) <= largest else None


def _kind(header: HeaderText, pixels: Element | None) -> InstanceKind:
    if pixels is None or header["SOPClassUID"] in _NOT_IMAGES or _number(header, "Rows") is None:
        return InstanceKind.OTHER
    return InstanceKind.IMAGE


def _says_own(header: HeaderText) -> bool:
    return OWN_MODEL_NAME in (header["ManufacturerModelName"], *header.models)


def check_pixel_length(header: HeaderText, pixels: Element) -> None:
    """See that native pixels are not shorter than the header says (PS3.5 section 8.1.1).

    Raises:
        ObjectNotStorable: they are.
    """
    bits = 32 if pixels.tag == 0x7FE00008 else 64 if pixels.tag == 0x7FE00009 else _number(header, "BitsAllocated")
    rows, columns = _number(header, "Rows"), _number(header, "Columns")
    if pixels.undefined_length or bits is None or rows is None or columns is None:
        return
    samples = _number(header, "SamplesPerPixel") or 1
    frame_bits = rows * columns * bits * samples
    if header["PhotometricInterpretation"] in {"YBR_FULL_422", "YBR_PARTIAL_422"}:
        frame_bits = frame_bits * 2 // 3
    if (pixels.end - pixels.value) * 8 < frame_bits * max(1, _number(header, "NumberOfFrames") or 1):
        raise ObjectNotStorable("the pixel data is shorter than the header says")


def _demographics_sha256(header: HeaderText) -> str:
    keywords = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID")
    told = [header[keyword] for keyword in (*keywords, "AccessionNumber")]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _in_memory(plain: bytes | memoryview) -> Sha256Of:
    return lambda start, end: hashlib.sha256(memoryview(plain)[start:end]).hexdigest()


def _pixels_sha256(pixels: Element | None, syntax_uid: str, encoding: Encoding, sha256_of: Sha256Of) -> str:
    """Of the encoded pixels, with a word for how they are encoded before it; "" where there are none.

    Equal words and hashes mean equal pixels; anything else has to be decoded to be compared.
    """
    if pixels is None:
        return ""
    digest = sha256_of(pixels.value, pixels.end)
    if pixels.tag == PIXEL_DATA and pixels.undefined_length and not transfer_syntax(syntax_uid).is_deflated:
        return f"{syntax_uid}:{digest}"
    return f"{'little' if encoding.little_endian else 'big'}:{digest}"
