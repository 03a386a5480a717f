"""Training, from folders of images to a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fhir_records.errors import BundleError, TrainingError
from inference.contract import load_contract
from inference.preprocess import PreprocessSettings
from inference.registry import SHIPPED
from inference.training.data import (
    ImageSet,
    SplitSettings,
    cluster,
    load_folders,
    perceptual_hashes,
    split_by_cluster,
    split_from_record,
    split_record,
)
from inference.training.evaluate import calibration_error, evaluate, fit_temperature, softmax
from inference.training.train import RECIPES, EpochReport, TrainSettings, evaluate_bundle, train_model
from tests.unit.inference.samples import RECIPE, TINY_NETWORK

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")


def _picture(label: int, patient: int, slice_number: int) -> np.ndarray:
    """A head whose inside is a patient's own pattern, with a spot whose place is the class."""
    rng = np.random.default_rng(1000 * label + patient)
    row, column = np.mgrid[-1:1:64j, -1:1:64j]
    head = row**2 / 0.8 + column**2 / 0.6 < 1
    waves = sum(
        np.cos(rng.uniform(-14, 14) * row + rng.uniform(-14, 14) * column + rng.uniform(0, 6)) for _ in range(4)
    )
    place = [(-0.4, -0.3), (-0.4, 0.3), (2.0, 2.0), (0.4, 0.0)][label]
    spot = (row - place[0]) ** 2 + (column - place[1]) ** 2 < 0.03
    image = head * (80 + 25 * waves + 80 * spot + slice_number)
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes of six patients with three slices each, a patient's slices nearly the same."""
    root = tmp_path_factory.mktemp("images")
    for label, name in enumerate(CLASSES):
        (root / name).mkdir()
        for patient in range(6):
            for number in range(3):
                Image.fromarray(_picture(label, patient, number)).save(root / name / f"{patient}_{number}.png")
    return root


@pytest.fixture(scope="module")
def images(folders: Path) -> ImageSet:
    """The folders, preprocessed."""
    return load_folders(folders, CLASSES, PreprocessSettings(size=32))


def test_one_epoch_makes_a_bundle_that_holds_together(folders: Path, tmp_path: Path) -> None:
    """Training writes a bundle with contract, metrics, card and split, whose figures come out the same again."""
    reports: list[EpochReport] = []
    settings = TrainSettings(
        data=folders,
        recipe=RECIPE,
        output=tmp_path / "bundle",
        work=tmp_path / "work",
        epochs=1,
        batch_size=8,
        threads=1,
        loaders=0,
        bfloat16=False,
        network=TINY_NETWORK,
        preprocess=PreprocessSettings(size=32),
        split=SplitSettings(shares=(0.34, 0.33, 0.33), seed=1),
    )
    trained = train_model(settings, reports.append)
    assert [report.epoch for report in reports] == [1]
    contract = load_contract(trained.bundle / "contract.toml")
    assert contract.temperature == trained.temperature
    assert contract.preprocess.size == 32
    assert contract.familiarity is not None
    assert contract.familiarity.usual <= contract.familiarity.limit
    assert f"{trained.metrics.images} slices in" in (trained.bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert evaluate_bundle(trained.bundle, folders) == trained.metrics


def test_look_alikes_are_never_parted(images: ImageSet) -> None:
    """No cluster of near images stands on two sides of the split, and every image stands on one."""
    split = split_by_cluster(images, SplitSettings())
    parts = [split.train, split.calibration, split.validation]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(images.labels)))
    found = [set(split.clusters[part].tolist()) for part in parts]
    assert not found[0] & found[1]
    assert not found[0] & found[2]
    assert not found[1] & found[2]
    by_patient = split.clusters.reshape(-1, 3)
    assert (by_patient == by_patient[:, :1]).all()


def test_the_split_follows_from_its_seed(images: ImageSet) -> None:
    """The same seed gives the same split; another seed another."""
    first, again, other = (split_by_cluster(images, SplitSettings(seed=seed)) for seed in (1, 1, 2))
    assert first.train.tolist() == again.train.tolist()
    assert first.train.tolist() != other.train.tolist()


def test_the_stored_split_is_found_again(images: ImageSet) -> None:
    """The split can be had back from its record, and images that it does not know are refused."""
    split = split_by_cluster(images, SplitSettings())
    record = split_record(images, split, SplitSettings())
    assert split_from_record(images, record).validation.tolist() == split.validation.tolist()
    record["train"] = record["train"][1:]
    with pytest.raises(TrainingError, match="not in the model's stored split"):
        split_from_record(images, record)


def test_chains_of_look_alikes_are_one_cluster() -> None:
    """Images joined through others are in one cluster, however far apart they are themselves."""
    hashes = np.zeros((4, 100), dtype=bool)
    for number in (1, 2):
        hashes[number, : 10 * number] = True
    hashes[3, 50:] = True
    assert cluster(hashes, 0.10).tolist() == [0, 0, 0, 3]


def test_brightness_does_not_change_a_hash(images: ImageSet) -> None:
    """The same picture at half the brightness has nearly the same perceptual hash."""
    bright = perceptual_hashes(images.squares[:5], 16)
    dark = perceptual_hashes(images.squares[:5] // 2, 16)
    assert (bright != dark).mean() < 0.05


def test_a_class_without_images_is_refused(folders: Path) -> None:
    """A folder that is missing is named before anything is trained."""
    with pytest.raises(TrainingError, match="'lymphoma'"):
        load_folders(folders, (*CLASSES, "lymphoma"), PreprocessSettings(size=32))


def test_a_recipe_that_makes_no_contract_is_refused_before_training(folders: Path, tmp_path: Path) -> None:
    """A wrong recipe costs no hours: it is refused before the first epoch."""
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE.read_text(encoding="utf-8").replace("min_images = 5", "min_images = 0"), encoding="utf-8")
    settings = TrainSettings(data=folders, recipe=recipe, output=tmp_path / "bundle", work=tmp_path / "work")
    with pytest.raises(BundleError, match="min_images"):
        train_model(settings)
    assert not (tmp_path / "work").exists()


def test_temperature_mends_overconfidence() -> None:
    """Logits that are three times too large get a temperature near three, and a smaller calibration error."""
    rng = np.random.default_rng(0)
    honest = rng.normal(scale=2, size=(4000, 3))
    probabilities = softmax(honest.astype(np.float32), 1.0)
    labels = np.array([rng.choice(3, p=row) for row in probabilities])
    loud = (3 * honest).astype(np.float32)
    temperature = fit_temperature(loud, labels)
    assert temperature == pytest.approx(3, rel=0.15)
    assert calibration_error(softmax(loud, temperature), labels) < calibration_error(softmax(loud, 1.0), labels) / 3


def test_metrics_of_a_known_confusion() -> None:
    """Figures computed by hand come out: two classes, three of four and one of two called right."""
    labels = np.array([0, 0, 0, 0, 1, 1])
    called = np.array([0, 0, 0, 1, 1, 0])
    probabilities = np.where(np.arange(2)[None, :] == called[:, None], 0.9, 0.1)
    metrics = evaluate(probabilities, labels, np.arange(6), ("absent", "present"), absent=0)
    assert metrics.accuracy == pytest.approx(4 / 6)
    assert metrics.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert metrics.confusion == ((3, 1), (1, 1))
    assert metrics.any_finding_sensitivity == pytest.approx(1 / 2)
    assert metrics.any_finding_specificity == pytest.approx(3 / 4)
    present = metrics.classes[1]
    assert (present.precision, present.sensitivity, present.specificity) == pytest.approx((1 / 2, 1 / 2, 3 / 4))
    assert present.auc == pytest.approx((1 * 3 + 0.5 * (1 + 3) + 0) / 8)


def test_the_model_card_in_the_documents_is_the_bundles() -> None:
    """The card in docs/ is the one that training wrote."""
    documents = Path(__file__).resolve().parents[3] / "docs" / "models"
    for recipe in sorted(RECIPES.glob("*.toml")):
        card = SHIPPED / recipe.stem / "docs" / "README.md"
        assert (documents / f"{recipe.stem}.md").read_bytes() == card.read_bytes()
