"""``wetread backup`` and ``wetread restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy import logs, wiring
from deploy.backup import Account, back_up
from deploy.backup import restore as bring_back
from deploy.cli_common import Config, console, database_of, in_words
from deploy.settings import load
from dicom_listener.library import prepare_library

_SHOWN = 20  # missing files that are named
_errors = Console(stderr=True)


def backup(
    target: Annotated[Path, typer.Argument(help="Where backups go; the same folder each time.", metavar="FOLDER")],
    config: Config = None,
) -> None:
    """Back everything up, also while the service runs; exit status 1 where files that the record names are missing."""
    with database_of(config) as (settings, database), console.status("") as status:
        folder, account = back_up(settings.home, database, target, lambda words: status.update(f"{words} …"))
    size = f"{account.record_bytes / 1e6:.1f} MB"
    words = (
        f"{folder} holds the record ({size}); {account.files} files are kept beside it, {account.copied} of them new."
    )
    _say(words, account)
    if account.missing:
        raise typer.Exit(1)


def restore(
    source: Annotated[Path, typer.Argument(help="The folder of backups, or one of them.", metavar="FOLDER")],
    config: Config = None,
) -> None:
    """Bring a backup back into an empty WETREAD_HOME and an empty database."""
    logs.configure("command", level="WARNING")
    prepare_library()
    with in_words():
        settings = load(config)
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with wiring.open_database(settings) as database, console.status("") as status:
            account = bring_back(source, settings.home, database, lambda words: status.update(f"{words} …"))
    _say(f"Restored as of {account.made_at}. Start Wetread: objects that came after that are indexed then.", account)


def _say(words: str, account: Account) -> None:
    """Say what was done, and which files are in no backup."""
    console.print(words, markup=False, highlight=False, soft_wrap=True)
    if account.missing:
        count = len(account.missing)
        missing = f"{count} files that the record names were not under WETREAD_HOME, and are in no backup of it:"
        shown = "\n".join([missing, *account.missing[:_SHOWN]])
        _errors.print(shown, style="red", markup=False, highlight=False, soft_wrap=True)
