"""From signed cases to a version on trial: exported, trained, registered, shadowed, and nothing of it in use."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from pydicom import dcmread
from sqlalchemy import select
from typer.testing import CliRunner

from deploy import cli_models
from deploy.cli import app
from fhir_records import signing, tables
from fhir_records.database import Database
from fhir_records.model import Act, Consent, ImageRef, Presence, ReadState, ResultStatus
from fhir_records.store import consent
from inference.registry import Registry
from tests import seed
from tests.integration.signed_results import CURIE, NOW

CLASSES = ("glioma", "meningioma", "notumor", "pituitary")
PEOPLE = 10  # of each class: the fewest that are trained on


def picture(label: int, person: int, number: int) -> np.ndarray:
    """A head whose inside is a person's own pattern, with a spot whose place is the class."""
    rng = np.random.default_rng(1000 * label + person)
    row, column = np.mgrid[-1:1:128j, -1:1:128j]
    waves = sum(np.cos(rng.uniform(-9, 9) * row + rng.uniform(-9, 9) * column + rng.uniform(0, 6)) for _ in range(4))
    place = [(-0.4, -0.3), (-0.4, 0.3), (2.0, 2.0), (0.4, 0.0)][label]
    spot = (row - place[0]) ** 2 + (column - place[1]) ** 2 < 0.03
    head = row**2 / 0.8 + column**2 / 0.6 < 1
    return np.clip(head * (400 + 100 * waves + 350 * spot + 5 * number), 0, 1000).astype(np.uint16)


def add_case(database: Database, spool: Path, label: int, person: int) -> None:
    """A study of a person who agreed, read by the model `tiny` and accepted."""
    with database.session() as session:
        study = seed.add_study(session, 100 * label + person + 1)
        for number, ds in enumerate(seed.write_images(spool, session, study.id)):
            ds.PixelData = picture(label, person, number).tobytes()
            ds.save_as(spool / f"{ds.SOPInstanceUID}.dcm", enforce_file_format=True)
        read = tables.Read(
            study_id=study.id, revision=1, model="tiny", model_version="0.1.0", state=ReadState.READ, queued_at=NOW
        )
        session.add(read)
        session.flush()
        uid = seed.series_uid(study)
        images = tuple(ImageRef(uid, f"{uid}.{number}", seed.MR) for number in (1, 2, 3))
        absent = CLASSES[label] == "notumor"
        finding = replace(
            seed.no_neoplasm(study) if absent else seed.glioma(study), label=CLASSES[label], key_images=images[:2]
        )
        assert finding.presence is (Presence.ABSENT if absent else Presence.PRESENT)
        content = {
            "finding": asdict(finding),
            "refusal": None,
            "algorithm": asdict(replace(seed.ALGORITHM, name="tiny", version="0.1.0")),
            "images_read": [asdict(image) for image in images],
        }
        session.add(
            tables.Result(read_id=read.id, version=1, status=ResultStatus.PRELIMINARY, content=content, created_at=NOW)
        )
        session.flush()
        signing.sign(session, signing.SigningRequest(study.study_uid, read.id, 1, Act.ACCEPT), CURIE, NOW)
        patient_uid = study.patient.patient_uid
        consent.record_consent(session, patient_uid, Consent.GIVEN, said_by="the patient", recorded_by="admin")


def wetread(*words: str, fails: bool = False) -> Result:
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert (result.exit_code != 0) == fails, result.output
    return result


@pytest.fixture
def home(database: Database, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with the active model `tiny`, and its commands."""
    home = tmp_path / "home"
    (home / "spool").mkdir(parents=True)
    monkeypatch.setenv("WETREAD_HOME", str(home))
    monkeypatch.setenv("WETREAD_DATABASE_URL", database.url)
    monkeypatch.setenv("COLUMNS", "500")
    shutil.copytree(tiny_root, home / "models")
    monkeypatch.setattr(cli_models, "_registry", lambda _config: Registry(home / "models", tmp_path / "none"))
    return home


def states() -> dict[str, str]:
    return {entry["version"]: entry["state"] for entry in json.loads(wetread("models", "list", "--json").stdout)}


def test_signed_cases_become_a_version_on_trial(home: Path, database: Database, tmp_path: Path) -> None:
    """The new version has a higher number, names where it is from, keeps people whole, and is not in use."""
    for label in range(len(CLASSES)):
        for person in range(PEOPLE):
            add_case(database, home / "spool", label, person)
    export, bundle = tmp_path / "export", tmp_path / "bundle"
    said = wetread("reviews", "export", "--output", str(export), "--include-unchanged").stdout
    assert f"{2 * 3 * PEOPLE + 3 * PEOPLE} images of {4 * PEOPLE} people" in said
    told = wetread("train", "--from-reviews", str(export), "--output", str(bundle), "--threads", "1").stdout
    assert "Nothing is registered" in told and "On reviewed cases that were held out" in told
    assert states() == {"0.1.0": "active"}

    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    report = json.loads((export / "export.json").read_text())
    active = Registry(home / "models", tmp_path / "none").get("tiny")
    assert metadata["version"] == "0.2.0"
    assert metadata["lineage"]["base"]["device_uid"] == active.device_uid
    assert metadata["lineage"]["reviews"] == {
        "export": report["export_uid"],
        "images": 9 * PEOPLE,
        "people": 4 * PEOPLE,
        "left_out": {},
        "record_asked": True,
    }
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert report["export_uid"] in card and "The last layer of tiny 0.1.0" in card
    split = json.loads((bundle / "split.json").read_text())
    assert sum(len(split[part]) for part in ("train", "calibration", "validation")) <= 4 * PEOPLE
    compared = json.loads((bundle / "metrics.json").read_text())["compared"]
    assert compared["base"]["version"] == "0.1.0" and compared["former"] is None
    assert f"balanced accuracy {compared['reviewed']['after']['balanced_accuracy']:.3f}" in card
    assert "whether this version is worse on them is not known" in card

    record = json.loads((bundle / "metrics.json").read_text())
    record["compared"]["reviewed"]["verdict"] = "worse"
    worse = shutil.copytree(bundle, tmp_path / "worse")
    (worse / "metrics.json").write_text(json.dumps(record))
    assert "--even-if-worse" in wetread("models", "add", str(worse), fails=True).stderr
    assert states() == {"0.1.0": "active"}

    said = wetread("models", "add", str(bundle)).stdout
    assert "registered and not active" in said and "On reviewed cases that were held out" in said
    assert states() == {"0.1.0": "active", "0.2.0": "kept"}
    wetread("models", "shadow", "tiny", "0.2.0")
    assert states() == {"0.1.0": "active", "0.2.0": "shadow"}
    assert str(dcmread(next((export / "dicom").iterdir())).PatientName).startswith("P")


def test_too_few_people_are_counted_out(home: Path, database: Database, tmp_path: Path) -> None:
    """It says how many of which class are needed still, and trains nothing; another model's cases are refused."""
    for label, people in enumerate((2, 1, 3, 1)):
        for person in range(people):
            add_case(database, home / "spool", label, person)
    export = tmp_path / "export"
    wetread("reviews", "export", "--output", str(export), "--include-unchanged")
    command = ("train", "--from-reviews", str(export), "--output", str(tmp_path / "bundle"))
    said = wetread(*command, fails=True).stderr
    assert "8 more of glioma (there are 2)" in said and "7 more of notumor (there are 3)" in said
    assert not (tmp_path / "bundle").exists()
    report = json.loads((export / "export.json").read_text())
    (export / "export.json").write_text(json.dumps({**report, "export_uid": "7"}))
    assert "--no-record" in wetread(*command, fails=True).stderr
    assert "8 more of glioma" in wetread(*command, "--no-record", fails=True).stderr
    (export / "export.json").write_text(json.dumps({**report, "model": "other"}))
    assert "There is no model 'other'" in wetread(*command, fails=True).stderr
    (export / "export.json").unlink()
    assert "is no export" in wetread(*command, fails=True).stderr
    wetread("train", "--output", str(tmp_path / "b"), fails=True)
    wetread("train", "--data", str(export), "--output", str(tmp_path / "b"), "--base", "0.1.0", fails=True)


def test_consent_is_recorded_and_told_on_the_command_line(home: Path, database: Database, tmp_path: Path) -> None:
    """Said, asked for, taken back: after a refusal the exports that hold the patient are named."""
    add_case(database, home / "spool", 0, 0)
    with database.session() as session:
        uid = session.scalars(select(tables.Patient.patient_uid)).one()
    assert "is given, said by the patient" in wetread("consent", uid).stdout
    wetread("reviews", "export", "--output", str(tmp_path / "out"), "--include-unchanged", "--model", "tiny")
    report = json.loads((tmp_path / "out" / "export.json").read_text())
    assert report["export_uid"] in wetread("reviews", "list").stdout
    said = wetread("consent", uid, "--refused", "--said-by", "her son").stdout
    assert "are not exported" in said and report["export_uid"] in said
    assert "no Patient UID" in wetread("consent", "12", "--given", fails=True).stderr
    wetread("consent", uid, "--given", "--refused", fails=True)
    assert "consent does not allow" in wetread("reviews", "export", "--output", str(tmp_path / "o"), fails=True).stderr
