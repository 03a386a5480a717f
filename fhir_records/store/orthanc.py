"""How far each Orthanc has been followed, and what need not be fetched from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import ARRAY, Connection, Text, any_, func, literal, select, union
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import Function

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable


def last_change(session: Session, name: str) -> int:
    """The sequence number up to which every change of this Orthanc has been dealt with; 0 where none has."""
    row = session.get(tables.OrthancCursor, name)
    return row.last_change if row else 0


def move(session: Session, name: str, sequence: int) -> None:
    """Note that every change up to ``sequence`` has been dealt with, in the transaction of what came of it."""
    values = {"last_change": sequence, "error": None, "updated_at": func.now()}
    session.execute(
        insert(tables.OrthancCursor)
        .values(name=name, **values)
        .on_conflict_do_update(index_elements=["name"], set_=values)
    )


def note_error(session: Session, name: str, error: str) -> None:
    """Keep why this Orthanc cannot be followed now, for the pages and `wetread doctor`; the next `move` clears it."""
    values = {"error": error, "updated_at": func.now()}
    session.execute(
        insert(tables.OrthancCursor)
        .values(name=name, **values)
        .on_conflict_do_update(index_elements=["name"], set_=values)
    )


def known_objects(session: Session, sop_uids: Iterable[str]) -> frozenset[str]:
    """Those of the SOP Instance UIDs that are in the record already, or that Wetread wrote itself."""
    # One array, not a list of parameters: a study may have more instances than a statement may have parameters.
    asked = any_(literal(list(sop_uids), ARRAY(Text())))
    found = union(
        select(tables.Instance.sop_uid).where(tables.Instance.sop_uid == asked),
        select(tables.Document.sop_uid).where(tables.Document.sop_uid == asked),
    )
    return frozenset(session.execute(found).scalars())


def study_id(session: Session, study_uid: str) -> int | None:
    """The record's number of the study with this Study Instance UID; None where no image of it is here."""
    return session.execute(select(tables.Study.id).where(tables.Study.study_uid == study_uid)).scalar_one_or_none()


@contextmanager
def only_follower(database: Database, name: str) -> Iterator[bool]:
    """Whether the caller is the only one to follow this Orthanc, held until the block ends or the process dies.

    A lock of the server's (``pg_try_advisory_lock``) on a connection of its own, so that no transaction stays open
    while objects travel.

    Raises:
        DatabaseUnavailable: the server cannot be reached.
    """
    key = func.hashtextextended(f"wetread.orthanc:{name}", 0)
    try:
        connection = database.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        alone = bool(connection.execute(select(func.pg_try_advisory_lock(key))).scalar_one())
    except OperationalError as error:
        raise DatabaseUnavailable from error
    try:
        yield alone
    finally:
        _give_back(connection, key if alone else None)


def _give_back(connection: Connection, key: Function[int] | None) -> None:
    try:
        if key is not None:
            connection.execute(select(func.pg_advisory_unlock(key)))
    except DBAPIError:
        # The server went away and the lock with it; the connection must not go back into the pool in any case.
        connection.invalidate()
    finally:
        connection.close()
