"""Hashes of stored objects, written behind their rows.

Every function takes the caller's session and leaves committing to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Text, any_, column, func, literal, select, update
from sqlalchemy.orm import Session

from fhir_records import tables


@dataclass(frozen=True, slots=True)
class Digests:
    """Hashes of a stored object."""

    sha256: str  # of the whole file, hex; "" is none yet
    pixels_sha256: str  # of the encoded pixels, behind a word for how they are encoded; "" where there are none


@dataclass(frozen=True, slots=True)
class Unhashed:
    """An instance whose file was not hashed yet."""

    id: int
    file_key: str


def without_digests(session: Session, after: int, limit: int) -> Sequence[Unhashed]:
    """Instances whose files were not hashed yet and are not known to be missing, those behind the id ``after``."""
    instance = tables.Instance
    rows = session.execute(
        select(instance.id, instance.file_key)
        .where(instance.id > after, _not_hashed(), instance.missing_since.is_(None))
        .order_by(instance.id)
        .limit(limit)
    )
    return [Unhashed(row.id, row.file_key) for row in rows]


def record_digests(session: Session, found: Mapping[Unhashed, Digests]) -> None:
    """Write the hashes of files, for instances that still stand on them and have none."""
    if not found:
        return
    ids = sorted(one.id for one in found)
    instance = tables.Instance
    # In one order, so that two who hash the same files do not wait for each other in a circle; and not keyed, so that
    # whoever freezes a revision of these images need not wait.
    locked = (
        select(instance.id, instance.file_key)
        .where(instance.id == any_(literal(ids, ARRAY(BigInteger()))), _not_hashed())
        .order_by(instance.id)
        .with_for_update(key_share=True)
    )
    standing = [Unhashed(row.id, row.file_key) for row in session.execute(locked)]
    theirs = [(one, found[one]) for one in standing if one in found]
    if not theirs:
        return
    told = (
        func.unnest(
            literal([one.id for one, _ in theirs], ARRAY(BigInteger())),
            literal([digests.sha256 for _, digests in theirs], ARRAY(Text())),
            literal([digests.pixels_sha256 for _, digests in theirs], ARRAY(Text())),
        )
        .table_valued(column("id", BigInteger), column("sha256", Text), column("pixels_sha256", Text))
        .render_derived("told")
    )
    session.execute(
        update(instance)
        .where(instance.id == told.c.id)
        .values(sha256=told.c.sha256, pixels_sha256=told.c.pixels_sha256)
        .execution_options(synchronize_session=False)
    )


def _not_hashed() -> ColumnElement[bool]:
    # Written out, not a parameter: the planner has to see that the index of these rows will do.
    return tables.Instance.sha256 == literal("", literal_execute=True)
