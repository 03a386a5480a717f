"""What a training on reviewed cases is told: contract, network, version and where it comes from."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from fhir_records.errors import TrainingError
from inference.contract import load_contract
from inference.networks import build_network
from inference.registered import RegisteredModel
from inference.registry import SHIPPED
from inference.training.bundle import Found, contract_text
from inference.training.recalled import Recalled
from inference.training.reviews import (
    CONTRADICTED,
    ReviewedCases,
    next_version,
    open_export,
    review_settings,
    without,
)
from inference.training.tuning import TuneSettings


def registered(bundle: Path) -> RegisteredModel:
    contract = load_contract(bundle / "contract.toml")
    return RegisteredModel(
        contract.name, contract.version, contract.title, contract.manufacturer, "2.25.7", "ab" * 32, bundle, contract
    )


def told(base: RegisteredModel, tmp_path: Path, model: str = "", data: Path | None = None) -> TuneSettings:
    cases = ReviewedCases(tmp_path / "labels.csv", "export-7", model or base.name, 120, 60)
    return review_settings(cases, base, "0.9.0", tmp_path / "new", data=data, seed=1)


@pytest.mark.parametrize("name", ["brain_mr_tumour", "chest_xr_pneumonia"])
def test_a_shipped_model_can_be_the_base(name: str, tmp_path: Path) -> None:
    """Its contract with a new version, its preprocessing, its network with its weights, and its lineage in words."""
    base = registered(SHIPPED / name)
    settings = told(base, tmp_path).train
    text = contract_text(settings.recipe.read_text(encoding="utf-8"), settings.preprocess, Found(1.0, 2.0, 3.0))
    made, before = tomllib.loads(text), tomllib.loads((base.path / "contract.toml").read_text(encoding="utf-8"))
    assert made["version"] == "0.9.0"
    assert {key: made[key] for key in ("name", "classes", "required", "limits", "question")} == {
        key: before[key] for key in ("name", "classes", "required", "limits", "question")
    }
    assert made.get("guard") == before.get("guard") and made["preprocess"] == before["preprocess"]
    assert "prediction_set" not in made and "study" not in made
    assert (
        "export-7" in made["training_data"]["source"] and "120 images of 60 people" in made["training_data"]["source"]
    )
    assert "Device UID 2.25.7" in made["card"]["training"]
    assert set(before.get("card", {}).get("limits", ())) <= set(made["card"]["limits"])
    assert "Nobody asked the record" in made["card"]["training"]
    build_network(settings.definition, len(base.contract.classes))
    assert settings.lineage is not None and settings.lineage["reviews"]["export"] == "export-7"


def test_a_collection_is_trained_on_beside_the_cases(tmp_path: Path) -> None:
    """With the images that the version before was trained on, both are named."""
    settings = told(registered(SHIPPED / "brain_mr_tumour"), tmp_path, data=tmp_path / "more")
    assert (settings.former, settings.train.data) == (tmp_path / "more", tmp_path / "labels.csv")
    assert "export-7" in (source := settings.train.recipe.read_text(encoding="utf-8")) and "Nickparvar" in source


def test_what_is_recalled_or_contradicts_itself_is_left_out(tmp_path: Path) -> None:
    """People, single images, and one picture under two labels; what is left is named anew, with the reasons."""
    (tmp_path / "images").mkdir()
    lines = ["path,label,person"]
    for number, (label, person) in enumerate([("x", "P1"), ("x", "P2"), ("x", "P3"), ("y", "P4"), ("y", "P5")]):
        (tmp_path / "images" / f"{number}.png").write_bytes(b"same" if number in (2, 3) else bytes([number]))
        lines.append(f"images/{number}.png,{label},{person}")
    (tmp_path / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    cases = ReviewedCases(tmp_path / "labels.csv", "7", "m", 5, 5)
    left = without(cases, Recalled({"P1": "said no"}, {"4": "rejected"}, asked=True), tmp_path / "work")
    assert (left.images, left.people, left.asked) == (1, 1, True)
    assert left.left_out == {"said no": 1, "rejected": 1, CONTRADICTED: 2}
    assert left.labels.read_text(encoding="utf-8").splitlines()[1] == f"{tmp_path}/images/1.png,x,P2"
    with pytest.raises(TrainingError, match=r"may be used any more\. 1: gone"):
        everybody = dict.fromkeys(("P1", "P2", "P3", "P4"), "said no")
        without(cases, Recalled(everybody, {"4": "gone"}), tmp_path / "work")


def test_another_models_cases_and_unknown_training_are_refused(tmp_path: Path) -> None:
    """Cases answer one question; a bundle from elsewhere does not say how it was trained."""
    base = registered(SHIPPED / "brain_mr_tumour")
    with pytest.raises(TrainingError, match="another question"):
        told(base, tmp_path, model="chest_xr_pneumonia")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    text = (base.path / "contract.toml").read_text(encoding="utf-8")
    (foreign / "contract.toml").write_text(text.replace("[training_data]", "[other_data]"), encoding="utf-8")
    with pytest.raises(TrainingError, match="not trained by Wetread"):
        told(registered(foreign), tmp_path)


@pytest.mark.parametrize(
    ("base", "others", "higher"),
    [
        ("0.3.0", [], "0.4.0"),
        ("0.3.0", ["0.3.0", "0.11.2"], "0.12.0"),
        ("1.0", ["0.9.0"], "1.1.0"),
        ("spring", [], "spring.1"),
    ],
)
def test_a_new_version_is_above_all(base: str, others: list[str], higher: str) -> None:
    """The second part of the number is raised, above every registered version."""
    assert next_version(base, others) == higher


def test_an_export_must_be_whole(tmp_path: Path) -> None:
    """Images that are missing, persons who are not named, or another folder are refused in words."""
    with pytest.raises(TrainingError, match="is no export"):
        open_export(tmp_path)
    (tmp_path / "export.json").write_text(json.dumps({"export_uid": "7", "model": "m"}), encoding="utf-8")
    (tmp_path / "labels.csv").write_text("path,label,person\nimages/a.png,x,P1\n", encoding="utf-8")
    with pytest.raises(TrainingError, match="1 of 1 images"):
        open_export(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"")
    assert open_export(tmp_path).people == 1
    (tmp_path / "labels.csv").write_text("path,label,person\nimages/a.png,x,\n", encoding="utf-8")
    with pytest.raises(TrainingError, match="who is on each"):
        open_export(tmp_path)
