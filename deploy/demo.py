"""``wetread demo``: the main job on this machine, from a scan over DICOM to a report in a PACS."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pydicom
from pydicom.errors import InvalidDicomError
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from deploy import phantom, wiring
from deploy.settings import child_environment, demo_home, load
from deploy.supervise import follow_parent
from dicom_listener import sender
from dicom_listener.folder_pacs import FolderPacs
from dicom_listener.settings import Node, SenderSettings
from fhir_records.database import Database
from fhir_records.errors import NotFound, WetreadError
from fhir_records.model import Delivery, DeliveryState, Document, Presence, Result, Role, StudyState
from fhir_records.renderings.plain_words import headline
from fhir_records.store import deliveries, results, studies, users

USERNAME = "demo"
SETTLED = {StudyState.READ, StudyState.REFUSED, StudyState.FAILED, StudyState.NOT_ROUTED}
START_LIMIT_S = 180.0
READ_LIMIT_S = 300.0

_CONFIG = """\
[site]
statement = "Not a certified medical device. For evaluation."

[dicom]
port = {dicom_port}
study_idle_seconds = 2
min_free_mb = 256

[http]
port = {http_port}

[[destination]]
name = "demo PACS"
ae_title = "{pacs_title}"
host = "127.0.0.1"
port = {pacs_port}
"""


class DemoFailed(WetreadError):
    """The demo did not come to its end."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one study."""

    study_uid: str
    state: StudyState
    result: Result | None
    delivered: tuple[tuple[Document, Delivery], ...]
    error: str | None

    @property
    def is_settled(self) -> bool:
        """Whether nothing more will happen."""
        waits = any(delivery.state is DeliveryState.WAITING for _, delivery in self.delivered)
        answered = self.state in (StudyState.READ, StudyState.REFUSED)
        return self.state in SETTLED and not (answered and (waits or not self.delivered))

    @property
    def is_right(self) -> bool:
        """Whether there is an answer, and it is in the PACS."""
        states = [delivery.state for _, delivery in self.delivered]
        return self.result is not None and states == [DeliveryState.DELIVERED]


def run_demo(*, once: bool, scans: Path | None, console: Console) -> int:
    """Run the demo.

    Args:
        once: stop after the result; else run on until Ctrl-C.
        scans: a folder of DICOM files to send; None: a head phantom with a lesion, made here.
        console: where it is told.

    Returns:
        0 where the result is right: the phantom's lesion was found (of scans: every study has an answer), the
        report is in the PACS byte for byte as it was rendered, and the page shows it. Else 1.
    """
    # Started in the background by a shell it would ignore Ctrl-C; a plain `kill` is to stop it in order, too.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.default_int_handler)
    with suppress(KeyboardInterrupt), ExitStack() as stack:
        home = demo_home()
        files = _scans(scans) if scans else _phantom(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        pacs = FolderPacs(home / "demo-pacs", port=_free_port(4242))
        pacs.start()
        stack.callback(pacs.stop)
        http_port, dicom_port = _free_port(8080), _free_port(11112)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        config = home / "demo.toml"
        config.write_text(
            _CONFIG.format(http_port=http_port, dicom_port=dicom_port, pacs_title=pacs.ae_title, pacs_port=pacs.port)
        )
        url = f"http://127.0.0.1:{http_port}"
        service = stack.enter_context(_service(home, config))
        with console.status("Starting Wetread: database, models, listener, pages …"):
            _wait_ready(url, service, home)
        database = stack.enter_context(wiring.open_database(load(config, child_environment(home))))
        password = _log_in_for(database)
        study_uids = _send(files, Node("wetread", "WETREAD", "127.0.0.1", dicom_port), console)
        outcomes = _wait_read(database, study_uids, service, console)
        right = all(_tell(outcome, pacs, console) for outcome in outcomes)
        if not scans:
            right = right and all(_found_lesion(outcome) for outcome in outcomes)
        shown = all(_page_shows(url, password, outcome) for outcome in outcomes)
        _tell_where(url, password, outcomes, shown, console)
        if once:
            return 0 if right and shown else 1
        console.print("It runs on. Send it more scans; Ctrl-C stops it.", style="dim")
        service.wait()
        raise DemoFailed("Wetread has stopped by itself; its log has the reason.")
    return 0 if not once else 1


# --- preparing ----------------------------------------------------------------------------------------------------


def _phantom(folder: Path) -> list[Path]:
    return phantom.write_study(phantom.phantom_study(seed=0), folder)


def _scans(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DemoFailed(f"There is no folder {folder}.")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and _is_dicom(path)]
    if not files:
        raise DemoFailed(f"There are no DICOM files in {folder}.")
    return files


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"  # PS3.10 section 7.1


def _free_port(wanted: int) -> int:
    """The port that is wanted, or any other where that is taken."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoFailed("No port is free on this machine.")


@contextmanager
def _service(home: Path, config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`wetread serve` in a process of its own, as a hospital would run it; its log goes into the home."""
    with (home / "demo.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "deploy.cli", "serve", "--config", str(config)],
            env=child_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the demo, which then ends it in order
            preexec_fn=follow_parent(),  # noqa: PLW1509 - and a demo that is killed leaves nothing running
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(90)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_ready(url: str, service: subprocess.Popen[bytes], home: Path) -> None:
    end = time.monotonic() + START_LIMIT_S
    with httpx.Client(timeout=5) as client:
        while time.monotonic() < end and service.poll() is None:
            with suppress(httpx.TransportError):
                if client.get(f"{url}/health/ready").status_code == 200:
                    return
            time.sleep(0.2)
    raise DemoFailed(f"Wetread did not start; its log is {home / 'demo.log'}.")


def _log_in_for(database: Database) -> str:
    """An account for the pages, with a password of this run."""
    password = secrets.token_urlsafe(12)
    with database.session() as session:
        if any(user.username == USERNAME for user in users.list_users(session)):
            users.set_password(session, USERNAME, password)
        else:
            users.add(session, USERNAME, password, Role.ADMIN, "Demo")
    return password


# --- the main job -------------------------------------------------------------------------------------------------


def _send(files: Sequence[Path], node: Node, console: Console) -> list[str]:
    """Send the files by C-STORE, with a progress bar; gives the UIDs of their studies."""
    study_uids: dict[str, None] = {}
    refused = 0
    columns = (TextColumn("Sending by C-STORE"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=len(files))
        for sent in sender.send_files(files, node, SenderSettings(ae_title="DEMO")):
            progress.advance(task)
            if sent.delivered:
                study_uids[_study_uid(sent.path)] = None
            else:
                refused += 1
    if refused:
        console.print(f"{refused} of {len(files)} objects were not taken.", style="yellow")
    if not study_uids:
        raise DemoFailed("Nothing was taken.")
    return list(study_uids)


def _study_uid(path: Path) -> str:
    try:
        return str(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
    except (InvalidDicomError, AttributeError) as error:
        raise DemoFailed(f"{path.name} was taken, and has no Study Instance UID.") from error


def _wait_read(
    database: Database, study_uids: Sequence[str], service: subprocess.Popen[bytes], console: Console
) -> list[Outcome]:
    end = time.monotonic() + READ_LIMIT_S
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("Waiting until the study is complete …", total=None)
        while True:
            outcomes = [_outcome(database, study_uid) for study_uid in study_uids]
            if all(outcome.is_settled for outcome in outcomes):
                return outcomes
            if time.monotonic() > end or service.poll() is not None:
                return outcomes
            progress.update(task, description="Studies: " + ", ".join(str(outcome.state) for outcome in outcomes))
            time.sleep(0.2)


def _outcome(database: Database, study_uid: str) -> Outcome:
    with database.session() as session:
        try:
            study = studies.study_by_uid(session, study_uid)
        except NotFound:
            return Outcome(study_uid, StudyState.ARRIVING, None, (), None)
        reads = results.reads_of(session, study.id)
        result = results.latest_result(session, reads[0].id) if reads else None
        sent = deliveries.deliveries_of(session, result.id) if result else ()
        return Outcome(study_uid, study.state, result, sent, reads[0].error if reads else None)


# --- telling ------------------------------------------------------------------------------------------------------


def _tell(outcome: Outcome, pacs: FolderPacs, console: Console) -> bool:
    """Say what was found and where it went; False where that is not as it should be."""
    if outcome.result is None:
        console.print(
            Panel(f"No answer: the study is {outcome.state}. {outcome.error or ''}", title="Result", border_style="red")
        )
        return False
    result = outcome.result
    body = Table.grid(Column(), Column(overflow="fold"), padding=(0, 2))
    body.add_row("Finding", f"[bold]{escape(headline(result))}[/]")
    body.add_row("Model", escape(f"{result.algorithm.title} {result.algorithm.version}"))
    for limit in result.finding.limits if result.finding else ():
        body.add_row("Limit", escape(limit))
    arrived = True
    for document, delivery in outcome.delivered:
        path = pacs.path_of(document.sop_uid)
        arrived = arrived and path.is_file() and _same_data_set(path, document.content)
        body.add_row("DICOM SR", f"{delivery.state} to {delivery.destination} (C-STORE)\n{path}")
    console.print(Panel(body, title="Result", border_style="green" if arrived else "red"))
    return outcome.is_right and arrived


def _same_data_set(path: Path, content: bytes) -> bool:
    """Whether the PACS holds what was rendered; the file's own header is the PACS's."""
    return _data_set(path.read_bytes()) == _data_set(content)


def _data_set(content: bytes) -> bytes:
    # PS3.10 section 7.1: preamble, prefix, then the group length element (12 bytes) that counts the rest of the header.
    length = int.from_bytes(content[140:144], "little")
    return content[144 + length :]


def _found_lesion(outcome: Outcome) -> bool:
    finding = outcome.result.finding if outcome.result else None
    return finding is not None and finding.presence is Presence.PRESENT


def _page_shows(url: str, password: str, outcome: Outcome) -> bool:
    """Log in as a person would, and look for the finding on the study's page."""
    if outcome.result is None:
        return False
    with httpx.Client(base_url=url, follow_redirects=True, timeout=30) as browser:
        browser.get("/login")
        token = _csrf(browser.get("/login").text)
        browser.post(
            "/login", data={"username": USERNAME, "password": password, "csrf_token": token}, headers={"Origin": url}
        )
        page = browser.get(f"/studies/{outcome.study_uid}")
    words = outcome.result.finding.code.meaning if outcome.result.finding else "Not read"
    return page.status_code == 200 and words.split(" (")[0].lower() in page.text.lower()


def _csrf(page: str) -> str:
    _, _, rest = page.partition('name="csrf_token" value="')
    return rest.partition('"')[0]


def _tell_where(url: str, password: str, outcomes: Sequence[Outcome], shown: bool, console: Console) -> None:
    rows = [("Worklist", f"{url}/")]
    rows += [("Study page", f"{url}/studies/{outcome.study_uid}") for outcome in outcomes]
    rows += [("Log-in", f"{USERNAME}  {password}")]
    # Plain lines, never cut or folded: people copy them.
    for name, words in rows:
        console.print(f"{name:<12}{words}", soft_wrap=True, highlight=False, markup=False)
    if not shown:
        console.print("The page does not show the result.", style="red")
