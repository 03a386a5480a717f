"""The pages about routing as an administrator meets them: why a study went there, and rules that are tried."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from sqlalchemy import select

from fhir_records import tables
from fhir_records.model import DeliveryState, Role
from tests import routed
from tests.e2e.conftest import EXPECT_MS, Site, Visitor

Visit = Callable[..., Visitor]
SATURDAY_NIGHT = dt.datetime(2026, 11, 21, 22, 10, tzinfo=routed.ZONE)


@pytest.fixture
def routed_site(site: Site) -> tuple[Site, list[str]]:
    """The pages with four routed studies, whose images one node has refused in part."""
    uids = routed.some_studies(site.database)
    routed.route_all(site.database, site.spool, SATURDAY_NIGHT)
    with site.database.session() as session:
        forward = session.scalars(select(tables.Forward).order_by(tables.Forward.id).limit(1)).one()
        forward.state, forward.next_attempt_at = DeliveryState.REFUSED, None
        forward.last_error = "1 of 3 images were refused. teleradiology answered C-STORE with A900 (Failure)."
        images = session.scalars(
            select(tables.ForwardedImage).where(tables.ForwardedImage.forward_id == forward.id)
        ).all()
        for place, image in enumerate(images):
            image.state = DeliveryState.REFUSED if place == 0 else DeliveryState.DELIVERED
    return site, uids


@pytest.mark.parametrize(("look", "width", "dark"), [("wide", 1440, False), ("narrow-dark", 400, True)])
def test_an_administrator_learns_why_a_study_went_there(
    routed_site: tuple[Site, list[str]], visit: Visit, look: str, width: int, dark: bool
) -> None:
    """From the newest decisions to each condition with its values, and to the images that were sent on."""
    site, uids = routed_site
    visitor = visit(site, width=width, dark=dark)
    visitor.log_in(Role.ADMIN)
    visitor.page.get_by_role("link", name="Routing").click()
    row = visitor.page.locator("tr", has_text="ACC0001")
    assert "3 images to teleradiology" in row.inner_text()
    visitor.picture(f"routing-{look}")
    row.get_by_role("link", name="Why").click()
    visitor.page.wait_for_url(f"**/admin/routing/studies/{uids[0]}")
    knee = visitor.page.locator(".route", has_text="brain MR")
    assert "does not hold" in knee.inner_text()
    assert 'study.StudyDescription "MR knee"' in " ".join(knee.inner_text().split())
    assert "patient.age" in knee.inner_text()
    night = visitor.page.locator(".route", has_text="nights and weekends")
    assert night.locator(".decided code", has_text="now.hour >= 18").count() == 1
    assert "2 of 3" in visitor.page.locator("#forwards").inner_text()
    visitor.page.get_by_text("What the rules saw").click()
    visitor.picture(f"routing-why-{look}")
    visitor.page.locator("#forwards").get_by_role("button", name="Try again").click()
    visitor.page.wait_for_url("**/admin#forwards")
    with site.database.session() as session:
        assert {forward.state for forward in session.scalars(select(tables.Forward))} == {DeliveryState.WAITING}
    assert visitor.complaints == []


@pytest.mark.parametrize(("look", "width", "dark"), [("wide-dark", 1440, True), ("narrow", 400, False)])
def test_rules_are_tried_before_they_are_put_to_use(
    routed_site: tuple[Site, list[str]], visit: Visit, look: str, width: int, dark: bool
) -> None:
    """The rules in use stand there to be changed; the outcome appears by itself, and names what would go elsewhere."""
    site, _ = routed_site
    visitor = visit(site, width=width, dark=dark)
    visitor.log_in(Role.ADMIN)
    visitor.page.goto(f"{site.url}/admin/routing")
    box = visitor.page.get_by_label("tables, as in the configuration file")
    written = box.input_value()
    assert routed.router(written)
    box.fill(written.replace("brain|head", "brain|head|knee"))
    visitor.page.get_by_role("button", name="Try these rules").click()
    visitor.page.wait_for_url("**/admin/routing/trials/1")
    visitor.page.get_by_text("under way").wait_for()
    routed.trier(site.database, site.spool)(1)
    visitor.page.get_by_text("1 of 4 studies would go elsewhere").wait_for(timeout=EXPECT_MS)
    visitor.page.locator("details.change summary").click()
    visitor.page.locator(".change .route", has_text="brain MR").wait_for()
    visitor.picture(f"routing-trial-{look}")
    assert visitor.complaints == []


@pytest.mark.parametrize(("look", "width", "dark"), [("wide", 1440, False), ("narrow-dark", 400, True)])
def test_rules_that_are_wrong_are_told_with_their_place(
    routed_site: tuple[Site, list[str]], visit: Visit, look: str, width: int, dark: bool
) -> None:
    """Each fault with its line and column, and a mark under it."""
    site, _ = routed_site
    visitor = visit(site, width=width, dark=dark)
    visitor.log_in(Role.ADMIN)
    visitor.page.goto(f"{site.url}/admin/routing")
    box = visitor.page.get_by_label("tables, as in the configuration file")
    box.fill(box.input_value().replace("patient.age >= 18", "patient.aeg >= 18").replace("now.hour <", "now.our <"))
    visitor.page.get_by_role("button", name="Try these rules").click()
    visitor.page.wait_for_url("**/admin/routing/trials/1")
    routed.trier(site.database, site.spool)(1)
    fault = visitor.page.locator("pre.fault")
    fault.wait_for(timeout=EXPECT_MS)
    said = fault.inner_text()
    assert "line 3, column 14 (line 6, column 14 of the rules): patient has no aeg (is age meant?)" in said
    assert "now has no our (is hour meant?)" in said
    visitor.picture(f"routing-fault-{look}")
    assert visitor.complaints == []
