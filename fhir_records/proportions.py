"""A share of a count, and how far it can be trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
FEWEST = 5  # of fewer no figure is given: the interval would reach from nearly nothing to nearly everything


@dataclass(frozen=True, slots=True)
class Interval:
    """A share with its confidence interval; all three from 0 to 1."""

    low: float
    share: float
    high: float


@dataclass(frozen=True, slots=True)
class Proportion:
    """So many of so many.

    Raises:
        ValueError: more than there are, or fewer than none.
    """

    hits: int
    of: int

    def __post_init__(self) -> None:
        if not 0 <= self.hits <= self.of:
            raise ValueError(f"{self.hits} of {self.of} is no proportion")

    @property
    def interval(self) -> Interval | None:
        """The share with its interval of 95 %; None where there are too few."""
        return wilson(self.hits, self.of) if self.of >= FEWEST else None

    @property
    def share_words(self) -> str:
        """For people: "86 %", or "too few"."""
        interval = self.interval
        return f"{_percent(interval.share)} %" if interval else "too few"

    @property
    def interval_words(self) -> str:
        """For people: "60 to 96 %"; "" where there are too few."""
        interval = self.interval
        return f"{_percent(interval.low)} to {_percent(interval.high)} %" if interval else ""

    @property
    def words(self) -> str:
        """For people: "86 % (60 to 96 %)", or "too few"."""
        return f"{self.share_words} ({self.interval_words})" if self.interval else self.share_words


def wilson(hits: int, of: int, confidence: float = CONFIDENCE) -> Interval:
    """The score interval of a binomial proportion, without correction for continuity.

    E. B. Wilson, Probable inference, the law of succession, and statistical inference, Journal of the American
    Statistical Association 22 (1927) 209-212. It keeps what it promises for small counts and shares near 0 and 1, where
    the common interval (share ± 1.96 standard errors) does not.

    Raises:
        ValueError: ``of`` is 0.
    """
    if of <= 0:
        raise ValueError("a share of nothing has no interval")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = hits / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    reach = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    # Exact where rounding would leave 1e-17, and beyond 0 and 1 where it would step over them.
    return Interval(0.0 if hits == 0 else middle - reach, share, 1.0 if hits == of else middle + reach)


def _percent(share: float) -> str:
    """In whole percent; "100" and "0" only where it is all or none."""
    if 0.995 <= share < 1:
        return ">99"
    if 0 < share < 0.005:
        return "<1"
    return f"{100 * share:.0f}"
