"""Studies of the record routed by real rules, for tests of what is shown of it."""

from __future__ import annotations

import datetime as dt
import tempfile
import uuid
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import select

from deploy.rule_places import place_in
from deploy.settings import Settings, load, parse_routes
from deploy.work import routes_of
from fhir_records import tables
from fhir_records.database import Database
from fhir_records.model import Installation, Priority
from tests import seed
from workflow.headers import read_headers
from workflow.router import ModelVersion, Router
from workflow.routing import RouteRevision
from workflow.rule_trials import TryRules

ZONE = ZoneInfo("Asia/Kolkata")
MODELS = (ModelVersion("brain_mr_tumour", "0.2.0"), ModelVersion("chest_xr_pneumonia", "0.1.1"))

DESTINATIONS = """
[[destination]]
name = "pacs"
ae_title = "PACS"
host = "127.0.0.1"
port = 4242

[[destination]]
name = "teleradiology"
ae_title = "TELE"
host = "127.0.0.1"
port = 4243
"""

RULES = """\
[[route]]
name = "brain MR"
when = '''
"MR" in study.modalities
  && (study.StudyDescription.matches("(?i)brain|head") || series.exists(s, s.BodyPartExamined == "BRAIN"))
  && patient.age >= 18'''
models = ["brain_mr_tumour"]
results_to = ["pacs"]

[[route]]
name = "chest films"
when = 'series.exists(s, s.Modality in ["CR", "DX"])'
models = ["chest_xr_pneumonia"]
results_to = ["pacs"]

[[route]]
name = "nights and weekends"
when = 'now.hour >= 18 || now.hour < 8 || now.weekday >= 6'
forward_to = ["teleradiology"]
priority = "urgent"
"""


def settings() -> Settings:
    """A configuration with two destinations."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "wetread.toml"
        path.write_text(DESTINATIONS)
        return load(path, {"WETREAD_HOME": folder})


def router(rules: str = RULES) -> Router:
    """The rules, for two models."""
    return Router(routes_of(parse_routes(rules, settings())), MODELS, place_in(rules))


def route_all(database: Database, spool: Path, at: dt.datetime, rules: str = RULES) -> None:
    """Route every study that waits for it."""
    job = RouteRevision(
        database,
        router(rules),
        Installation(uuid.UUID(int=1), "For evaluation."),
        lambda _: "",
        partial(read_headers, spool.joinpath),
        lambda: at.astimezone(ZONE),
        {"teleradiology": frozenset({"dicom:TELE"})},
    )
    with database.session() as session:
        revisions = session.scalars(
            select(tables.Revision.id).join(tables.Study).where(tables.Study.routed_revision < tables.Revision.number)
        ).all()
    for revision_id in revisions:
        job(revision_id)


def some_studies(database: Database, count: int = 4) -> list[str]:
    """Studies that wait to be routed; their Study Instance UIDs."""
    descriptions = ("MR head with contrast", "MR knee", "MR brain", "MR spine")
    with database.session() as session:
        made = [
            seed.add_study(
                session,
                number,
                name=f"Person^{number}",
                description=descriptions[number % 4],
                routed=False,
                priority=Priority.ROUTINE,
            )
            for number in range(1, count + 1)
        ]
        return [study.study_uid for study in made]


def trier(database: Database, spool: Path) -> TryRules:
    """The job that tries rules."""
    return TryRules(
        database, router, lambda _: "", partial(read_headers, spool.joinpath), ZONE, lambda: dt.datetime.now(dt.UTC)
    )
