"""``wetread route --dry-run``: where studies would go, and why, without sending them there."""

from __future__ import annotations

import datetime as dt
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from deploy import logs, wiring
from deploy.cli_common import Config, console, database_of, in_words
from deploy.settings import Settings, load
from dicom_listener.library import prepare_library
from fhir_records.errors import NotFound, SettingsError

_UID = re.compile(r"[0-9A-Za-z._-]{1,64}")
_MARKS = {True: "[green]yes[/]", False: "[dim]no[/]", None: "[red]broken[/]"}


def route(
    target: Annotated[
        str | None, typer.Argument(help="A Study Instance UID of the record, or DICOM files in a folder.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say only; nothing is queued, nothing is sent.")] = False,
    last: Annotated[int, typer.Option("--last", help="Try the rules over so many of the newest studies.")] = 0,
    at: Annotated[str | None, typer.Option("--at", help="The instant that the rules see, as 2026-11-20T22:30.")] = None,
    caller: Annotated[str | None, typer.Option("--caller", help="AE title of the sender of a folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: Config = None,
) -> None:
    """Say where studies would go, and why: every rule with the values that decided."""
    if not dry_run or bool(target) == bool(last):
        raise typer.BadParameter("give --dry-run, and either a study, a folder, or --last N")
    with in_words():
        if last:
            told = _over_the_last(last, config)
            _print_json(told) if as_json else _print_summary(told)
            return
        path = Path(target or "")
        found = _of_folder(path, config, at, caller) if path.exists() else _of_record(str(target), config, at)
        _print_json(found) if as_json else _print_studies(found)


def _of_folder(path: Path, config: Path | None, at: str | None, caller: str | None) -> dict[str, Any]:
    """Every study in a folder, without a database."""
    from deploy import work
    from inference.registry import Registry
    from workflow.dry_run import dry_run, studies_in
    from workflow.headers import read_headers

    logs.configure("route", level="WARNING")
    prepare_library()
    settings = load(config)
    now = _instant(at, settings) or wiring.now().astimezone(_zone(settings))
    registry = Registry(settings.models)
    if not registry.list():
        with _to_people().status("Preparing the models"):
            registry.ensure_shipped()
    models = {model.name: model for model in registry.list()}
    router = work.router_of(settings, list(models.values()))
    files = [file for file in (sorted(path.rglob("*")) if path.is_dir() else [path]) if file.is_file()]
    with Progress(TextColumn("Reading files"), BarColumn(), MofNCompleteColumn(), console=_to_people()) as progress:
        task = progress.add_task("", total=len(files))
        found = studies_in(files, _zone(settings), caller, partial(progress.advance, task))
    if not found.studies:
        raise NotFound(f"There are no DICOM images in {path}.")
    with ExitStack() as stack:
        look = _look(settings, models, Path, stack)
        headers = partial(read_headers, Path)
        runs = [dry_run(study, router, models, look=look, headers=headers, now=now) for study in found.studies]
    return {
        "studies": [run.to_json(_releases(settings)) for run in runs],
        "not_images": found.not_images,
        "not_dicom": found.not_dicom,
    }


def _of_record(study_uid: str, config: Path | None, at: str | None) -> dict[str, Any]:
    """One study of the record, as of the instant when it was routed."""
    from sqlalchemy import select

    from fhir_records import tables
    from workflow.dry_run import DryRun, previews

    if not _UID.fullmatch(study_uid):
        raise SettingsError(f"{study_uid!r} is neither a folder or file that is there nor a Study Instance UID.")
    with database_of(config) as (settings, database), ExitStack() as stack:
        replay, models, path_of = _replay(settings, database, stack)
        with database.session() as session:
            study_id = session.scalar(
                select(tables.Study.id).where(tables.Study.study_uid == study_uid, tables.Study.revision > 0)
            )
        if study_id is None:
            raise NotFound("The record has no complete study of this UID, and there is no such folder.")
        past = replay.study(study_id, _instant(at, settings))
        run = DryRun(
            study_uid=past.study_uid,
            at=past.at,
            source=past.source,
            instances=past.instances,
            decision=past.decision,
            previews=previews(past.decision, models, past.instances, path_of),
        )
        return {"studies": [{**run.to_json(_releases(settings)), "went": past.before.to_json()}]}


def _over_the_last(count: int, config: Path | None) -> dict[str, Any]:
    """The rules over the newest studies of the record."""
    from workflow.rule_trials import summary

    with database_of(config) as (settings, database), ExitStack() as stack:
        replay, _, _ = _replay(settings, database, stack)
        study_ids = replay.newest(count)
        with Progress(TextColumn("Deciding"), BarColumn(), MofNCompleteColumn(), console=_to_people()) as progress:
            return summary([replay.study(study_id) for study_id in progress.track(study_ids)])


def _replay(settings: Settings, database: Any, stack: ExitStack) -> tuple[Any, Mapping[str, Any], Any]:
    from deploy import work
    from inference.registry import Registry
    from workflow.headers import read_headers
    from workflow.rule_trials import Replay

    models = {model.name: model for model in Registry(settings.models).list()}
    path_of = wiring.spool_of(settings).path
    router = work.router_of(settings, list(models.values()))
    look = _look(settings, models, path_of, stack)
    return (
        Replay(database, router, look, partial(read_headers, path_of), _zone(settings)),
        models,
        path_of,
    )


def _look(settings: Settings, models: Mapping[str, Any], path_of: Any, stack: ExitStack) -> Any:
    """Tells what pixels show, in a process that is started when it is first asked."""
    from deploy import work
    from inference.runner import ModelRunner

    return work.look_with(models, stack.enter_context(ModelRunner(settings.file.inference.threads)), path_of)


def _instant(at: str | None, settings: Settings) -> dt.datetime | None:
    """An instant, in the site's zone unless it names another."""
    if at is None:
        return None
    try:
        given = dt.datetime.fromisoformat(at)
    except ValueError as error:
        raise SettingsError(f"--at {at!r} is no instant; allowed is such as 2026-11-20T22:30.") from error
    return given.astimezone(_zone(settings)) if given.tzinfo else given.replace(tzinfo=_zone(settings))


def _zone(settings: Settings) -> ZoneInfo:
    return ZoneInfo(settings.file.site.timezone)


def _releases(settings: Settings) -> Mapping[str, str]:
    return {entry.name: entry.release for entry in settings.file.destination}


def _to_people() -> Console:
    """Progress goes where it does not end up in a program's JSON."""
    return Console(stderr=True)


# --- for people ---------------------------------------------------------------------------------------------------


def _print_json(told: Mapping[str, Any]) -> None:
    json.dump(told, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def _print_studies(told: Mapping[str, Any]) -> None:
    for study in told["studies"]:
        facts = study["facts"]["study"]
        modalities = ", ".join(facts["modalities"]) or "no modality"
        console.print(
            f"\n[bold]{escape(study['study_uid'])}[/]  {escape(modalities)}, {study['images']} images in"
            f" {study['series']} series, as of {dt.datetime.fromisoformat(study['at']):%a %Y-%m-%d %H:%M}"
        )
        console.print(_routes(study["routes"]))
        console.print(_asked(study))
    if told.get("not_images"):
        console.print(f"{told['not_images']} files are no images; rules do not see them.", style="dim")
    if told.get("not_dicom"):
        console.print(f"{told['not_dicom']} files are no DICOM.", style="dim")


def _routes(routes: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("Route", "Matches", "Why", show_lines=True, title_justify="left")
    for entry in routes:
        table.add_row(escape(entry["name"]), _MARKS[entry["holds"]], "\n".join(_reasons(entry["condition"], 0)))
    return table


def _reasons(condition: Mapping[str, Any], depth: int) -> Iterator[str]:
    """A condition in lines: what decided is bright, the values stand beneath."""
    style = "" if condition["decided"] else "[dim]"
    end = "[/]" if style else ""
    text = condition["joint"] + " …" if condition["joint"] else " ".join(condition["text"].split())
    indent = "  " * depth
    yield f"{indent}{style}{_MARKS[condition['holds']]} {escape(text)}{end}"
    for reason in condition["reasons"]:
        yield f"{indent}    [dim]{escape(reason['name'])} = {escape(reason['value'])}[/]"
    for part in condition["parts"]:
        yield from _reasons(part, depth + 1)


def _asked(study: Mapping[str, Any]) -> Table:
    table = Table("Goes to", "What happens", "Priority", "Answers and images go to", show_lines=True)
    for read in study["reads"]:
        colour = "green" if read["would"] == "read" else "yellow"
        to = [f"{to['destination']} ({to['release'].replace('_', ' ')})" for to in read["results_to"]]
        table.add_row(
            f"{escape(read['model'])} {escape(read['version'])}",
            f"[{colour}]would {read['would']}[/]: {escape(read['why'])}",
            read["priority"],
            escape(", ".join(to)) or "[dim]nowhere[/]",
        )
    for forward in study["forwards"]:
        table.add_row("[dim]no model[/]", "images are sent on", forward["priority"], escape(forward["destination"]))
    if not table.row_count:
        table.add_row("[yellow]nowhere[/]", "No rule holds: the study is shown as “not routed”.", "", "")
    return table


def _print_summary(told: Mapping[str, Any]) -> None:
    console.print(f"{told['studies']} studies, {told['changed']} would go elsewhere, {told['nowhere']} nowhere.")
    rules = Table("Route", "Holds", "Does not", "Broken")
    for entry in told["routes"]:
        rules.add_row(escape(entry["name"]), *(str(entry[word]) for word in ("holds", "does_not_hold", "broken")))
    console.print(rules)
    gone = Table("Goes to", "Went", "Would go")
    for kind, name in (("models", "{}"), ("forwards", "images to {}")):
        for entry in told[kind]:
            gone.add_row(escape(name.format(entry["name"])), str(entry["before"]), str(entry["after"]))
    console.print(gone)
    if told["changes"]:
        changes = Table("Study", "Went to", "Would go to")
        for change in told["changes"]:
            changes.add_row(escape(change["study_uid"]), _gone(change["before"]), _gone(change["after"]))
        console.print(changes)


def _gone(where: Mapping[str, Sequence[str]]) -> str:
    images = [f"images to {name}" for name in where["forwards"]]
    return escape(", ".join([*where["models"], *images])) or "nowhere"
