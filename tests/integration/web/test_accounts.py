"""Accounts and their passwords."""

from __future__ import annotations

import pytest
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import select, update

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.errors import AccountError
from fhir_records.model import Role
from fhir_records.store import users
from tests.integration.web.forms import PASSWORD, Enter


@pytest.mark.parametrize(
    ("username", "password"),
    [
        ("ada", "too short"),
        ("ada@hospital.example", "Ada@Hospital.example"),
        ("ada lovelace", PASSWORD),
        ("", PASSWORD),
    ],
)
def test_accounts_have_rules(database: Database, username: str, password: str) -> None:
    """Too short a password, the username as password, and a name with blanks are refused."""
    with database.session() as session, pytest.raises(AccountError):
        users.add(session, username, password, Role.CLINICIAN)


def test_a_name_is_taken_once(database: Database, accounts: None) -> None:
    """Names that differ in case only are the same."""
    with database.session() as session, pytest.raises(AccountError):
        users.add(session, "ADMIN", PASSWORD, Role.ADMIN)


def test_a_hash_with_old_parameters_is_renewed_at_log_in(database: Database, accounts: None) -> None:
    """A password hashed more cheaply than now is hashed anew when it is known."""
    old = Argon2Hasher(time_cost=1, memory_cost=8192, parallelism=1).hash(PASSWORD)
    with database.session() as session:
        session.execute(update(tables.User).where(tables.User.username == "admin").values(password_hash=old))
    with database.session() as session:
        assert users.authenticate(session, "admin", PASSWORD) is not None
    with database.session() as session:
        renewed = session.scalars(select(tables.User.password_hash).where(tables.User.username == "admin")).one()
        assert renewed != old
        assert users.authenticate(session, "admin", PASSWORD) is not None


def test_a_new_password_ends_the_sessions_made_with_the_old(enter: Enter, database: Database) -> None:
    """Whoever got in with a stolen password is out once it is changed."""
    client = enter()
    with database.session() as session:
        users.set_password(session, "radiologist", "another long password")
    assert client.get("/").status_code == 303
