"""What series were made with: the scanner, as the images name it. Kept of every image that arrives from now on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fhir_records import tables


@dataclass(frozen=True, slots=True)
class Equipment:
    """A scanner, by the attributes of PS3.3 section C.7.5.1; "" where the images do not say."""

    manufacturer: str = ""  # Manufacturer
    model_name: str = ""  # Manufacturer's Model Name
    station_name: str = ""  # Station Name
    device_serial_number: str = ""  # Device Serial Number

    def __bool__(self) -> bool:
        return any((self.manufacturer, self.model_name, self.station_name, self.device_serial_number))


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
        session.execute(insert(tables.SeriesEquipment).values(rows).on_conflict_do_nothing())
