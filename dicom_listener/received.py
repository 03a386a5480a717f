"""A received object as a file (PS3.10): its data set as it came, under file meta information that says from whom.

The index can be rebuilt from this, so caller, called AE, address, door and instant stand in the file.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydicom.dataset import FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from fhir_records.errors import ObjectNotStorable

# PS3.7 section D.3.3.2: who wrote the file meta information.
IMPLEMENTATION_CLASS_UID = UID("2.25.197524273173479428651488144665189385294")
IMPLEMENTATION_VERSION_NAME = "WETREAD"
# (0002,0100): says that (0002,0102) is ours, and JSON.
PRIVATE_INFORMATION_CREATOR_UID = UID("2.25.299637243477413104341316687379172720516")

_PREFIX = bytes(128) + b"DICM"
# No file meta information is longer; a length that promises more would have the whole file read into memory.
MAX_META_BYTES = 1 << 20

Bytes = bytes | bytearray | memoryview | mmap.mmap
# Tags of the file meta information (PS3.10 table 7.1-1).
SOP_CLASS, SOP_INSTANCE, SYNTAX = 0x00020002, 0x00020003, 0x00020010
# Of the VRs with a 32-bit length (PS3.5 section 7.1.2) it has these.
_LONG_VRS = frozenset((b"OB", b"OW", b"UN", b"UT", b"UC", b"UR", b"SQ"))
# An element's header in Explicit VR Little Endian (PS3.5 section 7.1.2), with a short and with a long length.
_SHORT, _LONG = struct.Struct("<HH2sH"), struct.Struct("<HH2sxxL")


def _even(value: bytes, pad: bytes) -> bytes:
    return value + pad * (len(value) % 2)


def _text(number: int, vr: bytes, value: str) -> bytes:
    encoded = _even(value.encode("ascii", "replace"), b"\0" if vr == b"UI" else b" ")
    return _SHORT.pack(2, number, vr, len(encoded)) + encoded


def _long(number: int, vr: bytes, value: bytes) -> bytes:
    return _LONG.pack(2, number, vr, len(value)) + value


def _address(number: int, value: str) -> bytes:
    return _long(number, b"UR", _even(value.encode("ascii", "replace"), b" "))


def _private(received: Received) -> bytes:
    return _door(received.source, received.address) + received.received_at.isoformat().encode() + b'"}'


@lru_cache(maxsize=64)
def _door(source: str, address: str) -> bytes:
    """Private information as JSON, up to the instant."""
    told = json.dumps({"source": source, "address": address}, ensure_ascii=False)
    return told.removesuffix("}").encode() + b', "received_at": "'


@lru_cache(maxsize=64)
def _nodes(caller: str, called: str, address: str) -> bytes:
    """Who sent to whom, and whose the private information is."""
    url = f"dicom://{_host(address)}" if address else ""
    return b"".join(
        (
            _text(0x0016, b"AE", caller) + _text(0x0017, b"AE", caller) if caller else b"",
            _text(0x0018, b"AE", called) if called else b"",
            _address(0x0026, url) + _address(0x0027, url) if url else b"",
            _text(0x0100, b"UI", PRIVATE_INFORMATION_CREATOR_UID),
        )
    )


_VERSION = _long(0x0001, b"OB", b"\x00\x01")
_OURSELVES = _text(0x0012, b"UI", IMPLEMENTATION_CLASS_UID) + _text(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME)


@lru_cache(maxsize=64)
def _kind(sop_class_uid: str) -> bytes:
    return _VERSION + _text(0x0002, b"UI", sop_class_uid)


@lru_cache(maxsize=64)
def _encoding(transfer_syntax_uid: str) -> bytes:
    return _text(0x0010, b"UI", transfer_syntax_uid) + _OURSELVES


@dataclass(frozen=True, slots=True)
class Received:
    """How an object came."""

    sop_class_uid: str  # as announced by the sender
    sop_instance_uid: str
    transfer_syntax_uid: str
    source: str  # "dicom:AE" or "orthanc:NAME", by which door
    caller: str  # calling AE title; "" by another door
    called: str  # called AE title
    address: str  # of the sender
    received_at: dt.datetime


def file_header(received: Received) -> bytes:
    """Preamble, prefix and file meta information (PS3.10 section 7.1) to stand before the data set.

    Packed by hand, for every object that arrives pays for it.
    """
    group = b"".join(
        (
            _kind(received.sop_class_uid),
            _text(0x0003, b"UI", received.sop_instance_uid),
            _encoding(received.transfer_syntax_uid),
            _nodes(received.caller, received.called, received.address),
            _long(0x0102, b"OB", _even(_private(received), b" ")),
        )
    )
    return _PREFIX + _SHORT.pack(2, 0, b"UL", 4) + len(group).to_bytes(4, "little") + group


def raw_meta(content: Bytes) -> tuple[Mapping[int, bytes], int]:
    """The values of the file meta information by tag, without their padding, and where the data set begins.

    What follows an element that is cut short is not there.

    Raises:
        ObjectNotStorable: as `split_file`.
    """
    end = _meta_end(content)
    group = bytes(content[132:end])
    found, position = dict[int, bytes](), 0
    while position + 8 <= len(group):
        number, element, vr, length = _SHORT.unpack_from(group, position)
        position += 8
        if vr in _LONG_VRS:
            if position + 4 > len(group):
                break
            length = int.from_bytes(group[position : position + 4], "little")
            position += 4
        if position + length <= len(group):
            found[number << 16 | element] = group[position : position + length].rstrip(b"\0 ")
        position += length
    if not found.get(SYNTAX):
        raise ObjectNotStorable("the file meta information names no transfer syntax")
    return found, end


def split_file(content: Bytes) -> tuple[FileMetaDataset, memoryview]:
    """The file meta information of a DICOM file, and its data set.

    Raises:
        ObjectNotStorable: it is no DICOM file with a group length and a transfer syntax.
    """
    end = _meta_end(content)
    try:
        meta = FileMetaDataset(read_dataset(io.BytesIO(content[132:end]), False, True))
    except Exception as error:  # boundary: pydicom raises whatever broken file meta information brings about
        raise ObjectNotStorable("the file meta information cannot be decoded") from error
    _drop_broken(meta)
    if not meta.get("TransferSyntaxUID"):
        raise ObjectNotStorable("the file meta information names no transfer syntax")
    return meta, memoryview(content)[end:]


def _meta_end(content: Bytes) -> int:
    if content[128:132] != b"DICM" or content[132:138] != b"\x02\x00\x00\x00UL" or len(content) < 144:
        raise ObjectNotStorable("not a DICOM file")
    end: int = 144 + struct.unpack("<L", content[140:144])[0]
    if end > len(content):
        raise ObjectNotStorable("the file ends early")
    if end > MAX_META_BYTES:
        raise ObjectNotStorable("the file meta information is too long")
    return end


def _drop_broken(meta: FileMetaDataset) -> None:
    """Take out what cannot be decoded, so that nobody meets it later."""
    for tag in list(meta.keys()):
        try:
            _ = meta[tag]
        except Exception:  # boundary: pydicom decodes only now, and raises whatever a broken value brings about
            del meta[tag]


def read_received(path: Path) -> tuple[Received, memoryview]:
    """How the object in a file of the spool came, and its data set as it came.

    Raises:
        ObjectNotStorable: the file is broken.
        FileNotFoundError: it is gone.
    """
    meta, data_set = split_file(path.read_bytes())
    told = _told(meta)
    caller = str(meta.get("SourceApplicationEntityTitle") or "").strip()
    try:
        received_at = dt.datetime.fromisoformat(told.get("received_at", ""))
    except ValueError:
        received_at = dt.datetime.fromtimestamp(path.stat().st_mtime, dt.UTC)
    return (
        Received(
            sop_class_uid=str(meta.get("MediaStorageSOPClassUID") or ""),
            sop_instance_uid=str(meta.get("MediaStorageSOPInstanceUID") or ""),
            transfer_syntax_uid=str(meta.TransferSyntaxUID),
            source=told.get("source") or f"dicom:{caller}",
            caller=caller,
            called=str(meta.get("ReceivingApplicationEntityTitle") or "").strip(),
            address=told.get("address", ""),
            received_at=received_at,
        ),
        data_set,
    )


def _told(meta: FileMetaDataset) -> dict[str, str]:
    if meta.get("PrivateInformationCreatorUID") != PRIVATE_INFORMATION_CREATOR_UID:
        return {}
    try:
        told = json.loads(meta.get("PrivateInformation") or b"{}")
    except (ValueError, RecursionError):
        return {}
    return {key: value for key, value in told.items() if isinstance(value, str)} if isinstance(told, dict) else {}


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
