"""The schema: from nothing to this version, and what stands in the way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from fhir_records.database import Database
from fhir_records.errors import SchemaError
from fhir_records.migrations import check, migrate
from fhir_records.tables import Base


def test_the_migrations_lead_to_the_tables(database: Database) -> None:
    """An empty database that is migrated has exactly the tables that the code works with."""

    def ours(name: str | None, kind: str, _parents: object) -> bool:
        return not (kind == "table" and (name or "").startswith("procrastinate_"))

    with database.session() as session:
        context = MigrationContext.configure(session.connection(), opts={"include_name": ours, "compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrating_again_changes_nothing(database: Database) -> None:
    """A schema that is current stays as it is, and is accepted."""
    assert migrate(database) == migrate(database)
    check(database)


def test_two_that_migrate_at_once_make_one_schema(database_url: str) -> None:
    """Processes that start together on an empty database do not stand in each other's way."""
    databases = [Database(database_url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        revisions = set(pool.map(migrate, databases))
    assert len(revisions) == 1
    for opened in databases:
        opened.close()


def test_an_empty_database_is_not_accepted(database_url: str) -> None:
    """A role that finds no schema says what to run."""
    opened = Database(database_url)
    with pytest.raises(SchemaError, match="wetread migrate"):
        check(opened)
    opened.close()


def test_a_newer_schema_is_refused(database: Database) -> None:
    """A database that a newer version has migrated is neither used nor changed."""
    with database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match="newer"):
        check(database)
    with pytest.raises(SchemaError, match="newer"):
        migrate(database)
