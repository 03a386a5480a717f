"""A running web server on a seeded record, and headless Chromium to look at it."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from pwdlib.hashers.argon2 import Argon2Hasher

from fhir_records.database import Database
from fhir_records.model import DeliveryState, Role
from fhir_records.tables import Document, User
from tests import seed
from tests.peers import free_port
from web.app import create_app
from web.settings import WebSettings

PASSWORD = "correct horse battery"
ARTEFACTS = Path(__file__).resolve().parents[1] / "artefacts"
# What a page is looked at in: a word for it, the width in pixels, whether it is dark.
EVERY_LOOK = (("wide", 1400, False), ("wide-dark", 1400, True), ("narrow", 400, False), ("narrow-dark", 400, True))
EXPECT_MS = 60_000  # a machine that does other work at the same time is slow, and not wrong
CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)
_PLAIN = ("--no-sandbox", "--disable-background-networking", "--disable-component-update")
# Drawn by WebGL in software, and by the processor alone.
WEBGL = (*_PLAIN, "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
NO_WEBGL = (*_PLAIN, "--disable-gpu", "--disable-3d-apis")


@dataclass(slots=True)
class Site:
    """A running installation's pages."""

    url: str
    database: Database
    spool: Path
    study: seed.Seeded | None = None


@pytest.fixture(scope="session")
def password_hash() -> str:
    """Made once: it takes a while, as it should."""
    return Argon2Hasher().hash(PASSWORD)


@pytest.fixture
def site(database: Database, tmp_path: Path, password_hash: str) -> Iterator[Site]:
    """The pages on a port of their own, with an account of each role and no studies."""
    port = free_port()
    settings = WebSettings(
        public_url=f"http://127.0.0.1:{port}",
        spool_root=tmp_path,
        statement="Not a certified medical device. For evaluation.",
        timezone=ZoneInfo("Asia/Kolkata"),
        version="0.0-test",
        min_free_bytes=0,
    )
    with database.session() as session:
        session.add_all(
            User(username=role.value, display_name=role.value.capitalize(), role=role, password_hash=password_hash)
            for role in Role
        )
    config = uvicorn.Config(create_app(settings, database), port=port, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield Site(f"http://127.0.0.1:{port}", database, tmp_path)
    server.should_exit = True
    thread.join(timeout=10)


@pytest.fixture
def seeded_site(site: Site) -> Site:
    """The pages with a study in every state, the first of them with real images and a real report."""
    with site.database.session() as session:
        made = seed.every_state(session)
        study = seed.read_study(session, 9, delivery=DeliveryState.WAITING)
        evidence = seed.write_images(site.spool, session, study.study_id)
        document = session.get_one(Document, study.document_id)
        assert study.result_id is not None
        document.content = seed.rendered_report(session, study.result_id, evidence)
        assert made
    site.study = study
    return site


@dataclass(slots=True)
class Visitor:
    """A person before a browser, and what the browser complained of."""

    page: Page
    site: Site
    complaints: list[str] = field(default_factory=list)

    def log_in(self, role: Role = Role.RADIOLOGIST) -> None:
        """Log in by the page."""
        self.page.goto(f"{self.site.url}/login")
        self.page.get_by_label("Username").fill(role.value)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url(f"{self.site.url}/")

    def picture(self, name: str) -> None:
        """Keep what is seen, for people to look at; nothing sticks out to the side."""
        viewport = self.page.viewport_size
        assert viewport and self.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], name
        ARTEFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True)


@pytest.fixture(scope="session")
def launch() -> Iterator[Callable[[tuple[str, ...]], Browser]]:
    """Headless Chromium with options, started when first asked for: ``WETREAD_TEST_CHROMIUM``, or the one on the PATH.

    It is closed at the end of the run; what a test opens in it is a context of its own, which knows nothing of others.
    One Playwright for the whole run: a process can hold no second one.
    """
    program = os.environ.get("WETREAD_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("SKIPPED LOUDLY: Chromium is not installed (Debian: apt install chromium)")
    expect.set_options(timeout=EXPECT_MS)
    with sync_playwright() as playwright:
        yield cache(lambda options: playwright.chromium.launch(executable_path=program, args=list(options)))


@pytest.fixture(scope="session")
def browser(launch: Callable[[tuple[str, ...]], Browser]) -> Browser:
    """Headless Chromium for the pages."""
    return launch(CHROMIUM_ARGS)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visitor]]:
    """Sits a visitor down before a browser of their own: ``visit(site, width=…, dark=…)``."""
    contexts: list[BrowserContext] = []

    def sit_down(site: Site, *, width: int = 1440, height: int = 900, dark: bool = False) -> Visitor:
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
        )
        context.set_default_timeout(EXPECT_MS)
        contexts.append(context)
        visitor = Visitor(context.new_page(), site)
        visitor.page.on("pageerror", lambda error: visitor.complaints.append(f"error: {error}"))
        visitor.page.on(
            "console",
            lambda message: (
                visitor.complaints.append(f"{message.type}: {message.text}")
                if message.type == "error" or "Content Security Policy" in message.text
                else None
            ),
        )
        return visitor

    yield sit_down
    for context in contexts:
        context.close()
