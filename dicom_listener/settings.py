"""What the listener and the sender have to be told. `deploy.settings` fills these in."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class Caller:
    """A node that may send to us."""

    ae_title: str
    host: str  # address, network in CIDR notation, or host name
    issuer: str = ""  # issuer of its patient identifiers where its objects name none


@dataclass(frozen=True, slots=True)
class Node:
    """A node that we send to."""

    name: str  # for people and logs
    ae_title: str
    host: str
    port: int
    timeout_s: float = 30.0  # for connecting, and for each answer


@dataclass(frozen=True, slots=True)
class SenderSettings:
    """Who we are when we send."""

    ae_title: str = "WETREAD"
    max_pdu: int = 131072  # bytes; the largest that we take in answers


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Everything about the acceptor."""

    ae_title: str = "WETREAD"
    port: int = 11112
    host: str = "0.0.0.0"  # noqa: S104 - modalities are other machines; callers are checked
    callers: tuple[Caller, ...] = ()  # none: only this machine may send
    timezone: dt.tzinfo = field(default_factory=lambda: ZoneInfo("UTC"))  # of times without TimezoneOffsetFromUTC
    max_pdu: int = 131072  # bytes; the largest that we ask for
    max_associations: int = 64
    acse_timeout: float = 30.0  # seconds for negotiation and release
    dimse_timeout: float = 60.0  # seconds for one DIMSE message
    network_timeout: float = 300.0  # seconds of silence after which an association is aborted
    min_free_bytes: int = 2 * 1024**3  # watermark of the spool's disk
    study_idle_seconds: float = 60.0
    study_max_seconds: float = 3600.0
