"""Files and rows compared: files without rows are indexed, rows without files are marked, page by page."""

from __future__ import annotations

import datetime as dt
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from dicom_listener.faults import where
from dicom_listener.index import Index
from dicom_listener.index_batch import Indexing
from dicom_listener.leavings import remove_leavings
from dicom_listener.spool import OBJECTS
from dicom_listener.writing import sync_folder
from fhir_records.store import arrivals

log = structlog.get_logger(__name__)

# How much further back than necessary a reconciler looks: clocks of several listeners differ.
MARGIN = dt.timedelta(days=2)
YOUNG_S = 60.0
_CHUNK = 200  # files looked up, and at most indexed, in one go


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a comparison of files and rows came to."""

    looked_at: int = 0  # files
    indexed: int = 0  # files that had no row
    broken: int = 0  # files without a row that cannot be indexed
    missing: int = 0  # rows whose file is gone


Progress = Callable[[Reconciled], None]


def backlog_since(index: Index) -> dt.date | None:
    """The day from which on files may lack rows: `MARGIN` before the newest indexed receipt; None: all days.

    Raises:
        DatabaseUnavailable: it cannot be told now.
    """
    with index.database.session() as session:
        newest = arrivals.newest_receipt(session)
    return min(newest.astimezone(dt.UTC).date(), index.today()) - MARGIN if newest else None


def reconcile(
    index: Index,
    since: dt.date | None = None,
    progress: Progress | None = None,
    *,
    younger_too: bool = True,
    go_on: Callable[[], bool] = lambda: True,
) -> Reconciled:
    """Compare files and rows of the days from ``since`` on (None: all): what has no row is indexed.

    Args:
        index: of the spool.
        since: the first day.
        progress: told now and then.
        younger_too: also files of the last `YOUNG_S`; False where these are being indexed by somebody else.
        go_on: asked after every `_CHUNK` files or rows; False ends the comparison there.

    Raises:
        DatabaseUnavailable: the database went away; what was done stays.
    """
    done = Reconciled()
    if since is None:
        remove_leavings(index.spool, go_on)
    for keys in _chunks(index.spool.object_keys(since), _CHUNK):
        with index.database.session() as session:
            known = arrivals.known_keys(session, keys)
        indexed, broken = _index(
            index, [key for key in keys if key not in known and (younger_too or _is_old(index, key))]
        )
        done = replace(
            done,
            looked_at=done.looked_at + len(keys),
            indexed=done.indexed + indexed,
            broken=done.broken + broken,
        )
        if progress is not None:
            progress(done)
        if not go_on():
            return done
    _reconcile_quarantine(index, since)
    missing = _mark_missing(index, since, go_on)
    if missing:
        log.error("files of the index are missing from the spool", files=missing)
    return replace(done, missing=missing)


def reindex_all(index: Index, progress: Progress | None = None) -> Reconciled:
    """Rebuild whatever the index lacks from all files, those too that could not be indexed before.

    Studies with images that no revision holds are open again.

    Raises:
        DatabaseUnavailable: the database went away; what was done stays.
    """
    with index.database.session() as session:
        arrivals.forget_quarantine(session, arrivals.unindexable_keys(session, OBJECTS))
    return reconcile(index, None, progress)


def _index(index: Index, keys: Sequence[str]) -> tuple[int, int]:
    """How many of these files were indexed, and how many cannot be."""
    if not keys:
        return 0, 0
    try:
        _make_durable(index, keys)
        outcomes = list(index.add_files([(key, None) for key in keys]))
    except OSError as error:
        if len(keys) > 1:
            parts = [_index(index, [key]) for key in keys]
            return sum(part[0] for part in parts), sum(part[1] for part in parts)
        log.error("a file of the spool could not be read", file=keys[0], error=where(error))
        return 0, 1
    broken = outcomes.count(Indexing.UNINDEXABLE)
    return len(outcomes) - broken - outcomes.count(Indexing.GONE), broken


def _make_durable(index: Index, keys: Sequence[str]) -> None:
    """See that files which nobody told of survive a power cut before they have a row.

    Whoever wrote them may have died between the name and its sync. Sent again, such an object would be taken for a copy
    of the first file and removed, and a power cut would then take the first one, too.

    Raises:
        OSError: one of them cannot be synchronised; that it is gone is no error.
    """
    folders: dict[Path, None] = {}
    for key in keys:
        path = index.spool.path(key)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        folders |= dict.fromkeys((path.parent, path.parent.parent, path.parent.parent.parent))
    for folder in folders:
        sync_folder(folder)


def _is_old(index: Index, key: str) -> bool:
    try:
        return time.time() - index.spool.path(key).stat().st_mtime > YOUNG_S
    except FileNotFoundError:
        return False


def _reconcile_quarantine(index: Index, since: dt.date | None) -> None:
    for keys in _chunks(index.spool.quarantined_keys(since), _CHUNK):
        with index.database.session() as session:
            known = arrivals.known_keys(session, keys)
        for key in keys:
            if key not in known:
                _note_quarantined(index, key)


def _note_quarantined(index: Index, key: str) -> None:
    facts = index.spool.quarantine_facts(key)
    try:
        status = index.spool.path(key).stat()
    except FileNotFoundError:
        return
    try:
        received_at = dt.datetime.fromisoformat(facts.get("received_at", ""))
    except ValueError:
        received_at = dt.datetime.fromtimestamp(status.st_mtime, dt.UTC)
    index.quarantined(key, status.st_size, facts.get("reason", "unknown"), facts.get("caller", ""), received_at)


def _mark_missing(index: Index, since: dt.date | None, go_on: Callable[[], bool]) -> int:
    """Mark the rows whose file is not there, and unmark those whose file is there again; how many lack theirs."""
    start = dt.datetime.combine(since, dt.time(), dt.UTC) if since else None
    missing, after = 0, None
    while True:
        with index.database.session() as session:
            page = arrivals.file_rows(session, start, after)
        if not page or not go_on():
            return missing
        there = {row.id: index.spool.path(row.file_key).is_file() for row in page}
        missing += sum(not found for found in there.values())
        gone = [row.id for row in page if not row.missing and not there[row.id]]
        found = [row.id for row in page if row.missing and there[row.id]]
        if gone or found:
            with index.database.session() as session:
                arrivals.mark_missing(session, gone, found)
        after = page[-1]


def _chunks(keys: Iterator[str], size: int) -> Iterator[Sequence[str]]:
    while chunk := list(itertools.islice(keys, size)):
        yield chunk
