"""Databases for tests: a real PostgreSQL, and an empty or a migrated database on it for each test."""

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
from tests.run_once import made_once


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


def _create(server: sqlalchemy.URL, name: str, template: str = "template1") -> str:
    """Create a database; its URL as that of its owner (on the embedded server no superuser)."""
    embedded = "WETREAD_TEST_DATABASE_URL" not in os.environ
    with _administer(server) as connection:
        # Copied as files, not through the log: a third of the work, where nothing waits for the disk.
        owner = f" OWNER {ROLE} STRATEGY FILE_COPY" if embedded else ""
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template}{owner}")
    url = server.set(database=name, username=ROLE) if embedded else server.set(database=name)
    return url.render_as_string(hide_password=False)


def _drop(server: sqlalchemy.URL, name: str) -> None:
    with _administer(server) as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def made_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose embedded database was made, migrated and stopped, once for the run: to copy with its owners.

    It does not wait for the disk: processes are killed in tests, and no machine loses its power.
    """
    return made_once(tmp_path_factory, "database", _make_home)


def _make_home(home: Path) -> None:
    server = EmbeddedPostgres(home)
    try:
        server.start()
        opened = Database(server.url)
        migrate(opened)
        opened.close()
        with _administer(sqlalchemy.make_url(server.administrator_url)) as connection:
            connection.exec_driver_sql("ALTER SYSTEM SET fsync = off")
    finally:
        server.stop(even_if_used=True)


@pytest.fixture
def database_url(postgres_server: sqlalchemy.URL) -> Iterator[str]:
    """An empty database, dropped after the test."""
    name = f"test_{uuid.uuid4().hex}"
    try:
        yield _create(postgres_server, name)
    finally:
        _drop(postgres_server, name)


@pytest.fixture(scope="session")
def migrated(postgres_server: sqlalchemy.URL) -> Iterator[str]:
    """The name of a migrated database, of which others are copies: copying is faster than migrating."""
    name = f"template_{uuid.uuid4().hex}"
    url = _create(postgres_server, name)
    opened = Database(url)
    migrate(opened)
    opened.close()
    try:
        yield name
    finally:
        _drop(postgres_server, name)


@pytest.fixture
def database(postgres_server: sqlalchemy.URL, migrated: str) -> Iterator[Database]:
    """A database with the schema of this version, empty."""
    name = f"test_{uuid.uuid4().hex}"
    opened = Database(_create(postgres_server, name, template=migrated))
    try:
        yield opened
    finally:
        opened.close()
        _drop(postgres_server, name)
