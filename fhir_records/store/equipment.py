"""What series were made with: the scanner, as the images name it. Kept of every image that arrives from now on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.model import Equipment


def record_equipment(session: Session, made_with: Mapping[tuple[int, str], Equipment]) -> None:
    """Write what series were made with; what is known of a series already stays.

    Args:
        session: the caller's, which holds the studies' rows.
        made_with: by the study's number and the Series Instance UID; a series that names nothing is left out.
    """
    # In one order everywhere, so that two that meet on a series wait for each other, and never in a ring.
    rows = [
        {"study_id": study_id, "series_uid": series_uid, **asdict(equipment)}
        for (study_id, series_uid), equipment in sorted(made_with.items(), key=lambda item: item[0])
        if equipment
    ]
    if rows:
        session.execute(insert(tables.SeriesEquipment).on_conflict_do_nothing(), rows)
