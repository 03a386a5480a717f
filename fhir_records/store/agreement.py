"""How far people agree with a model: its answers beside those of the people who signed, counted by PostgreSQL.

What is counted as what, `fhir_records.agreement` says.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, DateTime, RowMapping, Text, bindparam, text
from sqlalchemy.orm import Session

from fhir_records import weeks
from fhir_records.agreement import Agreement, AgreementQuery, Answer, Disagreement, Outcome, PresenceTable, Tally
from fhir_records.model import Act, Code, Equipment, Presence, Withdrawal
from fhir_records.store.cursors import position

RECENT_DAYS = 28


def models_with_answers(session: Session) -> Mapping[str, tuple[str, ...]]:
    """The versions of every model that has answered or refused, by its name."""
    found: dict[str, tuple[str, ...]] = {}
    for name, version in session.execute(_MODELS):
        found[name] = (*found.get(name, ()), version)
    return found


def agreement(session: Session, query: AgreementQuery) -> Agreement:
    """A model's answers beside those of people, by version, week, scanner and answer."""
    told = _told(query)
    first, last = session.execute(_BOUNDS, told).one()
    if first is None:
        return Agreement(model=query.model)
    # What is written between this question and the next is left to the next time: it has no week here.
    told |= {"since": first, "until": last + dt.timedelta(microseconds=1)}
    mondays = weeks.mondays(first, last, query.zone)
    session.execute(_ROOM)
    edges = [weeks.start_of(monday, query.zone) for monday in mondays]
    versions: dict[str, dict[Outcome, int]] = {}
    first_reads: dict[str, list[int]] = {}
    by_week: dict[dt.date, dict[Outcome, int]] = {monday: {} for monday in mondays}
    scanners: dict[Equipment, dict[Outcome, int]] = {}
    answered = []
    for row in session.execute(_COUNTS, {**told, "edges": edges}).mappings():
        outcome = Outcome(row["outcome"])
        if row["of_version"]:
            versions.setdefault(row["model_version"], {})[outcome] = row["count"]
            first_reads.setdefault(row["model_version"], []).append(row["first_read"])
        elif row["of_week"]:
            by_week[mondays[row["week"] - 1]][outcome] = row["count"]
        elif row["of_scanner"]:
            equipment = Equipment(*(row[name] or "" for name in Equipment.__slots__))
            scanners.setdefault(equipment, {})[outcome] = row["count"]
        else:
            answered.append(row)
    by_answer, confusion = _by_answer(answered)
    answers = _answers(session, query, answered)
    present = {answer.presence for answer in answers}
    return Agreement(
        model=query.model,
        total=_sum(versions.values()),
        versions={name: Tally(versions[name]) for name in sorted(versions, key=lambda name: min(first_reads[name]))},
        weeks={monday: Tally(counts) for monday, counts in by_week.items()},
        scanners=_most_compared({equipment: Tally(counts) for equipment, counts in scanners.items()}),
        answers=answers,
        by_answer=by_answer,
        confusion=confusion,
        presence=_presence(answered) if {Presence.PRESENT, Presence.ABSENT} <= present else None,
    )


def disagreements(
    session: Session,
    query: AgreementQuery,
    *,
    machine: str = "",
    person: str = "",
    rejected: bool = False,
    newest: int = 50,
    before: str = "",
) -> tuple[Disagreement, ...]:
    """The studies of which people said something else, those signed last first.

    Args:
        session: the caller's.
        query: which answers.
        machine: only where the model's label is this one.
        person: only where the person's is.
        rejected: only those that were rejected.
        newest: so many at most.
        before: only those behind the one that `cursors.cursor` names by its instant of signing and its read.

    Raises:
        QueryError: ``before`` is none of ours.
    """
    narrowed = {"machine": machine or None, "person": person or None, "rejected": rejected, "newest": newest}
    at, read_id = position(before) if before else (None, None)
    behind = {"before_at": at, "before_read": read_id}
    rows = session.execute(_DISAGREEMENTS, {**_told(query), **narrowed, **behind}).mappings()
    return tuple(Disagreement(**row) for row in rows)


def recent(session: Session) -> tuple[tuple[str, str, str, Outcome, int], ...]:
    """How many of the reads of the last `RECENT_DAYS` days came to what.

    Returns:
        Model, version, the model's label ("": refused), outcome and count.
    """
    rows = session.execute(_RECENT)
    return tuple((model, version, label, Outcome(word), count) for model, version, label, word, count in rows)


def _told(query: AgreementQuery) -> dict[str, Any]:
    return {"model": query.model, "version": query.version or None, "since": query.since, "until": query.until}


def _sum(parts: Iterable[Mapping[Outcome, int]]) -> Tally:
    counts: dict[Outcome, int] = {}
    for part in parts:
        for outcome, count in part.items():
            counts[outcome] = counts.get(outcome, 0) + count
    return Tally(counts)


def _most_compared(tallies: Mapping[Equipment, Tally]) -> Mapping[Equipment, Tally]:
    def order(entry: tuple[Equipment, Tally]) -> tuple[int, int, str]:
        equipment, tally = entry
        return -tally.signed, -tally.reads, repr(equipment)

    return dict(sorted(tallies.items(), key=order))


def _by_answer(rows: Sequence[RowMapping]) -> tuple[dict[str, Tally], dict[tuple[str, str | None], int]]:
    counts: dict[str, dict[Outcome, int]] = {}
    confusion: dict[tuple[str, str | None], int] = {}
    for row in rows:
        outcome, label, count = Outcome(row["outcome"]), row["label"], row["count"]
        if outcome is Outcome.REFUSED:
            continue
        mine = counts.setdefault(label, {})
        mine[outcome] = mine.get(outcome, 0) + count
        if outcome in (Outcome.AGREED, Outcome.CORRECTED, Outcome.REJECTED):
            pair = (label, None if outcome is Outcome.REJECTED else row["word"])
            confusion[pair] = confusion.get(pair, 0) + count
    return {label: Tally(mine) for label, mine in counts.items()}, confusion


def _presence(rows: Sequence[RowMapping]) -> PresenceTable:
    counts: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["outcome"] in (Outcome.AGREED, Outcome.CORRECTED):
            pair = (row["presence"], row["word_presence"])
            counts[pair] = counts.get(pair, 0) + row["count"]
    yes, no = Presence.PRESENT.value, Presence.ABSENT.value
    return PresenceTable(*(counts.get(pair, 0) for pair in ((yes, yes), (yes, no), (no, yes), (no, no))))


def _answers(session: Session, query: AgreementQuery, rows: Sequence[RowMapping]) -> tuple[Answer, ...]:
    """What the newest answer weighed, and beside it whatever else was said."""
    weighed = session.scalar(_WEIGHED, _told(query)) or []
    known = {
        entry["label"]: Answer(entry["label"], Presence(entry["presence"]), Code(**entry["code"])) for entry in weighed
    }
    for row in rows:
        for label, presence in ((row["label"], row["presence"]), (row["word"], row["word_presence"])):
            if label is not None and label not in known:
                known[label] = Answer(label, Presence(presence))
    return tuple(sorted(known.values(), key=lambda answer: (answer.presence is Presence.ABSENT, answer.label)))


# What became of one read's answer, as `Outcome` says it; of a read that is there it is never null.
_OUTCOME = (
    "CASE WHEN first.label IS NULL THEN 'refused'"
    f" WHEN last.act = '{Act.REJECT}' AND last.withdrawal = '{Withdrawal.WRONG_PATIENT}' THEN 'wrong patient'"
    f" WHEN last.act = '{Act.REJECT}' THEN 'rejected'"
    " WHEN last.label = first.label THEN 'agreed'"
    " WHEN last.act IS NOT NULL THEN 'corrected'"
    # As `fhir_records.signing` has it: once a newer read of the same model has a result, the older one is not signed.
    " WHEN EXISTS (SELECT FROM read newer JOIN result ON result.read_id = newer.id AND result.version = 1"
    " WHERE newer.study_id = read.study_id AND newer.model = read.model AND newer.id > read.id) THEN 'superseded'"
    " ELSE 'unsigned' END"
)
_ANSWERED = (
    " FROM result first JOIN read ON read.id = first.read_id"
    # Row by row, for most questions are about few of many weeks.
    " LEFT JOIN LATERAL (SELECT id, label, presence, act, withdrawal, created_at FROM result later"
    " WHERE later.read_id = first.read_id AND later.version > 1 ORDER BY later.version DESC LIMIT 1) last ON true"
)
_WHERE = (
    " WHERE first.version = 1 AND read.model = :model AND (:version IS NULL OR read.model_version = :version)"
    " AND (:since IS NULL OR first.created_at >= :since) AND (:until IS NULL OR first.created_at < :until)"
)
_TYPES = (
    bindparam("model", type_=Text()),
    bindparam("version", type_=Text()),
    bindparam("since", type_=DateTime(timezone=True)),
    bindparam("until", type_=DateTime(timezone=True)),
)

_MODELS = text(
    "SELECT model, model_version FROM read WHERE state IN ('read', 'refused') GROUP BY 1, 2 ORDER BY model, min(id)"
)
_BOUNDS = text(
    "SELECT min(first.created_at), max(first.created_at)"  # noqa: S608 -- constants of this file
    f" FROM result first JOIN read ON read.id = first.read_id{_WHERE}"
).bindparams(*_TYPES)
# So that groups are counted in memory: with PostgreSQL's own 4 MB, 100,000 reads are sorted on disk four times over.
_ROOM = text("SET LOCAL work_mem = '64MB'")
_EQUIPMENT = "equipment.manufacturer, equipment.model_name, equipment.station_name, equipment.device_serial_number"
_COUNTS = text(
    f"WITH answered AS (SELECT read.id AS read_id, read.model_version, width_bucket(first.created_at, :edges) AS week,"  # noqa: S608 -- constants of this file
    f" {_EQUIPMENT}, first.label, first.presence, last.label AS word, last.presence AS word_presence,"
    f" {_OUTCOME} AS outcome{_ANSWERED}"
    " LEFT JOIN series_equipment equipment"
    " ON equipment.study_id = read.study_id AND equipment.series_uid = first.series_uid"
    f"{_WHERE})"
    " SELECT outcome, count(*) AS count, min(read_id) AS first_read, model_version, week, manufacturer, model_name,"
    " station_name, device_serial_number, label, presence, word, word_presence,"
    " grouping(model_version) = 0 AS of_version, grouping(week) = 0 AS of_week,"
    " grouping(manufacturer) = 0 AS of_scanner FROM answered"
    " GROUP BY GROUPING SETS ((outcome, model_version), (outcome, week),"
    " (outcome, manufacturer, model_name, station_name, device_serial_number),"
    " (outcome, label, presence, word, word_presence))"
).bindparams(*_TYPES, bindparam("edges", type_=ARRAY(DateTime(timezone=True))))
_WEIGHED = text(
    "SELECT first.content #> '{finding,alternatives}' FROM result first JOIN read ON read.id = first.read_id"  # noqa: S608 -- constants of this file
    f"{_WHERE} AND first.label IS NOT NULL ORDER BY first.created_at DESC LIMIT 1"
).bindparams(*_TYPES)
_DISAGREEMENTS = text(
    "SELECT study_uid, accession_number, signed.read_id, signed.version, answered_at, signed_at, machine, person,"  # noqa: S608 -- constants of this file
    " coalesce(word.content #>> '{signature,note}', '') AS note FROM"
    " (SELECT study.study_uid, study.accession_number, read.id AS read_id, read.model_version AS version,"
    " first.created_at AS answered_at, last.created_at AS signed_at, first.label AS machine, last.id AS last_id,"
    f" CASE WHEN last.act <> '{Act.REJECT}' THEN last.label END AS person, {_OUTCOME} AS outcome{_ANSWERED}"
    f" JOIN study ON study.id = read.study_id{_WHERE} AND last.act IS NOT NULL) signed"
    " JOIN result word ON word.id = signed.last_id"
    " WHERE outcome IN ('corrected', 'rejected') AND (:machine IS NULL OR machine = :machine)"
    " AND (:person IS NULL OR person = :person) AND (NOT :rejected OR outcome = 'rejected')"
    " AND (:before_at IS NULL OR (signed_at, signed.read_id) < (:before_at, :before_read))"
    " ORDER BY signed_at DESC, read_id DESC LIMIT :newest"
).bindparams(
    *_TYPES,
    bindparam("machine", type_=Text()),
    bindparam("person", type_=Text()),
    bindparam("before_at", type_=DateTime(timezone=True)),
    bindparam("before_read", type_=BigInteger()),
)
_RECENT = text(
    f"SELECT read.model, read.model_version, coalesce(first.label, ''), {_OUTCOME}, count(*){_ANSWERED}"
    f" WHERE first.version = 1 AND first.created_at > now() - interval '{RECENT_DAYS} days' GROUP BY 1, 2, 3, 4"
    " ORDER BY 1, 2, 3, 4"
)
