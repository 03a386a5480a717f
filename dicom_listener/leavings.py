"""What an earlier version of the listener left in the spool: files that it was writing when it died.

It wrote them beside the objects, as ``objects/<day>/<two digits>/<random>.dcm.part``, and gave success only when they
had lost that end. So nobody was ever told that one of them is safe.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import structlog

from dicom_listener.spool import OBJECTS, QUARANTINE, Spool

log = structlog.get_logger(__name__)

# A listener of that version may still run on the same disk, and held no lock: what is younger may be its own.
ORPHAN_SECONDS: Final = 3600.0
_END: Final = ".part"


def remove_leavings(spool: Spool, go_on: Callable[[], bool] = lambda: True) -> int:
    """Remove half-written files of the former layout; how many there were.

    Args:
        spool: where they lie.
        go_on: asked after each folder; False ends the search.
    """
    horizon, removed = time.time() - ORPHAN_SECONDS, 0
    for folder, names in _folders(spool):
        for name in names:
            if name.endswith(_END) and _is_older(folder / name, horizon):
                (folder / name).unlink(missing_ok=True)
                removed += 1
        if not go_on():
            break
    if removed:
        log.warning("removed half-written files of an earlier version, which nobody was told are safe", files=removed)
    return removed


def _folders(spool: Spool) -> Iterator[tuple[Path, list[str]]]:
    for area in (OBJECTS, QUARANTINE):
        for folder, _, names in os.walk(spool.root / area):
            yield Path(folder), names


def _is_older(path: Path, horizon: float) -> bool:
    try:
        return path.lstat().st_mtime < horizon
    except FileNotFoundError:
        return False
