"""FHIR's data types (R4 2.24) made from the record's: codings, identifiers, names, instants, narrative.

What comes from a scan may be anything: empty values are left out, control characters go, because FHIR knows no empty
string and allows no control character but tab and line ends.
"""

from __future__ import annotations

import datetime as dt
import html
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from fhir_records.errors import RenderingError
from fhir_records.model import Code

Json: TypeAlias = dict[str, Any]

DICOM_UID: Final = "urn:dicom:uid"  # R4 2.24.0.9, identifier system of a DICOM UID; the value is urn:oid:…
URI: Final = "urn:ietf:rfc:3986"
DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
UCUM: Final = "http://unitsofmeasure.org"
IDENTIFIER_TYPE: Final = "http://terminology.hl7.org/CodeSystem/v2-0203"

# R4 4.3.0: the URI of each coding scheme designator (PS3.16 section 8).
SYSTEMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "SCT": "http://snomed.info/sct",
        "DCM": DCM,
        "LN": "http://loinc.org",
        "UCUM": UCUM,
        "RADLEX": "http://www.radlex.org",
        "I10": "http://hl7.org/fhir/sid/icd-10",
        "C4": "http://www.ama-assn.org/go/cpt",
    }
)

# http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation, in the order of DICOM's component groups (PS3.5
# 6.2.1).
EN_REPRESENTATION: Final = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
_NAME_REPRESENTATIONS: Final = ("ABC", "IDE", "SYL")

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
MAX_UNSIGNED_INT: Final = 2**31 - 1  # R4 2.24.0.1 unsignedInt


def present(**fields: Any) -> Json:
    """An object of the fields that say something: None, "" and empty collections are left out."""
    return {
        name: value for name, value in fields.items() if value is not None and value != "" and value not in ([], {})
    }


def clean(text: str) -> str:
    """``text`` without control characters and without space around it."""
    return _CONTROL.sub(" ", text.encode("utf-8", "replace").decode("utf-8")).strip()


def clean_code(text: str) -> str:
    """``text`` as FHIR's `code` allows it: no space but single ones inside (R4 2.24.0.1)."""
    return " ".join(clean(text).split())


def coding(code: Code) -> Json:
    """A Coding.

    Raises:
        RenderingError: no URI is known for the scheme.
    """
    if code.scheme not in SYSTEMS:
        raise RenderingError(
            f"No FHIR system is known for the coding scheme {code.scheme!r}; allowed: {', '.join(SYSTEMS)}."
        )
    return present(system=SYSTEMS[code.scheme], code=clean_code(code.value), display=clean(code.meaning))


def concept(code: Code, text: str | None = None) -> Json:
    """A CodeableConcept of one coding; ``text`` is the code's meaning where nothing else is given."""
    return {"coding": [coding(code)], "text": clean(text or code.meaning)}


def token(system: str, value: str) -> str:
    """A coded value or an identifier as `FhirResource` lists it for searching: "system|value"."""
    return f"{system}|{value}"


def tokens(codeable: Json) -> tuple[str, ...]:
    """The codings of a CodeableConcept, each as a token."""
    return tuple(token(entry.get("system", ""), entry["code"]) for entry in codeable.get("coding", ()))


def uid_identifier(uid: str) -> Json:
    """The identifier of something that has a DICOM UID."""
    return {"system": DICOM_UID, "value": f"urn:oid:{clean(uid)}"}


def identifier_type(code: str, display: str) -> Json:
    """What kind of identifier it is, from HL7 v2 table 0203."""
    return {"coding": [{"system": IDENTIFIER_TYPE, "code": code, "display": display}]}


def instant(moment: dt.datetime) -> str:
    """A FHIR instant (also a valid dateTime) in UTC."""
    return moment.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


def unsigned(number: int | None) -> int | None:
    """``number`` where FHIR's unsignedInt can hold it; DICOM's numbers may be negative, and are then left out."""
    return number if number is not None and 0 <= number <= MAX_UNSIGNED_INT else None


def human_names(person_name: str) -> list[Json]:
    """The component groups of a DICOM PN: alphabetic (official), ideographic and phonetic."""
    names = [_human_name(group, index) for index, group in enumerate(person_name.split("=")[:3])]
    several = sum(1 for name in names if name) > 1
    # A lone alphabetic name is the plain case; wherever writing systems can be mixed up, each says which it is.
    return [
        {"extension": [{"url": EN_REPRESENTATION, "valueCode": representation}], **name}
        if several or representation != "ABC"
        else name
        for name, representation in zip(names, _NAME_REPRESENTATIONS, strict=False)
        if name
    ]


def _human_name(group: str, index: int) -> Json:
    family, given, middle, prefix, suffix = ([clean(part) for part in group.split("^")] + [""] * 5)[:5]
    # Where names are not written alphabetically, the family comes first.
    order = (prefix, given, middle, family, suffix) if index == 0 else (prefix, family, given, middle, suffix)
    text = " ".join(part for part in order if part)
    if not text:
        return {}
    return present(
        use="official" if index == 0 else None,
        text=text,
        family=family,
        given=[part for part in (given, middle) if part],
        prefix=[prefix] if prefix else None,
        suffix=[suffix] if suffix else None,
    )


def narrative(paragraphs: Sequence[str]) -> Json:
    """A generated Narrative (R4 2.25) of plain paragraphs, escaped."""
    body = "".join(f"<p>{html.escape(clean(text), quote=False)}</p>" for text in paragraphs if clean(text))
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{body}</div>'}


def reference(type: str, id: str, display: str | None = None) -> Json:
    """A literal reference, relative to our base."""
    return present(reference=f"{type}/{id}", display=display)
