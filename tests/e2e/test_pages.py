"""The pages as a person meets them, in headless Chromium on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fhir_records import tables
from fhir_records.model import ReadState, Role
from tests import seed
from tests.e2e.conftest import EXPECT_MS, Site, Visitor

Visit = Callable[..., Visitor]


@pytest.mark.parametrize(("look", "width", "dark"), [("wide", 1440, False), ("narrow-dark", 400, True)])
def test_a_radiologist_logs_in_finds_the_study_and_reads_its_finding(
    seeded_site: Site, visit: Visit, look: str, width: int, dark: bool
) -> None:
    """From the log-in over the worklist to the finding, without one complaint of the browser's, CSP or other."""
    assert seeded_site.study is not None
    visitor = visit(seeded_site, width=width, dark=dark)
    visitor.log_in()
    row = visitor.page.locator("tr.study", has_text="ACC0009")
    row.get_by_text("Glioma of the brain: present").wait_for()
    assert row.get_by_role("meter").get_attribute("aria-valuenow") == "93.1"
    visitor.picture(f"worklist-{look}")
    row.get_by_role("link").click()
    visitor.page.wait_for_url(f"**/studies/{seeded_site.study.study_uid}")
    finding = visitor.page.locator("#finding")
    assert "Glioma of the brain: present, probability 93\u00a0%" in finding.inner_text()
    assert "not signed by a person" in finding.inner_text()
    visitor.page.wait_for_timeout(3000)  # the viewer shows its image, the finding refreshes itself once
    visitor.picture(f"study-{look}")
    assert visitor.complaints == []


@pytest.mark.parametrize(("look", "width", "dark"), [("wide-dark", 1440, True), ("narrow", 400, False)])
def test_the_empty_worklist_fills_by_itself_and_keeps_the_focus(
    site: Site, visit: Visit, look: str, width: int, dark: bool
) -> None:
    """A study that comes appears without reloading; what has the focus keeps it while the list refreshes."""
    visitor = visit(site, width=width, dark=dark)
    visitor.log_in()
    visitor.page.get_by_text("wetread send FOLDER --to WETREAD@127.0.0.1:11112").wait_for()
    visitor.picture(f"empty-{look}")
    with site.database.session() as session:
        seed.add_study(session, 1, name="First^Patient")
    link = visitor.page.get_by_role("link", name="First, Patient")
    link.wait_for(timeout=EXPECT_MS)
    link.focus()
    with site.database.session() as session:
        made = seed.every_state(session, after=1)
    visitor.page.get_by_role("link", name="Rossi, Anna").wait_for(timeout=EXPECT_MS)
    assert made
    assert visitor.page.evaluate("document.activeElement.textContent") == "First, Patient"
    visitor.picture(f"worklist-{look}")
    assert visitor.complaints == []


def test_the_list_says_when_wetread_does_not_answer(site: Site, visit: Visit) -> None:
    """While the pages get no answer a line says that what is seen may be old; it goes again by itself."""
    visitor = visit(site)
    visitor.log_in()
    visitor.page.route("**/worklist/rows*", lambda route: route.abort())
    notice = visitor.page.get_by_text("Wetread does not answer at the moment")
    notice.wait_for(timeout=EXPECT_MS)
    visitor.page.unroute("**/worklist/rows*")
    notice.wait_for(state="hidden", timeout=EXPECT_MS)


def test_the_study_page_comes_alive_when_the_read_is_done(site: Site, visit: Visit) -> None:
    """A person who waits on the page sees the finding appear."""
    with site.database.session() as session:
        study = seed.add_study(session, 1)
        read = seed.add_read(session, study, ReadState.READING)
        seed.write_images(site.spool, session, study.id)
        study_uid, read_id = study.study_uid, read.id
    visitor = visit(site)
    visitor.log_in()
    visitor.page.goto(f"{site.url}/studies/{study_uid}")
    visitor.page.get_by_role("heading", name="Is being read").wait_for()
    with site.database.session() as session:
        row = session.get_one(tables.Read, read_id)
        row.state = ReadState.READ
        seed.add_result(session, row, finding=seed.no_neoplasm(row.study))
    visitor.page.get_by_role("heading", name="No neoplasm of the brain").wait_for(timeout=EXPECT_MS)


def test_the_search_narrows_the_list(seeded_site: Site, visit: Visit) -> None:
    """By name and by state, as a plain form."""
    visitor = visit(seeded_site)
    visitor.log_in()
    visitor.page.get_by_label("Search", exact=True).fill("okafor")
    visitor.page.get_by_role("button", name="Search").click()
    visitor.page.get_by_role("link", name="Okafor, Ada").wait_for()
    assert visitor.page.locator("tr.study").count() == 1
    visitor.page.get_by_role("link", name="Show all").click()
    visitor.page.get_by_label("State").select_option("refused")
    visitor.page.get_by_role("button", name="Search").click()
    visitor.page.get_by_role("link", name="Müller, Jörg, Dr.").wait_for()
    assert visitor.page.locator("tr.study").count() == 1


@pytest.mark.parametrize(("look", "width", "dark"), [("wide", 1440, False), ("narrow-dark", 400, True)])
def test_the_report_and_the_administration_can_be_read(
    seeded_site: Site, visit: Visit, look: str, width: int, dark: bool
) -> None:
    """The report's text, the administration, the trail of what was done, and the way back out of a wrong address."""
    assert seeded_site.study is not None
    visitor = visit(seeded_site, width=width, dark=dark)
    visitor.page.goto(f"{seeded_site.url}/admin")
    visitor.picture(f"login-{look}")
    visitor.log_in(Role.ADMIN)
    visitor.picture(f"worklist-admin-{look}")
    visitor.page.goto(f"{seeded_site.url}/studies/{seeded_site.study.study_uid}")
    visitor.page.get_by_role("link", name="Read it").click()
    visitor.page.get_by_role("heading", name="Structured report").wait_for()
    visitor.picture(f"report-{look}")
    visitor.page.goto(f"{seeded_site.url}/admin")
    visitor.picture(f"admin-{look}")
    visitor.page.goto(f"{seeded_site.url}/admin/audit")
    visitor.page.get_by_text("report viewed").wait_for()
    visitor.picture(f"audit-{look}")
    visitor.complaints.clear()
    visitor.page.goto(f"{seeded_site.url}/nowhere")
    visitor.picture(f"nowhere-{look}")
    visitor.page.get_by_role("link", name="Go to the worklist").click()
    visitor.page.get_by_role("heading", name="Worklist").wait_for()
