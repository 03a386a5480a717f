"""`wetread models` and `wetread evaluate`, as an administrator types them."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from sqlalchemy import select
from typer.testing import CliRunner

from deploy import cli_models, drift_report
from deploy.cli import app
from deploy.model_changes import ensure_shipped
from fhir_records import metrics, tables
from fhir_records.database import Database
from fhir_records.store import models
from inference.registry import Registry
from tests.conftest import REPOSITORY
from tests.integration.test_models_in_use import read_in_record


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Path:
    """A bundle with a tiny network."""
    return tiny_bundle


@pytest.fixture(scope="module")
def filled(bundle: Path, tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two versions of the tiny model, the first of them active."""
    home = tmp_path_factory.mktemp("filled")
    newer = Path(shutil.copytree(bundle, home / "newer"))
    text = (newer / "contract.toml").read_text(encoding="utf-8")
    (newer / "contract.toml").write_text(text.replace('version = "0.1.0"', 'version = "0.2.0"'), encoding="utf-8")
    shutil.copytree(tiny_root, home / "models")
    Registry(home / "models").add(newer, activate=False)
    return home


@pytest.fixture
def home(filled: Path, tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that the commands work on; the models that come with Wetread stay out of it."""
    home = tmp_path / "home"
    shutil.copytree(filled, home)
    monkeypatch.setenv("WETREAD_HOME", str(home))
    monkeypatch.setenv("WETREAD_DATABASE_URL", database.url)
    monkeypatch.setattr(cli_models, "_registry", lambda _config: Registry(home / "models", tmp_path / "none"))
    return home


def wetread(*words: str, fails: bool = False) -> Result:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert (result.exit_code != 0) == fails, result.output
    return result


def listed() -> dict[str, str]:
    return {entry["version"]: entry["state"] for entry in json.loads(wetread("models", "list", "--json").stdout)}


def test_a_version_s_life(home: Path, bundle: Path) -> None:
    """Added, put on trial, activated, rolled back and removed: each command says what it did, and the list agrees."""
    assert "is registered and active" in wetread("models", "add", str(bundle)).stdout
    wetread("models", "shadow", "tiny", "0.2.0")
    assert listed() == {"0.1.0": "active", "0.2.0": "shadow"}
    wetread("models", "remove", "tiny", "0.2.0", fails=True)
    assert "0.2.0 is active" in wetread("models", "activate", "tiny", "0.2.0").stdout
    assert listed() == {"0.2.0": "active", "0.1.0": "kept"}
    assert "0.1.0 is active again" in wetread("models", "rollback", "tiny").stdout
    wetread("models", "shadow", "tiny", "0.2.0")
    assert "No version of tiny is on trial" in wetread("models", "shadow", "tiny", "--end").stdout
    wetread("models", "remove", "tiny", "0.2.0")
    assert listed() == {"0.1.0": "active"}


def trail(database: Database) -> list[tuple[str, ...]]:
    """The audit trail of models: who did what, to which version, and what was active before and after."""
    with database.session() as session:
        events = session.scalars(select(tables.AuditEvent).order_by(tables.AuditEvent.id)).all()
        return [
            (
                event.actor,
                event.action,
                event.detail.get("version", ""),
                _active(event.detail["before"]),
                _active(event.detail["after"]),
            )
            for event in events
        ]


def _active(used: dict[str, str]) -> str:
    return " ".join(f"{standing} {folder.partition('-')[0]}" for standing, folder in sorted(used.items()))


def test_every_change_of_a_model_is_in_the_audit_trail(home: Path, bundle: Path, database: Database) -> None:
    """Each command leaves one row with the version, and what was in use before and after; a failure leaves none."""
    wetread("models", "add", str(bundle))
    wetread("models", "shadow", "tiny", "0.2.0")
    wetread("models", "remove", "tiny", "0.2.0", fails=True)
    wetread("models", "activate", "tiny", "0.2.0")
    wetread("models", "rollback", "tiny")
    wetread("models", "shadow", "tiny", "0.2.0")
    wetread("models", "shadow", "tiny", "--end")
    wetread("models", "remove", "tiny", "0.2.0")
    assert trail(database) == [
        ("command line", "model registered", "0.1.0", "active 0.1.0", "active 0.1.0"),
        ("command line", "model on trial", "0.2.0", "active 0.1.0", "active 0.1.0 shadow 0.2.0"),
        ("command line", "model activated", "0.2.0", "active 0.1.0 shadow 0.2.0", "active 0.2.0"),
        ("command line", "model rolled back", "0.1.0", "active 0.2.0", "active 0.1.0"),
        ("command line", "model on trial", "0.2.0", "active 0.1.0", "active 0.1.0 shadow 0.2.0"),
        ("command line", "model trial ended", "", "active 0.1.0 shadow 0.2.0", "active 0.1.0"),
        ("command line", "model removed", "0.2.0", "active 0.1.0", "active 0.1.0"),
    ]


def test_without_the_trail_no_model_is_changed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the database is away a model is neither activated nor removed, and a line says why."""
    monkeypatch.setenv("WETREAD_DATABASE_URL", "postgresql://nobody@127.0.0.1:9/none")
    assert "database" in wetread("models", "activate", "tiny", "0.2.0", fails=True).stderr
    wetread("models", "remove", "tiny", "0.2.0", fails=True)
    assert listed() == {"0.1.0": "active", "0.2.0": "kept"}


def test_models_that_come_with_wetread_are_in_the_trail(bundle: Path, database: Database, tmp_path: Path) -> None:
    """What the service registers by itself at its start is told, once."""
    shutil.copytree(bundle, tmp_path / "shipped" / "tiny")
    registry = Registry(tmp_path / "models", tmp_path / "shipped")
    for _ in range(2):
        ensure_shipped(registry, database)
    with database.session() as session:
        (event,) = session.scalars(select(tables.AuditEvent)).all()
    assert (event.actor, event.action) == ("wetread", "model registered")
    assert _active(event.detail["after"]) == "active 0.1.0"


def test_what_goes_wrong_is_one_line(home: Path, tmp_path: Path) -> None:
    """A folder that is no bundle, and a version that there is not, are told in words, with exit status 1."""
    told = wetread("models", "add", str(tmp_path), fails=True)
    assert "lacks configs/inference.json" in told.stderr
    assert "There is no version '9' of tiny" in wetread("models", "activate", "tiny", "9", fails=True).stderr
    assert "a version is needed" in wetread("models", "shadow", "tiny", fails=True).stderr


def test_verifying_tells_a_changed_file(home: Path) -> None:
    """Sound versions are told with their golden cases; one changed file makes the exit status 1."""
    assert wetread("models", "verify").stdout.count("6 golden cases answered as then") == 2
    (weights,) = home.glob("models/tiny/0.2.0-*/models/model.safetensors")
    weights.write_bytes(weights.read_bytes() + b"\0")
    told = wetread("models", "verify", "tiny", fails=True).stdout
    assert "models/model.safetensors of 0.2.0-" in told
    assert told.count("files as registered") == 1


def test_a_model_is_evaluated_on_a_folder(home: Path, tmp_path: Path) -> None:
    """`evaluate --model` prints the figures of the images that the model did not refuse."""
    rng = np.random.default_rng(0)
    for label in ("glioma", "meningioma", "notumor", "pituitary"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(2):
            disc = np.hypot(*np.mgrid[-1:1:128j, -1:1:128j]) < 0.8
            picture = (disc * rng.uniform(80, 200, (128, 128))).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / "images" / label / f"{number}.png")
    options = ("--model", "tiny", "--data", str(tmp_path / "images"), "--json")
    figures = json.loads(wetread("evaluate", *options).stdout)
    assert {"images", "refused", "accuracy", "balanced_accuracy", "ece", "per_class"} <= set(figures)
    assert figures["images"] == 8
    strange = json.loads(wetread("evaluate", *options, "--out-of-scope").stdout)
    assert set(strange) == {"images", "refused"}
    assert "one of --model and --bundle" in wetread("evaluate", "--data", str(tmp_path), fails=True).stderr


@pytest.fixture
def used(home: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same home with a database in which the model has read for four weeks, its inputs drifting in the last."""
    monkeypatch.setenv("WETREAD_DATABASE_URL", database.url)
    with database.session() as session:
        models.record_reference(session, "tiny", "0.1.0", (0.25, 0.75), (0.5, 0.5))
    for week in range(4):
        read_id = read_in_record(database)
        with database.session() as session:
            figures = models.Figures(
                read_id=read_id,
                model="tiny",
                model_version="0.1.0",
                read_at=dt.datetime(2026, 10, 28, tzinfo=dt.UTC) + dt.timedelta(weeks=week),
                label="glioma" if week else None,
                probability=0.2 * week + 0.3 if week else None,
                refusal=None if week else "unfamiliar",
                images=12,
                seconds=0.5 + week,
                intensity=(0.25, 0.75) if week < 3 else (0.9, 0.1),
                distances=(0.5, 0.5),
            )
            models.record_figures(session, figures)
            models.record_shadow(
                session, models.ShadowOutcome(read_id, "tiny", "0.2.0", "glioma", 0.8, None, None, bool(week), 0.4)
            )
    return home


def test_the_report_draws_the_weeks(used: Path, tmp_path: Path) -> None:
    """The page holds every week's figures and drawings that a browser can draw, and nothing from elsewhere."""
    page = tmp_path / "report.html"
    wetread("models", "report", "tiny", "--html", str(page))
    text = page.read_text(encoding="utf-8")
    drawings = ["<svg" + part.partition("</svg>")[0] + "</svg>" for part in text.split("<svg")[1:]]
    assert len(drawings) == 7  # drift, refusals, seconds, and four weeks' probabilities
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert drawings[0].count("<circle") == 8
    assert 'class="much">2.' in text
    assert "disagrees on 1" in text
    assert "http" not in text
    weeks = json.loads(wetread("models", "report", "tiny", "--json").stdout)["weeks"]
    assert [week["refused"] for week in weeks] == [1, 0, 0, 0]
    assert weeks[3]["intensity_psi"] > drift_report.NOTABLE_PSI > weeks[2]["intensity_psi"]
    assert "2026-11-16" in wetread("models", "report", "tiny").stdout


def test_a_report_of_nothing_says_so(home: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that has read nothing has a report that says so; a model that there is not has none."""
    monkeypatch.setenv("WETREAD_DATABASE_URL", database.url)
    assert "has read no study yet" in wetread("models", "report", "tiny").stdout
    assert "There is no model 'lung'" in wetread("models", "report", "lung", fails=True).stderr


def test_the_figures_of_a_week_are_documented() -> None:
    """The page about models has every figure of the running week, with its label."""
    page = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(wetread_model_week_\w+)` \| (?:`(\w+)`)? ?\|", page, re.MULTILINE)
    assert rows == [(name, label) for name, _, label, _ in metrics._MODEL_FIGURES]
