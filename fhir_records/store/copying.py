"""Many new rows in one go: PostgreSQL's COPY, at a tenth of what an INSERT for each row costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.orm import Session

from fhir_records.tables import Base


def copy_rows(session: Session, table: type[Base], columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Insert rows in the caller's transaction; what its session has not flushed yet is not seen by them.

    Args:
        session: the caller's.
        table: where they go.
        columns: their names; the others get the database's defaults.
        rows: the values, in the columns' order.

    Raises:
        sqlalchemy.exc.IntegrityError: they break a rule of the table.
        sqlalchemy.exc.OperationalError: the server went away.
        sqlalchemy.exc.DBAPIError: it does not take them for another reason.
    """
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table.__tablename__), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    connection: psycopg.Connection[Any] = session.connection().connection.driver_connection  # type: ignore[assignment]
    try:
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except psycopg.Error as error:
        raise _as_sqlalchemy_says(error) from error


def _as_sqlalchemy_says(error: psycopg.Error) -> DBAPIError:
    # The rows are not quoted: they hold patient data.
    kinds = {psycopg.IntegrityError: IntegrityError, psycopg.OperationalError: OperationalError}
    kind = next((ours for theirs, ours in kinds.items() if isinstance(error, theirs)), DBAPIError)
    return kind("COPY", None, error, hide_parameters=True)
