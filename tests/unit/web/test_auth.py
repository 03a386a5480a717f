"""Where a log-in leads, and which cookies are secure."""

from __future__ import annotations

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_records.errors import SettingsError
from web.auth import safe_path
from web.settings import WebSettings, is_loopback


def settings(public_url: str = "http://127.0.0.1:8080", secure_cookies: bool | None = None) -> WebSettings:
    return WebSettings(
        public_url=public_url,
        spool_root=Path(),
        statement="",
        timezone=ZoneInfo("UTC"),
        version="0",
        secure_cookies=secure_cookies,
    )


@given(st.text())
def test_a_log_in_leads_to_a_path_of_ours_whatever_was_asked_for(path: str) -> None:
    """No scheme, no host, no backslash, no control character survives."""
    safe = safe_path(path)
    assert safe.startswith("/") and not safe.startswith("//") and "\\" not in safe and safe.isprintable()


def test_a_path_of_ours_is_kept() -> None:
    """With its query."""
    assert safe_path("/studies/1.2.3?x=1") == "/studies/1.2.3?x=1"


@pytest.mark.parametrize(
    ("public_url", "scheme", "host", "secure"),
    [
        ("http://127.0.0.1:8080", "http", "127.0.0.1", False),
        ("http://127.0.0.1:8080", "http", "localhost", False),
        ("http://127.0.0.1:8080", "http", "wetread.hospital", True),
        ("https://wetread.hospital", "http", "127.0.0.1", True),
        ("http://127.0.0.1:8080", "https", "localhost", True),
    ],
)
def test_cookies_are_secure_but_on_this_machine(public_url: str, scheme: str, host: str, secure: bool) -> None:
    """Only plain http on loopback goes without, and not where the site is reached by https."""
    assert settings(public_url).wants_secure_cookie(scheme, host) is secure


def test_the_site_may_decide_on_secure_cookies() -> None:
    """A given value stands."""
    assert settings(secure_cookies=False).wants_secure_cookie("https", "x") is False
    assert settings(secure_cookies=True).wants_secure_cookie("http", "localhost") is True


@pytest.mark.parametrize("host", ["localhost.evil.example", "10.0.0.1", "", "127.0.0.1.evil.example"])
def test_what_only_looks_like_loopback_is_none(host: str) -> None:
    """Names that start like it, and other addresses."""
    assert not is_loopback(host)


@pytest.mark.parametrize("url", ["wetread.hospital", "ftp://wetread.hospital", "https://"])
def test_an_address_that_is_none_is_refused_in_words(url: str) -> None:
    """The message says what is allowed."""
    with pytest.raises(SettingsError, match="allowed: http"):
        settings(url)
