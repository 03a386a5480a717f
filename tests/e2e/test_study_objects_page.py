"""A study of more than pictures, in headless Chromium."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fhir_records.model import InstanceKind
from tests import seed
from tests.e2e.conftest import Site, Visitor
from tests.integration import sent_objects as made
from tests.integration.web.test_study_objects import add
from tests.unit.dicom_listener.objects import as_file


@pytest.mark.parametrize(
    ("look", "width", "dark"),
    [("wide", 1440, False), ("wide-dark", 1440, True), ("narrow", 400, False), ("narrow-dark", 400, True)],
)
def test_what_is_no_picture_is_listed_and_read(
    site: Site, visit: Callable[..., Visitor], look: str, width: int, dark: bool
) -> None:
    """Each object with its kind and what can be done with it; a report's text is one click away."""
    film = made.video("1.2.840.10008.1.2.4.103")
    with site.database.session() as session:
        study = seed.add_study(session, 1, name="Yamada^Tarou=山田^太郎=やまだ^たろう", description="頭部 MR")
        seed.write_images(site.spool, session, study.id)
        for ds in (made.pdf(), made.ecg(), made.basic_text_report("所見なし", SpecificCharacterSet="ISO_IR 192")):
            add(session, study, site.spool, ds, as_file(ds))
        video = made.dcmread_of(film)
        syntax = "1.2.840.10008.1.2.4.103"
        add(session, study, site.spool, video, film, transfer_syntax_uid=syntax, kind=InstanceKind.IMAGE)
        path = f"/studies/{study.study_uid}"
    visitor = visit(site, width=width, dark=dark)
    visitor.log_in()
    visitor.page.goto(f"{site.url}{path}")
    card = visitor.page.locator("#objects")
    card.wait_for()
    assert "This is a video" in card.inner_text()
    visitor.page.wait_for_timeout(2500)
    visitor.picture(f"objects-{look}")
    card.get_by_role("link", name="Read it").click()
    visitor.page.get_by_text("所見なし").wait_for()
    visitor.picture(f"object-report-{look}")
    assert visitor.complaints == []
