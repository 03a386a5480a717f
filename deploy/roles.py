"""Running one role in a process: settings, database, and an end when it is asked for."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from deploy import logs, wiring
from deploy.settings import Settings, load
from dicom_listener.library import prepare_library
from fhir_records.database import Database


class Role(Protocol):
    """A process's work."""

    def run(self) -> int:
        """Work until `stop`; the exit status."""

    def stop(self) -> None:
        """Finish and end."""


def run_role(name: str, config: Path | None, make: Callable[[Settings, Database], Role]) -> int:
    """Run one role in this process until SIGTERM or SIGINT; the exit status.

    Raises:
        WetreadError: it cannot run, and says why.
    """
    logs.configure(name)
    prepare_library()
    settings = load(config)
    with wiring.open_database(settings) as database:
        role = make(settings, database)
        for signum in (signal.SIGTERM, signal.SIGINT):
            # A thread of its own: what a stop does may take a lock that the interrupted code holds.
            signal.signal(signum, lambda *_: threading.Thread(target=role.stop).start())
        return role.run()
