"""Studies with things outlined whose pixels show where: the picture on the screen is itself the truth for the line."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from sqlalchemy import select
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.model import Code, ImageRef, Outlines, ReadState, SegmentMask, SegmentVolume
from fhir_records.store.outlines import add_outlines
from tests import seed

ROWS, COLUMNS = 96, 144
SLICES = 4
SPACING = (1.5, 1.1)  # mm, down and across: pixels that are not square
THICK = 5.0  # mm
STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
OBLIQUE = (0.8, 0.36, 0.48, 0.0, 0.8, -0.6)
MASS_COLOUR = (246, 186, 70)
OEDEMA_COLOUR = (86, 180, 233)
ABNORMAL = Code("SCT", "49755003", "Morphologically Abnormal Structure")
MASS = Code("SCT", "4147007", "Mass")
OEDEMA = Code("SCT", "79654002", "Edema")
ONLY_ON = 2  # the slice that the oedema is on; the last slice has nothing
MULTI_FRAME: Final = "1.2.840.10008.5.1.4.1.1.7.3"  # Multi-frame Grayscale Word Secondary Capture Image Storage

Mask = npt.NDArray[np.bool_]  # shape (ROWS, COLUMNS)


@dataclass(frozen=True, slots=True)
class Layout:
    """How the images of a study are made."""

    orientation: tuple[float, ...] = STRAIGHT
    reverse: bool = False  # the first image lies highest
    multi_frame: bool = False


_STRAIGHT = Layout()


def mass_on(number: int) -> Mask:
    """An F, which no turning or mirroring leaves as it is, on all but the last slice; further down each time."""
    mask = np.zeros((ROWS, COLUMNS), bool)
    if number < SLICES:
        top, left = 10 + 6 * number, 30 + 12 * number
        mask[top : top + 50, left : left + 8] = True
        mask[top : top + 8, left : left + 36] = True
        mask[top + 20 : top + 28, left : left + 26] = True
    return mask


def oedema_on(number: int) -> Mask:
    """A frame around a hole, at the image's edge, on one slice alone."""
    mask = np.zeros((ROWS, COLUMNS), bool)
    if number == ONLY_ON:
        mask[60:, 104:] = True
        mask[70:86, 114:134] = False
    return mask


def outlined_study(session: Session, number: int, layout: Layout = _STRAIGHT) -> seed.Seeded:
    """A study that was read by a model that outlines."""
    study = seed.add_study(session, number, images=1 if layout.multi_frame else SLICES)
    _size(session, study, layout)
    uid = seed.series_uid(study)
    images = [
        ImageRef(uid, f"{uid}.1", MULTI_FRAME, slice_number)
        if layout.multi_frame
        else ImageRef(uid, f"{uid}.{slice_number}", seed.MR)
        for slice_number in range(1, SLICES + 1)
    ]
    read = seed.add_read(session, study, ReadState.READ)
    finding = replace(
        seed.glioma(study),
        key_images=(images[0],),
        segments=(
            _segment("mass", MASS, MASS_COLOUR, [mass_on(number) for number in range(1, SLICES + 1)], 1),
            _segment("oedema", OEDEMA, OEDEMA_COLOUR, [oedema_on(number) for number in range(1, SLICES + 1)], 2),
        ),
    )
    result = seed.add_result(session, read, finding=finding)
    in_patient = images[::-1] if layout.reverse else images  # feet first
    add_outlines(session, read.id, Outlines(ROWS, COLUMNS, tuple(in_patient), tuple(_masks(images, in_patient))))
    return seed.Seeded(study.id, study.study_uid, read.id, result.id)


def write_images(root: Path, session: Session, study: seed.Seeded, layout: Layout = _STRAIGHT) -> None:
    """The files of the study's images: dark, and bright where the mass is."""
    instances = session.scalars(
        select(tables.Instance).where(tables.Instance.study_id == study.study_id).order_by(tables.Instance.id)
    ).all()
    datasets = seed.write_images(root, session, study.study_id)
    for ds, instance in zip(datasets, instances, strict=True):
        numbers = range(1, SLICES + 1) if layout.multi_frame else [instance.instance_number or 0]
        _fill(ds, numbers, layout)
        if layout.multi_frame:
            ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MULTI_FRAME
            ds.NumberOfFrames = SLICES
        ds.save_as(root / instance.file_key, enforce_file_format=True)


def _fill(ds: Dataset, numbers: Sequence[int], layout: Layout) -> None:
    across, down = np.array(layout.orientation[:3]), np.array(layout.orientation[3:])
    step = THICK * np.cross(across, down) * (-1 if layout.reverse else 1)
    ds.Rows, ds.Columns = ROWS, COLUMNS
    ds.PixelSpacing, ds.ImageOrientationPatient = list(SPACING), list(layout.orientation)
    ds.ImagePositionPatient = [round(float(value), 4) for value in numbers[0] * step]
    pixels = np.stack([np.where(mass_on(number), 900, 100) for number in numbers])
    ds.PixelData = pixels.astype(np.uint16).tobytes()


def _size(session: Session, study: tables.Study, layout: Layout) -> None:
    for row in session.scalars(select(tables.Instance).where(tables.Instance.study_id == study.id)):
        row.rows, row.columns = ROWS, COLUMNS
        if layout.multi_frame:
            row.sop_class_uid, row.number_of_frames = MULTI_FRAME, SLICES
    session.flush()


def _segment(label: str, code: Code, colour: tuple[int, int, int], masks: Sequence[Mask], number: int) -> SegmentVolume:
    volume = float(sum(mask.sum() for mask in masks)) * SPACING[0] * SPACING[1] * THICK
    return SegmentVolume(
        label=label,
        wording=label.capitalize(),
        code=code,
        category=ABNORMAL,
        site=seed.BRAIN,
        colour=colour,
        volume_mm3=round(volume, 1),
        tracking_id=f"{label} 1",
        tracking_uid=f"2.25.90{number}",
    )


def _masks(images: Sequence[ImageRef], in_patient: Sequence[ImageRef]) -> list[SegmentMask]:
    masks = []
    for segment, draw in ((1, mass_on), (2, oedema_on)):
        for place, image in enumerate(in_patient):
            mask = draw(images.index(image) + 1)
            if mask.any():
                masks.append(SegmentMask(segment, place, zlib.compress(np.packbits(mask).tobytes())))
    return masks
