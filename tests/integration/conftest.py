"""What integration tests share: a real PostgreSQL, and an empty database on it for each test."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy

from deploy.embedded_postgres import EmbeddedPostgres
from deploy.postgres_files import ROLE
from fhir_records.database import Database
from fhir_records.migrations import migrate


def _administer(url: sqlalchemy.URL) -> sqlalchemy.Connection:
    return sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool).connect()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[sqlalchemy.URL]:
    """A PostgreSQL for the whole run, as the URL of a user who may create databases.

    `WETREAD_TEST_DATABASE_URL` names one; otherwise it is an embedded one in a temporary home.
    """
    if given := os.environ.get("WETREAD_TEST_DATABASE_URL"):
        yield sqlalchemy.make_url(given)
        return
    home = Path(tempfile.mkdtemp(prefix="wetread-test-"))
    server = EmbeddedPostgres(home)
    try:
        server.start()
        url = sqlalchemy.make_url(server.administrator_url)
        with _administer(url) as connection:  # nothing here must survive a power cut, and tests are to be fast
            connection.exec_driver_sql("ALTER SYSTEM SET fsync = off")
            connection.exec_driver_sql("SELECT pg_reload_conf()")
        yield url
    finally:
        server.stop(even_if_used=True)
        shutil.rmtree(home)


@pytest.fixture
def database_url(postgres_server: sqlalchemy.URL) -> Iterator[str]:
    """An empty database, dropped after the test, as the URL of its owner (on the embedded server no superuser)."""
    name = f"test_{uuid.uuid4().hex}"
    embedded = "WETREAD_TEST_DATABASE_URL" not in os.environ
    with _administer(postgres_server) as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}" + (f" OWNER {ROLE}" if embedded else ""))
    url = postgres_server.set(database=name, username=ROLE) if embedded else postgres_server.set(database=name)
    try:
        yield url.render_as_string(hide_password=False)
    finally:
        with _administer(postgres_server) as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A database with the schema of this version, empty."""
    opened = Database(database_url)
    migrate(opened)
    try:
        yield opened
    finally:
        opened.close()
