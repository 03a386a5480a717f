"""What the commands share: settings, database, and errors in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy import logs, wiring
from deploy.settings import Settings, load
from dicom_listener.library import prepare_library
from fhir_records import migrations
from fhir_records.database import Database
from fhir_records.errors import WetreadError

console = Console()
_errors = Console(stderr=True)

Config = Annotated[Path | None, typer.Option("--config", help="The configuration file (TOML).", metavar="FILE")]


@contextmanager
def in_words() -> Iterator[None]:
    """Turn our errors into a line for people and exit status 1."""
    try:
        yield
    except WetreadError as error:
        _errors.print(f"wetread: {error}", highlight=False, soft_wrap=True, markup=False, style="red")
        raise typer.Exit(1) from error


@contextmanager
def database_of(config: Path | None) -> Iterator[tuple[Settings, Database]]:
    """The settings and the database, for a command that runs once.

    The embedded database is ours to migrate. A hospital's own is migrated by `wetread migrate` and `wetread serve`
    alone, never by a question that somebody asks.
    """
    logs.configure("command", level="WARNING")
    prepare_library()
    with in_words():
        settings = load(config)
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with wiring.open_database(settings) as database:
            if settings.database_url is None:
                migrations.migrate(database)
            else:
                migrations.check(database)
            yield settings, database
