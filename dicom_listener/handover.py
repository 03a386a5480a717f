"""What an acceptor tells the index, behind its answers and in this order: who came, what was stored, who left.

The files are the truth: a note that is lost with its process costs time, not objects, for the reconciler finds every
file that has no row. The order matters all the same: an association's end is told after its last object, so a lease
outlives every row that its association still owes.
"""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from dicom_listener.data_set import Element
from fhir_records.store.associations import OpenAssociation


class Ending(StrEnum):
    """How an association ended (PS3.8 section 7)."""

    RELEASED = "released"
    ABORTED_BY_PEER = "aborted by the peer"
    ABORTED = "aborted by us"  # the note's reason says why
    LOST = "connection lost"


@dataclass(frozen=True, slots=True)
class Opened:
    """An association was accepted."""

    association: OpenAssociation


@dataclass(frozen=True, slots=True)
class Seen:
    """What the index has to know of an object, seen while it came, so that its file need not be read for it."""

    size: int  # bytes, of the file
    transfer_syntax_uid: str
    caller: str  # calling AE title
    received_at: dt.datetime
    header: bytes  # the elements of `header_text.TAGS`, as they are encoded
    pixels: Element | None


@dataclass(frozen=True, slots=True)
class Stored:
    """An object lies in the spool, synchronised, and success was or will be answered."""

    key: str
    association_id: uuid.UUID
    seen: Seen | None = None  # None: the file tells


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Bytes that are no storable object lie in quarantine, synchronised."""

    key: str
    size: int  # bytes
    reason: str  # without patient data
    caller: str  # calling AE title
    received_at: dt.datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """An accepted association is over."""

    association: OpenAssociation
    ending: Ending
    reason: str  # "" where the ending says it all
    stored: int  # objects answered with success
    refused: int  # objects answered with anything else
    received_bytes: int
    at: dt.datetime


@dataclass(frozen=True, slots=True)
class Rejected:
    """An association, or the connection before it, was turned away."""

    caller: str  # calling AE title; "" where the peer never said it
    called: str
    address: str
    reason: str
    at: dt.datetime


Note = Opened | Stored | Quarantined | Ended | Rejected


class Handover(Protocol):
    """The way from an acceptor to the index."""

    def tell(self, note: Note) -> None:
        """Pass a note on. Does not wait for the database and does not raise."""
        ...
