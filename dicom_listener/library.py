"""What pynetdicom and pydicom keep for the whole process, set in one place."""

from __future__ import annotations

import logging
import socket
import warnings

import pydicom.config
from pynetdicom import _config
from pynetdicom.events import Event


def prepare_library() -> None:
    """Set pynetdicom up for storing any object, sending bytes as they are, and logging no patient data."""
    # Storage of any SOP class, private and future ones too, in the first transfer syntax that the sender names.
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    # A file is sent as it lies on the disk, not decoded and encoded again.
    _config.STORE_SEND_CHUNKED_DATASET = True
    # Its own log handlers decode every message, and write values of the patient's.
    _config.LOG_HANDLER_LEVEL = "none"
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    # Values that break their VR's rules are quoted in its warnings.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module="pydicom")


def set_no_delay(event: Event) -> None:
    """On a new connection: send small packets at once. Nagle's algorithm costs 40 ms an object."""
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
