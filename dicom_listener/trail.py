"""Associations in the audit trail: who came, who was turned away, and how it ended. No patient data."""

from __future__ import annotations

import datetime as dt
import re
from typing import Final

from dicom_listener.handover import Ended, Ending, Opened, Rejected
from fhir_records.model import AuditEntry

_ACTIONS: Final = {
    Ending.RELEASED: "association released",
    Ending.ABORTED_BY_PEER: "association aborted",
    Ending.ABORTED: "association aborted",
    Ending.LOST: "association lost",
}
# What a peer calls itself is the peer's choice: no control characters, and no more than PS3.5's AE (16) may have.
_ODD = re.compile(r"[^\x20-\x7e]")
_LONGEST = 64


def actor(caller: str) -> str:
    """How the trail names a calling AE title."""
    return f"dicom:{_tame(caller)[:16]}"


def entry_of(note: Opened | Ended | Rejected) -> tuple[dt.datetime, AuditEntry]:
    """The trail's line for a note, and when it happened."""
    if isinstance(note, Opened):
        association = note.association
        detail: dict[str, str | int] = {"address": _tame(association.address), "association": str(association.id)}
        return association.opened_at, AuditEntry("association accepted", actor(association.caller), detail=detail)
    if isinstance(note, Rejected):
        detail = {"address": _tame(note.address), "called": _tame(note.called)[:16], "reason": _tame(note.reason, 200)}
        return note.at, AuditEntry("association rejected", actor(note.caller), "failure", detail=detail)
    association = note.association
    detail = {
        "address": _tame(association.address),
        "association": str(association.id),
        "stored": note.stored,
        "refused": note.refused,
        "bytes": note.received_bytes,
    }
    if note.reason:
        detail["reason"] = _tame(note.reason, 200)
    outcome = "success" if note.ending is Ending.RELEASED else "failure"
    return note.at, AuditEntry(_ACTIONS[note.ending], actor(association.caller), outcome, detail=detail)


def _tame(text: str, longest: int = _LONGEST) -> str:
    return _ODD.sub("?", text)[:longest]
