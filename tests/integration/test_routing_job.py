"""The job that routes a revision: once, with what the pixels show, and without holding up what still arrives."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import select

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.model import Installation, Instance
from tests import seed
from workflow.facts import Headers
from workflow.router import ModelVersion, Route, Router
from workflow.routing import RouteRevision

HERE = Installation(uuid.UUID(int=1), "For evaluation.")


def routed(database: Database, when: str, shown: str) -> tuple[list[str], list[int]]:
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
    assert routed(database, "study.images == 3", "") == (["brain"], [])


def test_pixels_are_looked_at_once_and_with_the_study_free(database: Database) -> None:
    """What the pixels show decides; while it is found out, images of the study may arrive."""
    assert routed(database, 'image.anatomy == "brain MR"', "brain MR") == (["brain"], [3])


def test_what_the_pixels_show_can_keep_a_study_from_a_model(database: Database) -> None:
    """A study whose header fits and whose pixels do not is not given to the model."""
    assert routed(database, 'image.anatomy == "brain MR"', "other") == ([], [3])
