"""A listener in a process of its own, for tests that kill it: DATABASE_URL SPOOL PORT."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from dicom_listener.association import Listener
from dicom_listener.settings import ListenerSettings
from dicom_listener.spool import Spool
from fhir_records.database import Database


def main() -> None:
    url, spool, port = sys.argv[1:]
    Listener(ListenerSettings(host="127.0.0.1", port=int(port)), Database(url), Spool(Path(spool))).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
