"""What an object says that it is, read from the first part of its file without decoding the rest.

For doors that must know this before the object goes in, and for objects that are refused unread.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_listener.data_set import Element, elements, encoding_of, parsed
from dicom_listener.received import Bytes, split_file
from fhir_records.errors import ObjectNotStorable

_TAGS = {0x00080016: "SOPClassUID", 0x00080018: "SOPInstanceUID", 0x0020000D: "StudyInstanceUID",
         0x0020000E: "SeriesInstanceUID"}  # fmt: skip
_LAST = max(_TAGS)
_INFLATED_HEAD = 1 << 20  # bytes of a deflated data set that are looked at
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Offered:
    """An object's UIDs; "" where it does not say one."""

    sop_class_uid: str
    sop_uid: str
    study_uid: str
    series_uid: str


def offered(content: Bytes) -> Offered:
    """The UIDs of the object in a DICOM file, of which ``content`` may be the beginning only.

    Raises:
        ObjectNotStorable: it is no DICOM file.
    """
    meta, data = split_file(content)
    syntax = str(meta.TransferSyntaxUID)
    head = _inflater().decompress(data, _INFLATED_HEAD) if syntax == DeflatedExplicitVRLittleEndian else data
    encoding = encoding_of(syntax)
    found: list[Element] = []
    ds = Dataset()
    try:
        for element in elements(head, encoding):
            if element.tag in _TAGS:
                found.append(element)
            if element.tag >= _LAST:
                break
    except ObjectNotStorable:
        pass  # cut off, or broken further on: what came before that is known
    if found:
        ds = parsed(head, encoding, found)
    values = {keyword: str(ds.get(keyword) or "").strip() for keyword in _TAGS.values()}
    return Offered(
        sop_class_uid=values["SOPClassUID"] or str(meta.get("MediaStorageSOPClassUID") or ""),
        sop_uid=values["SOPInstanceUID"] or str(meta.get("MediaStorageSOPInstanceUID") or ""),
        study_uid=values["StudyInstanceUID"],
        series_uid=values["SeriesInstanceUID"],
    )


def inflates_within(content: Bytes, most: int) -> bool:
    """Whether the data set of a DICOM file is no larger than ``most`` bytes once it is inflated, were it deflated.

    Raises:
        ObjectNotStorable: it is no DICOM file, or the deflated data are broken.
    """
    meta, data = split_file(content)
    if str(meta.TransferSyntaxUID) != DeflatedExplicitVRLittleEndian:
        return True
    inflater, size = _inflater(), 0
    try:
        for start in range(0, len(data), _CHUNK):
            rest: Bytes = data[start : start + _CHUNK]
            while rest and size <= most:
                size += len(inflater.decompress(rest, _CHUNK))
                rest = inflater.unconsumed_tail
    except zlib.error as error:
        raise ObjectNotStorable("the deflated data set is broken") from error
    return size <= most


def _inflater() -> zlib._Decompress:
    return zlib.decompressobj(-zlib.MAX_WBITS)
