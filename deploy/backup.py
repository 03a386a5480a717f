"""Backups of everything: the record as one consistent dump, and the files under WETREAD_HOME.

A backup's folder can be used again and again: each time a new dump is written, and only files that are not there yet
are copied, since received objects never change. Layout::

    20261120T031500Z/record.dump       pg_dump's custom format
    20261120T031500Z/backup.json       what belongs to it; written last, so without it the backup is none
    files/…                            what lies under WETREAD_HOME, but the database's own files

The record is dumped first, and the files are copied after it: a file that the record does not know is indexed later,
a row without its file would be a loss. Whether every file that the record names is there is looked at in the end.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import structlog
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import select, text

from deploy.postgres_files import binaries
from dicom_listener.spool import INCOMING
from dicom_listener.writing import sync_folder
from fhir_records import migrations, tables
from fhir_records.database import Database
from fhir_records.errors import BackupError

log = structlog.get_logger(__name__)

RECORD: Final = "record.dump"
ACCOUNT: Final = "backup.json"
FILES: Final = "files"
SPOOL: Final = "spool"
# Under WETREAD_HOME: the database's own files, which the dump stands for.
_DATABASE_FILES: Final = "postgres"
# Under WETREAD_HOME: what nobody writes by hand.
_OURS: Final = (SPOOL, "models")
_COPYING: Final = ".copying"  # the end of the name of a file that is being copied
_NAME: Final = "%Y%m%dT%H%M%SZ"
# libpq's words for what psycopg calls the parts of a URL: nothing secret stands in a command line.
_ENVIRONMENT: Final = {
    "host": "PGHOST", "hostaddr": "PGHOSTADDR", "port": "PGPORT", "dbname": "PGDATABASE", "user": "PGUSER",
    "password": "PGPASSWORD", "passfile": "PGPASSFILE", "sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY", "service": "PGSERVICE",
}  # fmt: skip

Told = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Account:
    """What a backup holds."""

    made_at: str  # ISO 8601, UTC
    version: str  # of Wetread
    schema: str  # revision of the database's schema
    record_sha256: str  # of the dump
    record_bytes: int
    files: int  # under `files`, when it was made
    copied: int  # of these, copied this time
    missing: tuple[str, ...]  # keys that the record names, and of which there is no file: lost before the backup


def back_up(home: Path, database: Database, target: Path, told: Told = log.info) -> tuple[Path, Account]:
    """Write a backup into ``target``; the folder of its dump, and what it holds.

    Args:
        home: WETREAD_HOME.
        database: the record.
        target: the folder of backups; made where it is absent, never under ``home``.
        told: what is being done, in words.

    Raises:
        BackupError: it cannot be written, or the database cannot be dumped; what was begun does not count as a backup.
    """
    home, target = home.resolve(), target.resolve()
    if target == home or target.is_relative_to(home):
        raise BackupError(f"{target} lies under WETREAD_HOME; a backup of it would lie in itself, and go with its disk")
    made_at = dt.datetime.now(dt.UTC)
    folder = target / made_at.strftime(_NAME)
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
        told("Dumping the record")
        schema = migrations.current(database)
        keys = _dump(database, folder / RECORD)
        told("Copying files")
        copied = sum(_copy(path, target / FILES / path.relative_to(home)) for path in _files(home))
        told("Looking whether every file is there")
        missing = tuple(sorted(key for key in keys if not (target / FILES / SPOOL / key).is_file()))
        record = folder / RECORD
        account = Account(
            made_at=made_at.isoformat(timespec="seconds"),
            version=version("wetread"),
            schema=schema,
            record_sha256=_sha256(record),
            record_bytes=record.stat().st_size,
            files=sum(1 for path in (target / FILES).rglob("*") if path.is_file()),
            copied=copied,
            missing=missing,
        )
        _write_account(folder, account)
    except FileExistsError as error:
        raise BackupError(f"{error.filename} is there already; wait a second, or name another folder") from error
    except OSError as error:
        raise BackupError(f"The backup could not be written: {error.strerror}: {error.filename}") from error
    return folder, account


def restore(source: Path, home: Path, database: Database, told: Told = log.info) -> Account:
    """Bring the record and the files of a backup back into an empty home and an empty database.

    Args:
        source: a folder of backups (the newest is taken), or one backup's own folder in it.
        home: WETREAD_HOME, without files but the database's own and a configuration.
        database: empty.
        told: what is being done, in words.

    Raises:
        BackupError: there is no whole backup, it is damaged or of a newer version, or home or database are in use.
    """
    folder = _chosen(source.resolve())
    account = _account(folder)
    files = folder.parent / FILES
    told("Checking the backup")
    if _sha256(folder / RECORD) != account.record_sha256:
        raise BackupError(f"{folder / RECORD} is damaged: its SHA-256 is not what {ACCOUNT} says")
    if account.schema not in migrations.known():
        raise BackupError(
            f"The backup was made by Wetread {account.version}, whose schema {account.schema} is newer than this "
            "version's; update Wetread first"
        )
    _refuse_used(home, files, database)
    try:
        told("Copying files")
        for path in _files(files):
            place = home / path.relative_to(files)
            if place.exists() and not _is_ours(place, home):
                told(f"{place} is there already and stays")
            else:
                _copy(path, place)
        told("Restoring the record")
        _run("pg_restore", database, "--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction",
             f"--dbname={conninfo_to_dict(database.conninfo)['dbname']}", str(folder / RECORD))  # fmt: skip
    except OSError as error:
        raise BackupError(f"The backup could not be restored: {error.strerror}: {error.filename}") from error
    migrations.migrate(database)
    return account


def _dump(database: Database, path: Path) -> set[str]:
    """Dump the record; the keys of all files that it names, of the very moment of the dump."""
    with database.session() as session:
        session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        snapshot = session.scalar(text("SELECT pg_export_snapshot()"))
        path.touch(mode=0o600)
        _run("pg_dump", database, "--format=custom", f"--snapshot={snapshot}", "--no-owner", f"--file={path}")
        keys = set(session.scalars(select(tables.Instance.file_key)))
        keys |= set(session.scalars(select(tables.QuarantinedObject.file_key)))
    return keys


def _run(program: str, database: Database, *arguments: str) -> None:
    told = {name: str(value) for name, value in conninfo_to_dict(database.conninfo).items() if value is not None}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    environment |= {_ENVIRONMENT[name]: value for name, value in told.items() if name in _ENVIRONMENT}
    done = subprocess.run(
        [str(binaries() / program), *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        # Its first line says what; the lines after it may quote values of the record.
        said = (done.stderr.strip().splitlines() or ["no reason given"])[0]
        raise BackupError(f"{program} failed: {said}")


def _files(home: Path) -> Iterator[Path]:
    """The files to keep, and to bring back: no half-written objects, no sockets, nothing of the database server's."""
    for parent, folders, names in os.walk(home):
        at = Path(parent)
        if at == home:
            folders[:] = [name for name in folders if name != _DATABASE_FILES]
        if at == home / SPOOL:
            folders[:] = [name for name in folders if name != INCOMING]
        for name in sorted(names):
            path = at / name
            if path.is_file() and not path.is_symlink() and not name.endswith(_COPYING):
                yield path


def _copy(path: Path, target: Path) -> bool:
    """Copy a file where the copy is not there yet, or is of another size or age; whether it was copied.

    What is there has been copied whole: it gets its name when it is on the disk.
    """
    try:
        there, source = target.stat(), path.stat()
    except FileNotFoundError:
        there = None
    if there is not None and (there.st_size, there.st_mtime_ns) == (source.st_size, source.st_mtime_ns):
        return False
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside = target.with_name(f"{target.name}{_COPYING}")
    try:
        shutil.copy2(path, beside)
    except FileNotFoundError:
        return False  # it was removed meanwhile
    with beside.open("rb") as copied:
        os.fsync(copied.fileno())
    beside.replace(target)
    return True


def _write_account(folder: Path, account: Account) -> None:
    with (folder / RECORD).open("rb") as record:
        os.fsync(record.fileno())
    beside = folder / f"{ACCOUNT}.part"
    with beside.open("w", encoding="utf-8") as file:
        json.dump(asdict(account), file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.sync()  # the names of all that was copied, too
    beside.replace(folder / ACCOUNT)
    sync_folder(folder)
    sync_folder(folder.parent)


def _chosen(source: Path) -> Path:
    """The folder of one whole backup: ``source`` itself, or the newest one in it."""
    if (source / ACCOUNT).is_file():
        return source
    whole = sorted(path.parent for path in source.glob(f"*/{ACCOUNT}")) if source.is_dir() else []
    if not whole:
        raise BackupError(f"There is no whole backup in {source}: none of its folders has a {ACCOUNT}")
    return whole[-1]


def _account(folder: Path) -> Account:
    try:
        told: Mapping[str, Any] = json.loads((folder / ACCOUNT).read_text(encoding="utf-8"))
        return Account(**{**told, "missing": tuple(told["missing"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BackupError(
            f"{folder / ACCOUNT} cannot be read; it is written last, so the backup is not whole"
        ) from error


def _is_ours(path: Path, home: Path) -> bool:
    """Whether a file is Wetread's alone: nobody writes it by hand."""
    return path.relative_to(home).parts[0] in _OURS


def _refuse_used(home: Path, files: Path, database: Database) -> None:
    """See that nothing would be mixed: neither files nor rows. What an interrupted restore copied is no hindrance."""
    for path in _files(home):
        if _is_ours(path, home) and not (files / path.relative_to(home)).is_file():
            raise BackupError(
                f"{home} holds files of its own in {', '.join(_OURS)}; restore into an empty WETREAD_HOME"
            )
    with database.session() as session:
        tables_there = session.scalar(
            text("SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')")
        )
    if tables_there:
        raise BackupError("The database holds tables already; restore into an empty one")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
