"""The listener's processes, for tests that kill them: DATABASE_URL SPOOL PORT PROCESSES [HOURS].

Its clock is off by up to so many hours, each time it is looked at by others.
"""

from __future__ import annotations

import datetime as dt
import random
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
    url, spool, port, processes, *hours = sys.argv[1:]
    settings = ListenerSettings(host="127.0.0.1", port=int(port), processes=int(processes), min_free_bytes=0)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop.set).start())

    def clock() -> dt.datetime:
        return utc_now() - dt.timedelta(hours=random.randrange(int(hours[0]))) if hours else utc_now()

    ListenerProcesses(settings, Spool(Path(spool)), lambda: Database(url), clock=clock).run(stop, 15.0)


if __name__ == "__main__":
    main()
