"""Signing as a radiologist does it, in headless Chromium: by two clicks, by keyboard, with a region drawn."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from fhir_records import tables
from fhir_records.model import Act, DeliveryState, ResultStatus, Role
from fhir_records.store.results import latest_result
from tests import seed
from tests.e2e.conftest import EXPECT_MS, Site, Visitor

Visit = Callable[..., Visitor]


@pytest.fixture
def read_site(site: Site) -> Site:
    """The pages with one study that was read and whose report was delivered."""
    with site.database.session() as session:
        site.study = seed.read_study(session, 9)
        seed.write_images(site.spool, session, site.study.study_id)
    return site


def open_study(visitor: Visitor) -> None:
    """Log in and open the study."""
    assert visitor.site.study is not None
    visitor.log_in()
    visitor.page.goto(f"{visitor.site.url}/studies/{visitor.site.study.study_uid}")
    visitor.page.locator("#finding").get_by_text("not signed by a person").wait_for()


@pytest.mark.parametrize(("look", "width", "dark"), [("wide", 1440, False), ("narrow-dark", 400, True)])
def test_a_finding_is_accepted_with_two_clicks(
    read_site: Site, visit: Visit, look: str, width: int, dark: bool
) -> None:
    """One click says as whom one signs, the second signs; the page then names the person."""
    visitor = visit(read_site, width=width, dark=dark)
    open_study(visitor)
    visitor.page.wait_for_timeout(2500)  # the panel has refreshed itself once
    visitor.page.locator("summary", has_text="Accept").click()
    visitor.page.get_by_text("You sign as Radiologist").first.wait_for()
    visitor.picture(f"sign-accept-{look}")
    visitor.page.get_by_role("button", name="Sign: it is so").click()
    visitor.page.get_by_text("Signed by Radiologist").wait_for()
    visitor.picture(f"signed-{look}")
    assert visitor.complaints == []


def test_a_finding_is_accepted_by_keyboard(read_site: Site, visit: Visit) -> None:
    """Enter on the button opens, Tab and Enter sign."""
    visitor = visit(read_site)
    open_study(visitor)
    visitor.page.locator("summary", has_text="Accept").focus()
    visitor.page.keyboard.press("Enter")
    visitor.page.keyboard.press("Tab")
    visitor.page.keyboard.press("Enter")
    visitor.page.get_by_text("Signed by Radiologist").wait_for()


@pytest.mark.parametrize(("look", "width", "dark"), [("wide-dark", 1440, True), ("narrow", 400, False)])
def test_a_finding_is_corrected_with_a_region_drawn(
    read_site: Site, visit: Visit, look: str, width: int, dark: bool
) -> None:
    """Another answer, a note and a rectangle dragged on the image stand in the record as they were given."""
    assert read_site.study is not None and read_site.study.read_id is not None
    visitor = visit(read_site, width=width, dark=dark)
    open_study(visitor)
    page = visitor.page
    page.locator(".wv-position", has_text="/ 3").wait_for()
    page.locator(".wv-top-right", has_text="Key image 1").wait_for()
    page.locator("summary", has_text="Correct").click()
    page.get_by_label("Answer", exact=True).select_option("meningioma")
    page.locator("textarea[name=note]").first.fill("Dural tail; extra-axial.")
    page.wait_for_timeout(2500)
    assert page.locator("textarea[name=note]").first.input_value() == "Dural tail; extra-axial."
    page.get_by_role("button", name="Mark on the image").click()
    stage = page.locator(".wv-stage").bounding_box()
    assert stage is not None
    middle_x, middle_y = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    page.mouse.move(middle_x - 40, middle_y - 30)
    page.mouse.down()
    page.mouse.move(middle_x + 20, middle_y + 10)
    page.mouse.move(middle_x + 40, middle_y + 30)
    page.screenshot(path=f"tests/artefacts/sign-marking-{look}.png")
    page.mouse.up()
    page.locator("[data-region-image]", has_text="On slice").wait_for()
    visitor.picture(f"sign-correct-{look}")
    page.get_by_role("button", name="Sign the correction").click()
    page.get_by_text("Corrected and signed by Radiologist").wait_for()
    visitor.picture(f"corrected-{look}")
    with read_site.database.session() as session:
        result = latest_result(session, read_site.study.read_id)
    assert result is not None and result.finding is not None and result.signature is not None
    assert (result.status, result.finding.code, result.signature.act) == (
        ResultStatus.FINAL,
        seed.MENINGIOMA,
        Act.CORRECT,
    )
    region = result.finding.region
    assert region is not None and region.image.sop_uid.endswith(".2")
    assert abs(region.left + region.width / 2 - 64) < 3 and abs(region.top + region.height / 2 - 64) < 3
    assert abs(region.width / region.height - 80 / 60) < 0.05
    if look == "wide-dark":  # the image fills the stage's height
        assert abs(region.width - 80 * 128 / stage["height"]) < 2
    assert visitor.complaints == []


def test_a_finding_is_rejected_and_what_was_sent_is_shown_as_to_be_taken_back(read_site: Site, visit: Visit) -> None:
    """The finding says who rejected it; the administrator ticks off what is gone from the PACS."""
    assert read_site.study is not None and read_site.study.delivery_id is not None
    visitor = visit(read_site)
    open_study(visitor)
    page = visitor.page
    page.locator("summary", has_text="Reject").click()
    page.locator("details[open] textarea[name=note]").fill("Choroid plexus, not a tumour.")
    visitor.picture("sign-reject-wide")
    page.get_by_role("button", name="Reject it").click()
    page.get_by_text("Rejected by Radiologist").wait_for()
    with read_site.database.session() as session:
        row = session.get_one(tables.Delivery, read_site.study.delivery_id)
        row.state, row.last_error = DeliveryState.WITHDRAWAL_OPEN, "To be deleted there by hand."
        session.get_one(tables.Document, read_site.study.document_id).withdrawal = "rejected"
    page.get_by_text("withdrawal open").wait_for(timeout=EXPECT_MS)
    visitor.picture("rejected-wide")
    assert visitor.complaints == []
    admin = visit(read_site, dark=True)
    admin.log_in(Role.ADMIN)
    admin.page.goto(f"{read_site.url}/admin")
    admin.picture("admin-withdrawals")
    admin.page.locator("#withdrawals").get_by_role("button", name="Done").click()
    admin.page.locator("#withdrawals").get_by_text("None.").wait_for()
    with read_site.database.session() as session:
        row = session.get_one(tables.Delivery, read_site.study.delivery_id)
        assert (row.state, row.withdrawn_by) == (DeliveryState.WITHDRAWN, "admin")
        assert session.scalar(select(tables.AuditEvent).where(tables.AuditEvent.action == "object withdrawn"))


def test_the_second_of_two_people_is_told(read_site: Site, visit: Visit) -> None:
    """A page that was opened before somebody else signed gets words, and changes nothing."""
    first, second = visit(read_site), visit(read_site)
    open_study(first)
    open_study(second)
    second.page.route("**/finding", lambda route: route.abort())  # does not refresh any more
    second.page.locator("summary", has_text="Reject").click()
    first.page.locator("summary", has_text="Accept").click()
    first.page.get_by_role("button", name="Sign: it is so").click()
    first.page.get_by_text("Signed by Radiologist").wait_for()
    second.page.get_by_role("button", name="Reject it").click()
    second.page.get_by_text("has accepted this result meanwhile").wait_for()
    second.picture("sign-too-late")
    second.page.get_by_role("link", name="Back to the study").click()
    second.page.get_by_text("Signed by Radiologist").wait_for()


def test_a_clinician_has_nothing_to_sign_with(read_site: Site, visit: Visit) -> None:
    """Others see the finding, and no buttons."""
    assert read_site.study is not None
    visitor = visit(read_site)
    visitor.log_in(Role.CLINICIAN)
    visitor.page.goto(f"{read_site.url}/studies/{read_site.study.study_uid}")
    visitor.page.locator("#finding").get_by_text("not signed by a person").wait_for()
    assert visitor.page.locator(".signing").count() == 0
