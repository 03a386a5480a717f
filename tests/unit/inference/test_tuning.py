"""Fitting a last layer anew: what it learns, what it keeps, who is measured on, and what is too few."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fhir_records.errors import TrainingError
from inference.contract import load_contract
from inference.preprocess import PreprocessSettings
from inference.registered import RegisteredModel
from inference.registry import SHIPPED
from inference.training.familiarity import KnownImages
from inference.training.last_layer import LastLayer, fitted_anew
from inference.training.recalled import Recalled
from inference.training.reviews import open_export, review_settings, without
from inference.training.tuning import tune_model
from inference.training.tuning_data import LEAST_IN_ALL, gather
from tests.bench.learning_department import as_shown_there, collection

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
SMALL = PreprocessSettings(size=32, crop="none", margin=0.0)


def _features(rng: np.random.Generator, labels: np.ndarray, shift: float) -> np.ndarray:
    """Eight features, the first four of which are the classes' own; `shift` moves the last four."""
    values = rng.normal(0, 0.5, (len(labels), 8))
    values[np.arange(len(labels)), labels] += 2
    values[:, 4:] += shift
    return values.astype(np.float32)


def _right(layer: LastLayer, looks: np.ndarray, labels: np.ndarray) -> float:
    return float((layer.logits(looks).argmax(axis=1) == labels).mean())


def test_new_images_are_learned_and_the_former_ones_are_kept() -> None:
    """A shift that turns all answers into one is mended by 40 images, and hardly a former answer changes."""
    rng = np.random.default_rng(0)
    former, new, others = (rng.integers(0, 4, count) for count in (400, 40, 200))
    looks = _features(rng, former, 0.0)
    weight = np.c_[np.eye(4), np.zeros((4, 4))]
    weight[2, 4:] = 2.0  # what never varied before decides now
    before = LastLayer(weight, np.zeros(4))
    shifted = _features(rng, others, 1.0)
    assert _right(before, shifted, others) < 0.4
    after = fitted_anew(before, KnownImages.of(looks), _features(rng, new, 1.0), new, np.ones(40))
    assert _right(after, shifted, others) > 0.85
    assert _right(after, looks, former) > _right(before, looks, former) - 0.03
    frozen = fitted_anew(before, KnownImages.of(looks), _features(rng, new, 1.0), new, np.ones(40), keep=1e6)
    assert np.allclose(frozen.weight, before.weight, atol=1e-3)


def test_joined_images_are_known_as_well_as_the_first() -> None:
    """What was far from the first alone is near to both; the first do not become strange; nonsense stays far."""
    rng = np.random.default_rng(1)
    first = rng.normal(size=(500, 6)).astype(np.float32)
    second = (rng.normal(size=(12, 6)) * 0.5 + 4).astype(np.float32)
    known = KnownImages.of(first)
    joined = known.joined_by(second)
    assert known.distances(second).mean() > 10
    assert joined.distances(second).mean() < 2 and joined.distances(first).mean() < 3
    assert joined.distances(np.full((1, 6), -30, dtype=np.float32)).mean() > 20


def _cases(folder: Path, people: dict[str, int], seed: int = 0) -> Path:
    """A labels.csv of people of each class, two pictures of noise each; the same seed gives the same pictures."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lines = ["path,label,person"]
    for label, count in people.items():
        for person in range(count):
            for number in range(2):
                name = f"{label}-{person}-{number}.png"
                picture = rng.normal(128, 60, (32, 32)).clip(0, 255).astype(np.uint8)
                Image.fromarray(picture).save(folder / name)
                lines.append(f"{name},{label},P{label}{person}")
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    return folder / "labels.csv"


def _base(folder: Path, record: dict[str, list[str]]) -> Path:
    folder.mkdir()
    (folder / "split.json").write_text(json.dumps(record), encoding="utf-8")
    return folder


def test_people_stay_whole_and_each_class_is_in_each_part(tmp_path: Path) -> None:
    """Of ten people of a class five train, two calibrate and three are measured on; none stands in two parts."""
    base = _base(tmp_path / "base", {"train": [], "calibration": [], "validation": []})
    cases = _cases(tmp_path / "cases", dict.fromkeys(CLASSES, 10))
    found = gather(cases, None, base, CLASSES, SMALL, seed=3)
    counted = {
        part: [
            len(np.unique(found.split.clusters[i][found.images.labels[i] == k]))
            for i in (found.part(part, True),)
            for k in range(4)
        ]
        for part in ("train", "calibration", "validation")
    }
    assert counted == {"train": [5] * 4, "calibration": [2] * 4, "validation": [3] * 4}
    whose = [set(found.split.clusters[found.split.part(part)].tolist()) for part in counted]
    assert not (whose[0] & whose[1] or whose[0] & whose[2] or whose[1] & whose[2])
    assert found.importance("train").sum() == pytest.approx(4)


def test_whom_the_base_was_trained_on_is_not_measured_on(tmp_path: Path) -> None:
    """A case of an earlier export that the base's split has in its training part trains again."""
    base = _base(tmp_path / "base", {"train": [], "calibration": [], "validation": []})
    cases = _cases(tmp_path / "cases", dict.fromkeys(CLASSES, 20))
    first = gather(cases, None, base, CLASSES, SMALL, seed=3)
    measured = first.images.digests[int(first.part("validation", True)[0])]
    (base / "split.json").write_text(json.dumps({"train": [f"{measured} abc"], "calibration": [], "validation": []}))
    again = gather(cases, None, base, CLASSES, SMALL, seed=3)
    assert again.images.digests.index(measured) in again.part("train", True)
    assert any("abc" in line.split() for line in again.record["train"]), "what is not at hand is not forgotten"


def test_too_few_people_are_counted_out(tmp_path: Path) -> None:
    """Without the base's images each class needs people; with them all classes together do, and one may be absent."""
    empty = {"train": [], "calibration": [], "validation": []}
    few = _cases(tmp_path / "few", {"glioma": 9, "meningioma": 12, "notumor": 12, "pituitary": 0})
    with pytest.raises(TrainingError, match=r"1 more of glioma \(there are 9\); 10 more of pituitary"):
        gather(few, None, _base(tmp_path / "a", empty), CLASSES, SMALL, seed=3)
    former = _cases(tmp_path / "former", dict.fromkeys(CLASSES, 12), seed=9)
    by_class: dict[str, list[str]] = {name: [] for name in CLASSES}
    for file in sorted(former.parent.glob("*.png")):
        by_class[file.name.split("-")[0]].append(hashlib.sha256(file.read_bytes()).hexdigest()[:10])
    record = {
        "train": [digest for digests in by_class.values() for digest in digests[:8]],
        "calibration": [digest for digests in by_class.values() for digest in digests[8:]],
        "validation": [],
    }
    base = _base(tmp_path / "b", record)
    found = gather(few, former, base, CLASSES, SMALL, seed=3)
    kinds = {part: [len(found.part(part, kind)) for kind in (True, False)] for part in record}
    assert kinds["train"][1] == 32 and kinds["calibration"][1] == kinds["validation"][1] == 32
    assert min(count for both in kinds.values() for count in both) > 0
    fewer = _cases(tmp_path / "fewer", {"glioma": 4, "meningioma": 3, "notumor": 5, "pituitary": 0})
    with pytest.raises(TrainingError, match=f"{LEAST_IN_ALL} different ones are needed .* there are 12, 8 more"):
        gather(fewer, former, base, CLASSES, SMALL, seed=3)


def test_the_shipped_model_learns_a_department(test_data: Path, tmp_path: Path) -> None:
    """Slices as no scanner of its training shows them: better than before on other people, and it says so.

    The long way, by the commands and with intervals, is `tests/bench/bench_learning.py`.
    """
    path = SHIPPED / "brain_mr_tumour"
    contract = load_contract(path / "contract.toml")
    base = RegisteredModel(contract.name, contract.version, contract.title, "", "2.25.7", "ab" * 32, path, contract)
    export = tmp_path / "export"
    (export / "images").mkdir(parents=True)
    (export / "export.json").write_text(json.dumps({"export_uid": "7", "model": base.name}), encoding="utf-8")
    lines = ["path,label,person"]
    slices = [one for one in collection(test_data / "brain_mr", path / "split.json") if one.held_out]
    for label in CLASSES:
        firsts = {one.cluster: one for one in slices if one.label == label}
        for one in list(firsts.values())[:14]:
            picture = as_shown_there(one.file, 1.0)
            Image.fromarray(picture).save(export / "images" / f"{one.file.stem}.png")
            lines.append(f"images/{one.file.stem}.png,{label},P{one.cluster}")
    (export / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    cases = without(open_export(export), Recalled(), tmp_path / "next.work")
    tuned = tune_model(review_settings(cases, base, "0.4.0", tmp_path / "next", seed=1, threads=1))
    found = tuned.compared["reviewed"]
    assert found["groups"] == 16 and found["difference"] > 0.15
    assert found["before"]["refused"] > 0.5 > found["after"]["refused"]
    made = load_contract(tmp_path / "next" / "contract.toml")
    assert made.version == "0.4.0" and made.prediction_set is not None
    assert made.familiarity is not None and made.familiarity.limit >= contract.familiarity.limit  # type: ignore[union-attr]
    card = (tmp_path / "next" / "docs" / "README.md").read_text(encoding="utf-8")
    assert "## Beside the version before" in card and f"{found['difference']:+.3f}" in card
    assert "Beside the version before" in (tmp_path / "next.work" / "report.html").read_text(encoding="utf-8")
