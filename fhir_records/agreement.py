"""A model's answers beside those of people: records, and what follows from their counts. Pure.

An answer is the first document version of a read's result. What a person makes of it is the newest version: whoever
signs again, or takes a rejection back, has the last word. Only what people signed is compared, and nobody has to sign:
every count therefore says, too, how many answers nobody has seen to.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from zoneinfo import ZoneInfo

from fhir_records.model import Code, Equipment, Presence
from fhir_records.proportions import Proportion


class Outcome(StrEnum):
    """What became of a read's answer."""

    AGREED = "agreed"  # a person signed, and the model's answer stands
    CORRECTED = "corrected"  # a person signed another answer
    REJECTED = "rejected"  # a person took it back, and put nothing in its place
    WRONG_PATIENT = "wrong patient"  # taken back, because the images are somebody else's: says nothing of the model
    UNSIGNED = "unsigned"  # nobody has seen to it
    SUPERSEDED = "superseded"  # nobody had when a newer read of the study took its place; now nobody can
    REFUSED = "refused"  # the model gave no answer


@dataclass(frozen=True, slots=True)
class Tally:
    """Reads by what became of their answers."""

    counts: Mapping[Outcome, int] = field(default_factory=dict)

    def of(self, *outcomes: Outcome) -> int:
        """How many came to one of these."""
        return sum(self.counts.get(outcome, 0) for outcome in outcomes)

    @property
    def reads(self) -> int:
        """All of them."""
        return sum(self.counts.values())

    @property
    def answers(self) -> int:
        """Those that were answered, and not refused."""
        return self.reads - self.of(Outcome.REFUSED)

    @property
    def signed(self) -> int:
        """Those that are compared: a person signed them, and not because they were another patient's."""
        return self.of(Outcome.AGREED, Outcome.CORRECTED, Outcome.REJECTED)

    @property
    def agreement(self) -> Proportion:
        """Those whose answer stands, of those that are compared."""
        return Proportion(self.of(Outcome.AGREED), self.signed)


@dataclass(frozen=True, slots=True)
class Answer:
    """One of a model's answers."""

    label: str  # in the model's own word
    presence: Presence
    code: Code | None = None  # None: an answer that the model's newest version cannot give


@dataclass(frozen=True, slots=True)
class PresenceTable:
    """The model's "it is there" against the people's, whatever it is; rejected answers are in none of the four."""

    both: int = 0  # both say present
    model_only: int = 0  # the model says present, the person absent
    person_only: int = 0
    neither: int = 0

    @property
    def sensitivity(self) -> Proportion:
        """Of what people say is there, the model found so much."""
        return Proportion(self.both, self.both + self.person_only)

    @property
    def specificity(self) -> Proportion:
        """Of what people say is not there, the model said so of so much."""
        return Proportion(self.neither, self.neither + self.model_only)

    @property
    def positive_predictive_value(self) -> Proportion:
        """Of what the model says is there, people say so of so much."""
        return Proportion(self.both, self.both + self.model_only)

    @property
    def negative_predictive_value(self) -> Proportion:
        """Of what the model says is not there, people say so of so much."""
        return Proportion(self.neither, self.neither + self.person_only)


@dataclass(frozen=True, slots=True)
class Agreement:
    """A model's answers of some time beside those of people; without a read every part of it is empty."""

    model: str
    total: Tally = Tally()
    versions: Mapping[str, Tally] = field(default_factory=dict)  # by the model's version, as they came into use
    weeks: Mapping[dt.date, Tally] = field(default_factory=dict)  # by Monday, from the first with a read to the last
    scanners: Mapping[Equipment, Tally] = field(default_factory=dict)  # the most compared first
    answers: tuple[Answer, ...] = ()  # every answer that is possible or was given; absence last
    by_answer: Mapping[str, Tally] = field(default_factory=dict)  # by the model's label
    # How often the model's label stands beside the person's; None: rejected.
    confusion: Mapping[tuple[str, str | None], int] = field(default_factory=dict)
    presence: PresenceTable | None = None  # None: the answers are all of what is there, or all of what is not


@dataclass(frozen=True, slots=True)
class AgreementQuery:
    """Which answers of a model are looked at."""

    model: str
    zone: ZoneInfo  # weeks begin in it
    version: str = ""  # of the model; "": all
    since: dt.datetime | None = None  # the model answered then or later
    until: dt.datetime | None = None  # … and before this


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A study of which a person did not leave the model's answer as it was."""

    study_uid: str
    accession_number: str
    read_id: int
    version: str  # of the model
    answered_at: dt.datetime
    signed_at: dt.datetime
    machine: str  # the model's label
    person: str | None  # the person's; None: rejected
    note: str  # the person's words
