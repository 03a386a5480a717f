"""Consent to training as an administrator records it, in headless Chromium."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable

import pytest

from fhir_records.model import Role
from fhir_records.store import review_exports
from fhir_records.store.review_exports import ReviewExport
from tests import seed
from tests.e2e.conftest import Site, Visitor

NOW = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)


@pytest.mark.parametrize(("look", "width", "dark"), [("wide", 1440, False), ("narrow-dark", 400, True)])
def test_consent_is_recorded_and_taken_back(
    site: Site, visit: Callable[..., Visitor], look: str, width: int, dark: bool
) -> None:
    """From the study's page by a link; after a refusal the page says what has left and is to be told."""
    with site.database.session() as session:
        study = seed.read_study(session, 9)
        seed.write_images(site.spool, session, study.study_id)
        export = ReviewExport(
            uuid.UUID(int=5), "brain_mr_tumour", "command line", NOW, "2026-11", {}, (study.result_id or 0,), 2, 0
        )
        review_exports.add_export(session, export)
    visitor = visit(site, width=width, dark=dark)
    visitor.log_in(Role.ADMIN)
    visitor.page.goto(f"{site.url}/studies/{study.study_uid}")
    visitor.page.get_by_role("link", name="Use for training").click()
    visitor.page.get_by_label("Who said so").fill("the patient, form 12")
    visitor.page.get_by_role("button", name="Consent given").click()
    visitor.page.get_by_text("may be exported as training data").wait_for()
    visitor.page.get_by_label("Who said so").fill("the patient, by telephone")
    visitor.page.get_by_role("button", name="Refused, or taken back").click()
    visitor.page.get_by_role("alert").get_by_text("To be done").wait_for()
    visitor.picture(f"consent-{look}")
    assert visitor.complaints == []
