"""How good a registered model is on a folder of images, as it is served: ONNX, contract, guards. Loads no torch."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from dicom_listener.pixels import grey_frame, read_header
from fhir_records.errors import ModelFailed, PixelsNotReadable
from inference.anatomy import AnatomyGuard
from inference.answers import Refused
from inference.backends import Backend
from inference.backends.onnx import OnnxBackend
from inference.classify import calibrated_log_probabilities
from inference.contract import Contract
from inference.preprocess import prepare
from inference.registry import RegisteredModel
from inference.suitability import check, facts_of

Floats = npt.NDArray[np.float32]

_PICTURES = {".jpg", ".jpeg", ".png"}
_BATCH = 32
_BINS = 15
_DRAWS = 1000


def evaluate_folder(model: RegisteredModel, data: Path, *, out_of_scope: bool = False) -> dict[str, Any]:
    """The model's figures on single images, each judged alone.

    `data` has one sub-folder a class, named by the model's labels; JPEG, PNG and DICOM count, other files do not. Or it
    is a CSV with the columns path (from the file's own folder), label and, where it is known, person. With
    `out_of_scope` any tree of folders will do, and only "images" and "refused" are counted. Accuracy, balanced
    accuracy, calibration error and the figures per class are over the images that were not refused; a figure that has
    no meaning there (a class without images) is None. A JPEG or PNG has no header, so the guards on pixels alone judge
    it; a DICOM object must meet the contract's requirements of a single image, too. The interval of the balanced
    accuracy (95 %, bootstrap) draws persons anew, or images where nobody says whose they are. Raises ModelFailed where
    there are no images, or a CSV names what is none.
    """
    if model.contract.segmentation is not None:
        raise ModelFailed(f"{model.name} outlines what it sees in whole series; single images are no measure of it.")
    labels = [item.label for item in model.contract.classes]
    files = _listed(data, labels) if data.is_file() else _found(data, None if out_of_scope else labels)
    if not files:
        wanted = "images" if out_of_scope else f"images in sub-folders named {', '.join(labels)}"
        raise ModelFailed(f"There are no {wanted} under the folder.")
    judged = list(ImageReader.of(model).judge([file for file, _, _ in files]))
    refused = sum(row is None for row in judged)
    if out_of_scope:
        return {"images": len(files), "refused": refused}
    kept = [(label, whose, row) for (_, label, whose), row in zip(files, judged, strict=True) if row is not None]
    truth = np.array([label for label, _, _ in kept], dtype=np.int64)
    probabilities = np.array([row for _, _, row in kept], dtype=np.float64).reshape(len(kept), len(labels))
    found = figures(probabilities, truth, labels)
    low, high = _interval(probabilities, truth, [whose for _, whose, _ in kept])
    return {
        "images": len(files),
        "refused": refused,
        "accuracy": found.pop("accuracy"),
        "balanced_accuracy": found.pop("balanced_accuracy"),
        "balanced_accuracy_low": low,
        "balanced_accuracy_high": high,
        **found,
    }


def _found(data: Path, labels: Sequence[str] | None) -> list[tuple[Path, int, str]]:
    """Each image with its label's number and whose it is: of a tree of folders, nobody knows."""
    return [
        (file, number, str(file))
        for number, name in enumerate(labels or [""])
        for file in sorted((data / name).rglob("*"))
        if _is_image(file)
    ]


def _listed(table: Path, labels: Sequence[str]) -> list[tuple[Path, int, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    if not rows or not {"path", "label"} <= set(rows[0]):
        raise ModelFailed(f"{table.name} needs a line of column names with path and label, and lines under it.")
    unknown = sorted({row["label"] for row in rows} - set(labels))
    if unknown:
        raise ModelFailed(f"{table.name} has the labels {', '.join(unknown)}; the model's are {', '.join(labels)}.")
    return [(table.parent / row["path"], labels.index(row["label"]), row.get("person") or row["path"]) for row in rows]


def _interval(
    probabilities: npt.NDArray[np.float64], truth: npt.NDArray[np.int64], whose: Sequence[str]
) -> tuple[float | None, float | None]:
    """95 % of the balanced accuracy, with everything of a person drawn together."""
    if not len(truth):
        return None, None
    right = probabilities.argmax(axis=1) == truth
    _, group = np.unique(np.array(whose), return_inverse=True)
    people = int(group.max()) + 1
    # Right answers and answers of each person by class: a draw is then a sum over people.
    counts = np.zeros((2, people, probabilities.shape[1]))
    np.add.at(counts[0], (group, truth), right)
    np.add.at(counts[1], (group, truth), 1)
    times = np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), size=_DRAWS)
    hits, images = times @ counts[0], times @ counts[1]
    recalls = np.where(images > 0, hits / np.maximum(images, 1), np.nan)
    low, high = np.percentile(np.nanmean(recalls, axis=1), (2.5, 97.5))
    return _rounded(low), _rounded(high)


@dataclass(frozen=True, slots=True)
class ImageReader:
    """A model that judges images one by one, behind its guards."""

    contract: Contract
    backend: Backend
    guard: AnatomyGuard | None

    @classmethod
    def of(cls, model: RegisteredModel, threads: int = 1) -> ImageReader:
        """The registered model in this process. Raises BundleError where its files do not load."""
        backend = OnnxBackend(model.path / "model.onnx", threads)
        return cls(model.contract, backend, AnatomyGuard.beside(model.path, model.contract, threads))

    def judge(self, files: Sequence[Path]) -> Iterator[npt.NDArray[np.float64] | None]:
        """For each file its calibrated probabilities, shape (classes,); None where it is refused."""
        for start in range(0, len(files), _BATCH):
            yield from self._batch([_grey(file, self.contract) for file in files[start : start + _BATCH]])

    def _batch(self, greys: list[Floats | None]) -> list[npt.NDArray[np.float64] | None]:
        answers: list[npt.NDArray[np.float64] | None] = [None] * len(greys)
        squares: dict[int, Floats] = {}
        passed = self._passed(greys)
        for place, grey in enumerate(greys):
            prepared = prepare(grey, self.contract.preprocess) if grey is not None and passed[place] else None
            if prepared is not None:
                squares[place] = prepared[0]
        if not squares:
            return answers
        outputs = self.backend.run(np.stack(list(squares.values()))[:, None])
        log_probabilities = calibrated_log_probabilities(outputs.logits, self.contract.temperature)
        for row, place in enumerate(squares):
            distance = 0.0 if outputs.distances is None else float(outputs.distances[row])
            if self.contract.familiarity is None or distance <= self.contract.familiarity.limit:
                answers[place] = np.exp(log_probabilities[row])
        return answers

    def _passed(self, greys: list[Floats | None]) -> list[bool]:
        if self.guard is None:
            return [grey is not None for grey in greys]
        places = [place for place, grey in enumerate(greys) if grey is not None]
        shares = self.guard.shares(grey for grey in greys if grey is not None)
        passed = [False] * len(greys)
        for place, share in zip(places, shares, strict=True):
            passed[place] = bool(share >= self.guard.threshold)
        return passed


def figures(
    probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], names: Sequence[str]
) -> dict[str, Any]:
    """Accuracy, balanced accuracy, calibration error (15 bins of equal width) and figures per class."""
    called = probabilities.argmax(axis=1) if len(labels) else np.zeros(0, dtype=np.int64)
    right = called == labels
    recalls = [right[labels == label].mean() for label in range(len(names)) if (labels == label).any()]
    return {
        "accuracy": _share(right),
        "balanced_accuracy": _rounded(np.mean(recalls)) if recalls else None,
        "ece": _calibration_error(probabilities, right),
        "per_class": {
            name: {
                "precision": _share(right[called == label]),
                "sensitivity": _share(right[labels == label]),
                "specificity": _share(called[labels != label] != label),
                "auc": _area(probabilities[:, label], labels == label),
            }
            for label, name in enumerate(names)
        },
    }


def _calibration_error(probabilities: npt.NDArray[np.float64], right: npt.NDArray[np.bool_]) -> float | None:
    if not len(right):
        return None
    sure = probabilities.max(axis=1)
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    return _rounded(sum(abs(sure[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in set(bins)))


def _area(scores: npt.NDArray[np.float64], positive: npt.NDArray[np.bool_]) -> float | None:
    """Area under the receiver operating characteristic: how often a positive scores above a negative, ties half."""
    if positive.all() or not positive.any():
        return None
    above, below = np.sort(scores[positive]), np.sort(scores[~positive])
    wins = np.searchsorted(below, above, "left") + np.searchsorted(below, above, "right")
    return _rounded(wins.sum() / (2 * len(above) * len(below)))


def _share(values: npt.NDArray[np.bool_]) -> float | None:
    return _rounded(values.mean()) if len(values) else None


def _rounded(value: Any) -> float:
    return round(float(value), 4)


def _is_image(file: Path) -> bool:
    if not file.is_file():
        return False
    if file.suffix.lower() in (*_PICTURES, ".dcm"):
        return True
    with file.open("rb") as stream:  # DICOM files often have no suffix (PS3.10 section 7.1)
        return stream.read(132)[128:] == b"DICM"


def _grey(file: Path, contract: Contract) -> Floats | None:
    """The image's grey values; None where it cannot be decoded, or where its header does not meet the contract."""
    if file.suffix.lower() in _PICTURES:
        try:
            with Image.open(file) as picture:
                return np.asarray(picture.convert("L"), dtype=np.float32)
        except (OSError, UnidentifiedImageError):
            return None
    try:
        facts = facts_of(read_header(str(file)), str(file), "series", "image", "")
        single = replace(contract, required=replace(contract.required, min_images=1, sop_class=()))
        if isinstance(check(single, [facts]), Refused):
            return None
        grey = grey_frame(str(file), 1 + facts.number_of_frames // 2 if not facts.single_frame else 1)
    except PixelsNotReadable:
        return None
    return np.nan_to_num(grey, posinf=0.0, neginf=0.0)
