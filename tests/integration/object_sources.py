"""Real and made-up images of every kind, the results about them, and the objects that these are written as."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_listener.pixels import display_frame
from fhir_records.errors import PixelsNotReadable
from fhir_records.model import Finding, ImageRef, Refusal, Report, SaliencyMap
from fhir_records.renderings.dicom_file import DicomObject
from fhir_records.renderings.frame_place import pixel_aspect
from fhir_records.renderings.kinds import KIND_OF_WORD
from fhir_records.renderings.objects import render_objects
from fhir_records.renderings.result_page import KeyPicture
from fhir_records.renderings.segmentation import Segment
from tests.unit.fhir_records.renderings.sr_reports import ABSENT, PRESENT, REFUSAL, ref, report_of

SAID: Mapping[str, Finding | Refusal] = {"absent": ABSENT, "present": PRESENT, "refused": REFUSAL}

# Of every kind: CT, MR, ultrasound, secondary capture, multi-frame, enhanced, big endian, UN elements.
SOURCES = (
    "transfer_syntaxes/CTImage.dcm",
    "assorted/emri_small.dcm",
    "assorted/emri_small_big_endian.dcm",
    "assorted/eCT_Supplemental.dcm",
    "assorted/SC_rgb_dcmtk_ebcr_dcmd.dcm",
    "assorted/OBXXXX1A_rle_2frame.dcm",
    "assorted/US1_J2KR.dcm",
    "assorted/JPEG-LL.dcm",
    "assorted/MR2_J2KI.dcm",
    "assorted/MR-SIEMENS-DICOM-WithOverlays.dcm",
    "assorted/explicit_VR-UN.dcm",
    "assorted/gdcm-US-ALOKA-16.dcm",
)


def blob(image: ImageRef, label: str, rows: int = 48, columns: int = 64) -> SaliencyMap:
    """A round map a little off the middle."""
    y, x = np.mgrid[0:rows, 0:columns]
    levels = np.rint(255 * np.exp(-((y - rows * 0.4) ** 2 + (x - columns * 0.55) ** 2) / (rows * columns / 50)))
    return SaliencyMap(image, label, rows, columns, 3.2, levels.astype(np.uint8).tobytes())


def frame_ref(header: Dataset, frame: int) -> ImageRef:
    """A reference to a frame, or to the whole of a single-frame image."""
    return ref(header, frame if int(header.get("NumberOfFrames") or 1) > 1 else None)


def picture_of(path: Path, header: Dataset, image: ImageRef, found: SaliencyMap | None) -> KeyPicture | None:
    """The key image as the product draws it; None where it cannot be decoded."""
    try:
        pixels = display_frame(path, image.frame or 1)
    except PixelsNotReadable:
        return None
    return KeyPicture(image, pixels, found, pixel_aspect(header, image.frame))


def objects_about(paths: Sequence[Path], said: Finding | Refusal) -> tuple[Report, dict[str, DicomObject]]:
    """Every object of a result that says this about these images, by kind; the last image is key."""
    evidence = [dcmread(path, stop_before_pixels=True) for path in paths]
    key = frame_ref(evidence[-1], 2)
    report = report_of(evidence, said, key_images=[key, frame_ref(evidence[0], 1)])
    if not isinstance(said, Finding):
        return report, rendered(report, evidence)
    maps = [blob(image, said.label) for image in dict.fromkeys((key, frame_ref(evidence[0], 1)))]
    return report, rendered(report, evidence, maps, picture_of(paths[-1], evidence[-1], key, maps[0]))


def rendered(
    report: Report,
    evidence: Sequence[Dataset],
    maps: Sequence[SaliencyMap] = (),
    picture: KeyPicture | None = None,
    segments: Sequence[Segment] = (),
) -> dict[str, DicomObject]:
    """Every object of the report; it is an error of the test where one does not come out."""
    every = set(KIND_OF_WORD.values())
    made = list(render_objects(report, evidence, every, maps=maps, picture=picture, segments=segments))
    objects = {one.kind: one for one in made if isinstance(one, DicomObject)}
    assert len(objects) == len(made), made
    return objects


def data_set(made: DicomObject) -> Dataset:
    """The object as pydicom reads it."""
    return dcmread(io.BytesIO(made.content))
