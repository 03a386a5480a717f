"""The pictures that the finder of burnt-in text learns from and is measured on: parted by patient, or by look-alikes.

Which file stands on which side follows from the splits that the shipped models were trained with, so that no head,
person or thumbnail is on both. Two whole DICOM series of heads and fruit stand on one side each.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dicom_listener.pixels import grey_frame, number_of_frames, read_header
from inference.burnt_in import levels_of
from inference.preprocess import PreprocessSettings, cut

TRAIN, TUNE, MEASURE = "train", "tune", "measure"
# Images of the public collections in which somebody has looked at them and seen text, by the first ten digits of the
# SHA-256 of the file: they teach and count as clean nowhere.
SEEN = Path(__file__).with_name("burnt_in_seen.txt")
_BUNDLES = Path(__file__).parents[1] / "bundles"
_FOLDERS = {
    "head": ("brain_mr_tumour", "brain_mr"),
    "film": ("chest_xr_pneumonia", "chest_xr"),
    "thumbnail": ("anatomy", "anatomy"),
}
# Objects of `dicom/`: whole folders, or one file where several hold the same picture.
_DICOM = {
    TRAIN: (
        "ge_fruit_mr",
        "assorted/eCT_Supplemental.dcm",
        "assorted/MR2_J2KI.dcm",
        "assorted/explicit_VR-UN.dcm",
    ),
    MEASURE: (
        "philips_brain_mr",
        "assorted/bad_sequence.dcm",
        "assorted/MR-SIEMENS-DICOM-WithOverlays.dcm",
        "assorted/emri_small.dcm",
        "transfer_syntaxes/CTImage.dcm_LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1.dcm",
    ),
}
_MARKED = ("CXR", "Hand")  # thumbnails of films, most of which have letters too small to be read
_FILMS = ("normal", "pneumonia")
_TUNE_EVERY = 12  # one in so many groups of the training side chooses the threshold


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture as it came."""

    kind: str  # head, film, thumbnail, or dicom/ and its folder
    name: str  # first ten digits of its file's SHA-256, and the frame
    grey: npt.NDArray[np.uint8]  # shape (rows, columns)


def pictures(data: Path, part: str) -> Iterator[Picture]:
    """The pictures under `data` of one part: `TRAIN`, `TUNE` (for the threshold) or `MEASURE`; without those `SEEN`."""
    seen = frozenset(SEEN.read_text(encoding="utf-8").split()) if SEEN.exists() else frozenset()
    for kind, (bundle, folder) in _FOLDERS.items():
        places = _places(_BUNDLES / bundle / "split.json")
        for file in sorted((data / folder).rglob("*.jp*g")):
            digest = _digest(file)
            if places.get(digest) == part and digest not in seen and file.parent.name not in _MARKED:
                with Image.open(file) as opened:
                    grey = np.asarray(opened.convert("L"))
                yield Picture(kind, digest, _without_margin(grey, file.parent.name, part))
    for path in _DICOM.get(part, ()):
        found = data / "dicom" / path
        for file in sorted(found.iterdir()) if found.is_dir() else [found]:
            for frame in range(1, number_of_frames(read_header(file)) + 1):
                grey = levels_of(grey_frame(file, frame))[0]
                yield Picture(f"dicom/{Path(path).stem}", f"{_digest(file)}.{frame}", grey)


def _without_margin(grey: npt.NDArray[np.uint8], folder: str, part: str) -> npt.NDArray[np.uint8]:
    """What may be taken for clean without a look at each: of these collections the margins have text now and then.

    Films have the time of day and the voltage at their right; slices of the class without tumours have what the
    consoles wrote around the head. Those of the last that are measured on were all looked at instead (`SEEN`).
    """
    if folder in _FILMS:
        return grey[:, : round(0.8 * grey.shape[1])]
    if folder == "notumor" and part != MEASURE:
        found = cut(grey.astype(np.float32), PreprocessSettings())
        return grey if found is None else np.where(found[1].mask, grey, 0).astype(np.uint8)
    return grey


def _places(split: Path) -> dict[str, str]:
    """The part of each file of a collection, by digest."""
    record = json.loads(split.read_text(encoding="utf-8"))
    places = {
        digest: MEASURE for name in ("calibration", "validation") for line in record[name] for digest in line.split()
    }
    for line in record["train"]:
        digests = line.split()
        part = TUNE if zlib.crc32(digests[0].encode()) % _TUNE_EVERY == 0 else TRAIN
        places.update(dict.fromkeys(digests, part))
    return places


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:10]
