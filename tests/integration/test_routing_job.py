"""The job that routes a revision: once, with what the pixels show, and without holding up what still arrives."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from sqlalchemy import select, text, update

from fhir_records import jobs, tables
from fhir_records.database import Database
from fhir_records.model import Installation, Instance, Priority, ReadState, StudyState
from fhir_records.store import routing_decisions, studies
from tests import routed, seed
from workflow.facts import Headers
from workflow.router import ModelVersion, Route, Router
from workflow.routing import RouteRevision

HERE = Installation(uuid.UUID(int=1), "For evaluation.")


def asked_for(database: Database, when: str, shown: str) -> tuple[list[str], list[int]]:
    """Route a new study twice; the models asked to read it, and how many images were looked at each time."""
    with database.session() as session:
        study = seed.add_study(session, 1, routed=False)
        revision_id = session.scalars(select(tables.Revision.id).where(tables.Revision.study_id == study.id)).one()
    looked_at: list[int] = []

    def look(instances: Sequence[Instance]) -> str:
        looked_at.append(len(instances))
        with database.session() as session:  # as the listener does when an image of this study arrives
            session.execute(select(tables.Study).where(tables.Study.id == study.id).with_for_update(nowait=True))
        return shown

    router = Router([Route("r", when, ("brain",), ("pacs",))], [ModelVersion("brain", "1")])
    job = RouteRevision(database, router, HERE, look, lambda _: Headers(), lambda: seed.NOW)
    job(revision_id)
    job(revision_id)
    with database.session() as session:
        return list(session.scalars(select(tables.Read.model))), looked_at


def test_a_study_is_routed_once(database: Database) -> None:
    """A second run of the job queues nothing, and no pixels are looked at where no rule asks."""
    assert asked_for(database, "study.images == 3", "") == (["brain"], [])


def test_pixels_are_looked_at_once_and_with_the_study_free(database: Database) -> None:
    """What the pixels show decides; while it is found out, images of the study may arrive."""
    assert asked_for(database, 'image.anatomy == "brain MR"', "brain MR") == (["brain"], [3])


def test_what_the_pixels_show_can_keep_a_study_from_a_model(database: Database) -> None:
    """A study whose header fits and whose pixels do not is not given to the model."""
    assert asked_for(database, 'image.anatomy == "brain MR"', "other") == ([], [3])


# --- what is kept, and what is queued -----------------------------------------------------------------------------

NOON = dt.datetime(2026, 11, 23, 12, tzinfo=routed.ZONE)
BOTH = """
[[route]]
name = "every model"
when = "true"
models = ["brain_mr_tumour", "chest_xr_pneumonia"]
results_to = ["pacs"]
forward_to = ["teleradiology"]
"""


def test_every_model_has_a_read_of_its_own(database: Database, tmp_path: Path) -> None:
    """Several models on one study are several reads, each queued by itself; what comes of one leaves the others."""
    routed.some_studies(database, 1)
    routed.route_all(database, tmp_path, NOON, BOTH)
    with database.session() as session:
        reads = session.scalars(select(tables.Read).order_by(tables.Read.id)).all()
        assert [(read.model, read.results_to, read.routes) for read in reads] == [
            ("brain_mr_tumour", ["pacs"], ["every model"]),
            ("chest_xr_pneumonia", ["pacs"], ["every model"]),
        ]
        assert jobs.queue_depths(session) == {("reads", "todo"): 2, ("forwards", "todo"): 1}
        seed.add_result(session, reads[0], finding=seed.glioma(reads[0].study))
        seed.add_result(session, reads[1], refusal=seed.refused_ct())
        reads[0].state, reads[1].state = ReadState.READ, ReadState.REFUSED
        session.flush()
        assert studies.study_record(session, reads[0].study).state is StudyState.READ


def test_a_decision_is_kept_with_its_reasons(database: Database, tmp_path: Path) -> None:
    """What the rules saw and came to, the instant in the site's zone, and how many images go where."""
    (uid,) = routed.some_studies(database, 1)
    routed.route_all(database, tmp_path, NOON, BOTH)
    with database.session() as session:
        (line,) = routing_decisions.decisions_of(session, uid)
    assert (line.revision, line.decided_at) == (1, NOON)
    kept = line.explanation
    assert kept["facts"]["now"] == {"hour": 12, "minute": 0, "weekday": 1, "time": "12:00", "date": "2026-11-23"}
    assert kept["facts"]["study"]["images"] == 3
    assert [read["model"] for read in kept["reads"]] == ["brain_mr_tumour", "chest_xr_pneumonia"]
    assert kept["forwards"] == [
        {
            "destination": "teleradiology",
            "routes": ["every model"],
            "priority": "routine",
            "images": 3,
            "had_already": 0,
            "came_from_there": 0,
        }
    ]


def test_what_came_from_a_node_is_not_set_on_its_way_back(database: Database, tmp_path: Path) -> None:
    """A study of the node that a route sends images to is read, and stays."""
    (uid,) = routed.some_studies(database, 1)
    with database.session() as session:
        session.execute(update(tables.Instance).values(source="dicom:TELE"))
    routed.route_all(database, tmp_path, NOON, BOTH)
    with database.session() as session:
        assert session.scalars(select(tables.Forward)).all() == []
        (line,) = routing_decisions.decisions_of(session, uid)
        assert jobs.queue_depths(session) == {("reads", "todo"): 2}
    assert line.explanation["forwards"][0]["came_from_there"] == 3


@pytest.mark.parametrize(
    ("said", "in_sequence", "counts"),
    [("STAT", False, 20), ("HIGH", False, 10), ("stat", True, 20), ("MEDIUM", False, 0), ("", False, 0)],
)
def test_the_order_in_the_images_makes_a_study_urgent(
    database: Database, tmp_path: Path, said: str, in_sequence: bool, counts: int
) -> None:
    """Requested Procedure Priority, also where it stands in the Request Attributes Sequence, is the jobs' priority."""
    routed.some_studies(database, 1)
    with database.session() as session:
        seed.write_images(tmp_path, session, 1)
    path = tmp_path / "1.2.826.0.1.3680043.8.498.1.1.1.dcm"
    ds = dcmread(path)
    item = Dataset()
    (item if in_sequence else ds).RequestedProcedurePriority = said
    ds.RequestAttributesSequence = [item]
    ds.save_as(path)
    routed.route_all(database, tmp_path, NOON, BOTH)
    with database.session() as session:
        priorities = session.execute(text("SELECT DISTINCT priority FROM procrastinate_jobs")).scalars().all()
        assert priorities == [counts]
        assert {read.priority for read in session.scalars(select(tables.Read))} == {
            {20: Priority.STAT, 10: Priority.URGENT, 0: Priority.ROUTINE}[counts]
        }


def test_rules_see_what_the_headers_say(database: Database, tmp_path: Path) -> None:
    """Attributes that the index has no column for are read from the first image of each series."""
    routed.some_studies(database, 1)
    with database.session() as session:
        seed.write_images(tmp_path, session, 1)
    path = tmp_path / "1.2.826.0.1.3680043.8.498.1.1.1.dcm"
    ds = dcmread(path)
    ds.BodyPartExamined, ds.ProtocolName, ds.InstitutionName = "KNEE", "PD fs", "Klinikum Süd"
    ds.save_as(path)
    rules = """
[[route]]
name = "knee"
when = '''
series.exists(s, s.BodyPartExamined == "KNEE" && s.ProtocolName.startsWith("PD") && "PRIMARY" in s.ImageType)
&& study.InstitutionName == "Klinikum Süd" && instance.all(i, i.Rows == 128)'''
forward_to = ["pacs"]
"""
    routed.route_all(database, tmp_path, NOON, rules)
    with database.session() as session:
        assert [row.destination for row in session.scalars(select(tables.Forward))] == ["pacs"]
