"""What the listener and the sender have to be told. `deploy.settings` fills these in."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How a node is talked to over TLS."""

    ca: Path | None = None  # PEM: who may have signed the node's certificate; None: whom the system trusts
    certificate: Path | None = None  # PEM: ours, with its chain, where the node wants to see one
    key: Path | None = None  # PEM; None: it stands with the certificate
    server_name: str = ""  # that the node's certificate must have; "": the node's host
    crl: Path | None = None  # PEM: lists of revoked certificates, of every authority; None: revocation is not checked


@dataclass(frozen=True, slots=True)
class Node:
    """A node that we send to."""

    name: str  # for people and logs
    ae_title: str
    host: str
    port: int
    timeout_s: float = 30.0  # for connecting, and for each answer
    tls: ClientTls | None = None  # None: without


@dataclass(frozen=True, slots=True)
class Caller:
    """A node that may send to us."""

    ae_title: str
    host: str  # address, network in CIDR notation, or host name
    issuer: str = ""  # issuer of its patient identifiers where its objects name none
    certificate_sha256: str = ""  # of the certificate that it must show, hexadecimal; "": any, or none without TLS
    study_idle_seconds: float | None = None  # of studies that it sends; None: as for all
    study_max_seconds: float | None = None  # likewise
    expected_numbers: bool = False  # believe the Number of Study and Series Related Instances in its objects
    ask: Node | None = None  # a PACS that is asked by C-FIND how many instances its studies have


@dataclass(frozen=True, slots=True)
class SenderSettings:
    """Who we are when we send."""

    ae_title: str = "WETREAD"
    max_pdu: int = 131072  # bytes; the largest that we take in answers


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """DICOM over TLS (PS3.15 annex B.12, BCP 195): a port of its own beside the plain one."""

    certificate: Path  # PEM, the server's with its chain; read again when the file changes
    key: Path  # PEM
    port: int = 2762  # PS3.8 section 9.1.1
    client_ca: Path | None = None  # PEM; callers must then show a certificate that these have signed
    only: bool = False  # no plain port at all
    crl: Path | None = None  # PEM: lists of revoked certificates, of every authority; None: revocation is not checked


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Everything about the acceptor."""

    ae_title: str = "WETREAD"
    port: int = 11112
    host: str = "0.0.0.0"  # noqa: S104 - modalities are other machines; callers are checked
    callers: tuple[Caller, ...] = ()  # none: only this machine may send
    reporters: tuple[Caller, ...] = ()  # who may report storage commitment, and do nothing else where no caller
    timezone: dt.tzinfo = field(default_factory=lambda: ZoneInfo("UTC"))  # of times without TimezoneOffsetFromUTC
    max_pdu: int = 131072  # bytes; the largest that we ask for
    processes: int = 0  # that accept associations; 0: one for each core, at most four
    max_associations: int = 200  # open at once, of all callers
    max_associations_per_caller: int = 50  # of one address
    max_connections_per_minute: int = 6000  # of one address; many senders open one for each image
    max_object_bytes: int = 8 * 1024**3  # of one data set
    min_bytes_per_second: int = 1024  # of a data set on its way, over `dimse_timeout`; a slower sender is aborted
    acse_timeout: float = 30.0  # seconds for negotiation and release; ARTIM too
    dimse_timeout: float = 60.0  # seconds for one DIMSE message to begin to move again
    network_timeout: float = 300.0  # seconds of silence after which an association is aborted
    tls: TlsSettings | None = None
    min_free_bytes: int = 2 * 1024**3  # watermark of the spool's disk
    study_idle_seconds: float = 60.0
    study_max_seconds: float = 3600.0
