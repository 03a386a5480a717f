"""Models in use: what each read was shown and said, week by week, and what a version on trial said of the same."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Text, bindparam, select, text
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fhir_records import tables

# Shares below this count as this: an empty bin must not weigh without end (the usual floor of the index).
_LEAST_SHARE = 1e-4


@dataclass(frozen=True, slots=True)
class Figures:
    """One read, in numbers; `tables.ReadFigures` says what they are."""

    read_id: int
    model: str
    model_version: str
    read_at: dt.datetime
    label: str | None
    probability: float | None
    refusal: str | None
    images: int
    seconds: float
    intensity: tuple[float, ...]  # empty where nothing came before the network
    distances: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ShadowOutcome:
    """What a version on trial said of one read's study."""

    read_id: int
    model: str
    version: str
    label: str | None
    probability: float | None
    refusal: str | None
    error: str | None
    agrees: bool | None
    seconds: float


@dataclass(frozen=True, slots=True)
class ModelWeek:
    """One version of a model over one week."""

    model: str
    version: str
    week: dt.date  # its Monday, UTC
    reads: int
    refused: int
    seconds_mean: float
    seconds_slowest: float
    answers: Mapping[str, int]  # reads by label
    refusals: Mapping[str, int]  # reads by code
    probabilities: tuple[int, ...]  # reads by probability of their answer, ten bins from 0 to 1
    intensity: tuple[float, ...]  # mean shares over the reads; empty where none showed the network anything
    distances: tuple[float, ...]
    intensity_psi: float | None  # population stability index against training; None: no reference
    distance_psi: float | None

    @property
    def refusal_rate(self) -> float:
        """Share of the reads that were refused."""
        return self.refused / self.reads


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A study of which the version on trial said something else."""

    read_id: int
    active_label: str | None  # None: refused
    shadow_label: str | None
    shadow_probability: float | None


@dataclass(frozen=True, slots=True)
class ShadowSummary:
    """A version on trial beside the active ones whose studies it read."""

    model: str
    version: str
    reads: int
    agreeing: int
    disagreeing: int
    failed: int
    probability_difference: float | None  # mean over the reads that both answered alike; None: there is none
    seconds_mean: float
    active_seconds_mean: float | None
    newest_disagreements: tuple[Disagreement, ...]


def record_figures(session: Session, figures: Figures) -> None:
    """Write a read's figures; a second time changes nothing."""
    values = {name: getattr(figures, name) for name in Figures.__slots__}
    values |= {"intensity": list(figures.intensity), "distances": list(figures.distances)}
    session.execute(insert(tables.ReadFigures).values(**values).on_conflict_do_nothing())


def record_reference(
    session: Session, model: str, version: str, intensity: Sequence[float], distances: Sequence[float]
) -> None:
    """Keep what the training images of a model version looked like, to compare the reads with."""
    shares = {"intensity": list(intensity), "distances": list(distances)}
    known = session.get(tables.ModelReference, (model, version))
    if known is not None and (known.intensity, known.distances) == (shares["intensity"], shares["distances"]):
        return
    session.execute(
        insert(tables.ModelReference)
        .values(model=model, model_version=version, **shares)
        .on_conflict_do_update(index_elements=["model", "model_version"], set_=shares)
    )


def record_shadow(session: Session, outcome: ShadowOutcome) -> None:
    """Write what a version on trial said; a second time changes nothing."""
    values = {name: getattr(outcome, name) for name in ShadowOutcome.__slots__}
    session.execute(insert(tables.ShadowRead).values(**values).on_conflict_do_nothing())


def has_shadow(session: Session, read_id: int, model: str, version: str) -> bool:
    """Whether this version on trial has read the study of that read."""
    row = tables.ShadowRead
    query = select(row.id).where(row.read_id == read_id, row.model == model, row.version == version)
    return session.execute(query).first() is not None


def stability_index(reference: Sequence[float], shares: Sequence[float]) -> float | None:
    """Population stability index of shares against a reference; None where they cannot be compared.

    The sum over the bins of (share - reference) x ln(share / reference). By common use below 0.1 nothing has changed,
    and above 0.25 much has.
    """
    if not reference or len(reference) != len(shares):
        return None
    pairs = [(max(a, _LEAST_SHARE), max(b, _LEAST_SHARE)) for a, b in zip(reference, shares, strict=True)]
    return sum((actual - expected) * math.log(actual / expected) for expected, actual in pairs)


def weekly(session: Session, *, model: str | None = None, since: dt.datetime | None = None) -> tuple[ModelWeek, ...]:
    """Every model version's weeks, oldest first; of one model, or since an instant, where that is given."""
    told = {"model": model, "since": since}
    answers: dict[_Week, dict[str, int]] = {}
    refusals: dict[_Week, dict[str, int]] = {}
    for name, version, week, label, refusal, count in session.execute(_OUTCOMES, told):
        kind, word = (answers, label) if label is not None else (refusals, refusal)
        kind.setdefault((name, version, week), {})[word or "unknown"] = count
    bins: dict[_Week, list[int]] = {}
    for name, version, week, place, count in session.execute(_PROBABILITIES, told):
        bins.setdefault((name, version, week), [0] * 10)[place - 1] = count
    intensity, distances = (_mean_shares(session, column, told) for column in ("intensity", "distances"))
    known = {(row.model, row.model_version): row for row in session.scalars(select(tables.ModelReference))}
    weeks = []
    for name, version, week, reads, refused, mean, slowest in session.execute(_WEEKS, told):
        key = (name, version, week)
        seen, far = intensity.get(key, ()), distances.get(key, ())
        reference = known.get((name, version))
        weeks.append(
            ModelWeek(
                model=name,
                version=version,
                week=week,
                reads=reads,
                refused=refused,
                seconds_mean=mean,
                seconds_slowest=slowest,
                answers=answers.get(key, {}),
                refusals=refusals.get(key, {}),
                probabilities=tuple(bins.get(key, [0] * 10)),
                intensity=seen,
                distances=far,
                intensity_psi=stability_index(reference.intensity, seen) if reference else None,
                distance_psi=stability_index(reference.distances, far) if reference else None,
            )
        )
    return tuple(weeks)


def shadow_summary(session: Session, *, newest: int = 20) -> tuple[ShadowSummary, ...]:
    """Every version that is or was on trial, with its newest disagreements. For administrators only."""
    return tuple(
        ShadowSummary(**row, newest_disagreements=_disagreements(session, row["model"], row["version"], newest))
        for row in session.execute(_SHADOWS).mappings()
    )


def _disagreements(session: Session, model: str, version: str, newest: int) -> tuple[Disagreement, ...]:
    shadow, active = tables.ShadowRead, tables.ReadFigures
    rows = session.execute(
        select(shadow.read_id, active.label, shadow.label, shadow.probability)
        .outerjoin(active, active.read_id == shadow.read_id)
        .where(shadow.model == model, shadow.version == version, shadow.agrees.is_(False))
        .order_by(shadow.id.desc())
        .limit(newest)
    )
    return tuple(Disagreement(*row) for row in rows)


_Week = tuple[str, str, dt.date]

_WHERE = " WHERE (:model IS NULL OR model = :model) AND (CAST(:since AS timestamptz) IS NULL OR read_at >= :since)"
_MONDAY = "date_trunc('week', read_at AT TIME ZONE 'UTC')::date"
_MODEL = bindparam("model", type_=Text())

_WEEKS = text(
    f"SELECT model, model_version, {_MONDAY} AS week, count(*), count(*) FILTER (WHERE label IS NULL),"  # noqa: S608 -- constants of this file
    f" avg(seconds), max(seconds) FROM read_figures{_WHERE} GROUP BY 1, 2, 3 ORDER BY week, model, model_version"
).bindparams(_MODEL)
_OUTCOMES = text(
    f"SELECT model, model_version, {_MONDAY}, label, refusal, count(*) FROM read_figures{_WHERE} GROUP BY 1, 2, 3, 4, 5"  # noqa: S608 -- constants of this file
).bindparams(_MODEL)
_PROBABILITIES = text(
    f"SELECT model, model_version, {_MONDAY}, least(width_bucket(probability, 0, 1, 10), 10), count(*)"  # noqa: S608 -- constants of this file
    f" FROM read_figures{_WHERE} AND probability IS NOT NULL GROUP BY 1, 2, 3, 4"
).bindparams(_MODEL)
_SHARES = {
    column: text(
        f"SELECT model, model_version, {_MONDAY}, bin, avg(share) FROM read_figures,"  # noqa: S608 -- constants of this file
        f" unnest({column}) WITH ORDINALITY AS shares(share, bin){_WHERE} GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4"
    ).bindparams(_MODEL)
    for column in ("intensity", "distances")
}
_SHADOWS = text(
    "SELECT shadow.model, shadow.version, count(*) AS reads, count(*) FILTER (WHERE shadow.agrees) AS agreeing,"
    " count(*) FILTER (WHERE NOT shadow.agrees) AS disagreeing,"
    " count(*) FILTER (WHERE shadow.agrees IS NULL) AS failed,"
    " avg(abs(shadow.probability - active.probability)) FILTER (WHERE shadow.agrees) AS probability_difference,"
    " avg(shadow.seconds) AS seconds_mean, avg(active.seconds) AS active_seconds_mean"
    " FROM shadow_read shadow LEFT JOIN read_figures active ON active.read_id = shadow.read_id"
    " GROUP BY 1, 2 ORDER BY 1, 2"
)


def _mean_shares(session: Session, column: str, told: Mapping[str, object]) -> dict[_Week, tuple[float, ...]]:
    means: dict[_Week, list[float]] = {}
    for name, version, week, _bin, share in session.execute(_SHARES[column], told):
        means.setdefault((name, version, week), []).append(share)
    return {key: tuple(shares) for key, shares in means.items()}
