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


def add(
    session: Session,
    username: str,
    password: str,
    role: Role,
    display_name: str = "",
    *,
    person_name: str = "",
    identification: str = "",
) -> User:
    """Make an account.

    Args:
        session: the caller's.
        username: to log in with.
        password: to log in with.
        role: what the person may do.
        display_name: as people write the person's name.
        person_name: as DICOM writes it, for documents that the person signs: "Curie^Marie^^Dr".
        identification: the person's number in the site's scheme, for the same.

    Raises:
        AccountError: a name is taken or not allowed, or the password or the number is.
    """
    name = _checked_username(username)
    _check_password(name, password)
    if exists(session, name):
        raise AccountError(f"There is an account named {name} already.")
    row = UserRow(
        username=name,
        display_name=display_name.strip() or name,
        person_name=_checked_person_name(person_name),
        identification=_checked_identification(identification),
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


def set_signing(session: Session, username: str, person_name: str | None, identification: str | None) -> None:
    """Change how documents name a person who signs; None: as it is. What is signed stays as it was signed.

    Raises:
        NotFound: there is no such account.
        AccountError: a value is not allowed.
    """
    row = _row(session, username)
    if person_name is not None:
        row.person_name = _checked_person_name(person_name)
    if identification is not None:
        row.identification = _checked_identification(identification)


def find(session: Session, username: str) -> User:
    """The account of this name.

    Raises:
        NotFound: there is none.
    """
    return _record(_row(session, username))


def record_of(session: Session, user_id: int) -> User | None:
    """The account of this number, or None."""
    row = session.get(UserRow, user_id)
    return _record(row) if row else None


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


def _checked_person_name(text: str) -> str:
    name = text.strip()
    # PS3.5 section 6.2: three component groups of 64 characters each, five components in each.
    groups = name.split("=")
    if len(groups) > 3 or any(len(group) > 64 or group.count("^") > 4 for group in groups) or not _printable(name):
        raise AccountError(
            f"{text!r} is no DICOM person name. Allowed: family^given^middle^prefix^suffix, up to 64 characters; two"
            " more such groups, each after a '=', for other scripts."
        )
    return name


def _checked_identification(text: str) -> str:
    value = text.strip()
    if len(value) > 16 or not _printable(value):  # PS3.5 section 6.2, SH
        raise AccountError(f"{text!r} is no number of a person. Allowed: 1 to 16 characters, no backslash.")
    return value


def _printable(text: str) -> bool:
    return text.isprintable() and "\\" not in text


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
    return User(
        id=row.id,
        username=row.username,
        display_name=row.display_name,
        role=row.role,
        active=row.active,
        person_name=row.person_name,
        identification=row.identification,
    )
