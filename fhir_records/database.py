"""Engine and sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy.exc
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

from fhir_records.errors import DatabaseUnavailable

# Seconds that connecting may take before the database counts as away.
CONNECT_TIMEOUT_S = 5


def normal_url(url: str) -> str:
    """``url`` with the driver that Wetread uses, so that a plain ``postgresql://…`` may be given."""
    parsed = make_url(url)
    if parsed.drivername in {"postgresql", "postgres"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed.render_as_string(hide_password=False)


class Database:
    """A PostgreSQL database and the sessions on it. Nothing is connected before it is used."""

    def __init__(self, url: str, *, pool_size: int = 5) -> None:
        self.url = normal_url(url)
        self.engine: Engine = create_engine(
            self.url,
            pool_pre_ping=True,
            pool_size=pool_size,
            max_overflow=10,
            # Statements' parameters hold patient data; errors must not quote them.
            hide_parameters=True,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "options": "-c timezone=UTC"},
        )
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @property
    def conninfo(self) -> str:
        """The connection as libpq wants it (for psycopg itself, and for procrastinate)."""
        return make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A session in one transaction: committed at the end, rolled back on any error.

        Raises:
            DatabaseUnavailable: the server cannot be reached, or went away in between.
        """
        try:
            with self._sessions.begin() as session:
                yield session
        except sqlalchemy.exc.OperationalError as error:
            raise DatabaseUnavailable from error
        except sqlalchemy.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise DatabaseUnavailable from error
            raise

    def ping(self) -> None:
        """Ask the server for an answer.

        Raises:
            DatabaseUnavailable: there was none.
        """
        with self.session() as session:
            session.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close the pooled connections."""
        self.engine.dispose()
