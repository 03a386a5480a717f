"""What a person marked: where it was dragged, to a part of a pixel, and there for whoever opens the study later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, expect

from fhir_records import tables
from fhir_records.model import ImageRef, ReadState, Role
from tests import outlined, seed
from tests.e2e.conftest import EXPECT_MS, NO_WEBGL, WEBGL, Site
from tests.e2e.stage import Stage, open_study

LAYOUT = outlined.Layout(multi_frame=True)
SHOWN = 2  # the frame that is marked


@pytest.fixture(params=[WEBGL, NO_WEBGL], ids=["webgl", "processor"])
def opened(
    request: pytest.FixtureRequest, site: Site, launch: Callable[[tuple[str, ...]], Browser]
) -> Iterator[Callable[[Role, int], Stage]]:
    """Opens a multi-frame study as somebody, each time in a browser session of its own."""
    with site.database.session() as session:
        site.study = outlined.outlined_study(session, 1, LAYOUT)
        outlined.write_images(site.spool, session, site.study, LAYOUT)
    browser = launch(request.param)
    contexts: list[BrowserContext] = []

    def open_as(role: Role, shown: int) -> Stage:
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.set_default_timeout(EXPECT_MS)
        contexts.append(context)
        return open_study(context.new_page(), site, shown=shown, slices=outlined.SLICES, role=role)

    yield open_as
    for context in contexts:
        context.close()


def edges(stage: Stage) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is bright in the picture, in CSS pixels of the stage, to a part of one."""
    grey = stage.pixels().mean(axis=2)
    grey[:40] = grey[-60:] = 0  # words
    bright = grey > 128
    rows, columns = np.flatnonzero(bright.sum(axis=1) > 20), np.flatnonzero(bright.sum(axis=0) > 20)
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def numbers(stage: Stage) -> tuple[float, ...]:
    """What the form says: left, top, width, height."""
    return tuple(
        float(stage.page.get_by_label(side, exact=True).input_value()) for side in ("Left", "Top", "Width", "Height")
    )


def yellow(stage: Stage, box: tuple[float, float, float, float]) -> float:
    """Which part of a box's four sides is drawn as a mark."""
    picture = stage.pixels()
    marked = (picture[..., 0] - picture[..., 2] > 80) & (picture[..., 1] > 120)
    left, top, right, bottom = (round(value) for value in box)
    sides = [
        marked[top - 2 : top + 3, left + 4 : right - 4].any(axis=0),
        marked[bottom - 3 : bottom + 2, left + 4 : right - 4].any(axis=0),
        marked[top + 4 : bottom - 4, left - 2 : left + 3].any(axis=1),
        marked[top + 4 : bottom - 4, right - 3 : right + 2].any(axis=1),
    ]
    return float(np.concatenate(sides).mean())


def test_what_is_marked_on_a_frame_stands_there_for_whoever_comes_later(
    opened: Callable[[Role, int], Stage], site: Site
) -> None:
    """The numbers are those of what is marked, in the frame's pixels; a clinician sees it at once, there alone."""
    stage = opened(Role.RADIOLOGIST, 1)
    page = stage.page
    page.locator(".wv-viewport").focus()
    page.keyboard.press("ArrowDown")
    stage.of_slice(SHOWN)
    page.mouse.move(0, 0)
    box = edges(stage)
    page.locator("summary", has_text="Correct").click()
    page.get_by_role("button", name="Mark on the image").click()
    at = page.locator(".wv-stage").bounding_box()
    assert at is not None
    page.mouse.move(at["x"] + box[0], at["y"] + box[1])
    page.mouse.down()
    page.mouse.move(at["x"] + box[2], at["y"] + box[3], steps=3)
    page.mouse.up()
    expect(page.locator(".wv-note")).to_have_text("Not signed yet")
    rows, columns = (np.flatnonzero(outlined.mass_on(SHOWN).any(axis=axis)) for axis in (1, 0))
    wanted = (columns[0], rows[0], len(columns), len(rows))
    print("marked", numbers(stage), "of", wanted)
    assert np.abs(np.subtract(numbers(stage), wanted)).max() < 0.35
    page.get_by_role("button", name="Sign the correction").click()
    page.get_by_text("Corrected and signed by Radiologist").wait_for()

    later = opened(Role.CLINICIAN, SHOWN)
    expect(later.page.locator(".wv-note")).to_have_text("Marked by Radiologist")
    assert yellow(later, box) > 0.95
    expect(later.page.get_by_role("button", name="Outline", exact=True)).to_be_hidden()
    later.page.locator(".wv-viewport").focus()
    later.page.keyboard.press("ArrowDown")
    later.of_slice(SHOWN + 1)
    expect(later.page.locator(".wv-note")).to_have_count(0)
    later.page.locator("#finding").get_by_role("link", name="Marked on").click()
    later.of_slice(SHOWN)
    expect(later.page.locator(".wv-note")).to_be_visible()

    # Newer images, read and not signed: what was signed stands, and so does its mark.
    with site.database.session() as session:
        assert site.study is not None
        study = session.get_one(tables.Study, site.study.study_id)
        study.revision = study.routed_revision = 2
        uid = seed.series_uid(study)
        frame = ImageRef(uid, f"{uid}.1", outlined.MULTI_FRAME, SHOWN)
        read = seed.add_read(session, study, ReadState.READ)
        seed.add_result(session, read, finding=replace(seed.no_neoplasm(study), key_images=(frame,)))
    afterwards = opened(Role.CLINICIAN, SHOWN)
    expect(afterwards.page.locator("#finding")).to_contain_text("Signed before the newest images")
    expect(afterwards.page.locator(".wv-note")).to_have_text("Marked by Radiologist")
