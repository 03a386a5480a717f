"""Where the shipped model's maps lie, on images that it was not trained on and on a real series."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_listener.pixels import grey_frame
from inference.answers import Classified
from inference.backends.onnx import OnnxBackend
from inference.preprocess import prepare
from inference.registry import RegisteredModel, Registry
from inference.runner import ModelRunner
from inference.saliency import activation_map, energy_inside, evidence, unpacked
from tests.bench.bench_inference import series_files

IMAGES_A_CLASS = 40


@pytest.fixture(scope="module")
def model(registered_models: Path) -> RegisteredModel:
    """The shipped brain MR model."""
    return Registry(registered_models).get("brain_mr_tumour")


def _head_by_brightness(image: np.ndarray) -> np.ndarray:
    """The head, found another way than the preprocessing does: what lies between bright pixels of row and column."""
    bright = image > 0.12 * np.percentile(image, 99.5)
    sides = [
        np.logical_or.accumulate(bright, axis=axis)
        & np.flip(np.logical_or.accumulate(np.flip(bright, axis), axis), axis)
        for axis in (0, 1)
    ]
    return sides[0] & sides[1]


def _unseen(model: RegisteredModel, folder: Path) -> list[np.ndarray]:
    """Images of the model's own validation clusters; of its calibration clusters where it was trained on all others."""
    split = json.loads((model.path / "split.json").read_text(encoding="utf-8"))
    held = {digest for line in split["validation"] or split["calibration"] for digest in line.split()}
    found: list[np.ndarray] = []
    for path in sorted(folder.glob("*")):
        if hashlib.sha256(path.read_bytes()).hexdigest()[:10] in held:
            found.append(np.asarray(Image.open(path).convert("L"), np.float32))
        if len(found) == IMAGES_A_CLASS:
            break
    return found


def test_evidence_lies_in_the_head(model: RegisteredModel, test_data: Path) -> None:
    """On images of every class that it was not trained on at least 90 % of the maps' energy lies in the head."""
    contract, backend = model.contract, OnnxBackend(model.path / "model.onnx")
    absent = [item.presence for item in contract.classes].index("absent")
    for item in contract.classes:
        shares = []
        for image in _unseen(model, test_data / "brain_mr" / item.label):
            prepared = prepare(image, contract.preprocess)
            assert prepared is not None
            outputs = backend.run(prepared[0][None, None])
            assert outputs.maps is not None
            cells = evidence(outputs.maps[0], int(outputs.logits[0].argmax()), absent)
            drawn = activation_map(cells, prepared[1], contract.preprocess)
            shares.append(energy_inside(drawn, _head_by_brightness(image)))
        print(item.label, len(shares), round(float(np.mean(shares)), 3), round(float(np.percentile(shares, 10)), 3))
        assert np.mean(shares) >= 0.90


def test_a_real_series_has_maps_on_its_key_images(model: RegisteredModel, test_data: Path) -> None:
    """The healthy volunteer's key images each have a map of their frame's proportions, most of it in the head."""
    files = series_files(test_data / "dicom" / "philips_brain_mr")
    with ModelRunner(threads=2) as runner:
        answer = runner.read(model, files)
    assert isinstance(answer, Classified)
    assert [found.image for found in answer.activation] == list(answer.key_images)
    paths = {file.sop_uid: file.path for file in files}
    for found in answer.activation:
        values = unpacked(found)
        image = np.asarray(
            Image.fromarray(grey_frame(paths[found.image.sop_uid])).resize((found.columns, found.rows)), np.float32
        )
        share = energy_inside(values, _head_by_brightness(image))
        print(found.label, found.rows, found.columns, round(found.peak, 2), round(share, 3))
        assert share >= 0.90
