"""A listener in a process of its own, to be talked to by `wire` and `tls_wire`: SPOOL [CERTIFICATE KEY CLIENT_CA CRL].

Prints its port, and the one for TLS; listens until it is ended.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import structlog

from dicom_listener.association import Listener
from dicom_listener.settings import ListenerSettings, TlsSettings
from dicom_listener.spool import Spool
from fhir_records.database import Database

# Seconds; short, so that a case that leaves the listener waiting is over soon.
ARTIM_S, MESSAGE_S, SILENCE_S = 2.0, 2.0, 3.0
# Nobody answers there: what is stored is safe in its file, and no database is needed to show that.
AWAY = "postgresql://nobody@127.0.0.1:9/none"


def main() -> None:
    """Listen until SIGTERM."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    spool, *files = map(Path, sys.argv[1:])
    settings = ListenerSettings(
        host="127.0.0.1",
        port=0,
        processes=1,
        acse_timeout=ARTIM_S,
        dimse_timeout=MESSAGE_S,
        network_timeout=SILENCE_S,
        max_connections_per_minute=1_000_000,
        max_object_bytes=1 << 20,
        min_free_bytes=0,
        tls=TlsSettings(files[0], files[1], port=0, client_ca=files[2], crl=files[3]) if files else None,
    )
    listener = Listener(settings, Database(AWAY), Spool(spool))
    listener.start()
    print(listener.port, listener.tls_port, flush=True)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    stop.wait()
    listener.stop(1)


if __name__ == "__main__":
    main()
