"""`wetread demo`: the main job on this machine, with nothing prepared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.phantom import phantom_study, write_study
from tests.run_once import copied
from tests.service import GUARD_S, REPOSITORY, processes_of, until


def demo(home: Path, *arguments: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WETREAD_")}
    return subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", "demo", *arguments],
        cwd=REPOSITORY,
        env={**kept, "WETREAD_HOME": str(home), "COLUMNS": "100", "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def new_home(tmp_path: Path, registered_models: Path) -> Path:
    """A home in which nothing is made but the models, which take longest."""
    return copied(registered_models, tmp_path / "home" / "models").parent


def test_the_demo_finds_the_lesion_and_stops_by_itself(new_home: Path) -> None:
    """`--once` exits 0 after it has told the finding, the report's place, the page and a log-in for it."""
    process = demo(new_home, "--once")
    output, _ = process.communicate(timeout=GUARD_S)
    assert process.returncode == 0, output
    assert "present, probability" in output
    assert "delivered to demo PACS" in output
    assert "http://127.0.0.1:" in output
    assert "Log-in" in output
    assert len(list((new_home / "demo-pacs").glob("*.dcm"))) == 1
    assert processes_of(new_home) == []


def test_the_demo_sends_a_folder_and_runs_until_interrupted(home: Path, tmp_path: Path) -> None:
    """`--scans` reads any folder; the service runs on, and Ctrl-C ends all of it."""
    write_study(phantom_study(seed=5, slices=8, lesion=False), tmp_path / "scans")
    (tmp_path / "scans" / "notes.txt").write_text("not a scan")
    process = demo(home, "--scans", str(tmp_path / "scans"))
    assert process.stdout is not None
    told: list[str] = []
    for line in process.stdout:
        told.append(line)
        if "It runs on" in line:
            break
    assert "It runs on" in told[-1], "".join(told)
    assert "8/8" in "".join(told)
    process.send_signal(signal.SIGINT)
    assert process.wait(GUARD_S) == 0
    assert processes_of(home) == []


def test_a_demo_that_is_killed_leaves_nothing_running(home: Path, tmp_path: Path) -> None:
    """After `kill -9` of the demo its service stops by itself."""
    process = demo(home, "--once")
    until(lambda: (home / "serve.log").is_file() or len(processes_of(home)) > 3, what="the service")
    process.kill()
    process.wait()
    until(lambda: processes_of(home) == [], what="the end of the service")


def test_a_folder_without_scans_is_refused(home: Path, tmp_path: Path) -> None:
    """A folder in which nothing is DICOM is named, and the exit status is 1."""
    process = demo(home, "--scans", str(tmp_path))
    output, _ = process.communicate(timeout=GUARD_S)
    assert process.returncode == 1
    assert "no DICOM files" in output
