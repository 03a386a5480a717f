"""The viewer in a real browser: our build, our DICOMweb, a real series, the policy that the study page has."""

from __future__ import annotations

import html
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from pydicom import dcmread
from starlette.staticfiles import StaticFiles

from fhir_records.database import Database
from tests.dicomweb_archive import put
from tests.e2e.conftest import EXPECT_MS, NO_WEBGL, WEBGL
from web.dicomweb_http import dicomweb_router
from web.pages import STATIC, VIEWER_POLICY, SecurityHeaders

SLICES = 30
KEY_IMAGE = 12  # slice number of the first key image
BROKEN = 20  # slice number of the image that cannot be decoded


@dataclass
class Site:
    """A page with the viewer on it."""

    url: str
    trouble: list[str] = field(default_factory=list)  # what the browser complained of


def _page(files: list[Path]) -> str:
    keys = []
    for number in (KEY_IMAGE, 5):
        ds = dcmread(files[number - 1], stop_before_pixels=True)
        keys.append({"series_uid": ds.SeriesInstanceUID, "sop_uid": ds.SOPInstanceUID, "frame": None})
    study_uid = dcmread(files[0], stop_before_pixels=True).StudyInstanceUID
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Study</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        '<a href="#key-image-2">second</a>'
        f'<div id="viewer" data-wado-root="/dicom-web" data-study-uid="{study_uid}" '
        f'data-key-images="{html.escape(json.dumps(keys))}"></div>'
        '<script type="module" src="/static/viewer/viewer.js?v=1"></script>'
    )


@pytest.fixture
def site(database: Database, test_data: Path, tmp_path: Path) -> Iterator[Site]:
    """A server with the viewer, DICOMweb and thirty slices, one of them broken, on a port of its own."""
    if not (STATIC / "viewer" / "viewer.js").is_file():
        pytest.skip("SKIPPED LOUDLY: the viewer is not built; run `make viewer`")
    originals = sorted((test_data / "dicom" / "philips_brain_mr").iterdir())[60 : 60 + SLICES]
    files = []
    for number, original in enumerate(originals, start=1):
        ds = dcmread(original)
        ds.InstanceNumber = number
        if number == BROKEN:
            ds.PixelData = ds.PixelData[:1000]
        files.append(tmp_path / f"{number}.dcm")
        ds.save_as(files[-1])
    put(database, files)
    app = FastAPI()
    app.include_router(dicomweb_router(database, Path("/"), ZoneInfo("UTC")), prefix="/dicom-web")
    app.mount("/static", StaticFiles(directory=STATIC))
    app.add_middleware(SecurityHeaders)
    text = _page(files)

    @app.get("/")
    def page() -> HTMLResponse:
        return HTMLResponse(text, headers={"Content-Security-Policy": VIEWER_POLICY})

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield Site(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        server.should_exit = True
        thread.join(10)


def _browse(site: Site, browser: Browser, width: int = 1200) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": width, "height": 800})
    context.set_default_timeout(EXPECT_MS)
    page = context.new_page()
    page.on("console", lambda message: site.trouble.append(message.text) if message.type == "error" else None)
    page.goto(site.url)
    yield page
    context.close()


@pytest.fixture
def page(site: Site, launch: Callable[[tuple[str, ...]], Browser]) -> Iterator[Page]:
    """The page in a browser that draws WebGL in software."""
    yield from _browse(site, launch(WEBGL))


@pytest.fixture
def plain_page(site: Site, launch: Callable[[tuple[str, ...]], Browser]) -> Iterator[Page]:
    """The page, narrow, in a browser without any WebGL."""
    yield from _browse(site, launch(NO_WEBGL), width=400)


def at(page: Page, number: int) -> None:
    """Wait until slice ``number`` is shown."""
    expect(page.locator(".wv-position")).to_have_text(f"{number} / {SLICES}")
    expect(page.locator(".wv-bottom-left")).to_contain_text(f"Slice {number} / {SLICES}")


def brightness(page: Page, path: Path) -> float:
    """Mean brightness, 0 to 255, of the middle of the picture as it is on the screen."""
    page.locator(".wv-stage").screenshot(path=path)
    with Image.open(path).convert("L") as image:
        wide, high = image.size
        pixels = list(image.crop((wide // 3, high // 3, 2 * wide // 3, 2 * high // 3)).tobytes())
    return sum(pixels) / len(pixels)


def test_opens_at_the_key_image_and_breaks_no_policy(site: Site, page: Page, tmp_path: Path) -> None:
    """The first key image is opened, drawn and named, and the browser finds nothing to complain of."""
    at(page, KEY_IMAGE)
    expect(page.locator(".wv-top-right")).to_have_text("Key image 1")
    expect(page.get_by_role("button", name=f"Key image 1 – slice {KEY_IMAGE}")).to_be_visible()
    label = page.locator(".wv-viewport").get_attribute("aria-label") or ""
    assert f"slice {KEY_IMAGE} of {SLICES}" in label
    assert brightness(page, tmp_path / "wide.png") > 10
    assert [words for words in site.trouble if "406" not in words] == [], "only the broken image may be complained of"


def test_every_way_to_another_slice(page: Page) -> None:
    """Keys, wheel, buttons, slider, key-image buttons and links on the page lead to the slice that they promise."""
    at(page, KEY_IMAGE)
    page.locator(".wv-viewport").focus()
    for key, expected in [
        ("ArrowDown", 13),
        ("ArrowUp", 12),
        ("PageUp", 2),
        ("End", 30),
        ("Home", 1),
        ("PageDown", 11),
    ]:
        page.keyboard.press(key)
        at(page, expected)
    page.locator(".wv-viewport").hover()
    page.mouse.wheel(0, 100)
    at(page, 12)
    page.get_by_role("button", name="Next slice").click()
    at(page, 13)
    page.locator(".wv-slider").fill("25")
    at(page, 25)
    page.get_by_role("button", name="Key image 1").click()
    at(page, KEY_IMAGE)
    page.get_by_text("second").click()
    at(page, 5)


def test_window_invert_and_reset(page: Page, tmp_path: Path) -> None:
    """A drag changes the window, I turns black and white over, R brings the first view back."""
    at(page, KEY_IMAGE)
    corner = page.locator(".wv-bottom-right")
    first = corner.text_content() or ""
    bright = brightness(page, tmp_path / "first.png")
    box = page.locator(".wv-viewport").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 420, box["y"] + 140, steps=4)
    page.mouse.up()
    expect(corner).not_to_have_text(first)
    page.keyboard.press("i")
    expect(page.get_by_role("button", name="Invert")).to_have_attribute("aria-pressed", "true")
    assert abs(brightness(page, tmp_path / "inverted.png") - bright) > 20
    page.keyboard.press("r")
    expect(corner).to_have_text(first)
    assert brightness(page, tmp_path / "reset.png") == pytest.approx(bright, abs=2)


def test_broken_image_is_said_and_the_next_one_is_shown(page: Page) -> None:
    """An image that cannot be delivered is named, nothing else is shown in its place, and one can go on."""
    at(page, KEY_IMAGE)
    page.locator(".wv-slider").fill(str(BROKEN))
    trouble = page.locator(".wv-status-text")
    expect(trouble).to_contain_text(f"Slice {BROKEN} cannot be shown")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    expect(page.locator(".wv-viewport canvas").first).not_to_be_visible()
    page.get_by_role("button", name="Next slice").click()
    at(page, BROKEN + 1)
    expect(trouble).not_to_be_visible()


def test_server_away_and_back(page: Page) -> None:
    """While the server is away the viewer says so; "Try again" shows the image once it is back."""
    at(page, KEY_IMAGE)
    page.route("**/frames/*", lambda route: route.abort())
    page.locator(".wv-viewport").focus()
    page.keyboard.press("Home")
    page.keyboard.press("End")
    expect(page.locator(".wv-status-text")).to_contain_text("cannot be reached")
    page.unroute("**/frames/*")
    page.get_by_role("button", name="Try again").click()
    at(page, 30)


def test_without_webgl_and_on_a_narrow_screen(site: Site, plain_page: Page, tmp_path: Path) -> None:
    """Without WebGL the picture is drawn by the processor, and nothing sticks out of a narrow page."""
    at(plain_page, KEY_IMAGE)
    assert brightness(plain_page, tmp_path / "narrow.png") > 10
    assert plain_page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    plain_page.get_by_role("button", name="Next slice").click()
    at(plain_page, KEY_IMAGE + 1)
