"""Every page in every look: nothing sticks out, no complaint of the browser's, no barrier that axe-core knows of."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from fhir_records.model import Role
from tests import busy
from tests.e2e.conftest import Site, Visitor

Visit = Callable[..., Visitor]

LOOKS = [
    pytest.param(1400, False, id="wide"),
    pytest.param(400, True, id="narrow-dark"),
]
if os.environ.get("WETREAD_TEST_EVERY_LOOK"):  # these take as long again, and find what the two above do not but seldom
    LOOKS += [pytest.param(1400, True, id="wide-dark"), pytest.param(400, False, id="narrow")]
# WCAG 2.2, levels A and AA, and what axe-core's authors hold good practice.
AXE = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
ANSWERS = ("404", "403", "400", "422", "409")  # pages of the browser's own console complain of these statuses alone


@pytest.fixture
def busy_site(site: Site) -> tuple[Site, busy.Busy]:
    """The pages of a record in which all has happened."""
    return site, busy.fill(site.database, site.spool)


def addresses(made: busy.Busy) -> Iterator[tuple[str, Role, str]]:
    """A name, who looks, and the address, of every page."""
    yield "worklist", Role.RADIOLOGIST, "/"
    yield "worklist-none", Role.RADIOLOGIST, "/?q=nobody"
    for word, study_uid in made.studies.items():
        yield f"study-{word.replace(' ', '-')}", Role.RADIOLOGIST, f"/studies/{study_uid}"
    study_uid, document_id = made.report
    yield "sr", Role.RADIOLOGIST, f"/studies/{study_uid}/sr/{document_id}/text"
    study_uid, instance_id = made.foreign_report
    yield "object", Role.RADIOLOGIST, f"/studies/{study_uid}/objects/{instance_id}/text"
    study_uid, instance_id = made.broken_report
    yield "error-422", Role.RADIOLOGIST, f"/studies/{study_uid}/objects/{instance_id}/text"
    yield "error-404", Role.RADIOLOGIST, "/nowhere"
    yield "error-403", Role.RADIOLOGIST, "/admin"
    yield "error-400", Role.RADIOLOGIST, "/?state=sideways"
    yield "worklist-admin", Role.ADMIN, "/"
    yield "admin", Role.ADMIN, "/admin"
    yield "audit", Role.ADMIN, "/admin/audit"
    yield "routing", Role.ADMIN, "/admin/routing"
    yield "routing-study", Role.ADMIN, f"/admin/routing/studies/{made.studies['routed']}"
    yield "routing-study-none", Role.ADMIN, f"/admin/routing/studies/{made.studies['accept']}"
    for word, number in zip(("trial", "trial-fault", "trial-under-way"), made.trials, strict=True):
        yield f"routing-{word}", Role.ADMIN, f"/admin/routing/trials/{number}"


@pytest.mark.parametrize(("width", "dark"), LOOKS)
def test_every_page_is_whole_and_open_to_all(
    busy_site: tuple[Site, busy.Busy], visit: Visit, request: pytest.FixtureRequest, width: int, dark: bool
) -> None:
    """Nothing is wider than the window, axe-core finds no barrier, and the browser complains of nothing."""
    site, made = busy_site
    look = request.node.callspec.id
    visitor = visit(site, width=width, dark=dark)
    visitor.page.goto(f"{site.url}/login")
    barriers = [*look_at(visitor, f"login-{look}")]
    people = {}
    for name, role, address in addresses(made):
        if role not in people:
            people[role] = visit(site, width=width, dark=dark)
            people[role].log_in(role)
        visitor = people[role]
        visitor.page.goto(f"{site.url}{address}")
        if name.startswith("study-"):
            visitor.page.locator(".wv-status[hidden], .wv-status-text:not(:empty)").first.wait_for(state="attached")
            visitor.page.wait_for_timeout(700)
        barriers += look_at(visitor, f"{name}-{look}")
    assert barriers == []
    complaints = [words for person in people.values() for words in person.complaints]
    assert [words for words in complaints if not any(f"status of {number}" in words for number in ANSWERS)] == []


def look_at(visitor: Visitor, name: str) -> Iterator[str]:
    """Keep a picture; what is wrong, in words."""
    page = visitor.page
    viewport = page.viewport_size
    if viewport and page.evaluate("document.documentElement.scrollWidth") > viewport["width"]:
        yield f"{name}: wider than the window"
    else:
        visitor.picture(name)
    for violation in Axe().run(page, options=AXE).response["violations"]:
        for node in violation["nodes"]:
            yield f"{name}: {violation['id']}: {node['target']}: {node.get('failureSummary', '')[:200]}"


def test_a_study_is_read_and_accepted_by_keyboard_alone(busy_site: tuple[Site, busy.Busy], visit: Visit) -> None:
    """From the worklist to the study, to its second key image with the map on, and to the signature."""
    site, made = busy_site
    visitor = visit(site, width=1400)
    visitor.log_in()
    page = visitor.page
    reach(page, "document.activeElement.closest('tr')?.innerText.includes('ACC0031')")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/studies/{made.studies['unsigned']}")
    page.locator(".wv-top-right", has_text="Key image 1").wait_for()
    reach(page, "document.activeElement.getAttribute('aria-label') === 'Map'")
    page.keyboard.press("Enter")
    page.locator(".wv-legend", has_text="Not a contour").wait_for()
    reach(page, "document.activeElement.textContent.startsWith('2. Image 1')")
    page.keyboard.press("Enter")
    page.locator(".wv-top-right", has_text="Key image 2").wait_for()
    reach(page, "document.activeElement.matches('summary') && document.activeElement.textContent === 'Accept'")
    page.keyboard.press("Enter")
    reach(page, "document.activeElement.textContent === 'Sign: it is so'", most=2)
    page.keyboard.press("Enter")
    page.get_by_text("Signed by Radiologist").wait_for()


def reach(page: Page, there: str, most: int = 120) -> None:
    """Press Tab until ``there`` holds; what has the focus is seen each time."""
    for _ in range(most):
        page.keyboard.press("Tab")
        ring = page.evaluate(
            "() => { const s = getComputedStyle(document.activeElement);"
            " return document.activeElement === document.body || s.outlineStyle !== 'none' || s.boxShadow !== 'none' }"
        )
        assert ring, page.evaluate("document.activeElement.outerHTML")
        if page.evaluate(there):
            return
    raise AssertionError(f"{most} presses of Tab did not reach it: {there}")


def test_the_study_is_printed_without_what_is_for_the_screen(busy_site: tuple[Site, busy.Busy], visit: Visit) -> None:
    """On paper: patient, finding, who signed and the statement, black on white from a dark screen too; no buttons."""
    site, made = busy_site
    visitor = visit(site, width=794, dark=True)  # A4 at 96 dots per inch
    visitor.log_in()
    page = visitor.page
    page.goto(f"{site.url}/studies/{made.studies['correct']}")
    page.emulate_media(media="print")
    for words in ("Doe, Jane", "Intracranial meningioma of the brain: present", "Not a certified medical device"):
        assert page.get_by_text(words).first.is_visible(), words
    assert page.get_by_text("Corrected and signed by Dr Marie Curie").is_visible()
    assert page.locator("button:visible, summary.button:visible, #viewer:visible, nav:visible").count() == 0
    colours = page.evaluate(
        "[...document.querySelectorAll('.card, .card h2')].map((e) => { const s = getComputedStyle(e);"
        " return [s.color, s.backgroundColor] })"
    )
    assert all(colour == "rgb(0, 0, 0)" for colour, _ in colours)
    assert {ground for _, ground in colours} <= {"rgb(255, 255, 255)", "rgba(0, 0, 0, 0)"}
    visitor.picture("study-print")
