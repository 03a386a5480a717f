"""The Native DICOM Model in XML (PS3.19 annex A.1), written from the DICOM JSON model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from pydicom.datadict import keyword_for_tag

NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_COMPONENTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")  # PS3.5 section 6.2.1.2
# What XML 1.0 cannot hold, section 2.2; escape sequences and form feeds are met in DICOM text.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def as_xml(found: Mapping[str, Any]) -> bytes:
    """``found``, attributes by tag in the DICOM JSON model, as an XML document in UTF-8."""
    root = Element("NativeDicomModel", {"xmlns": NAMESPACE, "xml:space": "preserve"})
    _fill(root, found)
    text: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _fill(parent: Element, found: Mapping[str, Any]) -> None:
    for tag, element in found.items():
        vr = element["vr"]
        attribute = SubElement(parent, "DicomAttribute", {"tag": tag, "vr": vr})
        keyword = keyword_for_tag(int(tag, 16))
        if keyword:
            attribute.set("keyword", keyword)
        if "BulkDataURI" in element:
            SubElement(attribute, "BulkData", {"uri": element["BulkDataURI"]})
        elif "InlineBinary" in element:
            SubElement(attribute, "InlineBinary").text = element["InlineBinary"]
        for number, value in enumerate(element.get("Value", ()), 1):
            _value(attribute, vr, number, value)


def _value(attribute: Element, vr: str, number: int, value: Any) -> None:
    counted = {"number": str(number)}
    if vr == "SQ":
        _fill(SubElement(attribute, "Item", counted), value or {})
    elif vr == "PN":
        person = SubElement(attribute, "PersonName", counted)
        for group in _GROUPS:
            if (value or {}).get(group):
                components = SubElement(person, group)
                for name, text in zip(_COMPONENTS, value[group].split("^"), strict=False):
                    if text:
                        SubElement(components, name).text = _clean(text)
    elif value is not None:
        SubElement(attribute, "Value", counted).text = _clean(str(value))


def _clean(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
