"""A person who signs what a study's page shows."""

from __future__ import annotations

import datetime as dt

from fhir_records import signing
from fhir_records.database import Database
from fhir_records.model import Act, Signer
from tests import seed

CURIE = Signer("curie", "Curie^Marie", "Dr Marie Curie", "Hôpital Curie", None)


def sign(database: Database, study: seed.Seeded, act: Act, version: int = 1, **more: object) -> None:
    """A person signs."""
    with database.session() as session:
        wanted = signing.SigningRequest(study.study_uid, study.read_id or 0, version, act, **more)  # type: ignore[arg-type]
        signing.sign(session, wanted, CURIE, dt.datetime.now(dt.UTC))
