"""One frame of a stored image as a DICOM image of its own that does not tell whose it is.

The Basic Application Level Confidentiality Profile (PS3.15 section E.2, without options) as `dicom-anonymizer` carries
it out, over what `kept_attributes` lets stay. The pixels are decoded and written anew, so that nothing travels in the
comments of a compressed stream, in unused bits, in overlays or behind the last element. Place and number of the slice
in its stack go too: a head's slices cannot be put together to a face again.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_listener.kept_attributes import kept
from dicom_listener.leftovers import PROFILE_EDITION, PROFILE_TABLE, identifying_values, leftovers
from dicom_listener.lookup import frame_attributes, modality_values
from dicom_listener.pixels import NativeFrame, native_frame, read_header
from dicom_listener.received import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from fhir_records.errors import MayNotLeave
from fhir_records.pseudonyms import Pseudonyms

_CR, _DX, _DX_RAW = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1.1"
_MG, _MG_RAW = "1.2.840.10008.5.1.4.1.1.1.2", "1.2.840.10008.5.1.4.1.1.1.2.1"
_CT, _MR, _PT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.128"
# Classes whose pixels are the scanner's alone (PS3.4 section B.5), and what one frame of them is written as, with its
# modality. Screen shots, secondary captures, ultrasound, endoscopy and the like carry text as a rule.
WRITTEN_AS: Mapping[str, tuple[str, str]] = {
    _CR: (_CR, "CR"),
    _DX: (_DX, "DX"),
    _DX_RAW: (_DX_RAW, "DX"),
    _MG: (_MG, "MG"),
    _MG_RAW: (_MG_RAW, "MG"),
    _CT: (_CT, "CT"),
    "1.2.840.10008.5.1.4.1.1.2.1": (_CT, "CT"),  # enhanced
    "1.2.840.10008.5.1.4.1.1.2.2": (_CT, "CT"),  # legacy converted enhanced
    _MR: (_MR, "MR"),
    "1.2.840.10008.5.1.4.1.1.4.1": (_MR, "MR"),
    "1.2.840.10008.5.1.4.1.1.4.4": (_MR, "MR"),
    _PT: (_PT, "PT"),
    "1.2.840.10008.5.1.4.1.1.130": (_PT, "PT"),
    "1.2.840.10008.5.1.4.1.1.128.1": (_PT, "PT"),
}
_STACKED = (_CT, _MR, _PT)
# What the profile replaces or empties, and the object needs (type 1 and 2): carried to the library, which does so.
_NEEDED = (
    "SOPInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID",
    "PatientBirthDate", "PatientSex", "StudyInstanceUID", "SeriesInstanceUID", "StudyID", "FrameOfReferenceUID",
    "PositionReferenceIndicator",
)  # fmt: skip
# Type 2 of the modules of one modality (PS3.3 sections C.8.2.1, C.8.3.1): empty where nothing stays.
_TYPE_2: Mapping[str, tuple[str, ...]] = {
    "CT": ("KVP", "AcquisitionNumber", "SliceThickness", "PatientPosition"),
    "MR": (
        "SliceThickness",
        "PatientPosition",
        "ScanOptions",
        "MRAcquisitionType",
        "RepetitionTime",
        "EchoTime",
        "EchoTrainLength",
    ),
}
_EMPTY_TYPE_2 = ("StudyDate", "StudyTime", "PatientBirthDate")  # the library's dummy date would be a date
# PS3.16 CID 7050
_METHOD = (("113100", "Basic Application Confidentiality Profile"),)


def deidentified(path: str | Path, frame: int, person: str, pseudonyms: Pseudonyms) -> tuple[Dataset, NativeFrame]:
    """Frame ``frame`` (from 1) of the image at ``path`` without its person, and its pixels.

    Args:
        path: the stored object.
        frame: from 1.
        person: the pseudonym that stands in Patient ID and Patient's Name.
        pseudonyms: what UIDs are replaced by.

    Raises:
        PixelsNotReadable: it cannot be decoded.
        MayNotLeave: its class is none of `WRITTEN_AS`, it is in colour, or something of the person would be left.
    """
    header = read_header(path)
    sop_class_uid = str(header.get("SOPClassUID") or "")
    if sop_class_uid not in WRITTEN_AS:
        raise MayNotLeave("Images of its SOP class often have text in their pixels.")
    native = native_frame(path, frame)
    is_grey = native.photometric_interpretation in ("MONOCHROME1", "MONOCHROME2")  # no palette either
    if not is_grey or native.pixels.dtype.kind not in "iu" or native.pixels.dtype.itemsize > 4:
        raise MayNotLeave("Its pixels are in colour, or no whole numbers.")
    written_class, modality = WRITTEN_AS[sop_class_uid]
    ds = kept(header, frame)
    for keyword in _NEEDED:
        value = header.get(keyword)
        setattr(ds, keyword, "" if value is None else value)
    source_uid = str(header.get("SOPInstanceUID") or "")
    _apply_profile(ds, pseudonyms)
    ds.SOPClassUID, ds.Modality = written_class, modality
    ds.SOPInstanceUID = pseudonyms.uid(source_uid, frame)
    ds.PatientID = ds.PatientName = person
    for keyword in _EMPTY_TYPE_2:
        setattr(ds, keyword, "")
    ds.SeriesNumber, ds.InstanceNumber = None, None
    _complete(ds)
    if written_class in _STACKED:
        # Each slice in a space of its own: where it lay among the others is not told.
        ds.FrameOfReferenceUID = pseudonyms.uid("space", source_uid, frame)
        ds.PositionReferenceIndicator = ""
        ds.ImagePositionPatient = [0, 0, 0]
    else:
        del ds.FrameOfReferenceUID, ds.PositionReferenceIndicator
    _say_how(ds)
    _put_pixels(ds, header, frame, native)
    _look_again(ds, header)
    return ds, native


def file_of(ds: Dataset) -> bytes:
    """The bytes of a DICOM file (PS3.10) of a de-identified image, Explicit VR Little Endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    ds.file_meta = meta
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _apply_profile(ds: Dataset, pseudonyms: Pseudonyms) -> None:
    """Table E.1-1 as the library has it, with our UIDs, which are the same in every export, in place of random ones."""

    def replace_uid(dataset: Dataset, tag: tuple[int, int]) -> None:
        element = dataset.get(tag)
        if element is not None and element.value:
            element.value = pseudonyms.uid(str(element.value))

    def rules() -> dict[tuple[int, ...], Callable[..., None]]:
        listed: dict[tuple[int, ...], Callable[..., None]] = initialize_actions(PROFILE_TABLE)
        return {tag: replace_uid if action.__name__ == "replace_UID" else action for tag, action in listed.items()}

    try:
        anonymize_dataset(ds, None, True, rules)
    except (NotImplementedError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise MayNotLeave("Its header cannot be de-identified.") from error


def _complete(ds: Dataset) -> None:
    """Put in what the object must have and the header did not give, as what it is: unknown."""
    for keyword in _TYPE_2.get(ds.Modality, ()):
        if keyword not in ds:
            setattr(ds, keyword, None)
    if ds.Modality == "MR":
        ds.ScanningSequence = ds.get("ScanningSequence") or "RM"
        ds.SequenceVariant = ds.get("SequenceVariant") or "NONE"
        if "InversionTime" in ds and "IR" not in str(ds.ScanningSequence):
            del ds.InversionTime
    if ds.Modality in ("CT", "MR") and len(ds.ImageType) < 3:
        ds.ImageType = [*ds.ImageType, "OTHER" if ds.Modality == "MR" else "AXIAL"]
    if not any(keyword in ds for keyword in ("BodyPartExamined", "Laterality", "ImageLaterality")):
        ds.Laterality = ""


def _say_how(ds: Dataset) -> None:
    """PS3.15 section E.1.1: what was done is said in the object."""
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = [
        f"dicom-anonymizer {version('dicom-anonymizer')}, PS3.15 {PROFILE_EDITION}",
        "Attributes outside a fixed list removed",
        "Place of slices removed, pixels written anew",
    ]
    ds.DeidentificationMethodCodeSequence = [_code(value, meaning) for value, meaning in _METHOD]
    ds.LongitudinalTemporalInformationModified = "REMOVED"


def _code(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _put_pixels(ds: Dataset, header: Dataset, frame: int, native: NativeFrame) -> None:
    pixels: np.ndarray[Any, Any] = native.pixels
    bits, stored = native.bits_allocated, native.bits_stored
    signed = native.pixel_representation
    transformation = frame_attributes(header, frame)
    if "ModalityLUTSequence" in transformation:  # a table of numbers can hold anything: its outcome stands instead
        pixels = np.rint(modality_values(pixels, transformation)).astype(np.int32)
        bits, stored, signed = 32, 32, 1
    elif stored < bits:  # an overlay may lie in the high bits (PS3.5 section 8.1.1); shifting keeps the sign
        pixels = (pixels << (bits - stored)) >> (bits - stored)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, native.photometric_interpretation
    ds.Rows, ds.Columns = pixels.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, stored, stored - 1, signed
    if "PixelPaddingValue" in ds:
        ds["PixelPaddingValue"].VR = "SS" if signed else "US"
    little = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    ds.add_new("PixelData", "OB" if bits == 8 else "OW", little + b"\0" * (len(little) % 2))


def _look_again(ds: Dataset, header: Dataset) -> None:
    """Read the finished header's bytes for anything that the original said of its person."""
    shell = Dataset()
    shell.update({tag: element for tag, element in ds.items() if element.tag != 0x7FE00010})
    left = leftovers(file_of(shell), identifying_values(header))
    if left:
        raise MayNotLeave(f"{left} values that tell whose it is would be left in its header.")
