"""Routing: rules in CEL, tried at start, and what they ask for."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from fhir_records.errors import SettingsError
from fhir_records.model import Instance, InstanceKind, Patient, Priority, Standing, Study, StudyState
from workflow.facts import facts_of
from workflow.router import ModelVersion, Route, Router
from workflow.routing import some_images

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


def instance(series_uid: str, number: int) -> Instance:
    return Instance(
        id=number,
        study_uid="1.2.3",
        series_uid=series_uid,
        sop_uid=f"{series_uid}.{number}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        kind=InstanceKind.IMAGE,
        standing=Standing.CURRENT,
        modality="MR",
        series_number=1,
        series_description="",
        instance_number=number,
        number_of_frames=1,
        rows=256,
        columns=256,
        file_key="",
        sha256="",
        size=0,
        received_at=INSTANT,
    )


def facts(modality: str = "MR") -> dict[str, object]:
    return {
        **facts_of(study(), "CT1", (), now=INSTANT),
        "study": {"Modality": modality, "modalities": [modality], "images": 3},
    }


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
        ("study.Modality ==", "line 1, column 18: is no CEL"),
        ("study.Modality == 1", "line 1, column 16: == does not go with a text and a whole number"),
        ("nobody == 1", "line 1, column 1: nobody is not known; a rule sees study, series"),
        ("study.images", "comes to a whole number, and must come to true or false"),
    ],
)
def test_a_wrong_rule_stops_the_start(when: str, words: str) -> None:
    """A rule that does not parse or type-check is named, with the place in it."""
    with pytest.raises(SettingsError) as raised:
        Router([route(when)], [BRAIN])
    assert words in str(raised.value)
    assert 'Route "a"' in str(raised.value)


def test_every_fault_of_every_rule_is_told_at_once() -> None:
    """Who mends a configuration sees all that is wrong, each with the line it stands in and a mark under its place."""
    with pytest.raises(SettingsError) as raised:
        Router([route("study.imges == 1", "first"), route("true &&\n sries == 1", "second")], [CHEST])
    words = str(raised.value)
    assert 'Route "first", when: line 1, column 7: study has no imges (is images meant?)' in words
    assert "    study.imges == 1\n          ^" in words
    assert 'Route "second", when: line 2, column 2: sries is not known (is series meant?)' in words
    assert words.count('names the model "brain_mr_tumour"') == 2


def test_a_model_that_is_not_there_stops_the_start() -> None:
    """A route cannot name a model that is not registered, and is told which are."""
    with pytest.raises(SettingsError, match="Registered are: chest_xr_pneumonia"):
        Router([route("true")], [CHEST])


def test_a_rule_can_ask_what_the_pixels_show() -> None:
    """`image.anatomy` is a fact like any other, and the router says whether a rule asks for it."""
    router = Router([route('image.anatomy == "brain MR"')], [BRAIN])
    assert router.asks_for_pixels
    assert not Router([route("true")], [BRAIN]).asks_for_pixels
    assert router.plan(facts_of(study(), "CT1", (), "brain MR", now=INSTANT)) != ()
    assert router.plan(facts_of(study(), "CT1", (), "hand film", now=INSTANT)) == ()


def test_routes_that_send_images_on_add_up() -> None:
    """A node that several rules name gets the images once, as urgently as the most urgent of them asks."""
    rules = [
        route("true", "first", forward_to=("archive",)),
        route("true", "second", models=(), forward_to=("archive", "teleradiology"), priority=Priority.STAT),
        route("false", "third", models=(), forward_to=("nowhere",)),
    ]
    decision = Router(rules, [BRAIN]).decide(facts())
    assert [(forward.destination, forward.routes, forward.priority) for forward in decision.forwards] == [
        ("archive", ("first", "second"), Priority.STAT),
        ("teleradiology", ("second",), Priority.STAT),
    ]
    assert [read.priority for read in decision.reads] == [Priority.ROUTINE]


@pytest.mark.parametrize(
    ("of_route", "of_order", "counts"),
    [
        (Priority.ROUTINE, Priority.STAT, Priority.STAT),
        (Priority.STAT, Priority.ROUTINE, Priority.STAT),
        (Priority.URGENT, Priority.ROUTINE, Priority.URGENT),
        (Priority.ROUTINE, Priority.ROUTINE, Priority.ROUTINE),
    ],
)
def test_the_priority_of_the_order_counts(of_route: Priority, of_order: Priority, counts: Priority) -> None:
    """The higher of the route's and the order's priority is the one that reads and forwards get."""
    rules = [route("true", priority=of_route, forward_to=("archive",))]
    decision = Router(rules, [BRAIN]).decide(facts(), of_order)
    assert [entry.priority for entry in (*decision.reads, *decision.forwards)] == [counts, counts]


def test_a_decision_can_be_kept_as_json() -> None:
    """All of an explanation survives being written and read, but for the long list of images."""
    router = Router([route('"MR" in study.modalities', forward_to=("archive",))], [BRAIN])
    kept = router.decide(facts_of(study(), "CT1", [instance("1.2", 1)], now=INSTANT)).to_json()
    assert json.loads(json.dumps(kept)) == kept
    assert "instance" not in kept["facts"] and kept["facts"]["series"][0]["images"] == 1
    assert kept["routes"][0]["condition"]["reasons"] == [{"name": "study.modalities", "value": '["MR"]'}]


def test_images_to_look_at_are_spread_over_the_longest_series() -> None:
    """Twelve images at most stand for a series; scouts and short series do not count."""
    scout = [instance("1.1", number) for number in range(3)]
    stack = [instance("1.2", number) for number in range(100)]
    looked_at = some_images([*scout, *stack])
    assert {entry.series_uid for entry in looked_at} == {"1.2"}
    assert [entry.instance_number for entry in looked_at] == [4, 12, 20, 29, 37, 45, 54, 62, 70, 79, 87, 95]
    assert len(some_images(scout)) == 3
    assert some_images([]) == []


def test_a_rule_that_breaks_on_one_study_leaves_the_others() -> None:
    """A rule that asks beyond a list does not hold; the other rules still do."""
    rules = [route('series.size() > 1 || series[0].Modality == "MR"', "breaks"), route("true", "holds")]
    (read,) = Router(rules, [BRAIN]).plan({**facts(), "series": []})
    assert read.routes == ("holds",)


@pytest.mark.parametrize(("birth_date", "age"), [(dt.date(2000, 3, 1), 26), (dt.date(2000, 3, 2), 25), (None, -1)])
def test_a_rule_sees_the_age_at_the_study(birth_date: dt.date | None, age: int) -> None:
    """The age counts whole years up to the study's day, and is -1 where it is not known."""
    assert facts_of(study(birth_date), "CT1", (), now=INSTANT)["patient"]["age"] == age
