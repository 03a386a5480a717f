"""Which result takes the place of which: later versions of the same read, and reads of newer images.

A machine's word never takes the place of a person's: new images after signing make a new preliminary result, and the
signed one stands beside it until a person acts. Nor does "not read" take the place of a finding.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.model import Result, ResultStatus
from fhir_records.store.results import result_record

# Tells our advisory locks on studies from other ones of the same database.
_STUDY_LOCK = 7_731_116 << 32


@dataclass(frozen=True, slots=True)
class Succession:
    """Where a result stands among those of the same study and model."""

    outdated: bool  # a later version of the same read is there
    superseded_at: dt.datetime | None  # since when a read of newer images has taken its place
    earlier_versions: tuple[Result, ...]  # of the same read, the newest first
    older_reads: tuple[Result, ...]  # newest versions of older reads whose place it takes, the newest first


def lock_study(session: Session, study_id: int) -> None:
    """Until the end of the transaction, nobody else renders or withdraws for this study."""
    session.execute(select(func.pg_advisory_xact_lock(_STUDY_LOCK + study_id)))


def takes_the_place_of(newer: Result, older: Result) -> bool:
    """Whether the result of a newer read takes the place of an older read's."""
    if ResultStatus.ENTERED_IN_ERROR in (newer.status, older.status):
        return False
    if newer.is_signed:
        return True
    return not older.is_signed and (newer.finding is not None or older.finding is None)


def succession(session: Session, result: Result) -> Succession:
    """Where this result stands now. The caller holds `lock_study`."""
    read = session.get_one(tables.Read, result.read_id)
    rows = session.scalars(
        select(tables.Result)
        .join(tables.Result.read)
        .where(tables.Read.study_id == read.study_id, tables.Read.model == read.model)
        .order_by(tables.Read.id.desc(), tables.Result.version.desc())
    )
    everything = [result_record(row) for row in rows]
    same = [entry for entry in everything if entry.read_id == result.read_id]
    newest: dict[int, Result] = {}
    for entry in everything:
        newest.setdefault(entry.read_id, entry)
    newer = [entry for read_id, entry in newest.items() if read_id > result.read_id]
    replacing = [entry.created_at for entry in newer if takes_the_place_of(entry, result)]
    return Succession(
        outdated=any(entry.version > result.version for entry in same),
        superseded_at=min(replacing, default=None),
        earlier_versions=tuple(entry for entry in same if entry.version < result.version),
        older_reads=tuple(
            entry for read_id, entry in newest.items() if read_id < result.read_id and takes_the_place_of(result, entry)
        ),
    )
