"""What the index has to know of an object, read from its encoded data set before its pixels are looked at."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
from dataclasses import dataclass, replace

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dicom_listener.characters import settle
from dicom_listener.data_set import PIXEL_DATA, PIXEL_TAGS, Element, Encoding, elements, encoding_of, inflated, parsed
from dicom_listener.received import Received
from fhir_records.errors import ObjectNotStorable
from fhir_records.model import Identifier, InstanceKind
from fhir_records.store.arrivals import Arrival
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

_KEYWORDS = (
    "SpecificCharacterSet",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "Modality",
    "ManufacturerModelName",
    "StudyDescription",
    "SeriesDescription",
    "TimezoneOffsetFromUTC",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "ContributingEquipmentSequence",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "InstanceNumber",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
)
_WANTED = frozenset(tag for keyword in _KEYWORDS if (tag := tag_for_keyword(keyword)) is not None)
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# Wider than PS3.5 section 9.1: de-identified archives hold UIDs with letters, and those are images too.
_UID = re.compile(r"[0-9A-Za-z._-]{1,64}")
# The largest that a column of type integer holds.
_INTEGER = 2**31 - 1
# PostgreSQL's text cannot hold NUL.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Described:
    """An object's index entry but for its file, and whether it says itself that Wetread wrote it."""

    arrival: Arrival  # file_key, sha256 and size still empty
    says_own: bool

    def stored_as(self, file_key: str, sha256: str, size: int, *, own: bool) -> Arrival:
        """The entry of the object now that it lies in this file."""
        kind = InstanceKind.OWN if own or self.says_own else self.arrival.kind
        return replace(self.arrival, file_key=file_key, sha256=sha256, size=size, kind=kind)


def describe(data: bytes | memoryview, received: Received, timezone: dt.tzinfo, issuer: str = "") -> Described:
    """Read what the index needs from the data set ``data`` in its transfer syntax.

    Args:
        data: the encoded data set.
        received: how it came.
        timezone: of times that name none.
        issuer: of patient identifiers that name none.

    Raises:
        ObjectNotStorable: it is no data set, ends early, or lacks a UID that storage needs; the message says which.
    """
    encoding = encoding_of(received.transfer_syntax_uid)
    plain = inflated(data, received.transfer_syntax_uid)
    outline = list(elements(plain, encoding))
    ds = parsed(plain, encoding, [element for element in outline if element.tag in _WANTED])
    settle(ds)
    for keyword in _UIDS:
        if not _UID.fullmatch(_text(ds, keyword)):
            raise ObjectNotStorable(f"{keyword} is missing or not a UID")
    pixels = next((element for element in outline if element.tag in PIXEL_TAGS), None)
    if pixels is not None:
        _check_length(ds, pixels)
    arrival = Arrival(
        study_uid=_text(ds, "StudyInstanceUID"),
        patient=_identity(ds, issuer),
        accession_number=_text(ds, "AccessionNumber"),
        study_description=_text(ds, "StudyDescription"),
        started_at=started_at(ds, timezone),
        series_uid=_text(ds, "SeriesInstanceUID"),
        modality=_text(ds, "Modality"),
        series_number=_number(ds, "SeriesNumber"),
        series_description=_text(ds, "SeriesDescription"),
        sop_uid=_text(ds, "SOPInstanceUID"),
        sop_class_uid=_text(ds, "SOPClassUID"),
        transfer_syntax_uid=received.transfer_syntax_uid,
        kind=_kind(ds, pixels),
        instance_number=_number(ds, "InstanceNumber"),
        number_of_frames=max(1, _number(ds, "NumberOfFrames", _INTEGER) or 1),
        rows=_number(ds, "Rows", _INTEGER),
        columns=_number(ds, "Columns", _INTEGER),
        file_key="",
        sha256="",
        demographics_sha256=_demographics_sha256(ds),
        pixels_sha256=_pixels_sha256(plain, pixels, received.transfer_syntax_uid, encoding),
        size=0,
        source=received.source,
        caller=received.caller,
        received_at=received.received_at,
    )
    return Described(arrival, _says_own(ds))


def started_at(ds: Dataset, timezone: dt.tzinfo) -> dt.datetime | None:
    """StudyDate and StudyTime in UTC, by TimezoneOffsetFromUTC or else ``timezone``; None where there is no date."""
    date = _date(_text(ds, "StudyDate"))
    if date is None:
        return None
    digits = re.match(r"(\d{2})(\d{2})?(\d{2})?(?:\.(\d{1,6}))?", _text(ds, "StudyTime").replace(":", ""))
    hour, minute, second, fraction = digits.groups() if digits else (None, None, None, None)
    try:
        # 60 is a leap second in DICOM, and none in Python.
        seconds, microseconds = min(int(second or 0), 59), int((fraction or "0").ljust(6, "0"))
        time = dt.time(int(hour or 0), int(minute or 0), seconds, microseconds)
        local = dt.datetime.combine(date, time, _offset(_text(ds, "TimezoneOffsetFromUTC")) or timezone)
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


def _identity(ds: Dataset, issuer: str) -> PatientIdentity:
    patient_id = _text(ds, "PatientID")
    sex = _text(ds, "PatientSex").upper()
    return PatientIdentity(
        identifier=Identifier(patient_id, _text(ds, "IssuerOfPatientID") or issuer) if patient_id else None,
        name=_text(ds, "PatientName"),
        birth_date=_date(_text(ds, "PatientBirthDate")),
        sex=sex if sex in {"M", "F", "O"} else "",
    )


def _text(ds: Dataset, keyword: str) -> str:
    """A value as one line of text; several values as DICOM joins them."""
    try:
        value = ds.get(keyword)
    except Exception as error:  # boundary: pydicom decodes only now, and raises whatever a broken value brings about
        raise ObjectNotStorable(f"{keyword} cannot be decoded") from error
    if value is None:
        return ""
    joined = "\\".join(map(str, value)) if isinstance(value, list | tuple | MultiValue) else str(value)
    # Bytes that are no text in the object's character set come out as surrogates, which no database takes.
    return _CONTROL.sub(" ", joined.encode("utf-8", "replace").decode()).strip()


def _number(ds: Dataset, keyword: str, largest: int = 2**63 - 1) -> int | None:
    """A whole number that the database can hold, or None."""
    try:
        value = int(float(_text(ds, keyword).split("\\", maxsplit=1)[0]))
    except (ValueError, OverflowError):
        return None
    return value if abs(value) <= largest else None


def _kind(ds: Dataset, pixels: Element | None) -> InstanceKind:
    if pixels is None or _text(ds, "SOPClassUID") in _NOT_IMAGES or _number(ds, "Rows") is None:
        return InstanceKind.OTHER
    return InstanceKind.IMAGE


def _says_own(ds: Dataset) -> bool:
    equipment = [ds, *(ds.get("ContributingEquipmentSequence") or [])]
    return any(_text(item, "ManufacturerModelName") == OWN_MODEL_NAME for item in equipment)


def _check_length(ds: Dataset, pixels: Element) -> None:
    """See that native pixels are not shorter than the header says (PS3.5 section 8.1.1)."""
    bits = 32 if pixels.tag == 0x7FE00008 else 64 if pixels.tag == 0x7FE00009 else _number(ds, "BitsAllocated")
    rows, columns = _number(ds, "Rows"), _number(ds, "Columns")
    if pixels.undefined_length or bits is None or rows is None or columns is None:
        return
    samples = _number(ds, "SamplesPerPixel") or 1
    frame_bits = rows * columns * bits * samples
    if _text(ds, "PhotometricInterpretation") in {"YBR_FULL_422", "YBR_PARTIAL_422"}:
        frame_bits = frame_bits * 2 // 3
    if (pixels.end - pixels.value) * 8 < frame_bits * max(1, _number(ds, "NumberOfFrames") or 1):
        raise ObjectNotStorable("the pixel data is shorter than the header says")


def _demographics_sha256(ds: Dataset) -> str:
    keywords = ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID")
    told = [_text(ds, keyword) for keyword in (*keywords, "AccessionNumber")]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def _pixels_sha256(plain: bytes | memoryview, pixels: Element | None, syntax_uid: str, encoding: Encoding) -> str:
    """Of the encoded pixels, with a word for how they are encoded before it; "" where there are none.

    Equal words and hashes mean equal pixels; anything else has to be decoded to be compared.
    """
    if pixels is None:
        return ""
    digest = hashlib.sha256(plain[pixels.value : pixels.end]).hexdigest()
    uid = UID(syntax_uid)
    if pixels.tag == PIXEL_DATA and pixels.undefined_length and uid != DeflatedExplicitVRLittleEndian:
        return f"{syntax_uid}:{digest}"
    return f"{'little' if encoding.little_endian else 'big'}:{digest}"
