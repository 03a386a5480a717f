"""Models in use: figures by week, drift against training, and versions on trial, on a real PostgreSQL."""

from __future__ import annotations

import datetime as dt
import uuid

import pytest

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.metrics import exposition
from fhir_records.model import Priority, ReadState
from fhir_records.store import models

MONDAY = dt.datetime(2026, 11, 16, tzinfo=dt.UTC)
TRAINING = (0.25, 0.5, 0.25)


def read_in_record(database: Database, state: ReadState = ReadState.READ, version: str = "0.1.0") -> int:
    """The number of a read in the record, of a study with a revision without images."""
    with database.session() as session:
        patient = tables.Patient(patient_uid=uuid.uuid4().hex)
        session.add(patient)
        session.flush()
        study = tables.Study(
            study_uid=f"2.25.{uuid.uuid4().int}", patient_id=patient.id, source="dicom:CT1", revision=1
        )
        session.add(study)
        session.flush()
        session.add(tables.Revision(study_id=study.id, number=1))
        row = tables.Read(
            study_id=study.id,
            revision=1,
            model="tiny",
            model_version=version,
            state=state,
            priority=Priority.ROUTINE,
        )
        session.add(row)
        session.flush()
        return row.id


def _figures(read_id: int, **changed: object) -> models.Figures:
    values: dict[str, object] = {
        "read_id": read_id,
        "model": "tiny",
        "model_version": "0.1.0",
        "read_at": MONDAY + dt.timedelta(days=2),
        "label": "glioma",
        "probability": 0.93,
        "refusal": None,
        "images": 20,
        "seconds": 0.5,
        "intensity": TRAINING,
        "distances": (),
        **changed,
    }
    return models.Figures(**values)  # type: ignore[arg-type]


def test_reads_are_gathered_by_week(database: Database) -> None:
    """A week counts its own reads, refusals, answers and seconds, from Monday to Sunday."""
    entries = [
        _figures(read_in_record(database)),
        _figures(read_in_record(database), label="notumor", probability=1.0, seconds=1.5),
        _figures(
            read_in_record(database),
            label=None,
            probability=None,
            refusal="modality",
            images=0,
            intensity=(),
            seconds=0.1,
        ),
        _figures(read_in_record(database), read_at=MONDAY + dt.timedelta(days=7)),
    ]
    with database.session() as session:
        for entry in [*entries, entries[0]]:  # one of them twice
            models.record_figures(session, entry)
    with database.session() as session:
        first, second = models.weekly(session, model="tiny")
        assert models.weekly(session, model="other") == ()
        assert models.weekly(session, since=MONDAY + dt.timedelta(days=6)) == (second,)
    assert (first.week, second.week) == (dt.date(2026, 11, 16), dt.date(2026, 11, 23))
    assert (first.reads, first.refused, first.answers, first.refusals) == (
        3,
        1,
        {"glioma": 1, "notumor": 1},
        {"modality": 1},
    )
    assert first.probabilities == (0, 0, 0, 0, 0, 0, 0, 0, 0, 2)
    assert first.seconds_mean == pytest.approx(0.7)
    assert first.seconds_slowest == 1.5
    assert first.intensity == TRAINING
    assert first.intensity_psi is None


def test_inputs_that_drift_raise_the_index(database: Database) -> None:
    """Against training, the same inputs have an index of nought; other inputs one that says so."""
    with database.session() as session:
        models.record_reference(session, "tiny", "0.1.0", (0.1, 0.1, 0.8), ())
        models.record_reference(session, "tiny", "0.1.0", TRAINING, ())
        models.record_figures(session, _figures(read_in_record(database)))
        later = MONDAY + dt.timedelta(days=8)
        models.record_figures(session, _figures(read_in_record(database), read_at=later, intensity=(0.8, 0.1, 0.1)))
    with database.session() as session:
        first, second = models.weekly(session)
    assert first.intensity_psi == pytest.approx(0)
    assert second.intensity_psi is not None
    assert second.intensity_psi > 0.25
    assert second.distance_psi is None


def test_a_version_on_trial_is_summed_up(database: Database) -> None:
    """What a version on trial said stands beside the active one's answers, disagreements by name of the read."""
    reads = [read_in_record(database) for _ in range(3)]
    with database.session() as session:
        for read_id in reads:
            models.record_figures(session, _figures(read_id))
        outcomes = [
            models.ShadowOutcome(reads[0], "tiny", "0.2.0", "glioma", 0.83, None, None, True, 0.4),
            models.ShadowOutcome(reads[1], "tiny", "0.2.0", "notumor", 0.6, None, None, False, 0.4),
            models.ShadowOutcome(reads[2], "tiny", "0.2.0", None, None, None, "It crashed.", None, 0.1),
        ]
        for outcome in [*outcomes, outcomes[0]]:
            models.record_shadow(session, outcome)
        assert models.has_shadow(session, reads[0], "tiny", "0.2.0")
        assert not models.has_shadow(session, reads[0], "tiny", "0.3.0")
    with database.session() as session:
        (summary,) = models.shadow_summary(session)
    assert (summary.reads, summary.agreeing, summary.disagreeing, summary.failed) == (3, 1, 1, 1)
    assert summary.probability_difference == pytest.approx(0.1)
    assert summary.newest_disagreements == (models.Disagreement(reads[1], "glioma", "notumor", 0.6),)


def test_the_running_week_is_exported_as_metrics(database: Database) -> None:
    """Prometheus is told of this week's reads, refusals and drift by model and version, and of trials."""
    with database.session() as session:
        models.record_reference(session, "tiny", "0.1.0", TRAINING, ())
        models.record_figures(session, _figures(read_in_record(database), read_at=dt.datetime.now(dt.UTC)))
        models.record_shadow(
            session,
            models.ShadowOutcome(read_in_record(database), "tiny", "0.2.0", "glioma", 0.8, None, None, True, 0.4),
        )
    with database.session() as session:
        told = exposition(session).decode()
    assert 'wetread_model_week_reads{model="tiny",version="0.1.0"} 1.0' in told
    assert 'wetread_model_week_answers{label="glioma",model="tiny",version="0.1.0"} 1.0' in told
    assert 'wetread_model_week_psi{model="tiny",of="intensity",version="0.1.0"} 0.0' in told
    assert 'wetread_model_week_refusal_rate{model="tiny",version="0.1.0"} 0.0' in told
    assert 'wetread_shadow_reads{model="tiny",outcome="agrees",version="0.2.0"} 1.0' in told
