"""Wetread gives every scan a preliminary, machine-made read, and says so where people look."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import structlog
import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from deploy import logs, wiring
from deploy.cli_backup import backup, restore
from deploy.cli_common import Config, console, database_of, in_words
from deploy.cli_models import evaluate, models, train
from deploy.cli_people import tokens, users
from deploy.cli_reviews import consent, reviews
from deploy.cli_route import route
from deploy.embedded_postgres import EmbeddedPostgres
from deploy.roles import run_role
from deploy.settings import Settings, load
from deploy.supervise import RoleSpec, Supervisor
from dicom_listener import sender
from dicom_listener.library import prepare_library
from dicom_listener.reconciler import reindex_all
from dicom_listener.settings import Node, SenderSettings
from fhir_records import migrations
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable, SettingsError

log = structlog.get_logger(__name__)
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(users, name="users")
app.add_typer(tokens, name="tokens")
app.add_typer(models, name="models")
app.add_typer(reviews, name="reviews")
app.command()(train)
app.command()(evaluate)
app.command()(route)
app.command()(consent)
app.command()(backup)
app.command()(restore)

# --- running ------------------------------------------------------------------------------------------------------


@app.command()
def listen(config: Config = None) -> None:
    """Run the DICOM listener alone."""
    # In this process's place, for it runs day and night and needs nothing of what is loaded here.
    os.execv(sys.executable, _listener(config))  # noqa: S606 - the same program, no shell wanted


@app.command()
def work(config: Config = None) -> None:
    """Run a worker alone: reads, renderings, deliveries."""
    from deploy.work import WorkRole

    with in_words():
        raise typer.Exit(run_role("work", config, WorkRole))


@app.command()
def web(config: Config = None) -> None:
    """Run the pages and the programs' interfaces alone."""
    import uvicorn

    from web.app import create_app

    logs.configure("web")
    prepare_library()
    with in_words():
        settings = load(config)
        with wiring.open_database(settings) as database:
            wiring.wait_for_database(database, threading.Event())
            uvicorn.run(
                create_app(wiring.web_settings(settings), database),
                host=settings.file.http.host,
                port=settings.file.http.port,
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=10,
            )


@app.command()
def serve(config: Config = None) -> None:
    """Run everything on this machine, and start again what dies."""
    logs.configure("serve")
    with in_words():
        settings = load(config)
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        embedded = None if settings.database_url else EmbeddedPostgres(settings.home)
        opened: list[Database] = []

        def before() -> None:
            if embedded is not None:
                embedded.start()
            database = Database(settings.database_url or (embedded.url if embedded else ""))
            opened.append(database)
            _prepare(config)

        def after() -> None:
            for database in opened:
                database.close()
            if embedded is not None:
                embedded.stop()

        def sweep() -> None:
            if embedded is not None and not embedded.is_running():
                log.error("the embedded database is gone and is started again")
                embedded.start()
            with suppress(DatabaseUnavailable):
                wiring.sweeper_of(settings, opened[0]).stalled()

        def reload() -> Sequence[RoleSpec]:
            _prepare(config, "--check")
            return roles(load(config))

        supervisor = Supervisor(roles(settings), on_reload=reload, before=before, after=after, every_second=sweep)
        raise typer.Exit(supervisor.run())


def _prepare(config: Path | None, *options: str) -> None:
    """Run `wetread prepare` aside: what it loads, models' libraries among them, is not kept for months in memory."""
    arguments = ("--config", str(config)) if config else ()
    if subprocess.run([sys.executable, "-m", "deploy.cli", "prepare", *arguments, *options], check=False).returncode:
        raise SettingsError("The configuration does not fit this installation; the lines above say why.")


@app.command(hidden=True)
def prepare(
    check: Annotated[bool, typer.Option("--check", help="Look only, change nothing.")] = False, config: Config = None
) -> None:
    """Do what has to be done before the roles start: schema, folders, shipped models, a look at the routes."""
    from deploy.work import check_routes
    from deploy.work import prepare as prepare_all

    logs.configure("prepare")
    prepare_library()
    with in_words():
        settings = load(config)
        if check:
            check_routes(settings)
            return
        with wiring.open_database(settings) as database:
            prepare_all(settings, database, log.info)


def roles(settings: Settings) -> tuple[RoleSpec, ...]:
    """The processes of `wetread serve`, in the order in which they are started; they are stopped in reverse."""
    arguments = ("--config", str(settings.config_path)) if settings.config_path else ()
    env = {"WETREAD_HOME": str(settings.home)}
    return tuple(
        RoleSpec(name, command, env, grace_s=grace)
        for name, command, grace in (
            ("work", (sys.executable, "-m", "deploy.cli", "work", *arguments), 60.0),
            ("listen", _listener(settings.config_path), 30.0),
            ("web", (sys.executable, "-m", "deploy.cli", "web", *arguments), 15.0),
        )
    )


def _listener(config: Path | None) -> tuple[str, ...]:
    return (sys.executable, "-m", "deploy.listen", *((str(config),) if config else ()))


@app.command()
def migrate(config: Config = None) -> None:
    """Bring the database's schema up to this version."""
    logs.configure("migrate")
    with in_words(), wiring.open_database(load(config)) as database:
        console.print(f"The schema is at {migrations.migrate(database)}.")


@app.command()
def doctor(
    reindex: Annotated[bool, typer.Option("--reindex", help="Rebuild the index of images from the files.")] = False,
    config: Config = None,
) -> None:
    """Say what is wrong with this installation, and what to do about it; exit status 1 if anything is bad."""
    from deploy.doctor import Verdict, examine

    with database_of(config) as (settings, database):
        if reindex:
            _reindex(settings, database)
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        colours = {Verdict.GOOD: "green", Verdict.LOOK: "yellow", Verdict.BAD: "red"}
        worst = False
        for check in examine(settings, database):
            worst = worst or check.verdict is Verdict.BAD
            table.add_row(f"[{colours[check.verdict]}]{check.verdict}[/]", check.what, escape(check.words))
        console.print(table)
    raise typer.Exit(1 if worst else 0)


def _reindex(settings: Settings, database: Database) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("Reading the files of the spool", total=None)
        done = reindex_all(
            wiring.index_of(settings, database),
            lambda so_far: progress.update(task, description=f"{so_far.looked_at} files, {so_far.indexed} indexed"),
        )
    console.print(
        f"{done.looked_at} files: {done.indexed} indexed anew, {done.broken} cannot be indexed;"
        f" {done.missing} rows have lost their file."
    )


@app.command()
def read(
    study_uid: Annotated[str, typer.Argument(help="Study Instance UID.", metavar="STUDY_UID")], config: Config = None
) -> None:
    """Have a study read now, with the images that are here, without waiting for the rest."""
    from fhir_records import completion  # with the job engine, which the listener's processes have no use for

    with database_of(config) as (_, database), database.session() as session:
        revision = completion.read_now(session, study_uid, "command line")
    if revision is None:
        console.print("No image of the study is new since its last revision; there is nothing to read.")
    else:
        console.print(f"Revision {revision.number} with {revision.images} images will be read.")


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, or folders of them.")],
    to: Annotated[str, typer.Option("--to", help="AETITLE@HOST:PORT")] = "WETREAD@127.0.0.1:11112",
    calling: Annotated[str, typer.Option(help="Our AE title.")] = "WETREAD",
) -> None:
    """Send files by C-STORE; exit status 1 where one was not taken."""
    logs.configure("send", level="WARNING")
    with in_words():
        node = _node(to)
        files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
        files = [file for file in files if file.is_file()]
        columns = (TextColumn(f"Sending to {node.ae_title}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("", total=len(files))
            outcomes = []
            for outcome in sender.send_files(files, node, SenderSettings(ae_title=calling)):
                outcomes.append(outcome)
                progress.advance(task)
    for outcome in outcomes:
        if not outcome.delivered:
            console.print(f"{outcome.path}: {outcome.meaning}", style="red", markup=False)
    console.print(f"{sum(outcome.delivered for outcome in outcomes)} of {len(files)} taken.")
    raise typer.Exit(0 if all(outcome.delivered for outcome in outcomes) else 1)


def _node(text: str) -> Node:
    """AETITLE@HOST:PORT."""
    title, _, address = text.partition("@")
    host, _, port = address.rpartition(":")
    if not (title and host and port.isdigit()):
        raise SettingsError(f"{text!r} is no DICOM node; allowed is AETITLE@HOST:PORT.")
    return Node(title, title, host, int(port))


@app.command()
def demo(
    once: Annotated[
        bool, typer.Option("--once", help="Stop after the result; exit status 0 only if it is right.")
    ] = False,
    scans: Annotated[Path | None, typer.Option("--scans", help="Send this folder of DICOM files instead.")] = None,
) -> None:
    """Show the main job on this machine: a scan goes in over DICOM, a report comes out."""
    from deploy.demo import run_demo

    logs.configure("demo", level="WARNING")
    with in_words():
        raise typer.Exit(run_demo(once=once, scans=scans, console=console))


if __name__ == "__main__":
    app()
