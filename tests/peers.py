"""Real peers for tests: Orthanc, DCMTK's programs and `dciodvfy`, started as users start them.

Everything here skips, loudly, when the program is not installed. Servers run in a temporary folder on ports of their
own and listen on the loopback interface only::

    with orthanc_server(tmp_path, modalities={"WETREAD": ("WETREAD", "127.0.0.1", port)}) as orthanc:
        orthanc.upload(path.read_bytes())
        orthanc.stop()       # the PACS is down …
        orthanc.start()      # … and comes back with the same storage and ports

    with storescp_server(tmp_path, refuse=True) as scp: ...
    storescu([path], scp.host, scp.dicom_port, called=scp.ae_title, calling="CT1")
    errors, warnings = dciodvfy(path)
"""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HOST = "127.0.0.1"
_PORTS = range(12000, 32000)
# Seconds a peer may take before the test fails: a guard against waiting for ever, on a machine however slow.
PEER_TIMEOUT_S = 90.0
# Where distributions put servers that are not on every user's PATH.
SERVER_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/orthanc/bin"


def need(program: str) -> str:
    """The path of ``program``; skips the test, with the reason, where it is not installed."""
    found = shutil.which(program) or shutil.which(program, path=SERVER_PATH)
    if found is None:
        pytest.skip(f"SKIPPED LOUDLY: {program} is not installed (Debian: apt install orthanc dcmtk dicom3tools)")
    return found


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on at this moment.

    None of those that the kernel gives to whoever asks for any: while a server is down, they would soon be another's.
    """
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port


def wait_until(condition: Callable[[], object], timeout_s: float = PEER_TIMEOUT_S, what: str = "condition") -> None:
    """Wait until ``condition()`` is true.

    Raises:
        TimeoutError: it did not come true in ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not so after {timeout_s:g} s")
        time.sleep(0.05)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on ``port`` of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


@dataclass
class Peer:
    """A server process that can be stopped and started again with the same command, ports and storage."""

    command: Sequence[str]
    log_path: Path
    ready: Callable[[], bool]
    process: subprocess.Popen[bytes] | None = None
    env: Mapping[str, str] | None = None  # None: the environment of the test

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            RuntimeError: it ended instead; the message holds the end of its log.
        """
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT, env=self.env)
        try:
            wait_until(lambda: not self.running or self.ready(), what=f"start of {self.command[0]}")
        except TimeoutError:
            self.stop()
            raise
        if not self.running:
            raise RuntimeError(f"{self.command[0]} ended at once:\n{self.log_path.read_text(errors='replace')[-2000:]}")

    def stop(self, kill: bool = False) -> None:
        """Stop it (``kill``: without giving it a chance to tidy up) and wait until it is gone."""
        if self.process is None:
            return
        if self.running:
            self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        try:
            self.process.wait(PEER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PEER_TIMEOUT_S)
        self.process = None


@dataclass
class OrthancPeer:
    """A running Orthanc of the test's own, over REST and DICOM."""

    url: str
    http_port: int
    dicom_port: int
    ae_title: str
    peer: Peer
    storage: Path
    host: str = HOST

    def start(self) -> None:
        """Start it (again), with the storage it had."""
        self.peer.start()

    def stop(self, kill: bool = False) -> None:
        """Take it down; its storage stays."""
        self.peer.stop(kill)

    def wipe(self) -> None:
        """Take it down and throw its storage away: what starts next numbers its changes from 1 again."""
        self.stop()
        shutil.rmtree(self.storage)
        self.storage.mkdir()

    def rest(self, path: str, body: bytes | None = None, method: str | None = None) -> bytes:
        """The answer to one REST request; ``body`` makes it a POST.

        Raises:
            urllib.error.HTTPError: the answer was a failure.
        """
        request = urllib.request.Request(f"{self.url}/{path.lstrip('/')}", data=body, method=method)
        with urllib.request.urlopen(request, timeout=PEER_TIMEOUT_S) as answer:
            content: bytes = answer.read()
        return content

    def json(self, path: str, body: bytes | None = None) -> Any:
        """`rest`, decoded from JSON."""
        return json.loads(self.rest(path, body))

    def upload(self, content: bytes) -> str:
        """Store one DICOM file by REST; returns Orthanc's own instance identifier."""
        return str(self.json("instances", content)["ID"])

    def instances(self) -> list[str]:
        """Orthanc's identifiers of all instances."""
        return list(self.json("instances"))

    def studies(self) -> list[str]:
        """Orthanc's identifiers of all studies."""
        return list(self.json("studies"))

    def series(self) -> list[dict[str, Any]]:
        """All series with their main tags and instances."""
        return list(self.json("series?expand"))

    def by_modality(self, modality: str) -> list[str]:
        """Orthanc's identifiers of the instances of all series of this modality, such as ``SR``."""
        return [
            instance
            for series in self.series()
            if series["MainDicomTags"].get("Modality") == modality
            for instance in series["Instances"]
        ]

    def file(self, instance_id: str) -> bytes:
        """The stored file (PS3.10) of one instance."""
        return self.rest(f"instances/{instance_id}/file")

    def stable_changes(self) -> int:
        """How many times a study became stable so far."""
        changes = self.json("changes?limit=100000")["Changes"]
        return sum(change["ChangeType"] == "StableStudy" for change in changes)

    def send(self, modality: str, resource_id: str) -> dict[str, Any]:
        """Send a study, series or instance to one of its modalities by C-STORE; returns the job's account."""
        return dict(self.json(f"modalities/{modality}/store", resource_id.encode()))


@contextmanager
def orthanc_server(
    folder: Path,
    *,
    ae_title: str = "ORTHANC",
    modalities: Mapping[str, tuple[str, str, int]] | None = None,
    stable_age_s: int = 1,
    storage_commitment: bool = True,
    users: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Iterator[OrthancPeer]:
    """An Orthanc with a configuration, storage and ports of its own under ``folder``.

    Args:
        folder: where its configuration, storage and log go.
        ae_title: its AE title; any called AE title is accepted.
        modalities: its ``DicomModalities``: name → (AE title, host, port).
        stable_age_s: seconds without a new instance until a study is stable.
        storage_commitment: whether the modalities may ask it for storage commitment.
        users: log-in names and passwords; none: nobody has to log in.
        extra: further configuration, over what is here.
    """
    program = need("Orthanc")
    home = folder / f"orthanc-{ae_title.lower()}"
    storage = home / "storage"
    storage.mkdir(parents=True)
    configuration = _orthanc_configuration(ae_title, storage, stable_age_s, storage_commitment)
    configuration["DicomModalities"] = {
        name: {"AET": aet, "Host": host, "Port": port, "AllowStorageCommitment": storage_commitment}
        for name, (aet, host, port) in (modalities or {}).items()
    }
    configuration |= {"AuthenticationEnabled": bool(users), "RegisteredUsers": dict(users or {})} | dict(extra or {})
    orthanc = _started_orthanc(program, home, storage, configuration)
    try:
        yield orthanc
    finally:
        # Its storage is thrown away, so it need not tidy up, which takes it seconds.
        orthanc.stop(kill=True)


def _orthanc_configuration(ae_title: str, storage: Path, stable_age_s: int, commitment: bool) -> dict[str, Any]:
    return {
        "Name": ae_title,
        "StorageDirectory": str(storage),
        "IndexDirectory": str(storage),
        "Plugins": [],
        "RemoteAccessAllowed": False,
        "HttpDescribeErrors": True,
        "DicomAet": ae_title,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowEcho": True,
        "DicomAlwaysAllowStore": True,
        "DicomModalitiesInDatabase": False,
        "OverwriteInstances": True,
        "StableAge": stable_age_s,
        "SaveJobs": False,
        "StorageCommitmentReportsSize": 100 if commitment else 1,
        "DicomScpTimeout": 10,
        "DicomScuTimeout": 10,
        "HttpThreadsCount": 4,
    }


def _started_orthanc(program: str, home: Path, storage: Path, configuration: dict[str, Any]) -> OrthancPeer:
    for last_try in (False, False, True):
        orthanc = _new_orthanc(program, home, storage, configuration)
        try:
            orthanc.start()
            break
        except RuntimeError:
            # Somebody else may have taken a port between our look and Orthanc's.
            if last_try:
                raise
    return orthanc


def _new_orthanc(program: str, home: Path, storage: Path, configuration: dict[str, Any]) -> OrthancPeer:
    http_port, dicom_port = free_port(), free_port()
    url = f"http://{HOST}:{http_port}"
    config_path = home / "orthanc.json"
    config_path.write_text(json.dumps(configuration | {"HttpPort": http_port, "DicomPort": dicom_port}, indent=2))
    peer = Peer(
        command=[program, str(config_path)],
        log_path=home / "orthanc.log",
        ready=lambda: _answers(f"{url}/system") and listens(dicom_port),
    )
    return OrthancPeer(url, http_port, dicom_port, str(configuration["DicomAet"]), peer, storage)


def _answers(url: str) -> bool:
    """Whether an HTTP server answers there; asking for a log-in counts."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False


@dataclass
class StoreScpPeer:
    """A running `storescp`: a PACS that only takes objects in."""

    dicom_port: int
    ae_title: str
    folder: Path
    peer: Peer
    host: str = HOST

    def start(self) -> None:
        """Start it (again), on the port it had."""
        self.peer.start()

    def stop(self, kill: bool = False) -> None:
        """Take it down; what it received stays."""
        self.peer.stop(kill)

    def files(self) -> list[Path]:
        """The objects received so far."""
        return sorted(path for path in self.folder.iterdir() if path.is_file())


@contextmanager
def storescp_server(
    folder: Path,
    *,
    ae_title: str = "STORESCP",
    refuse: bool = False,
    abort_after: bool = False,
    abort_during: bool = False,
    sleep_after_s: int = 0,
    sleep_during_s: int = 0,
    options: Sequence[str] = ("--accept-all", "--bit-preserving"),
) -> Iterator[StoreScpPeer]:
    """DCMTK's `storescp`, writing what it receives under ``folder``.

    Args:
        folder: where the objects and the log go.
        ae_title: its AE title.
        refuse: it rejects every association.
        abort_after: it aborts after a C-STORE request, before its answer.
        abort_during: it aborts in the middle of a C-STORE request.
        sleep_after_s: seconds it waits before it answers.
        sleep_during_s: seconds it waits while it receives.
        options: further command-line options; by default every transfer syntax is accepted and kept as it is.
    """
    program = need("storescp")
    received = folder / f"storescp-{ae_title.lower()}"
    received.mkdir(parents=True)
    faults = [
        *(["--refuse"] if refuse else []),
        *(["--abort-after"] if abort_after else []),
        *(["--abort-during"] if abort_during else []),
        *(["--sleep-after", str(sleep_after_s)] if sleep_after_s else []),
        *(["--sleep-during", str(sleep_during_s)] if sleep_during_s else []),
    ]
    port = free_port()
    arguments = ["--log-level", "info", "--aetitle", ae_title, "--output-directory", str(received), *options, *faults]
    peer = Peer(
        command=[program, *arguments, str(port)],
        log_path=folder / f"storescp-{ae_title.lower()}.log",
        ready=lambda: listens(port),
    )
    peer.start()
    try:
        yield StoreScpPeer(port, ae_title, received, peer)
    finally:
        peer.stop()


@dataclass(frozen=True)
class ProgramRun:
    """What a finished program said."""

    status: int  # exit status
    output: str  # standard output and standard error together


def run_program(program: str, *arguments: str, timeout_s: float = 120.0) -> ProgramRun:
    """Run one of the peers' command-line programs to its end; skips the test where it is not installed."""
    done = subprocess.run(
        [need(program), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout_s, check=False
    )
    return ProgramRun(done.returncode, done.stdout.decode("utf-8", "replace"))


def storescu(
    paths: Sequence[Path],
    host: str,
    port: int,
    *,
    called: str = "WETREAD",
    calling: str = "STORESCU",
    options: Sequence[str] = (),
    timeout_s: float = 120.0,
) -> ProgramRun:
    """Send files and folders over one association with DCMTK's `storescu`; exit status 0 is success for all.

    Give ``options=["--propose-lossless"]`` and the like for compressed files: `storescu` never proposes a compressed
    transfer syntax by itself.
    """
    directories = ["--scan-directories", "--recurse"] if any(path.is_dir() for path in paths) else []
    arguments = ["-v", "--aetitle", calling, "--call", called, *directories, *options, host, str(port)]
    return run_program("storescu", *arguments, *map(str, paths), timeout_s=timeout_s)


def echoscu(host: str, port: int, *, called: str = "WETREAD", calling: str = "ECHOSCU") -> ProgramRun:
    """C-ECHO with DCMTK's `echoscu`; exit status 0 is success."""
    return run_program("echoscu", "-v", "--aetitle", calling, "--call", called, host, str(port))


@dataclass(frozen=True)
class Verdict:
    """What `dciodvfy` says of an object. Unpacks into (errors, warnings)."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    output: str = field(repr=False)

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        yield self.errors
        yield self.warnings


# PS3.3 has Device UID in Contributing Equipment Sequence (table C.12-1), and IHE AI Results demands it there (RAD TF-3
# section 6.5.3.1); the release of dicom3tools that distributions have is of 2022 and does not know it in that place.
_EXTENDED = "Warning - Attribute is not present in standard DICOM IOD"
_NEWER_THAN_DCIODVFY = f"{_EXTENDED} - (0x0018,0x1002) UI Device UID"
_IS_EXTENDED = "Warning - Dicom dataset contains attributes not present in standard DICOM IOD"


def dciodvfy(path: Path) -> Verdict:
    """Check an object against its information object definition (PS3.3) with dicom3tools' `dciodvfy`."""
    output = run_program("dciodvfy", str(path)).output
    lines = [line for line in map(str.strip, output.splitlines()) if line != _NEWER_THAN_DCIODVFY]
    if not any(line.startswith(_EXTENDED) for line in lines):
        lines = [line for line in lines if not line.startswith(_IS_EXTENDED)]
    return Verdict(
        errors=tuple(line for line in lines if line.startswith("Error")),
        warnings=tuple(line for line in lines if line.startswith("Warning")),
        output=output,
    )


def dsrdump(path: Path) -> str:
    """A structured report as DCMTK's `dsrdump` prints it: all codes, long values whole, UIDs of referenced objects.

    Raises:
        AssertionError: it could not be read.
    """
    run = run_program("dsrdump", "+Pl", "+Pu", "+Pc", str(path))
    assert run.status == 0, f"dsrdump cannot read it:\n{run.output}"
    return run.output


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[OrthancPeer]:
    """A real, empty Orthanc (AE title ORTHANC) for one test."""
    with orthanc_server(tmp_path) as peer:
        yield peer


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[StoreScpPeer]:
    """A real `storescp` that takes everything, for one test."""
    with storescp_server(tmp_path) as peer:
        yield peer
