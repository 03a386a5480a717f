"""What a storm came to, for people."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Account:
    """Counts, and every claim that was not true."""

    deliveries: int = 0
    attempts: int = 0
    rounds: int = 0
    simulated: dt.timedelta = dt.timedelta()
    seconds: float = 0
    happened: Counter[str] = field(default_factory=Counter)  # on our side, in words
    faults: Counter[str] = field(default_factory=Counter)  # of the peers
    states: Counter[str] = field(default_factory=Counter)
    untrue: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """One a subject."""
        yield f"{self.deliveries} deliveries, {self.attempts} attempts"
        yield f"{self.rounds} rounds, {self.simulated} on its clock, {self.seconds:.0f} s"
        yield f"the PACS: {_counts(self.faults)}"
        yield f"meanwhile: {_counts(self.happened)}"
        yield f"in the end: {_counts(self.states)}"
        yield f"untrue: {len(self.untrue)}"
        yield from self.untrue[:20]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items()))
