"""The people who may log in, and their passwords.

Passwords are kept as Argon2id hashes (RFC 9106) and nothing else; a hash made with older parameters is renewed at the
next log-in. Nothing here tells whether a name exists: an unknown name costs as much time as a known one.
"""

from __future__ import annotations

import re
import unicodedata

from pwdlib import PasswordHash
from pwdlib.exceptions import PwdlibError
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from fhir_records.errors import AccountError, NotFound
from fhir_records.model import Role, User
from fhir_records.tables import User as UserRow
from fhir_records.tables import WebSession

MIN_PASSWORD_LENGTH = 12
MAX_PASSWORD_LENGTH = 1024  # so that nobody makes us hash megabytes
USERNAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")


def normal_username(text: str) -> str:
    """``text`` as usernames are stored and compared: NFKC, trimmed, lower case."""
    return unicodedata.normalize("NFKC", text).strip().casefold()


def add(session: Session, username: str, password: str, role: Role, display_name: str = "") -> User:
    """Make an account.

    Raises:
        AccountError: the name is taken or not allowed, or the password is.
    """
    name = _checked_username(username)
    _check_password(name, password)
    if exists(session, name):
        raise AccountError(f"There is an account named {name} already.")
    row = UserRow(
        username=name,
        display_name=display_name.strip() or name,
        role=role,
        password_hash=_hasher().hash(_normal(password)),
        active=True,
    )
    session.add(row)
    session.flush()
    return _record(row)


def set_password(session: Session, username: str, password: str) -> None:
    """Give an account a new password and end its sessions.

    Raises:
        NotFound: there is no such account.
        AccountError: the password is not allowed.
    """
    row = _row(session, username)
    _check_password(row.username, password)
    row.password_hash = _hasher().hash(_normal(password))
    _end_sessions(session, row)


def disable(session: Session, username: str) -> None:
    """Let nobody log in with this account any more, and end its sessions.

    Raises:
        NotFound: there is no such account.
    """
    row = _row(session, username)
    row.active = False
    _end_sessions(session, row)


def enable(session: Session, username: str) -> None:
    """Let a disabled account log in again.

    Raises:
        NotFound: there is no such account.
    """
    _row(session, username).active = True


def authenticate(session: Session, username: str, password: str) -> User | None:
    """The active user with this name and password, or None."""
    hasher = _hasher()
    row = session.scalar(select(UserRow).where(UserRow.username == normal_username(username)))
    given = _normal(password[:MAX_PASSWORD_LENGTH])
    if row is None:
        hasher.hash(given)  # as long as a comparison takes
        return None
    try:
        right, renewed = hasher.verify_and_update(given, row.password_hash)
    except PwdlibError as error:
        raise AccountError(f"The stored password of {row.username} is damaged. Set a new one.") from error
    if renewed is not None:
        row.password_hash = renewed
    return _record(row) if right and row.active else None


def exists(session: Session, username: str) -> bool:
    """Whether there is an account of this name; never to be told to whoever asks to log in."""
    return session.scalar(select(UserRow.id).where(UserRow.username == normal_username(username))) is not None


def list_users(session: Session) -> tuple[User, ...]:
    """Every account, by name."""
    return tuple(_record(row) for row in session.scalars(select(UserRow).order_by(UserRow.username)))


def _checked_username(text: str) -> str:
    name = normal_username(text)
    if not USERNAME.fullmatch(name):
        raise AccountError(
            f"{text!r} cannot be a username. Allowed: 1 to 64 of a to z, 0 to 9, '.', '_', '-' and '@', "
            "starting with a letter or a digit."
        )
    return name


def _check_password(username: str, password: str) -> None:
    if len(password) < MIN_PASSWORD_LENGTH:
        raise AccountError(f"The password has {len(password)} characters; at least {MIN_PASSWORD_LENGTH} are needed.")
    if len(password) > MAX_PASSWORD_LENGTH:
        raise AccountError(f"The password is longer than {MAX_PASSWORD_LENGTH} characters.")
    if normal_username(password) == username:
        raise AccountError("The password must not be the username.")


def _hasher() -> PasswordHash:
    return PasswordHash((Argon2Hasher(),))


def _normal(password: str) -> str:
    # The same password typed on two keyboards may differ in its code points (RFC 8265 section 4).
    return unicodedata.normalize("NFC", password)


def _row(session: Session, username: str) -> UserRow:
    row = session.scalar(select(UserRow).where(UserRow.username == normal_username(username)))
    if row is None:
        raise NotFound(f"There is no account named {normal_username(username)}.")
    return row


def _end_sessions(session: Session, row: UserRow) -> None:
    session.execute(delete(WebSession).where(WebSession.user_id == row.id))


def _record(row: UserRow) -> User:
    return User(id=row.id, username=row.username, display_name=row.display_name, role=row.role, active=row.active)
