"""How far people agree with a model, counted on a real PostgreSQL of results that people signed."""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Iterable
from zoneinfo import ZoneInfo

import pytest
from alembic import command
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, text

from fhir_records import metrics, migrations, tables
from fhir_records.agreement import AgreementQuery, Outcome, Tally
from fhir_records.database import Database
from fhir_records.model import Act, Equipment, Presence
from fhir_records.proportions import Proportion, wilson
from fhir_records.store.agreement import agreement, disagreements, models_with_answers
from fhir_records.store.equipment import record_equipment
from tests import seed
from tests.answered import MODEL, SIGNA, SKYRA, answer, sign

KOLKATA = ZoneInfo("Asia/Kolkata")
ALL = AgreementQuery(MODEL, KOLKATA)
MONDAY = dt.datetime(2026, 11, 16, tzinfo=KOLKATA)
COMPARED = (Outcome.AGREED, Outcome.CORRECTED, Outcome.REJECTED)


def counts(**told: int) -> dict[Outcome, int]:
    return {Outcome[name.upper()]: count for name, count in told.items()}


def test_each_act_counts_as_what_it_is(database: Database) -> None:
    """Accepted and only noted agree; another answer and a rejection do not; the rest is left out, and told."""
    with database.session() as session:
        sign(session, answer(session))
        sign(session, answer(session), Act.CORRECT, note="Left frontal.")
        sign(session, answer(session), Act.CORRECT, label="meningioma", note="Dural tail.")
        sign(session, answer(session, "notumor"), Act.REJECT)
        sign(session, answer(session, "notumor"), Act.REJECT, wrong_patient=True)
        answer(session, "pituitary")
        refused = answer(session, "")
        sign(session, refused)
        older = answer(session)
        answer(session, "meningioma", after=older)
    with database.session() as session:
        found = agreement(session, ALL)
        assert found.total.counts == counts(
            agreed=2, corrected=1, rejected=1, wrong_patient=1, unsigned=2, superseded=1, refused=1
        )
        assert (found.total.reads, found.total.answers, found.total.signed) == (9, 8, 4)
        assert found.total.agreement == Proportion(2, 4)
        assert found.confusion == {("glioma", "glioma"): 2, ("glioma", "meningioma"): 1, ("notumor", None): 1}
        assert found.by_answer["notumor"].counts == counts(rejected=1, wrong_patient=1)
        assert [answer.label for answer in found.answers] == ["glioma", "meningioma", "pituitary", "notumor"]
        assert found.answers[-1].presence is Presence.ABSENT
        assert found.answers[0].code == seed.GLIOMA
        newest, older_one = disagreements(session, ALL)
        assert {newest.person, older_one.person} == {"meningioma", None}
        assert [line.note for line in disagreements(session, ALL, person="meningioma")] == ["Dural tail."]
        assert [line.machine for line in disagreements(session, ALL, rejected=True)] == ["notumor"]
        assert disagreements(session, ALL, machine="pituitary") == ()


def test_the_last_word_counts(database: Database) -> None:
    """A rejection that is undone agrees, and so does a correction taken back; one that was noted on again does not."""
    with database.session() as session:
        undone, back, twice = answer(session), answer(session), answer(session)
        sign(session, undone, Act.REJECT)
        sign(session, undone, version=2)
        for answered, second in ((back, "glioma"), (twice, "")):
            sign(session, answered, Act.CORRECT, label="notumor")
            sign(session, answered, Act.CORRECT, label=second, note="Once more.", version=2)
    with database.session() as session:
        found = agreement(session, ALL)
        assert found.total.counts == counts(agreed=2, corrected=1)
        assert found.presence is not None
        assert found.presence.positive_predictive_value == Proportion(2, 3)
        assert [line.read_id for line in disagreements(session, ALL)] == [twice.read_id]


def test_a_signed_answer_counts_after_newer_images_too(database: Database) -> None:
    """What a person signed before newer images came was compared, and stays so."""
    with database.session() as session:
        older = answer(session)
        sign(session, older)
        answer(session, after=older)
    with database.session() as session:
        assert agreement(session, ALL).total.counts == counts(agreed=1, unsigned=1)


def test_presence_against_people(database: Database) -> None:
    """Sensitivity, specificity and predictive values are of what is there or not, whichever class it is."""
    with database.session() as session:
        for machine, person, times in (
            ("glioma", "", 3),
            ("glioma", "meningioma", 2),
            ("glioma", "notumor", 1),
            ("notumor", "", 4),
            ("notumor", "pituitary", 2),
        ):
            for _ in range(times):
                sign(session, answer(session, machine), Act.CORRECT if person else Act.ACCEPT, label=person)
        sign(session, answer(session, "glioma"), Act.REJECT)
    with database.session() as session:
        presence = agreement(session, ALL).presence
    assert presence is not None
    assert presence.sensitivity == Proportion(5, 7)
    assert presence.specificity == Proportion(4, 5)
    assert presence.positive_predictive_value == Proportion(5, 6)
    assert presence.negative_predictive_value == Proportion(4, 6)


def test_weeks_begin_on_monday_in_the_sites_zone(database: Database) -> None:
    """The same instants fall into the weeks of the zone that is asked for, and no week between them is left out."""
    late_sunday = MONDAY - dt.timedelta(minutes=1)
    with database.session() as session:
        for at in (MONDAY - dt.timedelta(days=14), late_sunday, MONDAY):
            answer(session, at=at)
    with database.session() as session:
        here = agreement(session, ALL).weeks
        greenwich = agreement(session, AgreementQuery(MODEL, ZoneInfo("UTC"))).weeks
    days = [dt.date(2026, 11, 2), dt.date(2026, 11, 9), dt.date(2026, 11, 16)]
    assert {day: tally.reads for day, tally in here.items()} == dict(zip(days, (1, 1, 1), strict=True))
    # In UTC the first and the last one are still on a Sunday evening.
    days = [dt.date(2026, 10, 26), dt.date(2026, 11, 2), dt.date(2026, 11, 9)]
    assert {day: tally.reads for day, tally in greenwich.items()} == dict(zip(days, (1, 0, 2), strict=True))


def test_a_week_with_a_change_of_the_clock_is_whole(database: Database) -> None:
    """The last hour before and the first after the Monday that ends a week of 169 hours fall on either side of it."""
    zone = ZoneInfo("America/New_York")
    monday = dt.datetime(2026, 11, 2, tzinfo=zone).astimezone(dt.UTC)  # the clock went back the day before
    with database.session() as session:
        answer(session, at=monday - dt.timedelta(hours=169))
        answer(session, at=monday - dt.timedelta(seconds=1))
        answer(session, at=monday)
    with database.session() as session:
        found = agreement(session, AgreementQuery(MODEL, zone)).weeks
    assert {day: tally.reads for day, tally in found.items()} == {dt.date(2026, 10, 26): 2, dt.date(2026, 11, 2): 1}


def test_by_scanner_and_version(database: Database) -> None:
    """A scanner is who made the first image that was read; what the images do not name stands by itself."""
    with database.session() as session:
        for equipment, version in ((SKYRA, "1.0.0"), (SKYRA, "2.0.0"), (SIGNA, "1.0.0"), (None, "1.0.0")):
            sign(session, answer(session, equipment=equipment, version=version))
        answer(session, equipment=SIGNA, version="2.0.0")
    with database.session() as session:
        found = agreement(session, ALL)
        newer = agreement(session, AgreementQuery(MODEL, KOLKATA, version="2.0.0"))
        assert models_with_answers(session) == {MODEL: ("1.0.0", "2.0.0")}
    assert list(found.scanners) == [SKYRA, SIGNA, Equipment()]
    assert found.scanners[SIGNA].counts == counts(agreed=1, unsigned=1)
    assert list(found.versions) == ["1.0.0", "2.0.0"]
    assert found.versions["2.0.0"].counts == newer.total.counts == counts(agreed=1, unsigned=1)


def test_a_time_is_from_and_before(database: Database) -> None:
    """An answer of the first instant is in, one of the last is not; of a model that nobody knows there is nothing."""
    with database.session() as session:
        for at in (MONDAY - dt.timedelta(seconds=1), MONDAY, MONDAY + dt.timedelta(days=7)):
            answer(session, at=at)
    with database.session() as session:
        week = AgreementQuery(MODEL, KOLKATA, since=MONDAY, until=MONDAY + dt.timedelta(days=7))
        assert agreement(session, week).total.reads == 1
        nobody = agreement(session, AgreementQuery("nobody", KOLKATA))
    assert (nobody.total, nobody.weeks, nobody.presence) == (Tally(), {}, None)


def test_what_a_series_was_made_with_is_kept_once(database: Database) -> None:
    """The first image decides; a series that names nothing has no row."""
    with database.session() as session:
        study = seed.add_study(session, 1)
        record_equipment(session, {(study.id, "1.2"): SKYRA, (study.id, "1.3"): Equipment()})
        record_equipment(session, {(study.id, "1.2"): SIGNA})
    with database.session() as session:
        rows = session.query(tables.SeriesEquipment).all()
        assert [(row.series_uid, row.model_name) for row in rows] == [("1.2", "Skyra")]


def test_results_of_before_the_migration_are_counted(database_url: str) -> None:
    """What was signed under the schema before is in the figures after the migration."""
    opened = Database(database_url)
    content = {"finding": {"label": "glioma", "presence": "present", "alternatives": []}, "images_read": []}
    signed = {**content, "signature": {"act": "accept", "withdrawal": "", "note": ""}}
    with opened.session() as session:
        command.upgrade(migrations._config(session.connection()), "0006")
        for statement in (
            "INSERT INTO patient (id, patient_uid, name, sex) VALUES (1, '1', '', '')",
            "INSERT INTO study (id, study_uid, patient_id, accession_number, description, modalities, priority, source,"
            " caller, revision, routed_revision) VALUES (1, '1.2', 1, '', '', '{MR}', 'routine', 'dicom:A', '', 1, 1)",
            "INSERT INTO read (id, study_id, revision, model, model_version, state, attempts, results_to, routes,"
            f" priority) VALUES (1, 1, 1, '{MODEL}', '1.0.0', 'read', 1, '{{}}', '{{}}', 'routine')",
        ):
            session.execute(text(statement))
        for version, status, document in ((1, "preliminary", content), (2, "final", signed)):
            row = {"version": version, "status": status, "content": json.dumps(document)}
            session.execute(
                text("INSERT INTO result (read_id, version, status, content) VALUES (1, :version, :status, :content)"),
                row,
            )
    migrations.migrate(opened)
    with opened.session() as session:
        found = agreement(session, ALL)
    opened.close()
    assert found.total.counts == counts(agreed=1)
    assert list(found.scanners) == [Equipment()]


LABELS = ("glioma", "meningioma", "notumor")
CASE = st.fixed_dictionaries(
    {
        "label": st.sampled_from((*LABELS, "")),
        "days": st.integers(0, 40),
        "version": st.sampled_from(("1.0.0", "2.0.0")),
        "equipment": st.sampled_from((SKYRA, SIGNA, None)),
        "act": st.sampled_from((None, *Act)),
        "word": st.sampled_from(LABELS),
        "wrong_patient": st.booleans(),
    }
)


def _outcome(case: dict[str, object]) -> Outcome:
    """What the case comes to, said once more in other words."""
    if not case["label"]:
        return Outcome.REFUSED
    if case["act"] is None:
        return Outcome.UNSIGNED
    if case["act"] is Act.REJECT:
        return Outcome.WRONG_PATIENT if case["wrong_patient"] else Outcome.REJECTED
    other = case["act"] is Act.CORRECT and case["word"] != case["label"]
    return Outcome.CORRECTED if other else Outcome.AGREED


def _total(tallies: Iterable[Tally]) -> Counter[Outcome]:
    return sum((Counter(dict(tally.counts)) for tally in tallies), Counter())


@pytest.mark.timeout(300)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cases=st.lists(CASE, max_size=9))
def test_every_way_of_grouping_adds_up_to_the_same(database: Database, cases: list[dict[str, object]]) -> None:
    """Versions, weeks, scanners and answers hold every read once, and the table of answers every compared one."""
    with database.session() as session:
        for case in cases:
            days = case["days"]
            assert isinstance(days, int)
            answered = answer(
                session,
                str(case["label"]),
                at=seed.NOW - dt.timedelta(days=days),
                version=str(case["version"]),
                equipment=case["equipment"],  # type: ignore[arg-type]
            )
            act = case["act"]
            if isinstance(act, Act):
                correct = act is Act.CORRECT and case["label"]
                sign(
                    session,
                    answered,
                    act if case["label"] or act is Act.REJECT else Act.ACCEPT,
                    label=str(case["word"]) if correct else "",
                    note="So it is." if correct else "",
                    wrong_patient=bool(case["wrong_patient"]) and act is Act.REJECT,
                )
    with database.session() as session:
        found = agreement(session, ALL)
        shown = disagreements(session, ALL)
    expected = Counter(_outcome(case) for case in cases)
    answered_only = Counter({outcome: count for outcome, count in expected.items() if outcome is not Outcome.REFUSED})
    assert Counter(dict(found.total.counts)) == expected
    for tallies in (found.versions, found.weeks, found.scanners):
        assert _total(tallies.values()) == expected
    assert _total(found.by_answer.values()) == answered_only
    assert sum(found.confusion.values()) == found.total.signed == sum(expected[outcome] for outcome in COMPARED)
    assert sum(n for (mine, theirs), n in found.confusion.items() if mine == theirs) == expected[Outcome.AGREED]
    assert len(shown) == expected[Outcome.CORRECTED] + expected[Outcome.REJECTED]
    if found.presence is not None:
        four = (found.presence.both, found.presence.model_only, found.presence.person_only, found.presence.neither)
        assert sum(four) == expected[Outcome.AGREED] + expected[Outcome.CORRECTED]
    with database.session() as session:
        for table in (tables.SeriesEquipment, tables.Result, tables.Read):
            session.execute(delete(table))


def test_the_metrics_have_the_last_weeks(database: Database) -> None:
    """Prometheus sees the counts by answer and outcome, and the interval once five were signed; older ones not."""
    now = dt.datetime.now(dt.UTC)
    with database.session() as session:
        for _ in range(4):
            sign(session, answer(session, at=now))
        sign(session, answer(session, at=now), Act.CORRECT, label="notumor")
        answer(session, "", at=now)
        sign(session, answer(session, at=now, version="2.0.0"))
        answer(session, "notumor", at=now - dt.timedelta(days=29))
    with database.session() as session:
        families = {
            family.name: family for family in text_string_to_metric_families(metrics.exposition(session).decode())
        }
    results = {
        (sample.labels["version"], sample.labels["answer"], sample.labels["outcome"]): sample.value
        for sample in families["wetread_results_28d"].samples
    }
    assert results == {
        ("1.0.0", "glioma", "agreed"): 4,
        ("1.0.0", "glioma", "corrected"): 1,
        ("1.0.0", "", "refused"): 1,
        ("2.0.0", "glioma", "agreed"): 1,
    }
    shares = {
        (sample.labels["version"], sample.labels["bound"]): sample.value
        for sample in families["wetread_agreement_28d"].samples
    }
    interval = wilson(4, 5)
    assert shares == {
        ("1.0.0", "low"): interval.low,
        ("1.0.0", "share"): interval.share,
        ("1.0.0", "high"): interval.high,
    }
