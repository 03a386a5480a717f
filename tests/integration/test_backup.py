"""Everything comes back: a real record and real files, backed up, lost, and restored into another place."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import select, text
from typer.testing import CliRunner, Result

from deploy import backup as backups
from deploy.backup import ACCOUNT, RECORD, back_up, restore
from deploy.cli import app
from fhir_records import migrations, tables
from fhir_records.database import Database
from fhir_records.errors import BackupError
from tests import seed


@pytest.fixture
def home(tmp_path: Path, database: Database) -> Path:
    """A home with the files of all that stands in the record, and things that belong to no backup."""
    home = tmp_path / "home"
    (home / "spool" / "objects").mkdir(parents=True)
    with database.session() as session:
        seed.every_state(session)
        for key in session.scalars(select(tables.Instance.file_key)):
            (home / "spool" / key).parent.mkdir(parents=True, exist_ok=True)
            (home / "spool" / key).write_bytes(key.encode() * 1000)
    (home / "models" / "m" / "1.0.0").mkdir(parents=True)
    (home / "models" / "m" / "1.0.0" / "weights").write_bytes(bytes(range(256)))
    (home / "wetread.toml").write_text('[site]\nstatement = "Ours."\n')
    for nothing in ("spool/incoming/half.part", "postgres/data/PG_VERSION"):
        (home / nothing).parent.mkdir(parents=True)
        (home / nothing).write_text("18")
    return home


@pytest.fixture
def empty(database_url: str) -> Database:
    """An empty database to restore into."""
    return Database(database_url)


def rows(database: Database) -> dict[str, list[str]]:
    """Every row of every table, as text."""
    with database.session() as session:
        names = session.scalars(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).all()
        return {name: sorted(session.scalars(text(f'SELECT t::text FROM "{name}" t')).all()) for name in names}


def contents(home: Path) -> dict[str, bytes]:
    """What lies under a home, without what is in no backup."""
    found = {path.relative_to(home).as_posix(): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith(("postgres/", "spool/incoming/"))}


def test_all_comes_back(home: Path, database: Database, empty: Database, tmp_path: Path) -> None:
    """Record and files of a restored installation are, row by row and byte by byte, those of the lost one."""
    before, files = rows(database), contents(home)
    folder, account = back_up(home, database, tmp_path / "backups")
    assert account.missing == ()
    assert account.files == account.copied == len(files)
    assert (folder / RECORD).stat().st_mode & 0o077 == 0
    shutil.rmtree(home)
    restore(tmp_path / "backups", home, empty)
    assert rows(empty) == before
    assert sum(map(len, before.values())) > 80
    assert contents(home) == files
    with empty.session() as session:
        keys = session.scalars(select(tables.Instance.file_key)).all()
    assert keys
    assert all((home / "spool" / key).is_file() for key in keys)
    migrations.check(empty)


def test_a_second_backup_copies_what_is_new(home: Path, database: Database, empty: Database, tmp_path: Path) -> None:
    """Each backup in one folder stands for its own moment; files are copied once, and the newest one is restored."""
    first, _ = back_up(home, database, tmp_path / "backups")
    (home / "spool" / "objects" / "late.dcm").write_bytes(b"late")
    with database.session() as session:
        (study, *_) = session.scalars(select(tables.Study)).all()
        study.description = "changed since"
    # The second is of another second.
    first.rename(first.with_name("20000101T000000Z"))
    _, account = back_up(home, database, tmp_path / "backups")
    assert account.copied == 1
    shutil.rmtree(home)
    restore(tmp_path / "backups", home, empty)
    assert rows(empty) == rows(database)
    assert (home / "spool" / "objects" / "late.dcm").read_bytes() == b"late"


def test_a_file_that_is_lost_already_is_told(home: Path, database: Database, tmp_path: Path) -> None:
    """A row without its file is no reason for no backup, and is never passed over in silence."""
    with database.session() as session:
        key = session.scalars(select(tables.Instance.file_key).order_by(tables.Instance.id)).first()
    assert key is not None
    (home / "spool" / key).unlink()
    _, account = back_up(home, database, tmp_path / "backups")
    assert account.missing == (key,)


def test_a_backup_that_was_broken_off_is_none(
    home: Path, database: Database, empty: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off between the dump and the end, there is nothing to restore; the next one completes what was copied."""

    def broken_off(*_: object) -> bool:
        raise OSError(28, "No space left on device", "x")

    with monkeypatch.context() as patched:
        patched.setattr(backups, "_copy", broken_off)
        with pytest.raises(BackupError, match="No space left"):
            back_up(home, database, tmp_path / "backups")
    with pytest.raises(BackupError, match="no whole backup"):
        restore(tmp_path / "backups", tmp_path / "other", empty)


def _damage(folder: Path) -> None:
    content = bytearray((folder / RECORD).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / RECORD).write_bytes(content)


def _from_the_future(folder: Path) -> None:
    account = json.loads((folder / ACCOUNT).read_text())
    (folder / ACCOUNT).write_text(json.dumps(account | {"schema": "9999", "version": "9.9.9"}))


@pytest.mark.parametrize(("spoil", "words"), [(_damage, "damaged"), (_from_the_future, "update Wetread first")])
def test_what_cannot_be_trusted_is_not_restored(
    home: Path, database: Database, empty: Database, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    """A dump with one wrong bit, or one of a newer version, is refused before anything is changed."""
    folder, _ = back_up(home, database, tmp_path / "backups")
    spoil(folder)
    with pytest.raises(BackupError, match=words):
        restore(tmp_path / "backups", tmp_path / "other", empty)
    assert not (tmp_path / "other").exists()
    assert rows(empty) == {}


def test_nothing_is_restored_over_something(home: Path, database: Database, empty: Database, tmp_path: Path) -> None:
    """Neither a home with objects of its own nor a database with tables is mixed with a backup."""
    back_up(home, database, tmp_path / "backups")
    (home / "spool" / "objects" / "own.dcm").write_bytes(b"own")
    with pytest.raises(BackupError, match="files of its own"):
        restore(tmp_path / "backups", home, empty)
    (home / "spool" / "objects" / "own.dcm").unlink()
    with pytest.raises(BackupError, match="tables already"):
        restore(tmp_path / "backups", home, database)


def test_an_interrupted_restore_is_done_again(home: Path, database: Database, empty: Database, tmp_path: Path) -> None:
    """What a broken-off restore left is completed by the next; a configuration that is there stays."""
    back_up(home, database, tmp_path / "backups")
    before = contents(home)
    other = tmp_path / "other"
    shutil.copytree(home / "spool" / "objects", other / "spool" / "objects")
    (other / "spool" / "objects" / "x.dcm.copying").write_bytes(b"half")
    (other / "wetread.toml").write_text("# of the new machine\n")
    restore(tmp_path / "backups", other, empty)
    assert rows(empty) == rows(database)
    found = contents(other)
    assert found.pop("spool/objects/x.dcm.copying") == b"half"
    assert found == before | {"wetread.toml": b"# of the new machine\n"}


def test_a_backup_does_not_lie_in_what_it_backs_up(home: Path, database: Database) -> None:
    """Under WETREAD_HOME it would go with the disk that it is to outlive."""
    with pytest.raises(BackupError, match="lies under WETREAD_HOME"):
        back_up(home, database, home / "backups")


def test_the_commands(
    home: Path, database: Database, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands say what they did, in status and words, and put no password into a command line."""
    started: list[list[str]] = []
    run = subprocess.run

    def seen(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        started.append(command)
        return run(command, **options)  # type: ignore[call-overload, no-any-return]

    def wetread(*words: str, url: str) -> Result:
        # The server asks for none, so any will do.
        secret = sqlalchemy.make_url(url).set(password="hidden").render_as_string(hide_password=False)
        monkeypatch.setenv("WETREAD_DATABASE_URL", secret)
        return CliRunner().invoke(app, [*words], catch_exceptions=False)

    monkeypatch.setenv("WETREAD_HOME", str(home))
    monkeypatch.setattr(backups.subprocess, "run", seen)
    done = wetread("backup", str(tmp_path / "backups"), url=database.url)
    assert done.exit_code == 0, done.output
    assert "holds the record" in done.output
    monkeypatch.setenv("WETREAD_HOME", str(tmp_path / "other"))
    done = wetread("restore", str(tmp_path / "backups"), url=database_url)
    assert done.exit_code == 0, done.output
    assert "Restored as of" in done.output
    assert [Path(command[0]).name for command in started] == ["pg_dump", "pg_restore"]
    assert "hidden" not in str(started)
    done = wetread("restore", str(tmp_path / "backups"), url=database_url)
    assert done.exit_code == 1
    with database.session() as session:
        key = session.scalars(select(tables.Instance.file_key)).first()
    assert key is not None
    (home / "spool" / key).unlink()
    shutil.rmtree(tmp_path / "backups" / "files")
    monkeypatch.setenv("WETREAD_HOME", str(home))
    done = wetread("backup", str(tmp_path / "more"), url=database.url)
    assert done.exit_code == 1
    assert key in done.output
