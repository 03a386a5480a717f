"""Routing: rules in CEL, tried at start, and what they ask for."""

from __future__ import annotations

import datetime as dt

import pytest

from fhir_records.errors import SettingsError
from fhir_records.model import Patient, Priority, Study, StudyState
from workflow.routing import ModelVersion, Route, Router, facts_of

BRAIN = ModelVersion("brain_mr_tumour", "1.0.0")
CHEST = ModelVersion("chest_xr_pneumonia", "1.0.0")
INSTANT = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def study(birth_date: dt.date | None = None) -> Study:
    return Study(
        id=1,
        study_uid="1.2.3",
        patient=Patient(1, "0000000000001", "", birth_date, "F"),
        accession_number="A1",
        description="Head",
        modalities=("MR",),
        started_at=INSTANT,
        revision=1,
        priority=Priority.ROUTINE,
        state=StudyState.QUEUED,
        hold_reason=None,
        source="dicom:CT1",
        first_seen_at=INSTANT,
        last_arrival_at=INSTANT,
    )


def facts(modality: str = "MR") -> dict[str, object]:
    return {**facts_of(study(), "CT1", ()), "study": {"Modality": modality, "modalities": [modality], "images": 3}}


def route(when: str, name: str = "a", **changes: object) -> Route:
    values = {"models": ("brain_mr_tumour",), "results_to": ("pacs",), **changes}
    return Route(name=name, when=when, **values)  # type: ignore[arg-type]


def test_a_rule_that_holds_asks_for_its_models() -> None:
    """A study that a rule describes is read by the rule's models; another is read by none."""
    router = Router([route('study.Modality == "MR"')], [BRAIN])
    (read,) = router.plan(facts("MR"))
    assert read.model == BRAIN
    assert read.results_to == ("pacs",)
    assert router.plan(facts("CT")) == ()


def test_two_rules_for_one_model_make_one_read() -> None:
    """Rules add their destinations to one read of a model, and the highest priority counts."""
    rules = [
        route("true", "first", priority=Priority.ROUTINE),
        route("study.images > 2", "second", results_to=("pacs", "archive"), priority=Priority.STAT),
    ]
    (read,) = Router(rules, [BRAIN, CHEST]).plan(facts())
    assert read.routes == ("first", "second")
    assert read.results_to == ("pacs", "archive")
    assert read.priority is Priority.STAT


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("study.Modality ==", "not valid CEL at line 1"),
        ("study.Modality == 1", "comparison of different types"),
        ("nobody == 1", "a name that a rule does not see"),
        ("study.images", "must come to true or false"),
    ],
)
def test_a_wrong_rule_stops_the_start(when: str, words: str) -> None:
    """A rule that does not parse or type-check is named, with the place in it."""
    with pytest.raises(SettingsError) as raised:
        Router([route(when)], [BRAIN])
    assert words in str(raised.value)
    assert 'Route "a"' in str(raised.value)


def test_a_model_that_is_not_there_stops_the_start() -> None:
    """A route cannot name a model that is not registered, and is told which are."""
    with pytest.raises(SettingsError, match="Registered are: chest_xr_pneumonia"):
        Router([route("true")], [CHEST])


def test_a_rule_that_breaks_on_one_study_leaves_the_others() -> None:
    """A rule that asks beyond a list does not hold; the other rules still do."""
    rules = [route('series.size() > 1 || series[0].Modality == "MR"', "breaks"), route("true", "holds")]
    (read,) = Router(rules, [BRAIN]).plan({**facts(), "series": []})
    assert read.routes == ("holds",)


@pytest.mark.parametrize(("birth_date", "age"), [(dt.date(2000, 3, 1), 26), (dt.date(2000, 3, 2), 25), (None, -1)])
def test_a_rule_sees_the_age_at_the_study(birth_date: dt.date | None, age: int) -> None:
    """The age counts whole years up to the study's day, and is -1 where it is not known."""
    assert facts_of(study(birth_date), "CT1", ())["patient"]["age"] == age
