"""A received object as a file (PS3.10): its data set as it came, under file meta information that says from whom.

The index can be rebuilt from this, so caller, called AE, address, door and instant stand in the file.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID

from fhir_records.errors import ObjectNotStorable

# PS3.7 section D.3.3.2: who wrote the file meta information.
IMPLEMENTATION_CLASS_UID = UID("2.25.197524273173479428651488144665189385294")
IMPLEMENTATION_VERSION_NAME = "WETREAD"
# (0002,0100): says that (0002,0102) is ours, and JSON.
PRIVATE_INFORMATION_CREATOR_UID = UID("2.25.299637243477413104341316687379172720516")

_PREFIX = bytes(128) + b"DICM"


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
    """Preamble, prefix and file meta information (PS3.10 section 7.1) to stand before the data set."""
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # corrected on writing
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = UID(received.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(received.sop_instance_uid)
    meta.TransferSyntaxUID = UID(received.transfer_syntax_uid)
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    if received.caller:
        meta.SourceApplicationEntityTitle = received.caller
        meta.SendingApplicationEntityTitle = received.caller
    if received.called:
        meta.ReceivingApplicationEntityTitle = received.called
    if received.address:
        meta.SourcePresentationAddress = f"dicom://{_host(received.address)}"
        meta.SendingPresentationAddress = f"dicom://{_host(received.address)}"
    meta.PrivateInformationCreatorUID = PRIVATE_INFORMATION_CREATOR_UID
    told = {"source": received.source, "address": received.address, "received_at": received.received_at.isoformat()}
    private = json.dumps(told, ensure_ascii=False).encode()
    meta.PrivateInformation = private + b" " * (len(private) % 2)
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta, enforce_standard=False)
    return _PREFIX + buffer.getvalue()


def split_file(content: bytes) -> tuple[FileMetaDataset, memoryview]:
    """The file meta information of a DICOM file, and its data set.

    Raises:
        ObjectNotStorable: it is no DICOM file with a group length and a transfer syntax.
    """
    if content[128:132] != b"DICM" or content[132:138] != b"\x02\x00\x00\x00UL" or len(content) < 144:
        raise ObjectNotStorable("not a DICOM file")
    end = 144 + struct.unpack("<L", content[140:144])[0]
    if end > len(content):
        raise ObjectNotStorable("the file ends early")
    try:
        meta = FileMetaDataset(read_dataset(io.BytesIO(content[132:end]), False, True))
    except Exception as error:  # boundary: pydicom raises whatever broken file meta information brings about
        raise ObjectNotStorable("the file meta information cannot be decoded") from error
    _drop_broken(meta)
    if not meta.get("TransferSyntaxUID"):
        raise ObjectNotStorable("the file meta information names no transfer syntax")
    return meta, memoryview(content)[end:]


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
