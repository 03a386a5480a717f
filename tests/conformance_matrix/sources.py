"""What results are about: every image of the test data, and made-up ones of other kinds, scripts and gaps."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom.uid as sop
from pydicom import config, dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID, generate_uid

from tests.conformance_matrix.scripts import SCRIPTS
from tests.peers import dciodvfy
from tests.unit.dicom_listener.objects import as_file
from tests.unit.fhir_records.renderings.sr_reports import header

FOLDERS = ("philips_brain_mr", "ge_fruit_mr", "transfer_syntaxes", "assorted", "sr_tid1500")

GROUPS = (
    *(f"files of {folder}" for folder in FOLDERS),
    "whole series",
    "modalities",
    "character sets",
    "type 2 missing",
    "type 2 empty",
    "faulty values",
)

# Attributes of type 2 of the modules that every image has (PS3.3 sections C.7.1.1, C.7.2.1, C.7.3.1, C.7.5.1, C.7.6.1),
# and those of types 2C and 3 that objects of ours take from their source.
TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "SeriesNumber",
    "Laterality",
    "Manufacturer",
    "InstanceNumber",
    "PatientOrientation",
    "StudyDescription",
    "SpecificCharacterSet",
)

_LOCAL = Dataset()
_LOCAL.CodeValue, _LOCAL.CodingSchemeDesignator, _LOCAL.CodeMeaning = "1", "99LOCAL", "Something"

# Values that their representation, or their table, does not allow.
FAULTY: Mapping[str, Mapping[str, object]] = {
    "sex": {"PatientSex": "X"},
    "birth date": {"PatientBirthDate": "1867.11.07"},
    "study date": {"StudyDate": "2026-03-01"},
    "study time": {"StudyTime": "25:00"},
    "long Patient ID": {"PatientID": "P" * 70},
    "long Accession Number": {"AccessionNumber": "A" * 20},
    "long Study ID": {"StudyID": "S" * 20},
    "long description": {"StudyDescription": "d" * 80},
    "name in one part": {"PatientName": "CURIE"},
    "name with too many parts": {"PatientName": "A^B^C^D^E^F^G"},
    "unknown character set": {"SpecificCharacterSet": "ISO_IR 999"},
    "misspelt character set": {"SpecificCharacterSet": "ISO-IR 100", "PatientName": "Moller^Agir"},
    "UID with a leading zero": {"StudyInstanceUID": "1.2.840.0123.4"},
    "de-identified without method": {"PatientIdentityRemoved": "YES"},
    "procedure in a scheme of its own": {"ProcedureCodeSequence": [_LOCAL]},
    "readers as dashes": {"NamesOfPhysiciansReadingStudy": "----"},
    "zone": {"TimezoneOffsetFromUTC": "+0530"},
    "two Study IDs": {"StudyID": ["S1", "S2"]},
    "two names": {"PatientName": ["Curie^Marie", "Sklodowska^Maria"]},
    "body part in words": {"BodyPartExamined": "Head & neck"},
}

_PLANE = {
    "PixelSpacing": [0.5, 0.75],
    "SliceThickness": 2.0,
    "ImagePositionPatient": [0, 0, 2],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
}
_PROJECTED = {"FrameOfReferenceUID": None, "PixelSpacing": None, "ImagerPixelSpacing": [0.2, 0.2]}

# Kinds of images of which there is no file, by SOP class.
KINDS: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "CR": (sop.ComputedRadiographyImageStorage, {"Modality": "CR", "ViewPosition": "AP", **_PROJECTED}),
    "DX": (sop.DigitalXRayImageStorageForPresentation, {"Modality": "DX", "PatientOrientation": ["L", "F"]}),
    "MG": (
        sop.DigitalMammographyXRayImageStorageForPresentation,
        {"Modality": "MG", "ImageLaterality": "R", "PatientOrientation": ["P", "L"], **_PROJECTED},
    ),
    "CT": (sop.CTImageStorage, {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024, **_PLANE}),
    "MR": (sop.MRImageStorage, {"Modality": "MR", **_PLANE}),
    "PT": (sop.PositronEmissionTomographyImageStorage, {"Modality": "PT", **_PLANE}),
    "NM, multi-frame": (sop.NuclearMedicineImageStorage, {"Modality": "NM", "NumberOfFrames": 3}),
    "XA, multi-frame": (sop.XRayAngiographicImageStorage, {"Modality": "XA", "NumberOfFrames": 3}),
    "US": (sop.UltrasoundImageStorage, {"Modality": "US", "BurnedInAnnotation": "YES", **_PROJECTED}),
    "US, multi-frame": (sop.UltrasoundMultiFrameImageStorage, {"Modality": "US", "NumberOfFrames": 3}),
    "SC": (sop.SecondaryCaptureImageStorage, {"Modality": "OT", "ConversionType": "WSD", **_PROJECTED}),
    "SC, multi-frame": (
        sop.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        {"Modality": "OT", "ConversionType": "WSD", "NumberOfFrames": 3, **_PROJECTED},
    ),
    "unknown modality": (sop.SecondaryCaptureImageStorage, {"Modality": "XX", "ConversionType": "WSD", **_PROJECTED}),
}
_GAPS_IN = ("MR", "CT", "CR", "SC")


@dataclass(frozen=True, slots=True)
class Source:
    """Images of one study that a result is about."""

    group: str
    name: str
    paths: tuple[Path, ...]

    def evidence(self) -> list[Dataset]:
        """Their headers, as the product reads them."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [dcmread(path, stop_before_pixels=True) for path in self.paths]

    def known(self) -> frozenset[str]:
        """What `dciodvfy` says of the first and last of them: what is passed on is not of our making."""
        return frozenset(line for path in {self.paths[0], self.paths[-1]} for line in _said(path))


@functools.lru_cache(maxsize=64)
def _said(path: Path) -> tuple[str, ...]:
    said = dciodvfy(path)
    return (*said.errors, *said.warnings)


def files(test_data: Path) -> Iterator[Source]:
    """Every image of the test data alone, and the two series whole."""
    for folder in FOLDERS:
        paths = sorted((test_data / "dicom" / folder).glob("*.dcm"))
        images = [path for path in paths if _is_image(path)]
        for path in images:
            yield Source(f"files of {folder}", path.name, (path,))
        if folder in ("philips_brain_mr", "ge_fruit_mr"):
            yield Source("whole series", folder, tuple(images))


def some_of(sources: Sequence[Source], most: int) -> list[Source]:
    """At most so many sources of each group, spread evenly over it; all of those that are of few kinds anyway."""
    found: list[Source] = []
    for group in GROUPS:
        members = [one for one in sources if one.group == group]
        count = len(members) if group in ("modalities", "character sets") else min(most, len(members))
        found += [members[number * len(members) // count] for number in range(count)]
    return found


def left_out(test_data: Path) -> list[str]:
    """The files of the test data that are no images, or lack what storage needs."""
    paths = [path for folder in FOLDERS for path in sorted((test_data / "dicom" / folder).glob("*.dcm"))]
    return [path.name for path in paths if not _is_image(path)]


def _is_image(path: Path) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = dcmread(path, stop_before_pixels=True)
            ds.decode()
    except (InvalidDicomError, OSError, ValueError):
        return False
    # Without these UIDs an object is turned away at the door (PS3.4 section B.2.3).
    uids = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    return "Rows" in ds and all(ds.get(keyword) for keyword in uids)


def made_up(folder: Path) -> Iterator[Source]:
    """Images of every other kind, script and gap, written into `folder`."""
    for name in KINDS:
        yield _made(folder, "modalities", name, name, {})
    for name, script in SCRIPTS.items():
        words = {"SpecificCharacterSet": script.terms, "PatientName": script.name, "StudyDescription": script.words}
        yield _made(folder, "character sets", name, "MR", words)
    for kind in _GAPS_IN:
        for keyword in TYPE_2:
            yield _made(folder, "type 2 missing", f"{kind} without {keyword}", kind, {keyword: None})
            yield _made(folder, "type 2 empty", f"{kind} with an empty {keyword}", kind, {keyword: ""})
        nothing = dict.fromkeys(TYPE_2)
        yield _made(folder, "type 2 missing", f"{kind} without any", kind, nothing)
        yield _made(folder, "type 2 empty", f"{kind} with all empty", kind, dict.fromkeys(TYPE_2, ""))
    for name, faulty in FAULTY.items():
        yield _made(folder, "faulty values", name, "MR", faulty)


def _made(folder: Path, group: str, name: str, kind: str, changed: Mapping[str, object]) -> Source:
    sop_class, attributes = KINDS[kind]
    told = {"Manufacturer": "Maker", "SeriesNumber": 1, "InstanceNumber": 1, **attributes, **changed}
    uids = {
        f"{one}InstanceUID": generate_uid(prefix=None, entropy_srcs=[group, name, one])
        for one in ("SOP", "Series", "Study")
    }
    path = folder / f"{uids['SOPInstanceUID']}.dcm"
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        ds = header(**{"SOPClassUID": UID(sop_class), "Laterality": "", **uids, **told})
        _add_pixels(ds)
        path.write_bytes(as_file(ds))
    return Source(group, name, (path,))


def _add_pixels(ds: Dataset) -> None:
    frames, rows, columns = int(ds.get("NumberOfFrames") or 1), int(ds.Rows), int(ds.Columns)
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    values = np.rint(2000 * (x + y) * ((x - 0.5) ** 2 + (y - 0.5) ** 2 < 0.2)).astype("<u2")
    ds.PixelData = np.broadcast_to(values, (frames, rows, columns)).tobytes()
