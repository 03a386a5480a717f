"""PACS asked how many instances the studies have that wait for the rest: with all of them here, nobody waits longer."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from dicom_listener.asking import StudyNumbers
from dicom_listener.settings import Node
from fhir_records.database import Database
from fhir_records.errors import PeerRefused, PeerUnavailable
from fhir_records.identities import log_id
from fhir_records.store import expected
from fhir_records.store.expected import WHOLE_STUDY, Told

log = structlog.get_logger(__name__)

# Images that pour in are not asked about: nothing came for so long.
QUIET = dt.timedelta(seconds=5)
# A number that is not reached is asked for again: the PACS may still be receiving too, or have thrown something away.
AGAIN = dt.timedelta(seconds=60)

Ask = Callable[[Node, str], StudyNumbers | None]


@dataclass(frozen=True, slots=True)
class Expecting:
    """Asks for the numbers of open studies and writes them down; the judge of completeness looks at them.

    A PACS that does not answer, or does not know, leaves the study to the rules of time.
    """

    database: Database
    nodes: Mapping[str, Node]  # by the calling AE title whose studies are asked for
    ask: Ask
    quiet: dt.timedelta = QUIET
    again: dt.timedelta = AGAIN
    _silent: set[str] = field(default_factory=set)  # PACS that did not answer the last time, to be told of once

    def look(self) -> int:
        """Ask for what is to be asked; how many numbers were told.

        Raises:
            DatabaseUnavailable: nothing was asked.
        """
        if not self.nodes:
            return 0
        with self.database.session() as session:
            studies = expected.studies_to_ask_about(session, self.nodes, self.quiet, self.again)
        told, unreachable = 0, set()
        for study_id, study_uid, callers in studies:
            for name, node in {
                self.nodes[caller].name: self.nodes[caller] for caller in callers if caller in self.nodes
            }.items():
                if name in unreachable:
                    continue
                try:
                    numbers = self.ask(node, study_uid)
                except (PeerUnavailable, PeerRefused) as error:
                    unreachable.add(name)
                    if name not in self._silent:
                        log.warning("a PACS cannot be asked how much there is of a study", pacs=name, error=str(error))
                    continue
                self._silent.discard(name)
                if self._note(study_id, study_uid, name, numbers):
                    told += 1
        self._silent.update(unreachable)
        return told

    def _note(self, study_id: int, study_uid: str, name: str, numbers: StudyNumbers | None) -> bool:
        known = numbers is not None and bool(numbers.instances)
        with self.database.session() as session:
            told = Told(numbers.instances, numbers.series) if known and numbers is not None else Told(None)
            expected.expect(session, study_id, WHOLE_STUDY, told, f"pacs:{name}")
        log.info("asked a PACS", pacs=name, study=log_id(study_uid), instances=told.instances)
        return known
