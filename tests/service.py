"""A whole Wetread for tests: `wetread serve` in processes of its own, with its embedded database, on free ports."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.embedded_postgres import lifetime
from fhir_records.database import Database
from inference.registry import Registry
from tests.peers import free_port
from tests.run_once import copied, made_once

REPOSITORY = Path(__file__).resolve().parents[1]
GUARD_S = 240.0  # a guard against waiting for ever, on a machine however slow

_CONFIG = """
[site]
organization = "Test hospital"
[dicom]
port = {dicom_port}
study_idle_seconds = {idle}
min_free_mb = 64
[http]
port = {http_port}
"""


def until(condition: Callable[[], Any], seconds: float = GUARD_S, what: str = "it") -> Any:
    """Wait until ``condition`` gives something true, and give that."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, f"{what} did not come about within {seconds:g} s"
        time.sleep(0.25)


def processes_of(home: Path) -> list[tuple[int, list[str]]]:
    """The `wetread` processes that run on this home, with their command lines."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            variables = (entry / "environ").read_bytes().split(b"\0")
            if {"deploy.cli", "deploy.listen"} & set(words) and f"WETREAD_HOME={home}".encode() in variables:
                found.append((int(entry.name), words))
    return found


@dataclass
class Service:
    """A Wetread in a home of its own."""

    home: Path
    config: str = ""  # more of the configuration file
    idle: float = 1.0
    dicom_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the pages are."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def env(self) -> dict[str, str]:
        """The environment of its processes and commands."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WETREAD_")}
        return {**kept, "WETREAD_HOME": str(self.home)}

    def start(self) -> None:
        """Start everything and wait until it is ready."""
        self.home.mkdir(parents=True, exist_ok=True)
        text = _CONFIG.format(dicom_port=self.dicom_port, http_port=self.http_port, idle=self.idle) + self.config
        (self.home / "wetread.toml").write_text(text)
        with (self.home / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deploy.cli", "serve"],
                cwd=REPOSITORY,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until pages, listener and a worker answer."""
        with httpx.Client(base_url=self.url, timeout=60) as client:  # one: to make it costs more than to ask
            until(lambda: self._is_ready(client), what="readiness")
        ready = sum(line.get("event") == "worker ready" for line in self.log_lines())
        until(lambda: ready or any(line.get("event") == "worker ready" for line in self.log_lines()), what="the worker")

    def _is_ready(self, client: httpx.Client) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()[-3000:]
        with suppress(httpx.TransportError):
            return client.get("/health/ready").status_code == 200
        return False

    def stop(self) -> int:
        """Stop it as an administrator would; its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(GUARD_S)

    def kill(self) -> None:
        """Kill the supervisor; its roles follow it."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def pids(self, role: str) -> list[int]:
        """The processes of one role."""
        return [pid for pid, words in processes_of(self.home) if {role, f"deploy.{role}"} & set(words)]

    def log(self) -> str:
        """All that it has logged."""
        return (self.home / "serve.log").read_text()

    def log_lines(self) -> list[dict[str, Any]]:
        """The same, event by event."""
        lines = []
        for line in self.log().splitlines():
            with suppress(json.JSONDecodeError):
                lines.append(json.loads(line))
        return lines

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """A `wetread` command against this home."""
        return subprocess.run(
            [sys.executable, "-m", "deploy.cli", *arguments],
            cwd=REPOSITORY,
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=GUARD_S,
            check=False,
        )

    @contextmanager
    def database(self) -> Iterator[Database]:
        """The running service's database."""
        with lifetime(self.home) as url:
            database = Database(url)
            try:
                yield database
            finally:
                database.close()


@contextmanager
def running(home: Path, config: str = "", *, idle: float = 1.0) -> Iterator[Service]:
    """A running Wetread, stopped in the end."""
    service = Service(home, config, idle)
    service.start()
    try:
        yield service
    finally:
        if service.process is not None and service.process.poll() is None:
            try:
                service.stop()
            except subprocess.TimeoutExpired:
                service.kill()


@pytest.fixture(scope="session")
def registered_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped models, registered once for all processes of this run; copy them before changing them."""
    return (
        made_once(tmp_path_factory, "registry", lambda folder: Registry(folder / "models").ensure_shipped()) / "models"
    )


@pytest.fixture(scope="session")
def begun(registered_models: Path, made_database: Path) -> Callable[[Path], Path]:
    """Makes a home, in a folder that is not there yet, as an earlier start leaves it: models and database are made."""

    def begin(home: Path) -> Path:
        copied(made_database, home)
        copied(registered_models, home / "models")
        return home

    return begin


@pytest.fixture
def home(tmp_path: Path, begun: Callable[[Path], Path]) -> Path:
    """A home of its own in which the models are registered already and the database is made."""
    return begun(tmp_path / "home")
