"""``wetread models agreement``."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.table import Column, Table

from deploy.cli_common import Config, console, database_of, in_words
from fhir_records import weeks
from fhir_records.agreement import Agreement, AgreementQuery, Outcome, Tally
from fhir_records.errors import NotFound
from fhir_records.model import Equipment
from fhir_records.proportions import Proportion
from fhir_records.store.agreement import agreement, models_with_answers
from fhir_records.weeks import week_words

_NUMBERS = (Column("Answers", justify="right"), Column("Compared", justify="right"), Column("Agreement", no_wrap=True))
_DAY = ["%Y-%m-%d"]


def agreement_of_model(
    name: Annotated[str, typer.Argument(help="The model's name.")],
    version: Annotated[str, typer.Option(help="Of the model; all where none is given.")] = "",
    since: Annotated[
        dt.datetime | None, typer.Option("--from", formats=_DAY, help="The first day, in the site's zone.")
    ] = None,
    until: Annotated[dt.datetime | None, typer.Option("--to", formats=_DAY, help="The last day.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """How far people who signed agree with a model: by version, week, answer and scanner, with intervals of 95 %."""
    with database_of(config) as (settings, database):
        zone = ZoneInfo(settings.file.site.timezone)
        query = AgreementQuery(
            model=name,
            zone=zone,
            version=version,
            since=weeks.start_of(since.date(), zone) if since else None,
            until=weeks.start_of(until.date() + weeks.DAY, zone) if until else None,
        )
        with in_words(), database.session() as session:
            known = models_with_answers(session)
            if name not in known or (version and version not in known[name]):
                raise NotFound(f"{name} {version}".strip() + " has answered nothing yet.")
            found = agreement(session, query)
    if as_json:
        typer.echo(json.dumps(document(found), indent=2))
    elif not found.total.reads:
        console.print(f"{name} read nothing in this time.")
    else:
        _print(found)


def document(found: Agreement) -> dict[str, Any]:
    """The figures for programs; shares from 0 to 1, and null where fewer than five were compared."""
    return {
        "model": found.model,
        **_counted(found.total),
        "versions": [{"version": version, **_counted(tally)} for version, tally in found.versions.items()],
        "weeks": [
            {"week": week_words(monday), "from": monday.isoformat(), **_counted(tally)}
            for monday, tally in found.weeks.items()
        ],
        "scanners": [
            {**{name: getattr(scanner, name) for name in Equipment.__slots__}, **_counted(tally)}
            for scanner, tally in found.scanners.items()
        ],
        "by_answer": [
            {
                "answer": answer.label,
                "presence": answer.presence.value,
                **_counted(found.by_answer.get(answer.label, Tally())),
            }
            for answer in found.answers
        ],
        "confusion": [
            {"model": model, "person": person, "count": count} for (model, person), count in found.confusion.items()
        ],
        "presence": {name: _share(proportion) for name, proportion in _of_presence(found)},
    }


def _counted(tally: Tally) -> dict[str, Any]:
    counts = {outcome.value.replace(" ", "_"): tally.of(outcome) for outcome in Outcome}
    return {"answers": tally.answers, "compared": tally.signed, **counts, "agreement": _share(tally.agreement)}


def _share(proportion: Proportion) -> dict[str, float | int | None]:
    interval = proportion.interval
    low, share, high = (interval.low, interval.share, interval.high) if interval else (None, None, None)
    return {"hits": proportion.hits, "of": proportion.of, "share": share, "low": low, "high": high}


def _of_presence(found: Agreement) -> Iterable[tuple[str, Proportion]]:
    table = found.presence
    if table is None:
        return ()
    return (
        ("sensitivity", table.sensitivity),
        ("specificity", table.specificity),
        ("positive predictive value", table.positive_predictive_value),
        ("negative predictive value", table.negative_predictive_value),
    )


def _print(found: Agreement) -> None:
    total = found.total
    left_out = ", ".join(
        f"{total.of(outcome)} {words}"
        for outcome, words in (
            (Outcome.UNSIGNED, "not signed"),
            (Outcome.SUPERSEDED, "replaced by a newer read unsigned"),
            (Outcome.WRONG_PATIENT, "rejected for a wrong patient"),
            (Outcome.REFUSED, "not read"),
        )
    )
    console.print(
        f"{found.model}: of {total.answers} answers {total.signed} were reviewed and compared, and"
        f" {total.agreement.hits} stand: {total.agreement.words}. Left out: {left_out}. Which are signed is not left"
        " to chance.",
        highlight=False,
        soft_wrap=True,
    )
    _table("Version", ((version, tally) for version, tally in found.versions.items()))
    _table("Week", ((f"{week_words(monday)}, from {monday}", tally) for monday, tally in found.weeks.items()))
    _table("Scanner", ((scanner_words(scanner), tally) for scanner, tally in found.scanners.items()))
    if total.signed:
        _confusion(found)
    if found.presence:
        table = Table("Is it there?", Column("Of", justify="right"), Column("Share", no_wrap=True))
        for name, proportion in _of_presence(found):
            table.add_row(name.capitalize(), f"{proportion.hits} of {proportion.of}", proportion.words)
        console.print(table)


def _table(title: str, rows: Iterable[tuple[str, Tally]]) -> None:
    table = Table(title, *(column.copy() for column in _NUMBERS))
    for words, tally in rows:
        table.add_row(words, str(tally.answers), str(tally.signed), tally.agreement.words)
    console.print(table)


def _confusion(found: Agreement) -> None:
    labels = [answer.label for answer in found.answers]
    table = Table(
        "The model said",
        *(Column(f"person: {label}", justify="right") for label in labels),
        Column("rejected", justify="right"),
        Column("Agreement", no_wrap=True),
    )
    for label in labels:
        counts = (found.confusion.get((label, person), 0) for person in (*labels, None))
        table.add_row(label, *map(str, counts), found.by_answer.get(label, Tally()).agreement.words)
    console.print(table)


def scanner_words(scanner: Equipment) -> str:
    """A scanner on one line: "SIEMENS Skyra, MR1, serial number 40123"."""
    made = " ".join(filter(None, (scanner.manufacturer, scanner.model_name)))
    number = f"serial number {scanner.device_serial_number}" if scanner.device_serial_number else ""
    return ", ".join(filter(None, (made, scanner.station_name, number))) or "not known"
