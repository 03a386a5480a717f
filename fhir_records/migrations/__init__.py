"""From any older schema, or none, to this version's: our tables by Alembic, the jobs' by procrastinate's own SQL.

Both run in one transaction under one advisory lock, so that two processes that start at once make one schema. Alembic
is imported when it is needed: the listener never asks, and is many processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from sqlalchemy import Connection, text

from fhir_records.database import Database
from fhir_records.errors import SchemaError

if TYPE_CHECKING:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

log = structlog.get_logger(__name__)

# Any number will do, as long as no other program on the same database takes it.
ADVISORY_LOCK = 7_731_115


def migrate(database: Database) -> str:
    """Bring the schema up to this version; nothing is done where it is there already.

    Returns:
        The schema's revision.

    Raises:
        SchemaError: the database was made by a newer version of Wetread.
        DatabaseUnavailable: the database cannot be reached.
    """
    from alembic import command

    with database.session() as session:
        connection = session.connection()
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
        _refuse_newer(connection)
        before = _current(connection)
        command.upgrade(_config(connection), "head")
        _migrate_jobs(connection)
        after = _current(connection)
    if before != after:
        log.info("schema migrated", before=before, after=after)
    return after or ""


def check(database: Database) -> None:
    """See that the schema is the one that this version works with.

    Raises:
        SchemaError: it is older (run `wetread migrate`) or newer (update Wetread).
        DatabaseUnavailable: the database cannot be reached.
    """
    with database.session() as session:
        connection = session.connection()
        _refuse_newer(connection)
        current = _current(connection)
    if current != _scripts().get_current_head():
        raise SchemaError(f"The database's schema is {current or 'empty'}. Run `wetread migrate`.")


def current(database: Database) -> str:
    """The revision of the schema in the database; "" where there is none.

    Raises:
        DatabaseUnavailable: the database cannot be reached.
    """
    with database.session() as session:
        return _current(session.connection()) or ""


def known() -> set[str]:
    """The revisions that this version can bring up to its own."""
    return {script.revision for script in _scripts().walk_revisions()}


def _refuse_newer(connection: Connection) -> None:
    current = _current(connection)
    if current is not None and current not in known():
        raise SchemaError(
            f"The database's schema, {current}, is newer than this version of Wetread. Update Wetread on this machine."
        )


def _current(connection: Connection) -> str | None:
    from alembic.migration import MigrationContext

    return MigrationContext.configure(connection).get_current_revision()


def _scripts() -> ScriptDirectory:
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(__file__).parent))


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config


def _migrate_jobs(connection: Connection) -> None:
    """Make procrastinate's tables, or apply those of its migrations that have not been.

    Which have been is kept as the comment of its table of jobs: procrastinate itself keeps no account.
    """
    from procrastinate.schema import SchemaManager

    files = sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))
    newest = files[-1].name
    there = connection.execute(text("SELECT to_regclass('procrastinate_jobs')")).scalar()
    if there is None:
        connection.exec_driver_sql(SchemaManager.get_schema().replace("%", "%%"))
    else:
        applied = connection.execute(text("SELECT obj_description('procrastinate_jobs'::regclass)")).scalar() or ""
        for file in files:
            if file.name > applied:
                connection.exec_driver_sql(file.read_text(encoding="utf-8").replace("%", "%%"))
    # A file name of procrastinate's own; COMMENT takes no parameters.
    connection.exec_driver_sql(f"COMMENT ON TABLE procrastinate_jobs IS '{newest}'")
