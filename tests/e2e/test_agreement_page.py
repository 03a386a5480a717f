"""Agreement with people as a radiologist and an administrator see it, in headless Chromium."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable

import pytest

from fhir_records.model import Act, Role
from tests.answered import SIGNA, SKYRA, answer, sign
from tests.e2e.conftest import EVERY_LOOK, Site, Visitor

Visit = Callable[..., Visitor]
LABELS = ("glioma", "meningioma", "pituitary", "notumor")


@pytest.fixture
def reviewed_site(site: Site) -> Site:
    """The pages with fourteen weeks of answers, of which people signed most; the newest version does worse."""
    chance = random.Random(20261121)
    now = dt.datetime.now(dt.UTC)
    with site.database.session() as session:
        for week in range(14):
            for _ in range(chance.randint(3, 17)):
                at = now - dt.timedelta(days=7 * week, hours=chance.randint(1, 40))
                label = chance.choices(LABELS, (4, 3, 2, 5))[0]
                scanner = chance.choice((SKYRA, SKYRA, SIGNA, None))
                answered = answer(session, label, at=at, version="2.0.0" if week < 4 else "1.0.0", equipment=scanner)
                fate = chance.random()
                signed = at + dt.timedelta(hours=2)
                if fate < 0.12:
                    other = chance.choice([word for word in LABELS if word != label])
                    sign(session, answered, Act.CORRECT, label=other, note="Seen on T2, too.", at=signed)
                elif fate < 0.16:
                    sign(session, answered, Act.REJECT, note="Motion; nothing can be said of it.", at=signed)
                elif fate < 0.7:
                    sign(session, answered, at=signed)
    return site


def test_the_page_is_whole_on_every_screen(reviewed_site: Site, visit: Visit) -> None:
    """Figure, weeks, answers, scanners and disagreements stand there; nothing sticks out, the browser is content."""
    for look, width, dark in EVERY_LOOK:
        visitor = visit(reviewed_site, width=width, dark=dark)
        visitor.log_in()
        visitor.page.get_by_role("link", name="Agreement").click()
        visitor.page.locator("#summary").get_by_text("Answers that stood").wait_for()
        assert visitor.page.locator("#weeks .scroll svg .share").count() > 8
        visitor.picture(f"agreement-{look}")
        assert visitor.complaints == []


def test_from_a_cell_to_its_studies(reviewed_site: Site, visit: Visit) -> None:
    """A number off the diagonal leads to the list of those studies, and from there to one of them."""
    visitor = visit(reviewed_site)
    visitor.log_in(Role.ADMIN)
    page = visitor.page
    page.goto(f"{reviewed_site.url}/admin/agreement")
    cell = page.locator("#answers td a").first
    number = int(cell.inner_text())
    cell.click()
    page.locator("#disagreements").get_by_text("Only where the model said").wait_for()
    assert page.locator("#disagreements tr td:first-child").count() == number
    visitor.picture("agreement-cell")
    page.locator("#disagreements tr td a").first.click()
    page.get_by_text("Corrected and signed by").or_(page.get_by_text("Rejected by")).first.wait_for()
    assert visitor.complaints == []


def test_before_anything_was_read_the_page_says_what_it_is_for(site: Site, visit: Visit) -> None:
    """An empty record shows a hint instead of empty tables."""
    visitor = visit(site, width=400)
    visitor.log_in()
    visitor.page.goto(f"{site.url}/admin/agreement")
    visitor.page.get_by_text("No model has answered yet").wait_for()
    visitor.picture("agreement-empty")
    assert visitor.complaints == []
