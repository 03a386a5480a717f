"""Images for the anatomy classifier: thumbnails by anatomy, other collections brought down to their size, outliers.

All are given the thumbnails' poor resolution and their JPEG coding at times, so that sharpness tells no class.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from fhir_records.errors import TrainingError
from inference.preprocess import PreprocessSettings, cut
from inference.training.data import ImageSet
from inference.training.outliers import outlier

CLASSES = ("brain MR", "head CT", "chest CT", "abdomen CT", "chest film", "hand film", "breast MR", "other")
_SUFFIXES = {".jpg", ".jpeg", ".png"}
_THUMBNAIL = 64  # pixels a side


@dataclass(frozen=True, slots=True)
class AnatomySources:
    """Where the images of each class lie, and how many are taken."""

    folders: Mapping[str, Sequence[Path]]  # class → folders of images
    most: int = 900  # images of one class
    others: int = 2000  # made pictures of the class "other"
    seed: int = 20261120

    @classmethod
    def under(cls, data: Path) -> AnatomySources:
        """The public collections as they lie under `data`."""
        brain = [data / "brain_mr" / name for name in ("glioma", "meningioma", "notumor", "pituitary")]
        films = [data / "chest_xr" / name for name in ("normal", "pneumonia")]
        thumbnails = data / "anatomy"
        return cls(
            {
                "brain MR": brain,
                "head CT": [thumbnails / "HeadCT"],
                "chest CT": [thumbnails / "ChestCT"],
                "abdomen CT": [thumbnails / "AbdomenCT"],
                "chest film": [thumbnails / "CXR", *films],
                "hand film": [thumbnails / "Hand"],
                "breast MR": [thumbnails / "BreastMRI"],
            }
        )


def load_anatomy(sources: AnatomySources, preprocess: PreprocessSettings) -> ImageSet:
    """Images of all classes, preprocessed, and the outliers made. Raises TrainingError where a folder is empty."""
    rng = np.random.default_rng(sources.seed)
    squares: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    digests: list[str] = []
    skipped = 0
    for label, name in enumerate(CLASSES[:-1]):
        share = sources.most // len(sources.folders[name])
        for folder in sources.folders[name]:
            files = sorted(file for file in folder.glob("*") if file.suffix.lower() in _SUFFIXES)
            if not files:
                raise TrainingError(f"No images of {name!r} under {folder}.")
            for file in [files[i] for i in sorted(rng.permutation(len(files))[:share])]:
                square = _square(_degraded(Image.open(file).convert("L"), rng), preprocess)
                if square is None:
                    skipped += 1
                    continue
                squares.append(square)
                labels.append(label)
                digests.append(hashlib.sha256(file.read_bytes()).hexdigest()[:10])
    known = np.stack(squares)
    for number in range(sources.others):
        made = (outlier(known, preprocess.size, rng) * 255).astype(np.uint8)
        square = _square(_degraded(Image.fromarray(made), rng), preprocess)
        if square is None:
            continue
        squares.append(square)
        labels.append(len(CLASSES) - 1)
        digests.append(f"made{number:06d}")
    return ImageSet(np.stack(squares), np.array(labels, dtype=np.int64), tuple(digests), CLASSES, skipped)


def _degraded(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """At times scaled down to a thumbnail, at times coded as JPEG."""
    if max(image.size) > _THUMBNAIL and rng.random() < 0.7:
        image = image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BILINEAR)
    if rng.random() < 0.7:
        coded = io.BytesIO()
        image.save(coded, "JPEG", quality=int(rng.integers(60, 96)))
        image = Image.open(coded).convert("L")
    return image


def _square(image: Image.Image, preprocess: PreprocessSettings) -> npt.NDArray[np.uint8] | None:
    found = cut(np.asarray(image, dtype=np.float32), preprocess)
    return None if found is None else (found[0] * 255).astype(np.uint8)
