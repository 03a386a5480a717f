"""How many instances a study is said to have: by its objects, by a PACS that was asked, by an Orthanc that is followed.

Every function takes the caller's session and leaves committing to it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import and_, exists, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.model import Standing
from fhir_records.store.arrivals import Arrival

# The source of numbers that stand in the objects themselves.
OBJECTS = "objects"
WHOLE_STUDY = ""  # the series of a number that is the study's


@dataclass(frozen=True, slots=True)
class Expectation:
    """How much of a study is here, of how much that is said to exist."""

    arrived: int  # instances
    expected: int  # instances
    all_here: bool  # of every series, where that is known
    source: str = OBJECTS  # who said so: `OBJECTS`, "pacs:NAME" or "orthanc:NAME"


@dataclass(frozen=True, slots=True)
class Told:
    """A number that somebody gave."""

    instances: int | None
    series: int | None = None  # of the study as a whole only


def expect(session: Session, study_id: int, series_uid: str, told: Told, source: str) -> None:
    """Write down a number that was told. Of what objects say the highest stands, of what a peer says the last."""
    row = {
        "study_id": study_id,
        "series_uid": series_uid,
        "instances": told.instances,
        "series": told.series,
        "source": source,
    }
    statement = insert(tables.ExpectedNumber).values(row)
    new, old = statement.excluded, tables.ExpectedNumber
    values: dict[str, object] = {"source": new.source, "told_at": func.now()}
    if source == OBJECTS:
        values |= {"instances": func.greatest(old.instances, new.instances)}
        values |= {"series": func.greatest(old.series, new.series)}
    else:
        values |= {"instances": new.instances, "series": new.series}
    session.execute(statement.on_conflict_do_update(index_elements=["study_id", "series_uid"], set_=values))


def expect_from_objects(session: Session, arrived: Iterable[Arrival]) -> None:
    """Write down what objects say of their study and series, for studies that wait for the rest."""
    told: dict[tuple[str, str], Told] = {}
    for arrival in arrived:
        numbers = arrival.numbers
        if numbers.study_instances or numbers.study_series:
            key = (arrival.study_uid, WHOLE_STUDY)
            told[key] = _higher(told.get(key), Told(numbers.study_instances, numbers.study_series))
        if numbers.series_instances:
            key = (arrival.study_uid, arrival.series_uid)
            told[key] = _higher(told.get(key), Told(numbers.series_instances))
    if not told:
        return
    open_studies = dict(
        session.execute(
            select(tables.Study.study_uid, tables.Study.id).where(
                tables.Study.study_uid.in_({study_uid for study_uid, _ in told}), tables.Study.open_since.is_not(None)
            )
        )
        .tuples()
        .all()
    )
    for (study_uid, series_uid), number in sorted(told.items()):
        if study_uid in open_studies:
            expect(session, open_studies[study_uid], series_uid, number, OBJECTS)


def expectations_of(session: Session, study_ids: Sequence[int]) -> Mapping[int, Expectation]:
    """How much of these studies is here, where a number is expected of them."""
    rows = session.execute(select(tables.ExpectedNumber).where(tables.ExpectedNumber.study_id.in_(study_ids)))
    numbers: dict[int, dict[str, Told]] = {}
    sources: dict[int, str] = {}
    for row in rows.scalars():
        numbers.setdefault(row.study_id, {})[row.series_uid] = Told(row.instances, row.series)
        if row.series_uid == WHOLE_STUDY:
            sources[row.study_id] = row.source
    found = {}
    for study_id, told in numbers.items():
        source = sources.get(study_id, OBJECTS)
        expectation = _expectation(told, _instances_by_series(session, study_id), _own_elsewhere(session, study_id))
        if expectation is None or (source == OBJECTS and expectation.arrived > expectation.expected):
            continue  # objects keep the number that was right when they were made
        found[study_id] = replace(expectation, source=source)
    return found


def studies_to_ask_about(
    session: Session, callers: Iterable[str], quiet_for: dt.timedelta, again_after: dt.timedelta
) -> Sequence[tuple[int, str, tuple[str, ...]]]:
    """(id, Study Instance UID, callers) of the studies whose numbers a PACS is to be asked for.

    Args:
        session: the caller's.
        callers: calling AE titles whose studies are asked for.
        quiet_for: nothing arrived for so long; a study that images pour into is not asked for.
        again_after: a number that is so old, or older than the last arrival, is asked for anew.
    """
    study, number = tables.Study, tables.ExpectedNumber
    fresh = exists().where(
        number.study_id == study.id,
        number.series_uid == WHOLE_STUDY,
        number.source != OBJECTS,
        number.told_at > study.last_arrival_at,
        number.told_at > func.now() - literal(again_after),
    )
    rows = session.execute(
        select(study.id, study.study_uid, study.open_callers)
        .where(
            study.open_since.is_not(None),
            study.last_arrival_at <= func.now() - literal(quiet_for),
            study.open_callers.op("&&", is_comparison=True)(list(callers)),
            ~fresh,
        )
        .order_by(study.open_since)
        .limit(100)
    ).all()
    return [(row.id, row.study_uid, tuple(row.open_callers)) for row in rows]


def _higher(one: Told | None, two: Told) -> Told:
    if one is None:
        return two
    return Told(max(one.instances or 0, two.instances or 0) or None, max(one.series or 0, two.series or 0) or None)


def _expectation(told: Mapping[str, Told], here: Mapping[str, int], own_elsewhere: int) -> Expectation | None:
    """What the numbers come to; None where they do not say when the whole study is here."""
    arrived = sum(here.values())
    study = told.get(WHOLE_STUDY, Told(None))
    if study.instances:
        return Expectation(arrived, study.instances, arrived + own_elsewhere >= study.instances)
    series = {uid: number.instances or 0 for uid, number in told.items() if uid != WHOLE_STUDY}
    if not study.series or not series:
        return None
    complete = all(here.get(uid, 0) >= number for uid, number in series.items()) and set(here) <= set(series)
    return Expectation(arrived, sum(series.values()), complete and len(series) >= study.series)


def _instances_by_series(session: Session, study_id: int) -> Mapping[str, int]:
    instance = tables.Instance
    rows = session.execute(
        select(instance.series_uid, func.count())
        .where(instance.study_id == study_id, instance.standing == Standing.CURRENT)
        .group_by(instance.series_uid)
    )
    return dict(rows.tuples().all())


def _own_elsewhere(session: Session, study_id: int) -> int:
    """How many objects of ours the study has that did not come back here: a PACS counts them too."""
    document, result, read = tables.Document, tables.Result, tables.Read
    return session.execute(
        select(func.count(document.id))
        .join(result, result.id == document.result_id)
        .join(read, read.id == result.read_id)
        .where(
            read.study_id == study_id,
            ~exists().where(
                and_(tables.Instance.sop_uid == document.sop_uid, tables.Instance.standing == Standing.CURRENT)
            ),
        )
    ).scalar_one()
