"""Logs: lines of JSON that say who spoke, and never what an exception choked on."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import logging
import threading

import structlog

from deploy import logs

logs.configure("test")
log = structlog.get_logger("somewhere")
log.info("study read", study="abc123")
threading.Thread(target=lambda: log.warning("from a thread")).start()
try:
    raise ValueError("Doe^Jane 19610503")
except ValueError:
    log.exception("it broke")
logging.getLogger("pydicom").info("PatientName: Doe^Jane")
logging.getLogger("other").error("plain words")
"""


def lines() -> list[dict[str, object]]:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert "Doe" not in run.stderr
    assert run.stdout == ""
    return [json.loads(line) for line in run.stderr.splitlines()]


def test_each_event_is_a_line_of_json_with_its_role() -> None:
    """Events of every thread and of other libraries have role, level, logger and time."""
    found = lines()
    assert [line["event"] for line in found] == ["study read", "from a thread", "it broke", "plain words"]
    for line in found:
        assert line["role"] == "test"
        assert {"level", "logger", "timestamp"} <= set(line)


def test_a_traceback_names_places_and_no_values() -> None:
    """An exception is logged by its type and where it was raised; its message may quote a patient."""
    (broke,) = [line for line in lines() if line["event"] == "it broke"]
    assert broke["exception"] == "ValueError"
    assert broke["places"] == ["<string>:14 <module>"]
