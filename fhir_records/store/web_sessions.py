"""Log-ins: the sessions that are open, and the failures that slow guessing down.

A session is a random token in the browser's cookie and a row under the token's hash; whoever reads the table cannot
log in with it. Failures are rows too, so that every process sees the same.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Session

from fhir_records.model import User
from fhir_records.tables import LoginFailure, WebSession
from fhir_records.tables import User as UserRow

FAILURE_WINDOW = dt.timedelta(minutes=15)
FREE_FAILURES = 5  # of one name, before its next try has to wait
FREE_FAILURES_ADDRESS = 30  # of one address, where many people may sit behind one
FIRST_WAIT_S = 5.0
LONGEST_WAIT_S = 300.0
TOUCH_EVERY = dt.timedelta(seconds=30)  # last_seen_at is written no more often than this


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A log-in that stands."""

    user: User
    csrf_token: str
    token_sha256: str


def open_session(session: Session, user: User, now: dt.datetime, lifetime: dt.timedelta) -> str:
    """Start a session and return its token (256 random bits), which is shown this once. Clears out what has ended."""
    token = secrets.token_urlsafe(32)
    session.execute(delete(WebSession).where(WebSession.expires_at < now))
    session.add(
        WebSession(
            token_sha256=_sha256(token),
            user_id=user.id,
            csrf_token=secrets.token_urlsafe(32),
            created_at=now,
            last_seen_at=now,
            expires_at=now + lifetime,
        )
    )
    return token


def find_session(
    session: Session, token: str, now: dt.datetime, idle: dt.timedelta, *, touch: bool = True
) -> OpenSession | None:
    """The session of ``token``, or None where it has ended, lain idle for longer than ``idle``, or its user may not.

    With ``touch`` this is a sign of life; a page that only refreshes itself gives none.
    """
    row = session.get(WebSession, _sha256(token))
    if row is None or row.expires_at <= now or row.last_seen_at <= now - idle or not row.user.active:
        return None
    if touch and now - row.last_seen_at > TOUCH_EVERY:
        row.last_seen_at = now
    return OpenSession(user=_user(row.user), csrf_token=row.csrf_token, token_sha256=row.token_sha256)


def close_session(session: Session, token: str) -> None:
    """End the session of ``token``; none there is none ended."""
    session.execute(delete(WebSession).where(WebSession.token_sha256 == _sha256(token)))


def one_at_a_time(session: Session, username: str) -> bool:
    """Whether only this transaction checks a password of ``username`` now; guesses side by side would go uncounted."""
    key = int.from_bytes(hashlib.sha256(b"login:" + username.encode()).digest()[:8], "big", signed=True)
    return bool(session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": key}))


def wait_seconds(session: Session, username: str, address: str, now: dt.datetime) -> float:
    """How long the next log-in of this name, or from this address, must wait yet; 0.0: not at all."""
    recent = LoginFailure.at > now - FAILURE_WINDOW
    waits = [
        _wait(*session.execute(select(func.count(), func.max(LoginFailure.at)).where(recent, who)).one(), free, now)
        for who, free in (
            (LoginFailure.username == _sha256(username), FREE_FAILURES),
            (LoginFailure.address == address, FREE_FAILURES_ADDRESS),
        )
    ]
    return max(waits)


def record_failure(session: Session, username: str, address: str, now: dt.datetime) -> None:
    """Keep that a log-in failed, and drop failures too old to matter.

    The name is kept as a hash: people type their password there by mistake.
    """
    session.execute(delete(LoginFailure).where(LoginFailure.at < now - 4 * FAILURE_WINDOW))
    session.add(LoginFailure(username=_sha256(username), address=address, at=now))


def forget_failures(session: Session, username: str) -> None:
    """A right password: earlier failures of the name no longer count."""
    session.execute(delete(LoginFailure).where(LoginFailure.username == _sha256(username)))


def _wait(count: int, last: dt.datetime | None, free: int, now: dt.datetime) -> float:
    """Seconds left of a wait that doubles with each failure beyond the free ones."""
    if last is None or count < free:
        return 0.0
    pause = min(FIRST_WAIT_S * 2.0 ** min(count - free, 16), LONGEST_WAIT_S)
    return max(0.0, (last + dt.timedelta(seconds=pause) - now).total_seconds())


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _user(row: UserRow) -> User:
    return User(id=row.id, username=row.username, display_name=row.display_name, role=row.role, active=row.active)
