"""Figures of a registered model on folders of single images, and the guards that come before it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fhir_records.errors import BundleError, ModelFailed
from inference.anatomy import Anatomies, AnatomyGuard, anatomy_of
from inference.backends import Outputs
from inference.contract import Contract, Guard
from inference.evaluation import evaluate_folder, figures
from inference.registry import RegisteredModel
from tests.unit.inference.samples import contract


class Brightness:
    """A network that calls a picture by the quarter of it that is brightest."""

    def run(self, inputs: np.ndarray) -> Outputs:
        """Logits of 9 for the brightest quarter."""
        half = inputs.shape[2] // 2
        quarters = [inputs[:, 0, r : r + half, c : c + half].mean(axis=(1, 2)) for r in (0, half) for c in (0, half)]
        return Outputs((np.argmax(quarters, axis=0)[:, None] == np.arange(4)) * np.float32(9), None)


def _corner(quarter: int) -> np.ndarray:
    picture = np.full((64, 64), 30.0, dtype=np.float32)
    row, column = divmod(quarter, 2)
    picture[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32] = 200.0
    return picture


@pytest.fixture
def guarded() -> AnatomyGuard:
    """A guard that lets pictures pass whose first quarter is the brightest ("glioma" stands for brain MR)."""
    whole = contract()
    shown = replace(whole, preprocess=replace(whole.preprocess, crop="none"))
    return AnatomyGuard(Anatomies(shown, Brightness()), ("glioma",), 0.5)


def test_a_series_passes_by_the_majority_of_its_frames(guarded: AnatomyGuard) -> None:
    """Most frames decide: two of three that show what is allowed pass the series, one of three does not."""
    assert guarded([_corner(0), _corner(0), _corner(3)]) is None
    refused = guarded([_corner(0), _corner(3), _corner(3)])
    assert refused is not None
    assert refused.code == "anatomy"
    assert refused.sentence == "Not read, because the images look like pituitary and this model reads glioma only."


def test_what_is_nothing_known_is_not_named(guarded: AnatomyGuard) -> None:
    """The class for all that has no name is not put into the sentence; an empty frame counts as not allowed."""
    empty = np.zeros((64, 64), dtype=np.float32)
    for frames in ([_corner(2)] * 3, [empty] * 3):
        refused = guarded(frames)
        assert refused is not None
        assert refused.sentence == "Not read, because the images do not look like glioma, which alone this model reads."


def test_shares_are_given_for_every_frame_in_order(guarded: AnatomyGuard) -> None:
    """Each frame has its own probability of being allowed, an empty one none."""
    shares = guarded.shares([_corner(1), np.zeros((64, 64), dtype=np.float32), _corner(0)])
    assert shares.tolist() == pytest.approx([0, 0, 1], abs=1e-3)


def test_the_anatomy_is_what_most_frames_show(guarded: AnatomyGuard) -> None:
    """The fact for routes is the commonest label; nothing where no frame shows anything."""
    assert anatomy_of(guarded.anatomies, [_corner(1), _corner(1), _corner(0)]) == "meningioma"
    assert anatomy_of(guarded.anatomies, [np.zeros((64, 64), dtype=np.float32)]) == ""


def test_a_guard_that_is_not_registered_is_named(tmp_path: Path) -> None:
    """A model whose guard is missing does not run unguarded: it says what is missing."""
    guarded = contract(guard=Guard("anatomy", ("brain MR",), 0.5))
    with pytest.raises(BundleError, match="guarded by the model 'anatomy', which is not registered"):
        AnatomyGuard.beside(tmp_path / "tiny" / "0.1.0", guarded)
    assert AnatomyGuard.beside(tmp_path / "tiny" / "0.1.0", contract()) is None


def test_a_guard_that_does_not_know_the_label_is_refused(tiny_model: RegisteredModel) -> None:
    """Labels that the guard never gives would refuse everything; they are an error in words."""
    mistaken: Contract = replace(tiny_model.contract, guard=Guard("tiny", ("brain MR",), 0.5))
    with pytest.raises(BundleError, match="tiny knows no brain MR"):
        AnatomyGuard.beside(tiny_model.path, mistaken)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Two images of each class, one of them a PNG; an empty frame, a broken file and a text beside them."""
    rng = np.random.default_rng(0)
    for label in ("glioma", "meningioma", "notumor", "pituitary"):
        (tmp_path / label).mkdir()
        for number, suffix in enumerate(("jpg", "png")):
            picture = np.pad(rng.integers(80, 255, size=(60, 50)), 10).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / label / f"{number}.{suffix}")
    Image.fromarray(np.zeros((64, 64), dtype=np.uint8)).save(tmp_path / "glioma" / "empty.png")
    (tmp_path / "notumor" / "broken.jpg").write_bytes(b"no image")
    (tmp_path / "notumor" / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_of_classes_gives_the_figures(tiny_model: RegisteredModel, folders: Path) -> None:
    """Images are counted, what shows nothing or does not decode is refused, and the figures are over the rest."""
    result = evaluate_folder(tiny_model, folders)
    assert (result["images"], result["refused"]) == (10, 2)
    assert set(result) == {
        "images",
        "refused",
        "accuracy",
        "balanced_accuracy",
        "balanced_accuracy_low",
        "balanced_accuracy_high",
        "ece",
        "per_class",
    }
    assert result["balanced_accuracy_low"] <= result["balanced_accuracy"] <= result["balanced_accuracy_high"]
    assert set(result["per_class"]) == {"glioma", "meningioma", "notumor", "pituitary"}
    assert set(result["per_class"]["glioma"]) == {"precision", "sensitivity", "specificity", "auc"}
    assert 0 <= result["accuracy"] <= 1


def test_out_of_scope_counts_any_tree(tiny_model: RegisteredModel, folders: Path) -> None:
    """Out of scope only images and refusals are counted, wherever they lie."""
    assert evaluate_folder(tiny_model, folders, out_of_scope=True) == {"images": 10, "refused": 2}


def test_the_guard_refuses_single_images(tiny_model: RegisteredModel, folders: Path) -> None:
    """A guard whose allowed labels are never likely enough refuses every image."""
    strict = replace(tiny_model, contract=replace(tiny_model.contract, guard=Guard("tiny", ("glioma",), 1.0)))
    assert evaluate_folder(strict, folders, out_of_scope=True) == {"images": 10, "refused": 10}


def test_strange_images_are_refused_by_their_distance(tiny_model: RegisteredModel, folders: Path) -> None:
    """An image farther from the training images than the contract's limit is refused."""
    assert tiny_model.contract.familiarity is not None
    near = replace(tiny_model.contract.familiarity, usual=0.0, limit=0.0)
    wary = replace(tiny_model, contract=replace(tiny_model.contract, familiarity=near))
    assert evaluate_folder(wary, folders, out_of_scope=True)["refused"] == 10


def test_a_folder_without_images_is_an_error(tiny_model: RegisteredModel, tmp_path: Path) -> None:
    """No images are not figures of nought; the error names the folders that are wanted."""
    with pytest.raises(ModelFailed, match="sub-folders named glioma, meningioma"):
        evaluate_folder(tiny_model, tmp_path)


def test_figures_computed_by_hand_come_out() -> None:
    """Two classes, three of four and one of two called right, at 0.9 each."""
    labels, called = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0])
    result = figures(np.where(np.arange(2)[None, :] == called[:, None], 0.9, 0.1), labels, ("no", "yes"))
    assert result["accuracy"] == pytest.approx(4 / 6, abs=1e-4)
    assert result["balanced_accuracy"] == pytest.approx(0.625)
    assert result["ece"] == pytest.approx(0.9 - 4 / 6, abs=1e-4)
    assert result["per_class"]["yes"] == {"precision": 0.5, "sensitivity": 0.5, "specificity": 0.75, "auc": 0.625}


def test_figures_without_meaning_are_none() -> None:
    """A class that no image has, and no images at all, give None and not a number."""
    one = figures(np.array([[0.8, 0.2]]), np.array([0]), ("no", "yes"))
    assert one["per_class"]["yes"] == {"precision": None, "sensitivity": None, "specificity": 1.0, "auc": None}
    assert figures(np.zeros((0, 2)), np.zeros(0, dtype=np.int64), ("no", "yes"))["accuracy"] is None
