"""Where the parts of the plot of weeks stand: agreement with its intervals above, the numbers behind it below.

Places are in the units of the SVG's viewBox; `agreement.html` draws them, and the style sheet colours them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from fhir_records.agreement import Tally
from fhir_records.weeks import week_words

LEFT, RIGHT, TOP = 48.0, 48.0, 14.0
SHARES_BOTTOM = 214.0  # where the upper part ends
COUNTS_TOP, COUNTS_BOTTOM = 236.0, 286.0
HEIGHT = 326.0
_LEAST_WIDTH, _LEAST_STEP, _MOST_STEP, _LABEL_WIDTH = 1080.0, 14.0, 90.0, 40.0


@dataclass(frozen=True, slots=True)
class Whisker:
    """A week's agreement: the share, and the ends of its interval."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PlottedWeek:
    """One week; tops are counted from above, so the smaller one is higher."""

    x: float
    words: str
    label: str  # under the axis; "" where there is no room for one
    year: str  # under the label; "" where it is the one before's
    whisker: Whisker | None  # None: too few
    answers_top: float  # of the bar of all answers
    signed_top: float  # of the part that is compared


@dataclass(frozen=True, slots=True)
class Plot:
    """All weeks, and the frame around them."""

    width: float
    weeks: tuple[PlottedWeek, ...]
    bar: float  # width of a bar
    ticks: tuple[tuple[float, str], ...]  # height and words, of shares
    overall: float | None  # height of the agreement over all weeks
    most: int  # answers of the fullest week
    height: float = HEIGHT
    left: float = LEFT
    right: float = RIGHT
    shares_bottom: float = SHARES_BOTTOM
    counts_top: float = COUNTS_TOP
    counts_bottom: float = COUNTS_BOTTOM


def plot(weeks: Mapping[dt.date, Tally], total: Tally) -> Plot:
    """The plot of at least one week."""
    step = min(_MOST_STEP, max(_LEAST_STEP, (_LEAST_WIDTH - LEFT - RIGHT) / len(weeks)))
    every = max(1, -int(-_LABEL_WIDTH // step))
    most = max(1, *(tally.answers for tally in weeks.values()))
    shown, year = [], ""
    for place, (monday, tally) in enumerate(weeks.items()):
        # Counted from the newest, whose label is never left out.
        labelled = (len(weeks) - 1 - place) % every == 0
        name, week = week_words(monday).split("-")
        shown.append(
            PlottedWeek(
                x=LEFT + (place + 0.5) * step,
                words=_words(monday, tally),
                label=week if labelled else "",
                year=name if labelled and name != year else "",
                whisker=_whisker(tally),
                answers_top=_count_height(tally.answers / most),
                signed_top=_count_height(tally.signed / most),
            )
        )
        year = name if labelled else year
    overall = total.agreement.interval
    return Plot(
        width=max(_LEAST_WIDTH, LEFT + RIGHT + step * len(weeks)),
        weeks=tuple(shown),
        bar=round(0.62 * step, 1) if step < 40 else 26.0,
        ticks=tuple((_share_height(share / 100), f"{share} %") for share in (0, 25, 50, 75, 100)),
        overall=_share_height(overall.share) if overall else None,
        most=most,
    )


def _whisker(tally: Tally) -> Whisker | None:
    interval = tally.agreement.interval
    if interval is None:
        return None
    return Whisker(*(_share_height(share) for share in (interval.share, interval.low, interval.high)))


def _words(monday: dt.date, tally: Tally) -> str:
    share = tally.agreement
    agreed = f"{share.hits} of {share.of} agree, {share.words}" if share.interval else "too few signed for a figure"
    return (
        f"{week_words(monday)}, from {monday:%-d %b %Y}: {agreed}; {tally.signed} of {tally.answers} answers compared"
    )


def _share_height(share: float) -> float:
    return round(SHARES_BOTTOM - share * (SHARES_BOTTOM - TOP), 1)


def _count_height(share: float) -> float:
    return round(COUNTS_BOTTOM - share * (COUNTS_BOTTOM - COUNTS_TOP), 1)
