"""What must hold when the storm is over: looked at in the files and in the database, not asked of the listener."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from dicom_listener.received import split_file
from fhir_records import tables
from fhir_records.model import InstanceKind, Standing
from tests.chaos.stand import Stand
from tests.chaos.studies import Kind, Ledger, Made

_JOBS_OF_REVISIONS = """
SELECT (args->>'revision_id')::bigint, count(*) FROM procrastinate_jobs WHERE args ? 'revision_id' GROUP BY 1
"""


def settled(stand: Stand, ledger: Ledger) -> bool:
    """Whether nothing is under way any more: all is indexed and hashed, no study is open, no association leased."""
    with stand.database.session() as session:
        rows = session.scalar(select(func.count(tables.Instance.sop_uid.distinct()))) or 0
        open_studies = session.scalar(
            select(func.count()).select_from(tables.Study).where(tables.Study.open_since.is_not(None))
        )
        leases = session.scalar(select(func.count()).select_from(tables.AssociationLease))
        unhashed = session.scalar(select(func.count(tables.Instance.id)).where(tables.Instance.sha256 == ""))
        unknown = len(set(stand.spool.object_keys()) ^ set(session.scalars(select(tables.Instance.file_key))))
    return rows == len(ledger.acknowledged) and not (open_studies or leases or unknown or unhashed)


def faults(stand: Stand, ledger: Ledger) -> list[str]:
    """Everything that is wrong, in words; empty: nothing was lost, nothing came twice."""
    found = [*_answers(ledger), *_left_over(stand)]
    with stand.database.session() as session:
        found += _objects(stand, ledger, session)
        found += _quarantine(stand, ledger, session)
        found += _revisions(ledger, session)
    return found


def _answers(ledger: Ledger) -> Iterator[str]:
    for made in ledger.made.values():
        good = made.kind is not Kind.BROKEN
        if made.sop_uid in ledger.acknowledged and not good:
            yield f"an object without a study was answered with success: {made.path.name}"
        if made.sop_uid in ledger.refused and good:
            yield f"a good object was refused with {ledger.refused[made.sop_uid]:04X}: {made.path.name}"
        if not ledger.settled(made.sop_uid):
            yield f"an object was never answered: {made.path.name}"


def half_written(root: Path) -> list[Path]:
    """The files in a spool that hold the beginning of an object."""
    return list(root.rglob("*.part"))


def _left_over(stand: Stand) -> Iterator[str]:
    for part in half_written(stand.spool.root):
        yield f"a half-written file is left: {part.relative_to(stand.spool.root)}"
    for kept in (stand.listen, *stand.sweepers):
        if kept.left_behind:
            yield f"{kept.name}: {len(kept.left_behind)} child processes outlived their killed parent"


def _objects(stand: Stand, ledger: Ledger, session: Session) -> Iterator[str]:
    """Each acknowledged object lies in the spool bit for bit, and stands in the index once."""
    rows: dict[str, list[tables.Instance]] = defaultdict(list)
    for row in session.scalars(select(tables.Instance)):
        rows[row.sop_uid].append(row)
    for sop_uid in ledger.acknowledged:
        yield from _one_object(stand, ledger.made[sop_uid], rows.get(sop_uid, []))
    for sop_uid in rows.keys() - ledger.acknowledged:
        yield f"the index has an object that was never acknowledged: {ledger.made[sop_uid].path.name}"
    keys = Counter(row.file_key for found in rows.values() for row in found)
    files = set(stand.spool.object_keys())
    for key in files - keys.keys():
        yield f"a file has no row: {key}"
    for key in keys.keys() - files:
        yield f"a row has no file: {key}"


def _one_object(stand: Stand, made: Made, rows: list[tables.Instance]) -> Iterator[str]:
    if len(rows) != 1:
        yield f"{made.path.name} was acknowledged and has {len(rows)} rows in the index"
        return
    (row,) = rows
    if row.standing is not Standing.CURRENT:
        yield f"{made.path.name} stands as {row.standing}"
    try:
        content = stand.spool.path(row.file_key).read_bytes()
    except FileNotFoundError:
        yield f"{made.path.name} was acknowledged and its file is gone"
        return
    if hashlib.sha256(split_file(content)[1]).hexdigest() != made.sha256:
        yield f"{made.path.name} lies in the spool with other bytes"
    if (row.sha256, row.size) != (hashlib.sha256(content).hexdigest(), len(content)):
        yield f"{made.path.name}: the index tells another hash or size than its file has"


def _quarantine(stand: Stand, ledger: Ledger, session: Session) -> Iterator[str]:
    """What was refused is kept with its reason, and known."""
    known = Counter(session.scalars(select(tables.QuarantinedObject.file_key)))
    files = set(stand.spool.quarantined_keys())
    if set(known) != files or any(count > 1 for count in known.values()):
        yield f"quarantine: {len(files)} files, {known.total()} rows, {len(files ^ set(known))} without the other"
    kept = {data_sha256(stand.spool.path(key)) for key in files}
    for key in files:
        if not stand.spool.quarantine_facts(key).get("reason"):
            yield f"quarantined bytes without a reason: {key}"
    for sop_uid in ledger.refused:
        if ledger.made[sop_uid].sha256 not in kept:
            yield f"refused bytes are not in quarantine: {ledger.made[sop_uid].path.name}"


def data_sha256(path: Path) -> str:
    """Of the data set in a file of the spool, or of the whole file where it is no DICOM file."""
    return hashlib.sha256(_data_set(path)).hexdigest()


def _data_set(path: Path) -> bytes:
    content = path.read_bytes()
    return bytes(split_file(content)[1]) if content[128:132] == b"DICM" else content


def _revisions(ledger: Ledger, session: Session) -> Iterator[str]:
    """Each study's revisions grow, the last one holds every image, and each was asked to be routed once."""
    images: dict[int, set[int]] = defaultdict(set)
    for study_id, instance_id in session.execute(
        select(tables.Instance.study_id, tables.Instance.id).where(tables.Instance.kind == InstanceKind.IMAGE)
    ):
        images[study_id].add(instance_id)
    jobs: dict[int, int] = dict(session.execute(text(_JOBS_OF_REVISIONS)).tuples().all())
    held: dict[int, set[int]] = defaultdict(set)
    for revision_id, instance_id in session.execute(
        select(tables.RevisionInstance.revision_id, tables.RevisionInstance.instance_id)
    ):
        held[revision_id].add(instance_id)
    revisions: dict[int, list[tables.Revision]] = defaultdict(list)
    for revision in session.scalars(select(tables.Revision).order_by(tables.Revision.number)):
        revisions[revision.study_id].append(revision)
        if jobs.get(revision.id, 0) != 1:
            yield f"revision {revision.id} was asked to be routed {jobs.get(revision.id, 0)} times"
    for study in session.scalars(select(tables.Study)):
        yield from _one_study(study, images[study.id], revisions[study.id], held)
    expected = {made.study_uid for made in ledger.made.values() if made.sop_uid in ledger.acknowledged}
    if (found := set(session.scalars(select(tables.Study.study_uid)))) != expected:
        yield f"{len(expected ^ found)} studies are in the index and not sent, or the other way round"


def _one_study(
    study: tables.Study, images: set[int], revisions: list[tables.Revision], held: Mapping[int, set[int]]
) -> Iterator[str]:
    if study.open_since is not None:
        yield f"study {study.id} is still open"
    if [revision.number for revision in revisions] != list(range(1, study.revision + 1)):
        yield f"study {study.id} is at revision {study.revision} and has {len(revisions)}"
    before: set[int] = set()
    for revision in revisions:
        if not before < held[revision.id]:
            yield f"study {study.id}: revision {revision.number} holds nothing new"
        before = held[revision.id]
    if before != images:
        yield f"study {study.id}: its last revision holds {len(before)} of {len(images)} images"
