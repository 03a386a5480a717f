"""The pages on a real PostgreSQL, with an account of each role, and browsers to visit them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from fastapi.testclient import TestClient
from pwdlib.hashers.argon2 import Argon2Hasher

from fhir_records import tables
from fhir_records.database import Database
from fhir_records.model import Role
from fhir_records.store import users, web_sessions
from tests.integration.web.forms import LOCAL, PASSWORD, Enter
from web.app import create_app
from web.settings import WebSettings


@pytest.fixture
def settings(tmp_path: Path) -> WebSettings:
    """Those of a site reached by plain http on this machine."""
    return WebSettings(
        public_url=LOCAL,
        spool_root=tmp_path,
        statement="Not a certified medical device.",
        timezone=ZoneInfo("Asia/Kolkata"),
        version="0.0-test",
        min_free_bytes=0,
    )


@pytest.fixture(scope="module")
def password_hash() -> str:
    """Made once: it takes a while, as it should."""
    return Argon2Hasher().hash(PASSWORD)


@pytest.fixture
def accounts(database: Database, password_hash: str) -> None:
    """An account of each role, named like the role."""
    with database.session() as session:
        session.add_all(
            tables.User(username=role.value, display_name=role.value, role=role, password_hash=password_hash)
            for role in Role
        )


@pytest.fixture
def browser(database: Database, settings: WebSettings) -> Iterator[Callable[..., TestClient]]:
    """Makes browsers that are not logged in."""
    app = create_app(settings, database)

    def make(base_url: str = LOCAL, client: tuple[str, int] = ("127.0.0.1", 50000)) -> TestClient:
        return TestClient(app, base_url=base_url, client=client, follow_redirects=False)

    return make


@pytest.fixture
def enter(browser: Callable[..., TestClient], accounts: None, database: Database) -> Enter:
    """Makes browsers of people who are logged in; how one logs in has tests of its own."""

    def log_in(role: Role = Role.RADIOLOGIST) -> TestClient:
        client = browser()
        with database.session() as session:
            user = next(user for user in users.list_users(session) if user.role is role)
            lifetime = dt.timedelta(hours=12)
            client.cookies.set("wetread", web_sessions.open_session(session, user, dt.datetime.now(dt.UTC), lifetime))
        return client

    return log_in
