"""When a study is complete: a pure judgement, and the transaction that acts on it.

All instants are the database's. Should its clock be set back, instants that lie ahead are brought back to it, and the
idle time begins anew; should it jump ahead, or should a judge not have looked for a while, `Judge` gives listeners the
time of a lease to say which associations are open, before silence is taken for an end.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog
from sqlalchemy.orm import Session

from dicom_listener.settings import Caller
from fhir_records.identities import log_id
from fhir_records.store import completeness
from fhir_records.store.associations import LEASE
from fhir_records.store.completeness import FrozenRevision, OpenStudy
from fhir_records.store.expected import OBJECTS, Expectation

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the rest of a study is waited for; None: as long as for other callers' studies."""

    idle_seconds: float | None = None
    max_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class CompletionRules:
    """How long to wait for the rest of a study."""

    idle_seconds: float = 60.0  # nothing arrived for so long, and no association that sent it is open
    max_seconds: float = 3600.0  # so long after its first new image, whatever is open
    callers: Mapping[str, Patience] = field(default_factory=dict)  # by calling AE title

    def idle_of(self, callers: Iterable[str]) -> float:
        """The idle time of a study that these callers sent: the longest of theirs, in seconds."""
        own = [patience.idle_seconds for patience in self._patience(callers)]
        return max((self.idle_seconds if seconds is None else seconds for seconds in own), default=self.idle_seconds)

    def max_of(self, callers: Iterable[str]) -> float:
        """The longest time that a study of these callers is open, in seconds."""
        own = [patience.max_seconds for patience in self._patience(callers)]
        return max((self.max_seconds if seconds is None else seconds for seconds in own), default=self.max_seconds)

    @property
    def shortest_idle(self) -> float:
        """The shortest idle time of any caller, in seconds."""
        return min(self.idle_seconds, *(self.idle_of([caller]) for caller in self.callers), self.idle_seconds)

    @property
    def shortest_max(self) -> float:
        """The shortest of the longest times, in seconds."""
        return min(self.max_seconds, *(self.max_of([caller]) for caller in self.callers), self.max_seconds)

    def _patience(self, callers: Iterable[str]) -> list[Patience]:
        return [self.callers.get(caller, Patience()) for caller in callers]


def rules_of(callers: Iterable[Caller], idle_seconds: float, max_seconds: float) -> CompletionRules:
    """The rules of a site, and of those callers that have their own."""
    own = {
        caller.ae_title: Patience(caller.study_idle_seconds, caller.study_max_seconds)
        for caller in callers
        if caller.study_idle_seconds is not None or caller.study_max_seconds is not None
    }
    return CompletionRules(idle_seconds, max_seconds, own)


def judge(study: OpenStudy, rules: CompletionRules, now: dt.datetime) -> str | None:
    """Why the study is complete ``now``; None: it is not."""
    idle_seconds, max_seconds = rules.idle_of(study.callers), rules.max_of(study.callers)
    expectation = study.expectation
    # What a PACS has may grow while somebody sends to both.
    settled = expectation is not None and (expectation.source == OBJECTS or study.open_associations == 0)
    if expectation is not None and expectation.all_here and settled:
        return f"all {expectation.expected} expected instances are here"
    if now - study.open_since >= dt.timedelta(seconds=max_seconds):
        return f"open for {max_seconds:g} s{_short_of(expectation)}"
    quiet = now - study.last_arrival_at >= dt.timedelta(seconds=idle_seconds)
    # Somebody said that more is to come: silence is no sign that it does not.
    if quiet and study.open_associations == 0 and expectation is None:
        return f"nothing arrived for {idle_seconds:g} s"
    return None


def _short_of(expectation: Expectation | None) -> str:
    return f"; {expectation.arrived} of {expectation.expected} expected instances are here" if expectation else ""


def complete_due_studies(session: Session, now: dt.datetime, rules: CompletionRules) -> list[FrozenRevision]:
    """Make a revision of every study that is complete, in the caller's transaction, which should ask for what follows.

    Two processes that judge at once make one revision: each leaves out what the other has locked.

    Args:
        session: the caller's.
        now: by the database's clock.
        rules: how long is waited.
    """
    revisions = []
    quiet_since = now - dt.timedelta(seconds=rules.shortest_idle)
    open_since = now - dt.timedelta(seconds=rules.shortest_max)
    for study in completeness.due_studies(session, now, quiet_since, open_since):
        reason = judge(study, rules, now)
        if reason is None:
            continue
        revision = completeness.complete_study(session, study.id, reason)
        if revision is not None:
            log.info(
                "study complete",
                study=log_id(study.study_uid),
                revision=revision.number,
                images=revision.images,
                reason=reason,
            )
            revisions.append(revision)
    return revisions


class Judge:
    """Judges again and again, and distrusts silence after a time in which nobody could have been heard.

    Args:
        rules: how long is waited.
        steady: seconds of a clock that nobody sets.
    """

    def __init__(self, rules: CompletionRules, *, steady: Callable[[], float] = time.monotonic) -> None:
        self._rules = rules
        self._steady = steady
        self._last: tuple[float, dt.datetime] | None = None  # both clocks at the last look
        self._patient_until = 0.0  # by the steady clock

    def complete(self, session: Session) -> list[FrozenRevision]:
        """As `complete_due_studies`, by the database's clock."""
        now, steady = completeness.database_now(session), self._steady()
        if self._last is not None:
            passed, told = steady - self._last[0], (now - self._last[1]).total_seconds()
            lease = LEASE.total_seconds()
            # The database was away, this process stood still, or the clock jumped ahead: leases of associations that
            # are open may have run out without anybody to renew them.
            if passed > lease or told - passed > lease / 3:
                self._patient_until = steady + lease
        self._last = (steady, now)
        if mended := completeness.mend_future(session, now):
            log.warning("the database's clock was set back; studies wait anew", studies=mended)
        if steady < self._patient_until:
            return []
        return complete_due_studies(session, now, self._rules)
