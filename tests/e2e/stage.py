"""The viewer on a study's page, and the pixels that it draws."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import Page, expect

from fhir_records.model import Role
from tests.e2e.conftest import PASSWORD, Site

Pixels = npt.NDArray[np.int16]  # RGB, shape (rows, columns, 3)


@dataclass(frozen=True, slots=True)
class Stage:
    """The picture of the viewer as it is on the screen."""

    page: Page
    slices: int = 3

    def pixels(self) -> Pixels:
        """What is seen now."""
        shot = self.page.locator(".wv-stage").screenshot()
        return np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(np.int16)

    def of_slice(self, number: int) -> None:
        """Wait until this slice is drawn."""
        expect(self.page.locator(".wv-bottom-left")).to_contain_text(f"Slice {number} / {self.slices}")
        expect(self.page.locator(".wv-status")).to_be_hidden()

    def button(self, name: str) -> None:
        """Press a button of the toolbar."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def drag(self, by_x: float, by_y: float) -> None:
        """Drag on the middle of the picture with the first mouse button."""
        box = self.page.locator(".wv-viewport").bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + by_x / 2, y + by_y / 2)
        self.page.mouse.move(x + by_x, y + by_y)
        self.page.mouse.up()
        self.page.mouse.move(0, 0)


def open_study(page: Page, site: Site, *, shown: int, slices: int = 3, role: Role = Role.RADIOLOGIST) -> Stage:
    """Log in and wait for the first key image, which is this slice of so many."""
    assert site.study is not None
    page.goto(f"{site.url}/login")
    page.get_by_label("Username").fill(role.value)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.goto(f"{site.url}/studies/{site.study.study_uid}")
    expect(page.locator(".wv-top-right")).to_have_text("Key image 1")
    stage = Stage(page, slices)
    stage.of_slice(shown)
    page.mouse.move(0, 0)
    return stage
