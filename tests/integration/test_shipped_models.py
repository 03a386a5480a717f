"""The shipped models on real images, each judged alone: what is in scope is read, what is not is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from inference.evaluation import evaluate_folder
from inference.registry import SHIPPED, Registry

_A_CLASS = 40  # images looked at


@pytest.fixture(scope="module")
def registry(registered_models: Path) -> Registry:
    """A registry with the shipped models in it."""
    return Registry(registered_models)


def _unseen(bundle: str, part: str, source: Path, target: Path) -> Path:
    """A folder of images by class that the bundle was not trained on."""
    stored = json.loads((SHIPPED / bundle / "split.json").read_text(encoding="utf-8"))
    held = {digest for line in stored[part] for digest in line.split()}
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        (target / folder.name).mkdir(parents=True)
        files = [f for f in sorted(folder.iterdir()) if hashlib.sha256(f.read_bytes()).hexdigest()[:10] in held]
        for file in files[:: max(1, len(files) // _A_CLASS)]:
            shutil.copyfile(file, target / folder.name / file.name)
    return target


def test_brain_slices_that_it_never_saw_are_told_apart(registry: Registry, test_data: Path, tmp_path: Path) -> None:
    """On images kept out of training the brain model is right, calibrated, and refuses hardly any."""
    images = _unseen("brain_mr_tumour", "calibration", test_data / "brain_mr", tmp_path)
    result = evaluate_folder(registry.get("brain_mr_tumour"), images)
    assert result["refused"] <= 0.05 * result["images"]
    assert result["balanced_accuracy"] > 0.95
    assert result["ece"] < 0.05


def test_chest_films_of_people_it_never_saw_are_told_apart(registry: Registry, test_data: Path, tmp_path: Path) -> None:
    """On films of other people the chest model is right, and refuses hardly any."""
    images = _unseen("chest_xr_pneumonia", "validation", test_data / "chest_xr", tmp_path)
    result = evaluate_folder(registry.get("chest_xr_pneumonia"), images)
    assert result["refused"] <= 0.05 * result["images"]
    assert result["balanced_accuracy"] > 0.9


@pytest.mark.parametrize(
    ("name", "strange"),
    [
        ("brain_mr_tumour", ["AbdomenCT", "BreastMRI", "CXR", "ChestCT", "Hand", "HeadCT"]),
        ("chest_xr_pneumonia", ["AbdomenCT", "BreastMRI", "ChestCT", "Hand", "HeadCT"]),
    ],
)
def test_other_anatomies_are_refused(
    name: str, strange: list[str], registry: Registry, test_data: Path, tmp_path: Path
) -> None:
    """Thumbnails of other parts of the body, by other devices, are refused by their pixels alone."""
    _unseen("anatomy", "validation", test_data / "anatomy", tmp_path)
    for folder in {path.name for path in tmp_path.iterdir()} - set(strange):
        shutil.rmtree(tmp_path / folder)
    result = evaluate_folder(registry.get(name), tmp_path, out_of_scope=True)
    assert result["images"] > 100
    assert result["refused"] >= 0.99 * result["images"]


def test_a_model_refuses_what_the_other_reads(registry: Registry, test_data: Path, tmp_path: Path) -> None:
    """The chest model refuses brain slices, the brain model chest films."""
    brains = _unseen("brain_mr_tumour", "calibration", test_data / "brain_mr", tmp_path / "brains")
    chests = _unseen("chest_xr_pneumonia", "validation", test_data / "chest_xr", tmp_path / "chests")
    for name, images in (("brain_mr_tumour", chests), ("chest_xr_pneumonia", brains)):
        result = evaluate_folder(registry.get(name), images, out_of_scope=True)
        assert result["refused"] >= 0.99 * result["images"]
