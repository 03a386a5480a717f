"""The sample study: a head phantom as MR Image Storage objects, made by our own code because no scan may be shipped.

The pixels come from `deploy.phantom_head`; here they get the headers of a study of brain slices after contrast agent
(PS3.3 section A.4), complete under `dciodvfy`, under a name that nobody could take for a person's.
"""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

from deploy import phantom_head
from fhir_records.identities import UUID_UID_ROOT, name_uid

# Stored value of the brightest tissue; 12 of the 16 bits are used, as scanners do.
_FULL_SCALE = 3000
_MAX_STORED = 4095

_IMPLEMENTATION_CLASS_UID = "2.25.278061325446527153207413170452160357229"
_IMPLEMENTATION_VERSION = "WETREAD_PHANTOM"


@dataclass(frozen=True, slots=True)
class _Identity:
    """What all objects of one phantom study share."""

    study_uid: str
    acquired_at: dt.datetime  # in the local time that the header states

    def uid(self, *parts: str | int) -> str:
        """A UID that follows from the study's, so that the same study can be made again."""
        return name_uid(uuid.uuid5(uuid.NAMESPACE_OID, self.study_uid), *parts)


def phantom_study(
    seed: int = 0,
    slices: int = 24,
    lesion: bool = True,
    *,
    study_uid: str | None = None,
    acquired_at: dt.datetime | None = None,
) -> list[Dataset]:
    """A study of one axial T1-weighted series after contrast agent, feet to head; deterministic but for its UIDs.

    Args:
        seed: of the folds, the noise, and the lesion's place and size; any non-negative number.
        slices: how many images, at least 8; the head is cut into so many.
        lesion: whether there is a rim-enhancing mass.
        study_uid: its Study Instance UID, from which its other UIDs follow; new ones if not given.
        acquired_at: the date and time that it states; now, in UTC, if not given.

    Returns:
        One dataset an image, 256 by 256 pixels of 16 bits, with file meta information, ready to be saved or sent.

    Raises:
        ValueError: fewer than 8 slices.
    """
    if slices < 8:
        raise ValueError(f"slices is {slices}; at least 8 are needed to show a head")
    random = np.random.default_rng(seed)
    mass = phantom_head.random_lesion(random) if lesion else None
    signal = phantom_head.magnitude(random, phantom_head.head_volume(random, slices, mass))
    stored = np.clip(np.rint(signal * _FULL_SCALE), 0, _MAX_STORED).astype("<u2")
    identity = _Identity(
        study_uid=study_uid or f"{UUID_UID_ROOT}.{uuid.uuid4().int}",
        acquired_at=acquired_at or dt.datetime.now(dt.UTC),
    )
    positions = phantom_head.slice_positions(slices)
    return [
        _image(identity, number, z, phantom_head.slice_spacing(slices), pixels)
        for number, (z, pixels) in enumerate(zip(positions, stored, strict=True), start=1)
    ]


def write_study(datasets: Iterable[Dataset], folder: Path) -> list[Path]:
    """Write each dataset as a DICOM file (PS3.10) into ``folder``, which is made; returns their paths in order."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for ds in datasets:
        path = folder / f"{int(ds.InstanceNumber):04d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _image(identity: _Identity, number: int, z: float, spacing: float, pixels: phantom_head.Stored) -> Dataset:
    ds = Dataset()
    _add_patient_and_study(ds, identity)
    _add_series_and_equipment(ds, identity)
    _add_acquisition(ds, spacing)
    _add_general_image(ds, identity, number)
    _add_plane(ds, z)
    _add_pixels(ds, pixels)
    ds.SOPClassUID = MRImageStorage
    ds.SOPInstanceUID = identity.uid("image", number)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = UID(_IMPLEMENTATION_CLASS_UID)
    ds.file_meta.ImplementationVersionName = _IMPLEMENTATION_VERSION
    return ds


def _add_patient_and_study(ds: Dataset, identity: _Identity) -> None:
    """PS3.3 sections C.7.1.1, C.7.2.1 and C.7.2.2."""
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName = "Phantom^Wetread"
    ds.PatientID = "WETREAD-DEMO"
    ds.PatientBirthDate = ""
    ds.PatientSex = "O"
    ds.PatientComments = "Computed head phantom; not a person"
    ds.StudyInstanceUID = identity.study_uid
    ds.StudyDate = identity.acquired_at.strftime("%Y%m%d")
    ds.StudyTime = identity.acquired_at.strftime("%H%M%S")
    ds.TimezoneOffsetFromUTC = (identity.acquired_at.strftime("%z") or "+0000")[:5]
    ds.StudyID = "PHANTOM"
    ds.AccessionNumber = ""
    ds.ReferringPhysicianName = ""
    ds.StudyDescription = "MR brain with contrast (phantom)"


def _add_series_and_equipment(ds: Dataset, identity: _Identity) -> None:
    """PS3.3 sections C.7.3.1, C.7.4.1 and C.7.5.1."""
    ds.Modality = "MR"
    ds.SeriesInstanceUID = identity.uid("series")
    ds.SeriesNumber = 1
    ds.SeriesDate, ds.SeriesTime = ds.StudyDate, ds.StudyTime
    ds.SeriesDescription = "T1 axial with contrast"
    ds.BodyPartExamined = "BRAIN"
    ds.PatientPosition = "HFS"
    ds.FrameOfReferenceUID = identity.uid("frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.Manufacturer = "Wetread"
    ds.ManufacturerModelName = "Head phantom"
    ds.DeviceSerialNumber = "0"
    ds.SoftwareVersions = "1"


def _add_acquisition(ds: Dataset, spacing: float) -> None:
    """PS3.3 sections C.7.6.4 and C.8.3.1: a spin echo after gadolinium."""
    ds.ContrastBolusAgent = "Gadolinium (simulated)"
    ds.ContrastBolusRoute = "INTRAVENOUS"
    ds.ScanningSequence = "SE"
    ds.SequenceVariant = "NONE"
    ds.ScanOptions = ""
    ds.MRAcquisitionType = "2D"
    ds.RepetitionTime = "550"
    ds.EchoTime = "12"
    ds.EchoTrainLength = 1
    ds.FlipAngle = "90"
    ds.MagneticFieldStrength = "1.5"
    ds.SliceThickness = f"{spacing:.6g}"
    ds.SpacingBetweenSlices = f"{spacing:.6g}"


def _add_general_image(ds: Dataset, identity: _Identity, number: int) -> None:
    """PS3.3 section C.7.6.1."""
    ds.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    ds.AcquisitionNumber = 1
    ds.InstanceNumber = number
    ds.AcquisitionDate, ds.AcquisitionTime = ds.StudyDate, ds.StudyTime
    ds.ContentDate, ds.ContentTime = ds.StudyDate, ds.StudyTime
    ds.InstanceCreationDate, ds.InstanceCreationTime = ds.StudyDate, ds.StudyTime
    ds.InstanceCreatorUID = identity.uid("creator")
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"


def _add_plane(ds: Dataset, z: float) -> None:
    """PS3.3 section C.7.6.2: rows run to the left, columns to the back, seen from the feet."""
    origin = phantom_head.pixel_origin()
    ds.PixelSpacing = [f"{phantom_head.PIXEL_MM:.6g}"] * 2
    ds.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    ds.ImagePositionPatient = [f"{origin:.6g}", f"{origin:.6g}", f"{z:.6g}"]
    ds.SliceLocation = f"{z:.6g}"


def _add_pixels(ds: Dataset, pixels: phantom_head.Stored) -> None:
    """PS3.3 sections C.7.6.3 and C.11.2."""
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = 16
    ds.BitsStored = 12
    ds.HighBit = 11
    ds.PixelRepresentation = 0
    ds.WindowCenter = str(_FULL_SCALE // 2)
    ds.WindowWidth = str(_FULL_SCALE)
    ds.PixelData = pixels.tobytes()
    ds["PixelData"].VR = "OW"
