"""Following an Orthanc: every study that became stable there is fetched, once, whatever dies in between.

Orthanc logs its changes under rising sequence numbers. The cursor, a row, says up to which of them everything has been
dealt with; it moves in the transaction that judges a study complete, and only past changes whose objects are safe.
So a change may be met twice, and what is here already is not fetched again.

Orthanc tells of a ``StableStudy`` from memory: one that is stopped before a study's ``StableAge`` is over never tells.
Therefore the cursor is held before the first new instance that no fetch has covered yet, and a study that Orthanc calls
stable when it is asked is fetched without having been told.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from sqlalchemy.orm import Session

from dicom_listener.intake import Intake
from dicom_listener.orthanc import (
    NOT_READ_MODALITIES,
    Change,
    ChangeKind,
    OrthancNode,
    OrthancStudy,
    changes_since,
    describe_study,
    fetch_objects,
    study_of_instance,
)
from dicom_listener.reconciler import backlog_since, reconcile
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable, ObjectNotStorable, PeerRefused, PeerUnavailable
from fhir_records.identities import log_id
from fhir_records.store import orthanc as cursors
from fhir_records.store.completeness import FrozenRevision, complete_study
from fhir_records.store.expected import WHOLE_STUDY, Told, expect

_log = structlog.get_logger(__name__)

# Asks for what follows a study that is complete: runs in the transaction that made its revision and moves the cursor.
OnComplete = Callable[[Session, FrozenRevision], None]


class Follower:
    """Follows one Orthanc. Its memory saves work only; a new one goes on from the cursor.

    Args:
        node: the Orthanc.
        database: where the cursor and the index are.
        intake: the door that its objects come in by, the same as C-STORE's.
        on_complete: asks for what follows a study that is complete.
    """

    def __init__(self, node: OrthancNode, database: Database, intake: Intake, on_complete: OnComplete) -> None:
        self._node = node
        self._database = database
        self._intake = intake
        self._on_complete = on_complete
        self._cursor: int | None = None  # as last read or written
        self._position = 0  # the last change looked at
        # What is not dealt with yet: Orthanc's id → the first change that told of it.
        self._stable: dict[str, int] = {}  # studies
        self._new: dict[str, int] = {}  # instances
        self._found_stable: set[str] = set()  # studies that were stable, untold, at the last look

    def follow_once(self) -> bool:
        """Deal with one page of changes.

        Returns:
            Whether there is more to do at once; False: ask again after a while.

        Raises:
            PeerUnavailable: Orthanc does not answer; try again later.
            PeerRefused: Orthanc answers, and says no (the log-in, say); trying again helps once somebody mended it.
            DatabaseUnavailable: the database is away; the cursor has not moved.
            OutOfSpace: there is no room for the objects; the cursor has not moved.
        """
        self._index_backlog()
        try:
            with cursors.only_follower(self._database, self._node.name) as alone:
                return self._follow_page() if alone else False
        except (PeerUnavailable, PeerRefused) as error:
            with self._database.session() as session:
                cursors.note_error(session, self._node.name, str(error))
            raise

    def _index_backlog(self) -> None:
        """Index what an earlier call stored while the database was away."""
        if not self._intake.backlog.is_set():
            return
        try:
            # Cleared first: what cannot be indexed from now on sets it again.
            self._intake.backlog.clear()
            reconcile(self._intake.index, backlog_since(self._intake.index))
        except DatabaseUnavailable:
            self._intake.backlog.set()
            raise

    def _follow_page(self) -> bool:
        self._resume()
        changes, position, done = changes_since(self._node, self._position)
        if position < self._position:
            _log.warning("Orthanc's changes start anew; following from the first", orthanc=self._node.name)
            self._go_to(0)
            self._save()
            return True
        self._note(changes)
        self._position = position
        for orthanc_study_id in list(self._stable):
            self._fetch(orthanc_study_id)
        if done:
            self._fetch_untold()
        self._save()
        return not done

    def _resume(self) -> None:
        """Go on from the cursor, where this follower is new or another one has moved it."""
        with self._database.session() as session:
            cursor = cursors.last_change(session, self._node.name)
        if cursor != self._cursor:
            self._cursor = cursor
            self._go_to(cursor)

    def _go_to(self, position: int) -> None:
        self._position = position
        self._stable = {}
        self._new = {}
        self._found_stable = set()

    def _note(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            noted = self._stable if change.kind is ChangeKind.STABLE_STUDY else self._new
            noted.setdefault(change.orthanc_id, change.sequence)

    def _safe_cursor(self) -> int:
        """The last change before the first that has not been dealt with."""
        return min((*self._stable.values(), *self._new.values(), self._position + 1)) - 1

    def _save(self) -> None:
        with self._database.session() as session:
            self._move(session)
        self._cursor = self._safe_cursor()

    def _move(self, session: Session) -> None:
        cursors.move(session, self._node.name, self._safe_cursor())

    def _fetch(self, orthanc_study_id: str) -> None:
        """Take a study in that Orthanc told of."""
        study = describe_study(self._node, orthanc_study_id)
        if study is None:
            _log.info("study is gone from Orthanc", orthanc=self._node.name)
            del self._stable[orthanc_study_id]
            return
        self._take_study_in(study)

    def _take_study_in(self, study: OrthancStudy) -> None:
        with self._database.session() as session:
            known = cursors.known_objects(session, [instance.sop_uid for instance in study.instances])
        fetched = 0
        for content in fetch_objects(self._node, study, known=known.__contains__):
            try:
                self._intake.take_file(content, self._node.source)
                fetched += 1
            except ObjectNotStorable as error:
                # Its bytes are in quarantine; the study's other objects are not lost for its sake.
                _log.error("object from Orthanc not storable", orthanc=self._node.name, reason=str(error))
        self._stable.pop(study.orthanc_id, None)
        for instance in study.instances:
            self._new.pop(instance.orthanc_id, None)
        with self._database.session() as session:
            study_id = cursors.study_id(session, study.study_uid)
            # One that images arrive for at this moment will be stable again, or be complete by the idle time.
            if study_id is not None and study.stable:
                there = sum(instance.modality not in NOT_READ_MODALITIES for instance in study.instances)
                expect(session, study_id, WHOLE_STUDY, Told(there), self._node.source)
                revision = complete_study(session, study_id, f"stable in Orthanc {self._node.name}")
                if revision is not None:
                    self._on_complete(session, revision)
            self._move(session)
        self._cursor = self._safe_cursor()
        _log.info("study followed", orthanc=self._node.name, study=log_id(study.study_uid), fetched=fetched)

    def _fetch_untold(self) -> None:
        """Take in the studies with new instances that are stable without Orthanc having told."""
        stable: set[str] = set()
        waiting = dict(self._new)
        while waiting:
            instance_id = next(iter(waiting))
            orthanc_study_id = study_of_instance(self._node, instance_id)
            study = describe_study(self._node, orthanc_study_id) if orthanc_study_id else None
            if study is None:
                del waiting[instance_id], self._new[instance_id]
                continue
            for orthanc_id in (instance_id, *(instance.orthanc_id for instance in study.instances)):
                waiting.pop(orthanc_id, None)
            # Twice in a row: Orthanc logs an instance a moment before it calls the study unstable.
            if study.stable and study.orthanc_id in self._found_stable:
                self._take_study_in(study)
                self._new.pop(instance_id, None)
            elif study.stable:
                stable.add(study.orthanc_id)
        self._found_stable = stable
