"""What a document that we write takes over from its source images: who the patient is, and which study this is.

Only what is listed here is copied, and only in a form that the standard allows. Real headers carry empty sequences,
private coding schemes, empty lateralities and retired comments; none of that may come out of a document of ours.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from pydicom import config
from pydicom.charset import python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from fhir_records.model import Code, Study
from fhir_records.renderings.codes import BODY_PARTS, STANDARD_SCHEMES

UTF_8: Final = "ISO_IR 192"  # PS3.3 section C.12.1.1.2
LATIN_1: Final = "ISO_IR 100"

_DATE = re.compile(r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])")  # PS3.5 section 6.2, DA
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")  # TM
_AGE = re.compile(r"\d{3}[DWMY]")  # AS
_OFFSET = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")  # PS3.3 section C.12.1.1.8

# Type 2 of the Patient and General Study modules (PS3.3 sections C.7.1.1 and C.7.2.1): always there, if need be empty.
_REQUIRED: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
_OPTIONAL: Final = ("IssuerOfPatientID", "PatientAge", "StudyDescription", "TimezoneOffsetFromUTC")

_VALID: Final[Mapping[str, Callable[[str], object]]] = MappingProxyType(
    {
        "PatientBirthDate": _DATE.fullmatch,
        "StudyDate": _DATE.fullmatch,
        "StudyTime": _TIME.fullmatch,
        "PatientAge": _AGE.fullmatch,
        "TimezoneOffsetFromUTC": _OFFSET.fullmatch,
        "PatientSex": {"M", "F", "O"}.__contains__,
    }
)


def patient_and_study(source: Dataset) -> Dataset:
    """The Patient and General Study modules for a document about the study of `source`.

    Text is decoded, so that the result may be written in another character set. A value that its representation does
    not allow (a sex "X", a date "1980.05.01") is left empty rather than passed on.
    """
    ds = Dataset()
    for keyword in _REQUIRED:
        put(ds, keyword, _value(source, keyword))
    for keyword in _OPTIONAL:
        if value := _value(source, keyword):
            put(ds, keyword, value)
    put(ds, "StudyInstanceUID", source.StudyInstanceUID)
    # PS3.3 section C.7.1.1: "YES" demands the method beside it.
    if method := _value(source, "DeidentificationMethod"):
        put(ds, "PatientIdentityRemoved", _value(source, "PatientIdentityRemoved") or "YES")
        put(ds, "DeidentificationMethod", method)
    return ds


def add_body_part(ds: Dataset, site: Code, source: Dataset) -> None:
    """Body Part Examined of `site`; without one that is sure to be unpaired, an empty Laterality (PS3.3 C.7.3.1)."""
    part = BODY_PARTS.get(site.value) if site.scheme == "SCT" else None
    if part is None and _value(source, "BodyPartExamined") in BODY_PARTS.values():
        part = _value(source, "BodyPartExamined")
    if part is not None:
        ds.BodyPartExamined = part
    else:
        ds.Laterality = ""


def burned_in(evidence: Sequence[Dataset], shown_uid: str | None) -> str:
    """Whether pixels that show this image may name the patient: "YES", "NO", or "" where its header does not say.

    "NO" where none is shown (PS3.3 section C.7.6.1).
    """
    shown = next((header for header in evidence if header.SOPInstanceUID == shown_uid), None)
    if shown is None:
        return "NO"
    said = _value(shown, "BurnedInAnnotation")
    return said if said in ("YES", "NO") else ""


def put(ds: Dataset, keyword: str, value: Any) -> None:
    """Set an attribute without pydicom's check of its value: its warnings repeat the value, and it may be a name."""
    tag = Tag(keyword)
    ds[tag] = DataElement(tag, dictionary_VR(tag), value, validation_mode=config.IGNORE)


def procedure_codes(source: Dataset) -> tuple[Code, ...]:
    """The procedures that the source names in ProcedureCodeSequence, those in a standard scheme only."""
    codes = []
    for item in source.get("ProcedureCodeSequence") or ():
        code = Code(*(str(item.get(key) or "") for key in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")))
        if code.scheme in STANDARD_SCHEMES and code.value and 0 < len(code.meaning) <= 64 and code.meaning.isascii():
            codes.append(code)
    return tuple(dict.fromkeys(codes))


def character_set(source: Dataset) -> str | list[str] | None:
    """SpecificCharacterSet as the source has it: UTF-8 where it names none that exists, None where it names none."""
    value = source.get("SpecificCharacterSet")
    terms = [value or ""] if isinstance(value, str) or value is None else [term or "" for term in value]
    if terms in ([], [""], ["ISO_IR 6"]):
        return None
    if any(term not in python_encoding for term in terms):
        return UTF_8
    return terms[0] if len(terms) == 1 else terms


def can_say(charset: str | list[str], text: str) -> bool:
    """Whether every character of `text` is in one of the character sets (PS3.3 section C.12.1.1.2)."""
    terms = [charset] if isinstance(charset, str) else charset
    # pydicom takes the default repertoire for Latin-1; it is ASCII.
    encodings = ["ascii" if term in ("", "ISO 2022 IR 6") else python_encoding[term] for term in terms]
    return all(any(_encodes(encoding, character) for encoding in encodings) for character in set(text))


def _encodes(encoding: str, character: str) -> bool:
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def local_time(instant: dt.datetime, source: Dataset, study: Study) -> dt.datetime:
    """`instant` in the zone that the study's own dates and times are in, naive.

    That is TimezoneOffsetFromUTC; where the source has none, the site's zone, told by how the study's start was
    understood; where there is no start either, UTC.
    """
    offset = _OFFSET.fullmatch(str(source.get("TimezoneOffsetFromUTC") or ""))
    if offset:
        sign = -1 if offset[1] == "-" else 1
        shift = sign * dt.timedelta(hours=int(offset[2]), minutes=int(offset[3]))
    else:
        shift = _site_offset(source, study)
    return (instant.astimezone(dt.UTC) + shift).replace(tzinfo=None)


def _site_offset(source: Dataset, study: Study) -> dt.timedelta:
    date, time = _value(source, "StudyDate"), _value(source, "StudyTime")
    if study.started_at is None or not date or not time:
        return dt.timedelta()
    digits = f"{date}{time.split('.')[0]:0<6}"
    local = dt.datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=dt.UTC)
    quarters = round((local - study.started_at) / dt.timedelta(minutes=15))
    # No zone lies further away; more means that the study's start came from elsewhere.
    return dt.timedelta(minutes=15 * quarters) if -12 * 4 <= quarters <= 14 * 4 else dt.timedelta()


def _value(source: Dataset, keyword: str) -> str:
    value = source.get(keyword)
    if isinstance(value, MultiValue):
        value = "\\".join(str(one) for one in value)
    text = "" if value is None else str(value).strip()
    valid = _VALID.get(keyword)
    return text if valid is None or not text or valid(text) else ""
