"""What is laid over the images, checked where it counts: in the pixels on the screen."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Browser, expect

from fhir_records import tables
from fhir_records.model import ReadState
from tests import seed
from tests.e2e.conftest import EXPECT_MS, NO_WEBGL, WEBGL, Site, Visitor
from tests.e2e.stage import Pixels, Stage, open_study

SIDE = 128  # pixels of the phantom


@pytest.fixture
def mapped_site(site: Site) -> Site:
    """The pages with one study that was read, and maps of where the model looked."""
    with site.database.session() as session:
        site.study = seed.read_study(session, 9)
        assert site.study.read_id is not None
        seed.add_maps(session, session.get_one(tables.Study, site.study.study_id), site.study.read_id)
        seed.write_images(site.spool, session, site.study.study_id)
    return site


@pytest.fixture(params=[WEBGL, NO_WEBGL], ids=["webgl", "processor"])
def stage(
    request: pytest.FixtureRequest, mapped_site: Site, launch: Callable[[tuple[str, ...]], Browser]
) -> Iterator[Stage]:
    """The study's viewer, drawn by WebGL in software, and by the processor alone."""
    context = launch(request.param).new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(EXPECT_MS)
    page = context.new_page()
    stage = open_study(page, mapped_site, shown=2)
    page.get_by_role("button", name="Map", exact=True).wait_for()
    yield stage
    context.close()


def middle(weight: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The middle of what weighs, across and down."""
    rows, columns = np.indices(weight.shape)
    return float((columns * weight).sum() / weight.sum()), float((rows * weight).sum() / weight.sum())


def spot_of(picture: Pixels) -> tuple[float, float]:
    """The middle of the phantom's bright spot, which nothing else is as bright as but its rim."""
    high, wide, _ = picture.shape
    grey = picture[..., 0].astype(np.float64)
    inside = np.zeros((high, wide))
    inside[high // 4 : 3 * high // 4, wide // 3 : 2 * wide // 3] = 1
    return middle((grey > 0.8 * grey[inside > 0].max()) * inside)


def warmth(picture: Pixels) -> npt.NDArray[np.float64]:
    """How much redder than blue a pixel is: greys are 0."""
    return np.maximum(0, picture[..., 0] - picture[..., 2]).astype(np.float64)


def test_the_map_lies_over_what_the_model_looked_at_and_is_off_until_asked_for(stage: Stage) -> None:
    """Nothing is laid over at first; then colour lies at the spot alone, as strong as asked; off is as before."""
    bare = stage.pixels()
    words = stage.page.locator(".wv-legend:not(.wv-unseen)")
    expect(words).to_be_hidden()
    stage.button("Map")
    expect(words).to_contain_text("Where the model looked for its answer “Glioma”. Not a contour.")
    laid = stage.pixels()
    across, down = spot_of(bare)
    hot = warmth(laid) - warmth(bare)
    hot[laid.shape[0] - 90 :] = 0  # the legend has colours too
    assert np.hypot(*np.subtract(middle(hot), (across, down))) < 6, "the map lies beside what it is of"
    high = bare.shape[0]
    left, top = round(across - 0.3 * high), round(down + 0.15 * high)  # a piece of brain, away from the spot
    assert np.abs(laid[top : top + 20, left : left + 20] - bare[top : top + 20, left : left + 20]).max() <= 1
    stage.page.get_by_label("How strong the map is").fill("80")
    strong = stage.pixels()
    place = np.s_[round(down) - 2 : round(down) + 2, round(across) - 2 : round(across) + 2]
    assert np.abs(strong[place] - bare[place]).sum() > 1.3 * np.abs(laid[place] - bare[place]).sum()
    stage.button("Map")
    assert np.abs(stage.pixels() - bare).max() <= 1


def test_the_map_moves_with_the_image(stage: Stage) -> None:
    """After zooming and moving the map lies where the image lies."""
    page = stage.page
    page.get_by_role("button", name="Zoom", exact=True).click()
    box = page.locator(".wv-viewport").bounding_box()
    assert box is not None
    for tool, by_x, by_y in (("Zoom", 0, 40), ("Pan", -90, 35)):
        stage.button(tool)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + by_x / 2, y + by_y / 2)
        page.mouse.move(x + by_x, y + by_y)
        page.mouse.up()
    page.mouse.move(0, 0)
    bare = stage.pixels()
    zoom = page.locator(".wv-bottom-right").inner_text()
    assert "Zoom 100 %" not in zoom
    stage.button("Map")
    hot = warmth(stage.pixels()) - warmth(bare)
    hot[bare.shape[0] - 90 :] = 0
    across, down = middle(np.where(hot > 40, hot, 0))
    assert np.hypot(*np.subtract((across, down), spot_of(bare))) < 10


def test_an_image_without_evidence_and_one_without_a_map_say_so(stage: Stage) -> None:
    """No colour where the model saw nothing or was not asked, and words instead; M does as the button."""
    page = stage.page
    page.locator(".wv-viewport").focus()
    page.keyboard.press("m")
    expect(page.get_by_role("button", name="Map", exact=True)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Home")
    stage.of_slice(1)
    words = page.locator(".wv-legend-words")
    expect(words).to_have_text("Nowhere in this image did the model see evidence for its answer “Glioma”.")
    assert warmth(stage.pixels())[60:-90].max() < 4
    page.keyboard.press("End")
    stage.of_slice(3)
    expect(words).to_have_text("There is no map of this image. The key images have one.")
    assert warmth(stage.pixels())[60:-90].max() < 4


def test_a_key_image_is_one_click_away_from_the_finding(stage: Stage) -> None:
    """A link in the finding shows the image, a second time too."""
    page = stage.page
    link = page.locator("#finding").get_by_role("link", name="1. Image 2 of series 1 (T1 axial)")
    for _ in range(2):
        page.locator(".wv-viewport").focus()
        page.keyboard.press("End")
        stage.of_slice(3)
        link.click()
        stage.of_slice(2)
    page.locator("#finding").get_by_role("link", name="2. Image 1 of series 1").click()
    stage.of_slice(1)


def test_what_a_person_marks_is_drawn_before_and_after_it_is_signed(stage: Stage, mapped_site: Site) -> None:
    """The rectangle stands where it was dragged, dashed until it is signed, then with the person's name; K hides it."""
    page = stage.page
    page.locator("summary", has_text="Correct").click()
    page.get_by_role("button", name="Mark on the image").click()
    box = page.locator(".wv-stage").bounding_box()
    assert box is not None
    across, down = box["width"] / 2 + 0.25 * box["height"] / 2, box["height"] / 2 - 0.1 * box["height"] / 2
    page.mouse.move(box["x"] + across - 60, box["y"] + down - 50)
    page.mouse.down()
    page.mouse.move(box["x"] + across, box["y"] + down)
    page.mouse.move(box["x"] + across + 60, box["y"] + down + 50)
    page.mouse.up()
    expect(page.locator(".wv-note")).to_have_text("Not signed yet")
    assert 0.25 < edge_of(stage, across, down) < 0.9, "dashed"
    page.get_by_role("button", name="Sign the correction").click()
    page.get_by_text("Corrected and signed by Radiologist").wait_for()
    stage.of_slice(2)
    expect(page.locator(".wv-note")).to_have_text("Marked by Radiologist")
    assert edge_of(stage, across, down) > 0.95, "a whole line where it was dragged"
    page.locator(".wv-viewport").focus()
    page.keyboard.press("k")
    expect(page.locator(".wv-note")).to_have_count(0)
    assert edge_of(stage, across, down) == 0
    page.keyboard.press("k")
    page.keyboard.press("End")
    stage.of_slice(3)
    expect(page.locator(".wv-note")).to_have_count(0)
    page.locator("#finding").get_by_role("link", name="Marked on image 2").click()
    stage.of_slice(2)
    expect(page.locator(".wv-note")).to_be_visible()


def edge_of(stage: Stage, across: float, down: float) -> float:
    """Which part of the marked rectangle's upper edge is yellow."""
    row = round(down - 50)
    band = stage.pixels()[row - 3 : row + 4, round(across - 56) : round(across + 56)]
    return float((warmth(band) > 80).any(axis=0).mean())


def test_a_mark_can_be_removed_before_it_is_signed(stage: Stage) -> None:
    """Numbers draw it too; removing it leaves the form empty and nothing over the image."""
    page = stage.page
    page.locator("summary", has_text="Correct").click()
    page.get_by_text("In numbers").click()
    for side, value in (("Left", "40"), ("Top", "40"), ("Width", "30"), ("Height", "20")):
        page.get_by_label(side, exact=True).fill(value)
    expect(page.locator(".wv-note")).to_have_text("Not signed yet")
    page.get_by_role("button", name="Remove the mark").click()
    expect(page.locator(".wv-note")).to_have_count(0)
    assert page.get_by_label("Left", exact=True).input_value() == ""


def test_a_finding_that_comes_while_one_waits_brings_its_images_and_map(
    site: Site, visit: Callable[..., Visitor]
) -> None:
    """Without reloading: buttons for the key images and the map, and links that lead to the images."""
    with site.database.session() as session:
        study = seed.add_study(session, 1)
        read = seed.add_read(session, study, ReadState.READING)
        seed.write_images(site.spool, session, study.id)
        study_uid, read_id = study.study_uid, read.id
    visitor = visit(site)
    visitor.log_in()
    page = visitor.page
    page.goto(f"{site.url}/studies/{study_uid}")
    page.get_by_role("heading", name="Is being read").wait_for()
    Stage(page).of_slice(2)
    expect(page.get_by_role("button", name="Map", exact=True)).to_be_hidden()
    with site.database.session() as session:
        row = session.get_one(tables.Read, read_id)
        row.state = ReadState.READ
        seed.add_result(session, row, finding=seed.glioma(row.study))
        seed.add_maps(session, row.study, read_id)
    page.get_by_role("button", name="Key image 2 – slice 1").wait_for(timeout=EXPECT_MS)
    page.get_by_role("button", name="Map", exact=True).wait_for()
    page.locator("#finding").get_by_role("link", name="2. Image 1").click()
    expect(page.locator(".wv-top-right")).to_have_text("Key image 2")
    assert visitor.complaints == []
