"""`wetread route --dry-run`, as an administrator types it."""

from __future__ import annotations

import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from pydicom import dcmread
from typer.testing import CliRunner

from deploy.cli import app
from fhir_records import jobs
from fhir_records.database import Database
from tests import routed, seed

CONFIG = f"""
[site]
timezone = "Asia/Kolkata"
{routed.DESTINATIONS.replace("port = 4243", "port = 4243" + chr(10) + 'release = "after_signing"')}
{routed.RULES.replace('models = ["brain_mr_tumour"]', 'models = ["brain_mr_tumour", "chest_xr_pneumonia"]')}
"""


@pytest.fixture
def home(tmp_path: Path, registered_models: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with rules and models."""
    folder = tmp_path / "home"
    shutil.copytree(registered_models, folder / "models")
    (folder / "spool").mkdir()
    (folder / "wetread.toml").write_text(CONFIG)
    monkeypatch.setenv("WETREAD_HOME", str(folder))
    monkeypatch.delenv("WETREAD_CONFIG", raising=False)
    return folder


@pytest.fixture
def scans(test_data: Path, tmp_path: Path) -> Path:
    """Some slices of a head, a report, and a file that is no DICOM."""
    folder = tmp_path / "scans" / "deep"
    folder.mkdir(parents=True)
    for path in sorted((test_data / "dicom" / "philips_brain_mr").glob("*.dcm"))[::10]:
        shutil.copy(path, folder)
    shutil.copy(next((test_data / "dicom" / "sr_tid1500").rglob("*.dcm")), folder / "report.dcm")
    (folder / "notes.txt").write_text("hello")
    return folder.parent


def wetread(*words: str, status: int = 0) -> Result:
    result = CliRunner().invoke(app, ["route", *words], catch_exceptions=False, env={"COLUMNS": "160"})
    assert result.exit_code == status, result.output
    return result


def told(*words: str) -> Any:
    return json.loads(wetread(*words, "--json").stdout)


def test_a_folder_is_explained_without_a_database(home: Path, scans: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are put together to studies; models that would read, and that would refuse, each in words."""
    monkeypatch.setenv("WETREAD_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    found = told("--dry-run", str(scans), "--at", "2026-11-21T22:10")
    assert (found["not_images"], found["not_dicom"]) == (1, 1)
    (study,) = found["studies"]
    assert (study["images"], study["series"], study["at"]) == (17, 1, "2026-11-21T22:10:00+05:30")
    brain, chest = study["reads"]
    assert (brain["model"], brain["would"]) == ("brain_mr_tumour", "read")
    assert "17 images" in brain["why"]
    assert chest["would"] == "refuse" and "this model reads CR and DX only" in chest["why"]
    assert brain["results_to"] == [{"destination": "pacs", "release": "at_once"}]
    assert [forward["destination"] for forward in study["forwards"]] == ["teleradiology"]
    reasons = json.dumps(study["routes"][0]["condition"])
    assert '{"name": "series.BodyPartExamined", "value": "[\\"BRAIN\\"]"}' in reasons


def test_the_time_and_the_sender_can_be_given(home: Path, scans: Path) -> None:
    """Rules that ask for them see what was given, in the site's zone."""
    (study,) = told("--dry-run", str(scans), "--at", "2026-11-23T06:30+00:00", "--caller", "MR_ER")["studies"]
    assert (study["facts"]["now"]["time"], study["facts"]["caller"]["ae_title"]) == ("12:00", "MR_ER")
    assert study["forwards"] == []


def test_people_get_a_table(home: Path, scans: Path) -> None:
    """Rules with their conditions and values, and where the study would go."""
    output = wetread("--dry-run", str(scans), "--at", "2026-11-21T22:10").output
    for words in ("nights and weekends", "now.hour = 22", "would read", "would refuse", "pacs (at once)", "no images"):
        assert words in output, words


def test_a_study_of_the_record_is_decided_as_of_when_it_was_routed(
    home: Path, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With where it went before; nothing is queued by asking."""
    monkeypatch.setenv("WETREAD_DATABASE_URL", database.url)
    (uid,) = routed.some_studies(database, 1)
    with database.session() as session:
        seed.write_images(home / "spool", session, 1)
    routed.route_all(database, home / "spool", dt.datetime(2026, 11, 21, 22, 10, tzinfo=routed.ZONE))
    with database.session() as session:
        before = jobs.queue_depths(session)
    (study,) = told("--dry-run", uid)["studies"]
    assert study["at"].startswith("2026-11-21T22:10")
    assert study["went"] == {"models": [], "forwards": ["teleradiology"]}
    (study,) = told("--dry-run", uid, "--at", "2026-11-23T12:00")["studies"]
    assert study["forwards"] == []
    with database.session() as session:
        assert jobs.queue_depths(session) == before


def test_the_newest_studies_are_counted(home: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would go elsewhere under the rules as they are now."""
    monkeypatch.setenv("WETREAD_DATABASE_URL", database.url)
    routed.some_studies(database)
    routed.route_all(database, home / "spool", dt.datetime(2026, 11, 23, 12, tzinfo=routed.ZONE))
    summary = told("--dry-run", "--last", "10")
    # The second model of the first rule is new.
    assert (summary["studies"], summary["changed"]) == (4, 2)
    assert {"name": "chest_xr_pneumonia", "before": 0, "after": 2} in summary["models"]
    assert "2 would go elsewhere" in wetread("--dry-run", "--last", "10").output


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("1.2.3",), 2, "give --dry-run"),
        (("--dry-run",), 2, "give --dry-run, and either a study, a folder, or --last N"),
        (("--dry-run", "1.2.3", "--last", "3"), 2, "either"),
        (("--dry-run", "no such folder"), 1, "neither a folder or file that is there nor a Study Instance UID"),
        (("--dry-run", "1.2.3"), 1, "no complete study of this UID"),
        (("--dry-run", ".", "--at", "tonight"), 1, "is no instant"),
    ],
)
def test_what_is_not_understood_is_named(
    home: Path, database: Database, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], status: int, said: str
) -> None:
    """Exit status 2 for the command line, 1 for what is not there."""
    monkeypatch.setenv("WETREAD_DATABASE_URL", database.url)
    assert said in " ".join(wetread(*words, status=status).output.replace("│", " ").split())


def test_a_folder_without_images_is_named(home: Path, tmp_path: Path) -> None:
    """Nothing to decide on is no success."""
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "There are no DICOM images" in wetread("--dry-run", str(empty), status=1).output


def test_a_wrong_rule_is_told_with_its_place_in_the_file(home: Path, scans: Path) -> None:
    """The command refuses the configuration in the words in which the service would."""
    path = home / "wetread.toml"
    text = path.read_text().replace("patient.age >= 18", "patient.aeg >= 18")
    path.write_text(text)
    line = text[: text.index("patient.aeg")].count("\n") + 1
    output = wetread("--dry-run", str(scans), status=1).output
    assert f"(line {line}, column 14 of {path}): patient has no aeg (is age meant?)" in output.replace("\n", " ")


def test_pixels_are_looked_at_where_a_rule_asks(home: Path, scans: Path) -> None:
    """`image.anatomy` is found out from the pixels, though the header says otherwise."""
    for path in (scans / "deep").glob("*.dcm"):
        ds = dcmread(path)
        ds.BodyPartExamined = "KNEE"
        ds.save_as(path)
    (home / "wetread.toml").write_text(
        '[[route]]\nname = "head"\nwhen = \'image.anatomy == "brain MR"\'\nmodels = ["brain_mr_tumour"]\n'
    )
    (study,) = told("--dry-run", str(scans))["studies"]
    assert study["facts"]["image"]["anatomy"] == "brain MR"
    (read,) = study["reads"]
    assert read["would"] == "refuse" and "KNEE" in read["why"]
