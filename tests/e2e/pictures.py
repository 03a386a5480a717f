"""The pictures of the documentation: ``python -m tests.e2e.pictures`` starts a Wetread, sends phantoms, photographs.

Only computed phantoms are sent, never a scan, because the pictures are published.
"""

from __future__ import annotations

import datetime as dt
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from deploy import phantom
from dicom_listener import sender
from dicom_listener.folder_pacs import FolderPacs
from dicom_listener.settings import Node, SenderSettings
from fhir_records.identities import UUID_UID_ROOT
from inference.registry import Registry
from tests.peers import free_port
from tests.service import Service, running, until

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "docs" / "pictures"
PASSWORD = "only for the pictures"
MOST_BYTES = 300_000
COLOURS = 256  # of a palette: pages need few, and a PNG with a palette is a third of the size

CHROMIUM_ARGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")

_CONFIG = """
[[destination]]
name = "PACS"
ae_title = "{pacs_title}"
host = "127.0.0.1"
port = {pacs_port}
objects = ["sr", "sc"]

[[route]]
name = "every study"
when = "true"
models = ["brain_mr_tumour"]
results_to = ["PACS"]
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """A phantom study of the worklist."""

    name: str  # PatientName
    number: int  # also the seed
    lesion: bool = True
    body_part: str = "BRAIN"
    description: str = "MR brain with contrast (phantom)"

    @property
    def study_uid(self) -> str:
        """The same each time, so that the same phantoms give the same pictures."""
        return f"{UUID_UID_ROOT}.{31415926535 + self.number}"


# Where the lesion of the last one lies: left, top, right, bottom, from the picture's middle, in parts of its side.
LESION = (0.08, -0.05, 0.285, 0.175)

# The last one is the first on the worklist, and the one whose page is photographed.
STUDIES = (
    Sent("Phantom^Knee", 4, body_part="KNEE", description="MR labelled as a knee (phantom)"),
    Sent("Phantom^Healthy", 5, lesion=False),
    Sent("Phantom^Second", 11),
    Sent("Phantom^First", 2),
)


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture."""

    page: str  # worklist | study | map | signing
    look: str  # light | dark
    width: int
    height: int
    suffix: str = ""

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return FOLDER / f"{self.page}-{self.look}{self.suffix}.png"


SHOTS = (
    *(
        Shot(page, look, 1280, height)
        for page, height in (("worklist", 760), ("study", 960), ("signing", 1000))
        for look in ("light", "dark")
    ),
    Shot("map", "dark", 1280, 960),
    Shot("study", "light", 400, 860, "-narrow"),
)


def main() -> int:
    """Make every picture; gives the exit status."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        sys.stderr.write("Chromium is not installed (Debian: apt install chromium)\n")
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, _service(Path(folder)) as service, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(CHROMIUM_ARGS))
        try:
            for shot in SHOTS:
                _take(browser, service, shot)
            _secondary_capture(Path(folder) / "pacs")
        finally:
            browser.close()
    return 0


@contextmanager
def _service(folder: Path) -> Iterator[Service]:
    """A Wetread that has read the phantoms and brought its results to a PACS."""
    pacs = FolderPacs(folder / "pacs", ae_title="PACS", port=free_port())
    pacs.start()
    try:
        Registry(folder / "home" / "models").ensure_shipped()  # here, because it may take longer than a start may
        config = _CONFIG.format(pacs_title=pacs.ae_title, pacs_port=pacs.port)
        with running(folder / "home", config) as service:
            done = service.run(
                "users",
                "add",
                "radiologist",
                "--role",
                "radiologist",
                "--name",
                "Dr. R. Demo",
                "--password-stdin",
                stdin=PASSWORD + "\n",
            )
            if done.returncode:
                raise SystemExit(done.stderr)
            for number, study in enumerate(STUDIES, start=1):
                _send(study, folder / study.name, service)
                until(lambda wanted=number: len(list((folder / "pacs").rglob("*.dcm"))) >= 2 * wanted, 400, study.name)
            yield service
    finally:
        pacs.stop()


def _send(study: Sent, folder: Path, service: Service) -> None:
    datasets = phantom.phantom_study(
        seed=study.number,
        lesion=study.lesion,
        study_uid=study.study_uid,
        acquired_at=dt.datetime(2026, 11, 20, 8, 10 * len(study.name) % 60, tzinfo=dt.UTC),
    )
    files = phantom.write_study([_labelled(ds, study) for ds in datasets], folder)
    node = Node("wetread", "WETREAD", "127.0.0.1", service.dicom_port)
    if not all(outcome.delivered for outcome in sender.send_files(files, node, SenderSettings(ae_title="PHANTOM"))):
        raise SystemExit(f"{study.name} was not taken")


def _labelled(ds: Dataset, study: Sent) -> Dataset:
    ds.PatientName, ds.PatientID = study.name, f"PHANTOM-{study.number}"
    ds.AccessionNumber = f"PH{study.number:04d}"
    ds.BodyPartExamined, ds.StudyDescription = study.body_part, study.description
    return ds


def _take(browser: Browser, service: Service, shot: Shot) -> None:
    context = browser.new_context(
        viewport={"width": shot.width, "height": shot.height},
        color_scheme="dark" if shot.look == "dark" else "light",
    )
    try:
        page = context.new_page()
        _log_in(page, service.url)
        if shot.page != "worklist":
            _open_study(page, service.url, STUDIES[-1])
        if shot.page == "map":
            page.get_by_role("button", name="Map", exact=True).click()
            page.locator(".wv-legend", has_text="Not a contour").wait_for()
        if shot.page == "signing":
            _begin_to_correct(page)
        page.screenshot(path=shot.path)
    finally:
        context.close()
    _compact(shot.path)


def _log_in(page: Page, url: str) -> None:
    page.goto(f"{url}/login")
    page.get_by_label("Username").fill("radiologist")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.locator("tr.study").nth(len(STUDIES) - 1).wait_for()


def _open_study(page: Page, url: str, study: Sent) -> None:
    """The study's page once its first image is drawn, which the viewer announces."""
    page.add_init_script(
        "document.addEventListener('wetread:shown', () => document.documentElement.setAttribute('data-shown', ''));"
    )
    page.goto(f"{url}/studies/{study.study_uid}")
    # A selector, not a function: the page's policy forbids evaluating strings.
    page.wait_for_selector("html[data-shown]", state="attached", timeout=60_000)
    page.wait_for_load_state("networkidle")


def _begin_to_correct(page: Page) -> None:
    """The form of a correction, with another answer and the lesion marked; nothing is signed."""
    page.locator("summary", has_text="Correct").click()
    page.get_by_label("Answer", exact=True).select_option("glioma")
    page.locator("details[open] textarea[name=note]").fill("Intra-axial; no dural tail.")
    page.get_by_role("button", name="Mark on the image").click()
    stage = page.locator(".wv-stage").bounding_box()
    assert stage is not None
    side = min(stage["width"], stage["height"])
    across, down = stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2
    left, top, right, bottom = (share * side for share in LESION)
    page.mouse.move(across + left, down + top)
    page.mouse.down()
    page.mouse.move(across + (left + right) / 2, down + (top + bottom) / 2)
    page.mouse.move(across + right, down + bottom)
    page.mouse.up()
    page.locator(".wv-note", has_text="Not signed yet").wait_for()


def _secondary_capture(pacs: Path) -> None:
    """The page that a PACS without structured reports shows, as it was sent."""
    for path in sorted(pacs.rglob("*.dcm")):
        ds = dcmread(path)
        if ds.SOPClassUID == SecondaryCaptureImageStorage and ds.StudyInstanceUID == STUDIES[-1].study_uid:
            target = FOLDER / "secondary-capture.png"
            Image.fromarray(ds.pixel_array).save(target)
            _compact(target)
            return
    raise SystemExit("The PACS holds no secondary capture of the study.")


def _compact(path: Path) -> None:
    """Write the picture with a palette, as small as PNG goes."""
    with Image.open(path) as picture:
        compact = picture.convert("RGB").quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    compact.save(path, optimize=True)
    size = path.stat().st_size
    sys.stdout.write(f"{path.relative_to(REPOSITORY)}: {size // 1000} kB\n")
    if size > MOST_BYTES:
        raise SystemExit(f"{path.name} has {size} bytes; at most {MOST_BYTES} are wanted")


if __name__ == "__main__":
    sys.exit(main())
