"""Unexpected errors in logs: what and where, without the message, which may quote a patient's values."""

from __future__ import annotations

import traceback


def where(error: BaseException) -> str:
    """The kind of an error and the place it came from, as "ValueError at spool.py:12"."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""
    return type(error).__name__ + place
