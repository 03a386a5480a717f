"""What a model outlined, compared on the screen with what the image itself shows there."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from scipy import ndimage

from fhir_records.model import Role
from fhir_records.store.outlines import outlines_of
from tests import outlined
from tests.e2e.conftest import EVERY_LOOK, EXPECT_MS, NO_WEBGL, PASSWORD, WEBGL, Site, Visitor
from tests.e2e.stage import Pixels, Stage, open_study
from tests.integration.outlined_heads import SLICES, OutlinedStudy, register

Grey = npt.NDArray[np.float64]  # shape (rows, columns)

LAYOUTS = {
    "straight": outlined.Layout(),
    "oblique": outlined.Layout(orientation=outlined.OBLIQUE),
    "reversed": outlined.Layout(reverse=True),
    "multi-frame": outlined.Layout(multi_frame=True),
}
DASHED = outlined.OEDEMA_COLOUR


@dataclass(frozen=True, slots=True)
class Look:
    """How a browser draws."""

    options: tuple[str, ...]
    exact: float  # pixels of the screen that the line may be off by
    ratio: float = 1.0  # of the screen's pixels to CSS pixels
    zooms: bool = True  # by a short drag, so that the mass stays on the stage


LOOKS = {
    "webgl": Look(WEBGL, exact=0.25),
    "processor": Look(NO_WEBGL, exact=0.5, zooms=False),  # draws pixels unmixed, which moves their edges
    "fine": Look(WEBGL, exact=0.9, ratio=1.5),  # a canvas has whole pixels, which the stage of such a screen has not
}


@pytest.fixture
def open_layout(site: Site, launch: Callable[[tuple[str, ...]], Browser]) -> Iterator[Callable[[str, str], Stage]]:
    """Opens the study of a layout in a browser that draws in its own way."""
    contexts: list[BrowserContext] = []

    def opened(layout: str, look: str) -> Stage:
        with site.database.session() as session:
            site.study = outlined.outlined_study(session, 1, LAYOUTS[layout])
            outlined.write_images(site.spool, session, site.study, LAYOUTS[layout])
        context = launch(LOOKS[look].options).new_context(
            viewport={"width": 1440, "height": 900}, device_scale_factor=LOOKS[look].ratio
        )
        context.set_default_timeout(EXPECT_MS)
        contexts.append(context)
        page = context.new_page()
        stage = open_study(page, site, shown=1, slices=outlined.SLICES)
        page.get_by_role("button", name="Outline", exact=True).wait_for()
        return stage

    yield opened
    for context in contexts:
        context.close()


def switched_on(stage: Stage) -> tuple[Pixels, Pixels]:
    """The picture before and after the outlines are switched on; they are drawn when their words are there."""
    bare = stage.pixels()
    stage.button("Outline")
    expect(stage.page.locator(".wv-legends > [role=status]").first).to_contain_text("Outlined on this slice")
    stage.page.locator(".wv-line").first.wait_for(state="attached")
    return bare, stage.pixels()


def line_of(bare: Pixels, laid: Pixels, colour: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    """Where the line of this colour is drawn."""
    near = np.abs(laid - np.array(colour)).max(axis=2) < 70
    return near & (np.abs(laid - bare).max(axis=2) > 40)


def brightness(bare: Pixels) -> Grey:
    """How much of each screen pixel the mass fills, 0 to 1: the largest bright thing, without words at the edges."""
    grey = bare.mean(axis=2)
    dark, bright = np.median(grey[grey > 5]), np.percentile(grey, 99.5)
    share = np.clip((grey - dark) / (bright - dark), 0, 1)
    parts, number = ndimage.label(share > 0.05)
    largest = 1 + int(np.argmax(ndimage.sum_labels(share, parts, range(1, number + 1))))
    return np.where(parts == largest, share, 0)


def middle(weight: Grey) -> npt.NDArray[np.float64]:
    """The middle of what weighs, down and across."""
    return np.array(ndimage.center_of_mass(weight))


def within_middle_of_line(laid: Pixels) -> Grey:
    """How much of each screen pixel lies within the middle of the mass's line, 0 to 1."""
    red, _, blue = outlined.MASS_COLOUR
    # Greys have none, and the rim is grey: how warm a pixel is, is how much of it the line takes up.
    covered = np.clip((laid[..., 0] - laid[..., 2]) / (red - blue), 0, 1)
    parts, _ = ndimage.label(covered > 0.02, np.ones((3, 3)))
    covered[parts != np.argmax(np.bincount(parts.flat, covered.flat))] = 0
    enclosed = ndimage.binary_fill_holes(covered > 0.02)
    core = enclosed & (covered <= 0.02)
    inner = ndimage.distance_transform_edt(~core) < ndimage.distance_transform_edt(enclosed)
    within: Grey = np.where(inner, 1 - covered / 2, covered / 2) * enclosed
    return within


def assert_around(bare: Pixels, laid: Pixels, look: Look) -> None:
    """The line lies on the edge of what is bright: as large, in the same place, and nowhere far from it."""
    line = line_of(bare, laid, outlined.MASS_COLOUR)
    truth = brightness(bare)
    between = within_middle_of_line(laid)
    off = np.hypot(*(middle(between) - middle(truth)))
    size = between.sum() / truth.sum()
    edge = (truth > 0.5) ^ ndimage.binary_erosion(truth > 0.5)
    gap = ndimage.distance_transform_edt(~line)[edge].max()  # from the edge to the line
    stray = ndimage.distance_transform_edt(~edge)[line].max()  # … and from the line to the edge
    print(f"off {off:.2f} px, size {size:.4f}, gap {gap:.2f} px, stray {stray:.2f} px")
    assert off < look.exact
    assert size == pytest.approx(1, abs=0.012)
    assert gap <= 2 * look.ratio
    assert stray <= 4 * look.ratio


TRIED = [("straight", "webgl"), ("oblique", "fine"), ("multi-frame", "webgl"), ("multi-frame", "processor")]
if os.environ.get("WETREAD_TEST_EVERY_LOOK"):
    TRIED += [("oblique", "webgl"), ("reversed", "webgl"), ("straight", "processor")]


@pytest.mark.parametrize(("layout", "look"), TRIED)
def test_the_line_lies_where_the_image_shows_it_on_every_slice(
    open_layout: Callable[[str, str], Stage], layout: str, look: str
) -> None:
    """On each slice the line lies around what is bright there, zoomed and moved too; on the last one is none."""
    stage, how = open_layout(layout, look), LOOKS[look]
    expect(stage.page.locator(".wv-bottom-right")).to_contain_text("Zoom 100 %")
    bare, laid = switched_on(stage)
    assert_around(bare, laid, how)
    for number in (2, 3):
        stage.page.locator(".wv-viewport").focus()
        stage.page.keyboard.press("ArrowDown")
        stage.of_slice(number)
        with_line = stage.pixels()
        stage.button("Outline")
        assert_around(stage.pixels(), with_line, how)
        stage.button("Outline")
    if how.zooms:
        stage.button("Zoom")
        stage.drag(0, -12)
    stage.button("Pan")
    stage.drag(-43, 7)
    with_line = stage.pixels()
    stage.button("Outline")
    assert_around(stage.pixels(), with_line, how)
    assert ("Zoom 100 %" not in stage.page.locator(".wv-bottom-right").inner_text()) == how.zooms
    stage.button("Outline")
    stage.page.locator(".wv-viewport").focus()
    stage.page.keyboard.press("End")
    stage.of_slice(outlined.SLICES)
    expect(stage.page.locator(".wv-line")).to_have_count(0)
    expect(stage.page.get_by_text("Nothing is outlined on this slice. Outlined: slices 1–3.")).to_be_visible()


def test_it_is_off_until_asked_for_and_a_line_until_filled(open_layout: Callable[[str, str], Stage]) -> None:
    """Nothing lies over the image at first; the line leaves what is inside as it is; the slider fills it."""
    stage = open_layout("straight", "webgl")
    page = stage.page
    expect(page.locator(".wv-line")).to_have_count(0)
    fill = page.get_by_label("How much the outlined area is filled")
    bare, laid = switched_on(stage)
    core = ndimage.binary_erosion(brightness(bare) > 0.5, np.ones((9, 9)))
    far = ndimage.binary_erosion(brightness(bare) < 0.01, np.ones((9, 9)))
    assert np.abs(laid - bare).max(axis=2)[core].max() <= 1
    assert np.abs(laid - bare).max(axis=2)[far].max() <= 1
    expect(fill).to_have_attribute("aria-valuetext", "line only")
    fill.fill("60")
    expect(fill).to_have_attribute("aria-valuetext", "60 percent")
    mixed = 0.4 * bare[core] + 0.6 * np.array(outlined.MASS_COLOUR)
    assert np.abs(stage.pixels()[core] - mixed).max() <= 3
    stage.button("Outline")
    assert np.abs(stage.pixels() - bare).max() <= 1
    fill.fill("30")
    expect(page.get_by_role("button", name="Outline", exact=True)).to_have_attribute("aria-pressed", "true")


def test_two_segments_are_told_apart_without_colour_and_hidden_one_by_one(
    open_layout: Callable[[str, str], Stage],
) -> None:
    """The second line is dashed, in the legend too; each stands there with its volume and can be hidden."""
    stage = open_layout("straight", "webgl")
    page = stage.page
    page.locator(".wv-viewport").focus()
    page.keyboard.press("ArrowDown")
    stage.of_slice(outlined.ONLY_ON)
    bare, both = switched_on(stage)
    assert line_of(bare, both, DASHED).sum() > 200
    _, parts = ndimage.label(line_of(bare, both, DASHED), np.ones((3, 3)))
    _, whole = ndimage.label(line_of(bare, both, outlined.MASS_COLOUR), np.ones((3, 3)))
    assert whole == 1 and parts > 20
    dashes = page.locator(".wv-swatch path").evaluate_all(
        "lines => lines.map(l => getComputedStyle(l).strokeDasharray)"
    )
    assert dashes[0] == "none" != dashes[1]
    names = page.locator(".wv-entry").all_inner_texts()
    assert [name.split(" ")[0] for name in names] == ["mass", "oedema"] and all(name.endswith(" mL") for name in names)
    page.get_by_role("checkbox", name="oedema").uncheck()
    expect(page.locator(".wv-line")).to_have_count(1)
    alone = stage.pixels()
    assert line_of(bare, alone, DASHED).sum() < 20
    assert line_of(bare, alone, outlined.MASS_COLOUR).sum() > 500


def test_by_keyboard_and_in_words(open_layout: Callable[[str, str], Stage]) -> None:
    """O switches it, from a box of the legend too; what lies on the slice is said to who does not see it."""
    stage = open_layout("straight", "webgl")
    page = stage.page
    words = page.get_by_role("status").filter(has_text="Outlined on this slice")
    page.locator(".wv-viewport").focus()
    page.keyboard.press("o")
    expect(page.get_by_role("button", name="Outline", exact=True)).to_have_attribute("aria-pressed", "true")
    expect(words).to_have_text("Outlined on this slice: Mass.")
    page.locator(".wv-viewport").focus()
    page.keyboard.press("ArrowDown")
    expect(words).to_have_text("Outlined on this slice: Mass, Oedema.")
    page.get_by_role("checkbox", name="mass").focus()
    page.keyboard.press("Space")
    expect(page.locator(".wv-line")).to_have_count(1)
    page.keyboard.press("o")
    expect(page.locator(".wv-line")).to_have_count(0)
    page.keyboard.press("?")
    listed = page.get_by_role("dialog", name="Keys and mouse")
    expect(listed).to_contain_text("What the model outlined")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    expect(listed).to_be_hidden()
    stage.of_slice(2)


def test_the_finding_leads_to_where_a_segment_is_largest(open_layout: Callable[[str, str], Stage]) -> None:
    """A click on what was outlined, beside the images, shows it with its line, twice too and though it was hidden."""
    stage = open_layout("reversed", "webgl")
    page = stage.page
    link = page.locator("#finding").get_by_role("link", name="oedema")
    for _ in range(2):
        link.click()
        stage.of_slice(outlined.ONLY_ON)
        expect(page.locator('.wv-line[stroke="rgb(86 180 233)"]')).to_have_count(1)
        page.get_by_role("checkbox", name="oedema").uncheck()
        page.locator(".wv-viewport").focus()
        page.keyboard.press("End")
        stage.of_slice(outlined.SLICES)


def test_a_server_that_gives_no_masks_is_said_and_asked_again(open_layout: Callable[[str, str], Stage]) -> None:
    """Words instead of lines; switched off and on again it is tried once more."""
    stage = open_layout("straight", "processor")
    page = stage.page
    page.route("**/outlines/*", lambda route: route.abort())
    stage.button("Outline")
    expect(page.get_by_text("The outlines cannot be shown. The server cannot be reached.")).to_be_visible()
    page.unroute("**/outlines/*")
    stage.button("Outline")
    stage.button("Outline")
    expect(page.locator(".wv-line")).to_have_count(1)


def test_the_page_is_whole_with_outlines_on_every_screen(site: Site, visit: Callable[..., Visitor]) -> None:
    """Wide and narrow, light and dark, nothing sticks out, and the browser complains of nothing."""
    with site.database.session() as session:
        site.study = outlined.outlined_study(session, 1)
        outlined.write_images(site.spool, session, site.study)
    for look, width, dark in EVERY_LOOK:
        visitor = visit(site, width=width, dark=dark)
        visitor.log_in()
        visitor.page.goto(f"{site.url}/studies/{site.study.study_uid}")
        visitor.page.locator("#finding").get_by_role("link", name="oedema").click()
        visitor.page.locator(".wv-line").nth(1).wait_for(state="attached")
        visitor.picture(f"outlines-{look}")
        visitor.page.get_by_role("button", name="Keys", exact=True).click()
        visitor.picture(f"keys-{look}")
        assert visitor.complaints == []


def test_what_a_real_model_outlined_lies_on_its_mask(
    site: Site, launch: Callable[[tuple[str, ...]], Browser], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """From a phantom's images over the model to the screen: the filled area is the stored mask, pixel by pixel."""
    study = OutlinedStudy(site.database, tmp_path, register(tmp_path_factory.mktemp("outlining")))
    study.read(1)
    context = launch(WEBGL).new_context(viewport={"width": 1440, "height": 900})
    try:
        context.set_default_timeout(EXPECT_MS)
        page = context.new_page()
        _open(page, site, study.study_uid)
        page.locator("#finding").get_by_role("link", name="mass").click()
        page.locator(".wv-line").wait_for(state="attached")
        stage = Stage(page, SLICES)
        place = int(page.locator(".wv-position").inner_text().split(" / ")[0])
        stage.of_slice(place)
        page.get_by_label("How much the outlined area is filled").fill("60")
        laid = stage.pixels()
        stage.button("Outline")
        filled = np.abs(laid - stage.pixels()).sum(axis=2) > 24
        assert_fits(ndimage.binary_fill_holes(filled), stored_mask(study, place))
    finally:
        context.close()


def _open(page: Page, site: Site, study_uid: str) -> None:
    page.add_init_script(
        "document.addEventListener('wetread:shown', () => document.documentElement.dataset.shown = '')"
    )
    page.goto(f"{site.url}/login")
    page.get_by_label("Username").fill(Role.RADIOLOGIST.value)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.goto(f"{site.url}/studies/{study_uid}")
    page.wait_for_selector("html[data-shown]", state="attached")


def stored_mask(study: OutlinedStudy, number: int) -> npt.NDArray[np.bool_]:
    """The mask of the mass on the image with this instance number."""
    with study.database.session() as session:
        kept = outlines_of(session, study.read_id)
    assert kept is not None
    place = [image.sop_uid for image in kept.images].index(f"{study.study_uid}.1.{number}")
    (bits,) = [mask.bits for mask in kept.masks if mask.place == place]
    flat = np.unpackbits(np.frombuffer(zlib.decompress(bits), np.uint8), count=kept.rows * kept.columns)
    return flat.reshape(kept.rows, kept.columns).astype(bool)


def assert_fits(filled: npt.NDArray[np.bool_], mask: npt.NDArray[np.bool_]) -> None:
    """The screen's area is the mask, enlarged to the picture in the middle of the stage; its rim is a little wider."""
    high, wide = filled.shape
    scale = min(high / mask.shape[0], wide / mask.shape[1])
    down, across = np.mgrid[0:high, 0:wide] + 0.5
    row = np.floor((down - high / 2) / scale + mask.shape[0] / 2).astype(int)
    column = np.floor((across - wide / 2) / scale + mask.shape[1] / 2).astype(int)
    inside = (row >= 0) & (row < mask.shape[0]) & (column >= 0) & (column < mask.shape[1])
    expected = np.zeros_like(filled)
    expected[inside] = mask[row[inside], column[inside]]
    off = np.hypot(*(middle(filled.astype(float)) - middle(expected.astype(float))))
    stray = ndimage.distance_transform_edt(~expected)[filled].max()
    print(f"off {off:.2f} px, stray {stray:.2f} px, {filled.sum()} of {expected.sum()} pixels, scale {scale:.2f}")
    assert off < 0.6
    assert not (expected & ~filled).any()
    assert stray <= 3.5
