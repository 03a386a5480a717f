"""`wetread models agreement`, as an administrator types it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from deploy.cli import app
from fhir_records.database import Database
from fhir_records.model import Act
from fhir_records.proportions import wilson
from tests import seed
from tests.answered import MODEL, SIGNA, SKYRA, answer, sign


@pytest.fixture(autouse=True)
def _installation(database_url: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands work on the test's database; the site is in India."""
    config = tmp_path / "wetread.toml"
    config.write_text('[site]\ntimezone = "Asia/Kolkata"\n', encoding="utf-8")
    monkeypatch.setenv("WETREAD_HOME", str(tmp_path))
    monkeypatch.setenv("WETREAD_CONFIG", str(config))
    monkeypatch.setenv("WETREAD_DATABASE_URL", database.engine.url.render_as_string(hide_password=False))
    monkeypatch.setattr("deploy.cli_agreement.console.width", 160)


def wetread(*words: str, fails: bool = False) -> Result:
    result = CliRunner().invoke(app, ["models", "agreement", *words], catch_exceptions=False)
    assert (result.exit_code != 0) == fails, result.output
    return result


@pytest.fixture
def reviewed(database: Database) -> None:
    """Nine that stand, one that does not, one unsigned, one refused; and one of a week before."""
    with database.session() as session:
        for place in range(9):
            sign(session, answer(session, equipment=SKYRA if place % 2 else SIGNA))
        sign(session, answer(session, "notumor"), Act.CORRECT, label="pituitary")
        answer(session)
        answer(session, "")
        answer(session, at=seed.NOW - dt.timedelta(days=7), version="0.9.0")


@pytest.mark.usefixtures("reviewed")
def test_people_get_tables() -> None:
    """One sentence says what was compared and what was left out; tables follow for each way of grouping."""
    shown = wetread(MODEL).stdout
    for words in (
        "of 12 answers 10 were reviewed and compared, and 9 stand: 90 % (60 to 98 %)",
        "2 not signed, 0 replaced by a newer read unsigned, 0 rejected for a wrong patient, 1 not read",
        "2026-W47, from 2026-11-16",
        "SIEMENS Skyra, MR1, serial number 40123",
        "not known",
        "Positive predictive value",
        "person: pituitary",
    ):
        assert words in shown, words


@pytest.mark.usefixtures("reviewed")
def test_programs_get_json() -> None:
    """Every count, and shares with their bounds; null where there are too few."""
    document = json.loads(wetread(MODEL, "--json").stdout)
    interval = wilson(9, 10)
    assert document["agreement"] == {
        "hits": 9,
        "of": 10,
        "low": interval.low,
        "share": interval.share,
        "high": interval.high,
    }
    assert [week["week"] for week in document["weeks"]] == ["2026-W46", "2026-W47"]
    assert document["weeks"][0]["agreement"]["share"] is None
    assert {"model": "notumor", "person": "pituitary", "count": 1} in document["confusion"]
    assert [version["version"] for version in document["versions"]] == ["1.0.0", "0.9.0"]
    assert document["refused"] == 1
    assert document["presence"]["sensitivity"]["of"] == 10
    assert sum(scanner["answers"] for scanner in document["scanners"]) == document["answers"] == 12


@pytest.mark.usefixtures("reviewed")
def test_days_and_versions_narrow_it() -> None:
    """Days are those of the site's zone, the last one included."""
    assert json.loads(wetread(MODEL, "--from", "2026-11-20", "--json").stdout)["compared"] == 10
    assert json.loads(wetread(MODEL, "--to", "2026-11-19", "--json").stdout)["unsigned"] == 1
    assert json.loads(wetread(MODEL, "--version", "0.9.0", "--json").stdout)["unsigned"] == 1
    assert "read nothing in this time" in wetread(MODEL, "--from", "2026-11-21").stdout


def test_a_model_that_never_answered_is_named() -> None:
    """An unknown name ends with exit status 1 and words."""
    assert "nobody has answered nothing yet" in wetread("nobody", fails=True).stderr
