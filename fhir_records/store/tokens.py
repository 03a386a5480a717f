"""Bearer tokens for programs: made once, shown once, kept as a hash.

A scope is written as in SMART App Launch v2 (``system/*.rs``, ``system/Observation.r``), several parted by spaces. Only
what this server has can be granted: reading and searching, of the types that it serves, and creating ImagingStudy,
which is storing images by DICOMweb.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from fhir_records import tables
from fhir_records.errors import NotFound, QueryError
from fhir_records.fhir_api.parameters import PARAMETERS
from fhir_records.model import User
from fhir_records.store import users

# The one user/ scope: a signature is an update of a DiagnosticReport, and always a person's.
SIGNING_SCOPE: Final = "user/DiagnosticReport.u"

# Known at sight, so that a token that leaks into a repository is found by scanners.
PREFIX: Final = "wetread_"
TOKEN_BYTES: Final = 32  # 256 bits of chance

# The time of use is for people to see which tokens are forgotten; each request need not write it.
_USE_RESOLUTION: Final = dt.timedelta(minutes=1)

_SCOPE: Final = re.compile(r"(?P<level>[a-z]+)/(?P<type>\*|[A-Za-z]+)\.(?P<rights>[a-z*]+)(?P<query>\?.*)?")
_V2_ORDER: Final = re.compile(r"c?r?u?d?s?")
# SMART App Launch v2, "Scopes for requesting FHIR resources": letter of each interaction.
_LETTERS: Final[Mapping[str, str]] = MappingProxyType({"create": "c", "read": "r", "search-type": "s"})
_CREATED: Final = frozenset({"*", "ImagingStudy"})
_HOW: Final = "Write system/*.rs, or system/Observation.r and the like."


@dataclass(frozen=True, slots=True)
class TokenGrant:
    """What the bearer of a valid token may do."""

    name: str
    scope: str
    user: User | None = None  # the person for whom its user/ scopes speak; None: it has none

    @property
    def may_sign(self) -> bool:
        """Whether it may sign results in its person's name, as far as the person may."""
        return self.user is not None and SIGNING_SCOPE in self.scope.split()

    def allows(self, type: str, interaction: str) -> bool:
        """Whether the bearer may ``create``, ``read`` or ``search-type`` this resource type."""
        return allows(self.scope, type, interaction)


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """A token as it is listed; the token itself is kept nowhere."""

    name: str
    scope: str
    created_at: dt.datetime
    expires_at: dt.datetime | None
    revoked_at: dt.datetime | None
    last_used_at: dt.datetime | None


def check_scope(scope: str, *, of_person: bool = False) -> str:
    """The scope, its parts parted by single spaces. A person's token may also have `SIGNING_SCOPE`.

    Raises:
        QueryError: a part is not SMART v2, or asks for what this server does not have.
    """
    parts = scope.split()
    if not parts:
        raise QueryError(f"A token needs a scope. {_HOW}")
    for part in parts:
        if not (of_person and part == SIGNING_SCOPE):
            _check_part(part)
    return " ".join(parts)


def allows(scope: str, type: str, interaction: str) -> bool:
    """Whether a scope that `check_scope` let pass covers ``create``, ``read`` or ``search-type`` of the type."""
    letter = _LETTERS.get(interaction)
    if letter is None:
        return False
    for part in scope.split():
        match = _SCOPE.fullmatch(part)
        if match and match["level"] == "system" and match["type"] in {"*", type} and letter in match["rights"]:
            return True
    return False


def create(
    session: Session, name: str, scope: str, expires_at: dt.datetime | None = None, user: User | None = None
) -> str:
    """Make a token and return it; it cannot be shown again. With ``user`` it may sign in that person's name.

    Raises:
        QueryError: the name is empty or taken (a revoked token keeps its name, for the audit trail), or the scope is
            not valid.
    """
    name = name.strip()
    if not name or not name.isprintable():
        raise QueryError("A token needs a name that can be read.")
    token = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
    added = session.execute(
        insert(tables.Token)
        .values(
            name=name,
            scope=check_scope(scope, of_person=user is not None),
            token_sha256=_digest(token),
            expires_at=expires_at,
            user_id=user.id if user else None,
        )
        .on_conflict_do_nothing(index_elements=["name"])
        .returning(tables.Token.id)
    ).scalar_one_or_none()
    if added is None:
        raise QueryError(f"There is, or was, a token named {name!r}. Choose another name.")
    return token


def check(session: Session, token: str, now: dt.datetime | None = None) -> TokenGrant | None:
    """What a token allows; None where it is unknown, revoked or past its time."""
    now = now or dt.datetime.now(dt.UTC)
    # Looked up by its hash, so the time that comparing takes tells nothing about the token.
    row = session.execute(select(tables.Token).where(tables.Token.token_sha256 == _digest(token))).scalar_one_or_none()
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now):
        return None
    if row.last_used_at is None or now - row.last_used_at >= _USE_RESOLUTION:
        row.last_used_at = now
    user = users.record_of(session, row.user_id) if row.user_id is not None else None
    return TokenGrant(name=row.name, scope=row.scope, user=user)


def revoke(session: Session, name: str, now: dt.datetime | None = None) -> None:
    """End a token for good. Revoking it again changes nothing.

    Raises:
        NotFound: there is no token of this name.
    """
    row = session.execute(select(tables.Token).where(tables.Token.name == name).with_for_update()).scalar_one_or_none()
    if row is None:
        raise NotFound(f"There is no token named {name!r}.")
    row.revoked_at = row.revoked_at or now or dt.datetime.now(dt.UTC)


def list_all(session: Session) -> tuple[TokenInfo, ...]:
    """Every token that was ever made, by name."""
    rows = session.execute(select(tables.Token).order_by(tables.Token.name)).scalars()
    return tuple(
        TokenInfo(row.name, row.scope, row.created_at, row.expires_at, row.revoked_at, row.last_used_at) for row in rows
    )


def _check_part(part: str) -> None:
    match = _SCOPE.fullmatch(part)
    if match is None:
        raise QueryError(f"The scope {part!r} is not one of SMART App Launch v2. {_HOW}")
    if match["level"] in {"user", "patient"}:
        raise QueryError(
            f"The scope {part!r} needs a person. Of user/ scopes there is {SIGNING_SCOPE} alone, for a token that is"
            " made for an account; everything else is system/."
        )
    if match["level"] != "system":
        raise QueryError(f"The scope {part!r} starts with no level that SMART knows. {_HOW}")
    if match["query"]:
        raise QueryError(f"The scope {part!r} narrows by search parameters, which is not served. {_HOW}")
    if match["rights"] in {"read", "write", "*"}:
        raise QueryError(f"The scope {part!r} is SMART v1. {_HOW}")
    if not _V2_ORDER.fullmatch(match["rights"]):
        raise QueryError(f"The rights in {part!r} are letters of cruds, each once and in this order. {_HOW}")
    if set(match["rights"]) - set(_LETTERS.values()):
        raise QueryError(f"The scope {part!r} asks to change or delete, which is not served. {_HOW}")
    if "c" in match["rights"] and match["type"] not in _CREATED:
        raise QueryError(
            f"The scope {part!r} asks to create; only images can be stored: system/ImagingStudy.c, or system/*.c."
        )
    if match["type"] != "*" and match["type"] not in PARAMETERS:
        raise QueryError(f"{match['type']} is not served; allowed: *, {', '.join(PARAMETERS)}.")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
