"""The saliency maps of a read: written with its result, never changed."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.model import ImageRef, SaliencyMap


def add_maps(session: Session, read_id: int, maps: Sequence[SaliencyMap]) -> None:
    """Keep the maps of a read that was just done, in the order of its key images."""
    for number, found in enumerate(maps, start=1):
        session.add(
            tables.SaliencyMap(
                read_id=read_id,
                number=number,
                series_uid=found.image.series_uid,
                sop_uid=found.image.sop_uid,
                sop_class_uid=found.image.sop_class_uid,
                frame=found.image.frame,
                label=found.label,
                rows=found.rows,
                columns=found.columns,
                peak=found.peak,
                levels=found.levels,
            )
        )


def maps_of(session: Session, read_id: int) -> tuple[SaliencyMap, ...]:
    """The maps of this read; none where its model gave none."""
    rows = session.scalars(
        select(tables.SaliencyMap).where(tables.SaliencyMap.read_id == read_id).order_by(tables.SaliencyMap.number)
    )
    return tuple(
        SaliencyMap(
            image=ImageRef(row.series_uid, row.sop_uid, row.sop_class_uid, row.frame),
            label=row.label,
            rows=row.rows,
            columns=row.columns,
            peak=row.peak,
            levels=row.levels,
        )
        for row in rows
    )
