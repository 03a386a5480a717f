"""The listener's processes, for tests that kill them: DATABASE_URL SPOOL PORT PROCESSES."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

from dicom_listener.acceptor import utc_now
from dicom_listener.processes import ListenerProcesses
from dicom_listener.settings import ListenerSettings
from dicom_listener.spool import Spool
from fhir_records.database import Database


def main() -> None:
    url, spool, port, processes = sys.argv[1:]
    settings = ListenerSettings(host="127.0.0.1", port=int(port), processes=int(processes), min_free_bytes=0)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop.set).start())
    ListenerProcesses(settings, Spool(Path(spool)), lambda: Database(url), clock=utc_now).run(stop, 15.0)


if __name__ == "__main__":
    main()
