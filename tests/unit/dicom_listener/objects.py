"""Small DICOM objects made for tests."""

from __future__ import annotations

import datetime as dt
import io
import zlib
from typing import Any

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from dicom_listener.received import Received, split_file
from dicom_listener.transfer_syntaxes import transfer_syntax

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
BASIC_TEXT_SR = "1.2.840.10008.5.1.4.1.1.88.11"
RECEIVED_AT = dt.datetime(2026, 11, 20, 12, 0, tzinfo=dt.UTC)


def image(**changed: Any) -> Dataset:
    """A small MR image; ``changed`` sets attributes, None removes them."""
    ds = Dataset()
    ds.SOPClassUID = MR_IMAGE
    ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID = generate_uid()
    ds.SeriesInstanceUID = generate_uid()
    ds.PatientID = "PAT1"
    ds.PatientName = "Test^One"
    ds.PatientBirthDate = "19700102"
    ds.PatientSex = "F"
    ds.StudyDate, ds.StudyTime = "20261120", "093000"
    ds.AccessionNumber = "ACC1"
    ds.Modality = "MR"
    ds.SeriesNumber, ds.InstanceNumber = 1, 1
    ds.Rows, ds.Columns = 4, 6
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.PixelData = np.arange(24, dtype="<u2").tobytes()
    for keyword, value in changed.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def report(**changed: Any) -> Dataset:
    """A structured report without content."""
    ds = image(SOPClassUID=BASIC_TEXT_SR, Modality="SR", Rows=None, Columns=None, PixelData=None, **changed)
    for keyword in ("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit"):
        delattr(ds, keyword)
    del ds.PixelRepresentation
    return ds


def as_file(ds: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> bytes:
    """``ds`` as a DICOM file."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID") or UID("1.2.3")
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID") or UID("1.2.3.4")
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    return buffer.getvalue()


def encoded(ds: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian) -> bytes:
    """The encoded data set of ``ds``, as C-STORE carries it."""
    return bytes(split_file(as_file(ds, transfer_syntax_uid))[1])


def with_transfer_syntax(content: bytes, transfer_syntax_uid: str) -> bytes:
    """A file of `as_file` that names another transfer syntax; its data set is deflated where that is so, or stays."""
    meta, data_set = split_file(content)
    if transfer_syntax(transfer_syntax_uid).is_deflated:
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        data_set = memoryview(deflater.compress(data_set) + deflater.flush())
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    buffer = DicomBytesIO()
    write_file_meta_info(buffer, meta)
    return bytes(128) + b"DICM" + buffer.getvalue() + bytes(data_set)


def received(ds: Dataset, transfer_syntax_uid: str = ExplicitVRLittleEndian, **changed: Any) -> Received:
    """How ``ds`` came."""
    told: dict[str, Any] = {
        "sop_class_uid": str(ds.get("SOPClassUID", "")),
        "sop_instance_uid": str(ds.get("SOPInstanceUID", "")),
        "transfer_syntax_uid": str(transfer_syntax_uid),
        "source": "dicom:CT1",
        "caller": "CT1",
        "called": "WETREAD",
        "address": "10.0.0.5",
        "received_at": RECEIVED_AT,
    }
    return Received(**(told | changed))
