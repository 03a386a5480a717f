"""Training, from folders of images to a bundle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fhir_records.errors import BundleError, TrainingError
from inference.contract import load_contract
from inference.export import load_network
from inference.networks import build_network
from inference.preprocess import PreprocessSettings, standardise
from inference.registry import SHIPPED
from inference.training import cross_validation
from inference.training.augment import augment_each, augmentation
from inference.training.baselines import measure_baselines
from inference.training.batch_augment import AugmentSettings, augment_batch, mixed, standardise_batch
from inference.training.data import (
    PARTS,
    ImageSet,
    SplitSettings,
    cluster,
    dealt,
    duplicates,
    for_good,
    group,
    joined,
    load_folders,
    perceptual_hashes,
    split_by_cluster,
    split_from_record,
    split_record,
)
from inference.training.evaluate import calibration_error, evaluate, fit_temperature, softmax
from inference.training.loop import LoopSettings, train_network
from inference.training.outliers import outlier
from inference.training.people import check_parts, check_people
from inference.training.shipped import shipped_settings
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


def _tiny(folders: Path, tmp_path: Path) -> TrainSettings:
    return TrainSettings(
        data=folders,
        recipe=RECIPE,
        output=tmp_path / "bundle",
        work=tmp_path / "work",
        epochs=1,
        batch_size=8,
        threads=1,
        half=False,
        network=TINY_NETWORK,
        preprocess=PreprocessSettings(size=32),
        split=SplitSettings(shares=(0.34, 0.33, 0.33), seed=1),
    )


def test_one_epoch_makes_a_bundle_that_holds_together(folders: Path, tmp_path: Path) -> None:
    """Training writes a bundle with contract, metrics, card and split, whose figures come out the same again."""
    reports: list[EpochReport] = []
    settings = _tiny(folders, tmp_path)
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


def _noisy_classes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Squares of two classes that differ in one bright corner."""
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 60, size=(count, 32, 32)).astype(np.uint8)
    labels = (np.arange(count) % 2).astype(np.int64)
    squares[labels == 1, 4:20, 4:20] = 220
    return squares, labels


def test_the_loop_learns_what_can_be_seen(tmp_path: Path) -> None:
    """Two classes that differ plainly are told apart after a few epochs."""
    squares, labels = _noisy_classes(64)
    torch.manual_seed(1)
    network = build_network(TINY_NETWORK, 2)
    settings = LoopSettings(epochs=8, batch_size=16, half=False, ema_decay=0.5, augment=AugmentSettings(holes=0))
    state, history = train_network(network, squares, labels, (squares, labels), settings, tmp_path / "loop.pt")
    assert history[-1].best > 0.9
    assert set(state) == set(network.state_dict())


def test_a_run_that_was_broken_off_ends_where_a_whole_one_does(tmp_path: Path) -> None:
    """A run stopped after an epoch and begun again gives the weights of one that was not stopped."""
    squares, labels = _noisy_classes(32)
    settings = LoopSettings(epochs=3, batch_size=16, half=False, keep_best=False)

    class Stop(Exception):
        """The power fails."""

    def stop(report: EpochReport) -> None:
        if report.epoch == 2:
            raise Stop

    states = []
    for name, watcher in (("whole", None), ("broken", stop), ("broken", None)):
        torch.manual_seed(1)
        network = build_network(TINY_NETWORK, 2)
        try:
            held = (squares, labels)
            states.append(train_network(network, squares, labels, held, settings, tmp_path / name, watcher)[0])
        except Stop:
            continue
    assert all(torch.allclose(states[0][key].float(), states[1][key].float(), atol=1e-5) for key in states[0])


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    """Weights of a run with other settings are not gone on from in silence."""
    squares, labels = _noisy_classes(16)
    held = (squares, labels)
    for seed in (1, 2):
        settings = LoopSettings(epochs=1, batch_size=8, half=False, seed=seed)
        network = build_network(TINY_NETWORK, 2)
        if seed == 1:
            train_network(network, squares, labels, held, settings, tmp_path / "loop.pt")
            continue
        with pytest.raises(TrainingError, match="other settings"):
            train_network(network, squares, labels, held, settings, tmp_path / "loop.pt")


def test_training_stops_when_it_gets_no_better(tmp_path: Path) -> None:
    """With patience, epochs that bring nothing end the run early."""
    squares, labels = _noisy_classes(16)
    settings = LoopSettings(epochs=30, batch_size=16, learning_rate=1e-9, half=False, patience=2)
    network = build_network(TINY_NETWORK, 2)
    held = (squares, labels)
    _, history = train_network(network, squares, labels, held, settings, tmp_path / "loop.pt")
    assert len(history) < 30


@pytest.mark.parametrize("monai", [False, True])
def test_changed_images_keep_shape_and_range(monai: bool) -> None:
    """Augmentation, a batch at once or by MONAI's transforms, changes pictures and keeps them pictures."""
    images = torch.rand(6, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    draw = torch.Generator().manual_seed(2)
    if monai:
        changed = augment_each(images, augmentation(48).set_random_state(1))
    else:
        changed = augment_batch(images, AugmentSettings(coarsen=0.5), draw)
    assert changed.shape == images.shape
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    assert not torch.allclose(changed, images, atol=0.05)


def test_mixing_keeps_the_targets_a_distribution() -> None:
    """Mixed targets still add up to 1, and each image keeps the larger share of its own."""
    draw = torch.Generator().manual_seed(1)
    images, targets = torch.rand(8, 1, 8, 8, generator=draw), torch.eye(8)
    _, wanted = mixed(images, targets, 0.4, draw)
    assert torch.allclose(wanted.sum(dim=1), torch.ones(8))
    assert (wanted.argmax(dim=1) == torch.arange(8)).all()
    assert mixed(images, targets, 0.0, draw)[0] is images


def test_a_batch_is_standardised_as_serving_does() -> None:
    """The network sees in training what `preprocess.standardise` gives it in serving."""
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    expected = np.stack([standardise(image[0].numpy()) for image in images])
    assert standardise_batch(images)[:, 0].numpy() == pytest.approx(expected, abs=1e-5)


def test_persons_are_never_parted(images: ImageSet) -> None:
    """Where names tell the person, all images of a person stand on one side; a name that tells none is refused."""
    named = replace(images, names=tuple(f"person{i // 4}_slice{i}" for i in range(len(images.labels))))
    settings = SplitSettings(person=r"person\d+")
    split = split_by_cluster(named, settings)
    sides = {part: {i // 4 for i in getattr(split, part).tolist()} for part in ("train", "calibration", "validation")}
    assert not sides["train"] & sides["validation"]
    assert not sides["train"] & sides["calibration"]
    with pytest.raises(TrainingError, match="do not tell the person"):
        group(images, settings)


def test_persons_of_a_table_are_never_parted(images: ImageSet) -> None:
    """A named person is in one group; different ones are not joined for looking alike; look-alikes of nobody are."""
    groups = np.array([0, 0, 2, 2, 2, 5, 5, 7])
    persons = ("ann", "bob", "ann", "", "cid", "", "", "cid")
    assert joined(groups, persons).tolist() == [0, 1, 0, 0, 0, 5, 5, 0]
    assert joined(groups[:2], persons[:2]).tolist() == [0, 1]
    named = replace(images, persons=tuple(f"P{index // 6}" for index in range(len(images.labels))))
    split = split_by_cluster(named, SplitSettings())
    sides = [{named.persons[index] for index in split.part(part).tolist()} for part in PARTS]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sum(map(len, sides)) == len(set(named.persons))


def test_classes_that_lack_people_are_named(images: ImageSet) -> None:
    """With fewer people of a class than needed, it is said how many more; with enough, nothing."""
    named = replace(images, persons=tuple(f"P{index // 3}" for index in range(len(images.labels))))
    split = split_by_cluster(named, SplitSettings(shares=(0.34, 0.33, 0.33)))
    check_people(named, split.clusters, 6)
    check_parts(named, split)
    with pytest.raises(TrainingError, match=r"1 more of glioma \(there are 6\)"):
        check_people(named, split.clusters, 7)
    bare = replace(split, validation=split.validation[named.labels[split.validation] != 2])
    with pytest.raises(TrainingError, match="validation part: 0 of notumor; 1 are needed"):
        check_parts(named, bare)


def test_folds_keep_groups_whole_and_classes_even(images: ImageSet) -> None:
    """Each group is dealt to one fold whole, and every fold has images of every class."""
    groups = group(images, SplitSettings())
    fold = dealt(images.labels, groups, 3, seed=1)
    assert all(len(set(fold[groups == number].tolist())) == 1 for number in np.unique(groups))
    assert all(set(images.labels[fold == k].tolist()) == set(range(len(images.classes))) for k in range(3))


def test_a_teacher_is_followed(tmp_path: Path) -> None:
    """Where a teacher says the opposite of the labels and weighs all, the network learns the teacher's answer."""
    squares, labels = _noisy_classes(64)
    settings = LoopSettings(
        epochs=8, batch_size=16, half=False, ema_decay=0.5, taught=1.0, augment=AugmentSettings(holes=0)
    )
    torch.manual_seed(1)
    held = (squares, labels)
    teacher = build_network(TINY_NETWORK, 2)
    state, _ = train_network(teacher, squares, 1 - labels, (squares, 1 - labels), settings, tmp_path / "teacher.pt")
    teacher.load_state_dict(state)
    pupil = build_network(TINY_NETWORK, 2)
    _, history = train_network(pupil, squares, labels, held, settings, tmp_path / "pupil.pt", teachers=[teacher])
    assert history[-1].balanced_accuracy < 0.2


def test_cross_validation_judges_each_image_by_a_network_that_never_saw_it(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every training image is judged once, by the network whose fold it is in; the bundle tells the figures."""
    trained_on: list[np.ndarray] = []
    real = cross_validation.train_network

    def watched(network: torch.nn.Module, squares: np.ndarray, *rest: Any) -> Any:
        trained_on.append(squares)
        return real(network, squares, *rest)

    monkeypatch.setattr(cross_validation, "train_network", watched)
    settings = replace(_tiny(folders, tmp_path), folds=3, fold_epochs=1, taught=True, baselines=("seed_cnn64",))
    trained = train_model(settings)
    record = json.loads((trained.bundle / "metrics.json").read_text())
    assert record["cross_validation"]["images"] == sum(record["images_by_part"]["train"].values())
    assert [len(squares) < record["cross_validation"]["images"] for squares in trained_on] == [True] * 3
    assert (
        sum(record["cross_validation"]["images"] - len(squares) for squares in trained_on)
        == (record["cross_validation"]["images"])
    )
    assert 0 <= record["baselines"]["seed_cnn64"]["balanced accuracy"]["value"] <= 1
    card = (trained.bundle / "docs" / "README.md").read_text()
    assert "cross-validated" in card
    assert "seed_cnn64" in card


def test_the_networks_of_the_folds_can_be_shipped_together(folders: Path, tmp_path: Path) -> None:
    """The bundle's network is then the mean of the trained one and of each fold's."""
    trained = train_model(replace(_tiny(folders, tmp_path), folds=2, fold_epochs=1, together=True))
    definition = json.loads((trained.bundle / "configs" / "inference.json").read_text())["network_def"]
    assert len(definition["members"]) == 3
    look, logits = torch.rand(2, 1, 32, 32), []
    for folder in ("", "fold-0", "fold-1"):
        single = build_network(definition["members"][0], 4).eval()
        stored = load_file(tmp_path / "work" / folder / "weights.safetensors")
        single.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in stored.items()})
        logits.append(single(look).detach())
    assert torch.allclose(load_network(trained.bundle, 4)(look), torch.stack(logits).mean(dim=0), atol=0.02)


def test_a_baseline_nobody_knows_is_refused(images: ImageSet) -> None:
    """The error names the baselines that there are."""
    with pytest.raises(TrainingError, match="seed_cnn64, seed_cnn5"):
        measure_baselines(("alexnet",), images, split_by_cluster(images, SplitSettings()), np.arange(3))


def test_a_final_training_keeps_the_calibration_images_out(images: ImageSet) -> None:
    """For good, what validated is trained on; what calibrates is not."""
    split = split_by_cluster(images, SplitSettings())
    final = for_good(split)
    assert set(final.train.tolist()) == set(split.train.tolist()) | set(split.validation.tolist())
    assert final.calibration.tolist() == split.calibration.tolist()
    assert not len(final.validation)


def test_a_csv_names_the_images(folders: Path, tmp_path: Path) -> None:
    """A table of paths and labels is the same data set as folders; a label that is no class is refused."""
    files = [(file, name) for name in CLASSES for file in sorted((folders / name).glob("*.png"))]
    table = tmp_path / "images.csv"
    table.write_text("path,label\n" + "".join(f"{file},{name}\n" for file, name in files), encoding="utf-8")
    preprocess = PreprocessSettings(size=32)
    assert (
        load_folders(table, CLASSES, preprocess).squares == load_folders(folders, CLASSES, preprocess).squares
    ).all()
    with pytest.raises(TrainingError, match="labels pituitary"):
        load_folders(table, CLASSES[:3], preprocess)


def test_duplicates_are_counted(images: ImageSet) -> None:
    """Each patient's three slices are found to be look-alikes; no file is there twice."""
    found = duplicates(images, SplitSettings())
    assert found.images == len(images.labels)
    assert found.near >= len(images.labels) // 2
    assert found.groups <= len(images.labels) // 3 + 1
    assert found.identical == 0


def test_made_pictures_are_pictures_and_differ() -> None:
    """Outliers have the size and range of pictures, and hardly two are the same."""
    known = np.random.default_rng(0).integers(0, 255, size=(4, 64, 64)).astype(np.uint8)
    rng = np.random.default_rng(1)
    made = [outlier(known, 64, rng) for _ in range(40)]
    assert all(picture.shape == (64, 64) and picture.min() >= 0 and picture.max() <= 1 for picture in made)
    assert len({picture.tobytes() for picture in made}) > 35


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_every_shipped_bundle_says_how_it_was_trained(recipe: str, tmp_path: Path) -> None:
    """Settings of each shipped bundle make the network, the preprocessing and the classes that it has."""
    settings = shipped_settings(recipe, tmp_path, tmp_path / "bundle", tmp_path / "work")
    shipped = load_contract(SHIPPED / recipe / "contract.toml")
    assert settings.preprocess == shipped.preprocess
    definition = json.loads((SHIPPED / recipe / "configs" / "inference.json").read_text(encoding="utf-8"))[
        "network_def"
    ]
    assert ("members" in definition) == (settings.mirror or settings.together)
    with pytest.raises(TrainingError, match="No shipped bundle"):
        shipped_settings("spleen", tmp_path, tmp_path, tmp_path)
