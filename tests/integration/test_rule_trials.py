"""Rules tried over past studies: what would go elsewhere, as of the instant when it was decided, changing nothing."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from fhir_records import jobs, tables
from fhir_records.database import Database
from fhir_records.store import routing_decisions
from tests import routed
from workflow.sweeps import Sweeper

SATURDAY_NIGHT = dt.datetime(2026, 11, 21, 22, 10, tzinfo=routed.ZONE)
MONDAY_NOON = dt.datetime(2026, 11, 23, 12, tzinfo=routed.ZONE)


def tried(database: Database, spool: Path, rules: str, studies: int = 100) -> routing_decisions.RuleTrial:
    with database.session() as session:
        trial_id = routing_decisions.ask_trial(session, rules, studies, "admin")
        jobs.request_rule_trial(session, trial_id)
    routed.trier(database, spool)(trial_id)
    with database.session() as session:
        return routing_decisions.trial(session, trial_id)


def outcome(trial: routing_decisions.RuleTrial) -> Any:
    assert trial.error is None and trial.outcome is not None
    return trial.outcome


def counted(database: Database) -> list[int]:
    """How much there is of what routing makes."""
    with database.session() as session:
        made = (tables.Read, tables.Forward, tables.ForwardedImage, tables.RoutingDecision, tables.Step)
        return [session.scalar(select(func.count()).select_from(table)) or 0 for table in made]


def test_the_rules_in_use_change_nothing(database: Database, tmp_path: Path) -> None:
    """Tried again over the studies that they routed, at another time of day, they send each where it went."""
    routed.some_studies(database)
    routed.route_all(database, tmp_path, SATURDAY_NIGHT)
    before = counted(database)
    told = outcome(tried(database, tmp_path, routed.RULES))
    assert (told["studies"], told["changed"], told["changes"], told["nowhere"]) == (4, 0, [], 0)
    assert told["forwards"] == [{"name": "teleradiology", "before": 4, "after": 4}]
    assert counted(database) == before


def test_what_would_go_elsewhere_is_named_with_its_reasons(database: Database, tmp_path: Path) -> None:
    """Studies that other rules send elsewhere, each with where it went, where it would go, and why."""
    uids = routed.some_studies(database)
    routed.route_all(database, tmp_path, MONDAY_NOON)
    rules = routed.RULES.replace("brain|head", "knee").replace("now.hour >= 18", "true")
    told = outcome(tried(database, tmp_path, rules))
    assert told["models"] == [{"name": "brain_mr_tumour", "before": 2, "after": 1}]
    assert told["forwards"] == [{"name": "teleradiology", "before": 0, "after": 4}]
    assert (told["changed"], told["nowhere"]) == (4, 0)
    knee = next(change for change in told["changes"] if change["study_uid"] == uids[0])
    assert knee["before"] == {"models": [], "forwards": []}
    assert knee["after"] == {"models": ["brain_mr_tumour"], "forwards": ["teleradiology"]}
    assert knee["explanation"]["routes"][0]["holds"] is True


def test_only_the_newest_studies_are_tried(database: Database, tmp_path: Path) -> None:
    """As many as were asked for, at most as many as there may be."""
    routed.some_studies(database)
    routed.route_all(database, tmp_path, MONDAY_NOON)
    assert outcome(tried(database, tmp_path, routed.RULES, studies=3))["studies"] == 3
    assert tried(database, tmp_path, routed.RULES, studies=10**6).studies == routing_decisions.MOST_STUDIES


def test_studies_from_before_decisions_were_kept_are_tried_as_of_their_completion(
    database: Database, tmp_path: Path
) -> None:
    """Without a kept decision the reads that there are tell where it went."""
    routed.some_studies(database, 1)
    routed.route_all(database, tmp_path, MONDAY_NOON)
    with database.session() as session:
        session.execute(tables.Base.metadata.tables["routing_decision"].delete())
        session.add(tables.Read(study_id=1, revision=1, model="brain_mr_tumour", model_version="0.1.0"))
    told = outcome(tried(database, tmp_path, routed.RULES))
    assert told["changes"][0]["before"]["models"] == ["brain_mr_tumour"]
    assert told["changes"][0]["explanation"]["facts"]["now"]["date"] == "2026-11-20"


def test_a_rule_that_breaks_on_some_studies_is_counted(database: Database, tmp_path: Path) -> None:
    """It does not count there, and the outcome says how often."""
    routed.some_studies(database, 2)
    routed.route_all(database, tmp_path, MONDAY_NOON)
    rules = '[[route]]\nname = "second series"\nwhen = \'series[1].Modality == "MR"\'\nforward_to = ["pacs"]\n'
    told = outcome(tried(database, tmp_path, rules))
    assert told["routes"] == [{"name": "second series", "holds": 0, "does_not_hold": 0, "broken": 2}]
    assert told["nowhere"] == 2


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("[[route]\n", "not valid TOML"),
        ("", "There is no [[route]] in the rules."),
        ('[[route]]\nname = "a"\nwhen = "true"\nforward_to = ["moon"]\n', "forward_to names moon"),
        ('[[route]]\nname = "a"\nwhen = "true"\nmodels = ["crystal_ball"]\n', 'names the model "crystal_ball"'),
        ('[[route]]\nname = "a"\nwhen = "studi.images == 1"\nmodels = ["x"]\n', "line 3, column 9 of the rules"),
    ],
)
def test_rules_that_cannot_be_used_say_why(database: Database, tmp_path: Path, rules: str, words: str) -> None:
    """The error is kept for whoever asked, and the trial is finished."""
    trial = tried(database, tmp_path, rules)
    assert words in (trial.error or "")
    assert trial.finished_at is not None and trial.outcome is None


def test_a_trial_that_costs_its_workers_is_given_up(database: Database) -> None:
    """Whoever waits before the page is told."""
    with database.session() as session:
        trial_id = routing_decisions.ask_trial(session, routed.RULES, 5, "admin")
    sweeper = Sweeper(database, None, lambda: MONDAY_NOON)  # type: ignore[arg-type]
    with database.session() as session:
        sweeper._given_up(session, jobs.Job.TRY_RULES, {"trial_id": trial_id})
    with database.session() as session:
        assert "died" in (routing_decisions.trial(session, trial_id).error or "")
