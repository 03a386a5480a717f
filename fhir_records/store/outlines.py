"""What a read's model outlined: written with its result, never changed."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.model import ImageRef, Outlines, SegmentMask


def add_outlines(session: Session, read_id: int, outlines: Outlines) -> None:
    """Keep the outlines of a read that was just done."""
    images = [asdict(image) for image in outlines.images]
    session.add(tables.Segmentation(read_id=read_id, rows=outlines.rows, columns=outlines.columns, images=images))
    session.flush()
    masks = [{"read_id": read_id, **asdict(mask)} for mask in outlines.masks]
    if masks:
        session.execute(insert(tables.SegmentMask), masks)


def outlines_of(session: Session, read_id: int) -> Outlines | None:
    """The outlines of this read; None where its model outlines nothing."""
    row = session.get(tables.Segmentation, read_id)
    if row is None:
        return None
    masks = session.scalars(
        select(tables.SegmentMask)
        .where(tables.SegmentMask.read_id == read_id)
        .order_by(tables.SegmentMask.segment, tables.SegmentMask.place)
    )
    return Outlines(
        rows=row.rows,
        columns=row.columns,
        images=tuple(ImageRef(**image) for image in row.images),
        masks=tuple(SegmentMask(mask.segment, mask.place, mask.bits) for mask in masks),
    )
