"""Who may come in, and how many: the gate of the acceptors, by the settings and by what all of them count together."""

from __future__ import annotations

import socket

from dicom_listener.callers import Callers, Verdict
from dicom_listener.gate import Admitted, Rejection
from dicom_listener.host_names import HostNames
from dicom_listener.settings import ListenerSettings
from dicom_listener.shared_counts import Counts, SharedCounts, address_key
from dicom_listener.tls import ServerTls, certificate_sha256

# PS3.8 section 9.3.4, table 9-21: result, source, reason.
_CALLED_AE_TITLE_NOT_RECOGNIZED = (1, 1, 7)
_CALLING_AE_TITLE_NOT_RECOGNIZED = (1, 1, 3)
_TEMPORARY_CONGESTION = (2, 3, 1)
_LOCAL_LIMIT_EXCEEDED = (2, 3, 2)

# Connections may be open for each association that may be: those that have not asked for one yet, or linger after it.
CONNECTIONS_PER_ASSOCIATION = 2


class Admission:
    """The gate of one process (see `gate.Gate`).

    Args:
        settings: the list of callers, the limits, and the TLS files.
        counts: what the process counts with, together with the others; None: it is the only one.
        names: the addresses of the host names among the callers.

    Raises:
        SettingsError: the TLS files cannot be used.
    """

    def __init__(
        self, settings: ListenerSettings, counts: Counts | None = None, names: HostNames | None = None
    ) -> None:
        self._settings = settings
        self._counts = counts or SharedCounts(1, settings.max_associations).of(0)
        names = names or HostNames()
        self._callers = Callers(settings.callers, names)
        self._reporters = Callers(settings.reporters, names) if settings.reporters else None
        self._tls = ServerTls(settings.tls, settings.acse_timeout) if settings.tls is not None else None

    def connected(self, address: str) -> str:
        """A connection was made: "" where it may go on, else why it is closed at once, without a word to the peer."""
        # Strangers are turned away before anything is kept of them.
        verdict = self._callers.of_address(address)
        if verdict is not Verdict.LISTED and self._reporters is not None:
            verdict = self._reporters.of_address(address)
        if verdict is not Verdict.LISTED:
            return verdict.value
        key = address_key(address)
        reason = self._too_many(key)
        if reason:
            self._counts.closed(key, refused=True)
        return reason

    def secured(self, connection: socket.socket, *, tls: bool) -> socket.socket:
        """The connection to talk over: itself, or TLS over it on the TLS port, the handshake done.

        Raises:
            ConnectionError: the handshake failed, with the reason in words; the connection is closed.
        """
        if not tls:
            return connection
        if self._tls is None:
            connection.close()
            raise ConnectionError("no TLS: it is not configured")
        return self._tls.secure(connection)

    def requested(
        self, calling: str, called: str, address: str, connection: socket.socket | None = None
    ) -> Admitted | Rejection:
        """An A-ASSOCIATE-RQ came: a place, or why there is none."""
        # PS3.8 table 9-11: leading and trailing spaces are not significant.
        if called.strip() != self._settings.ae_title:
            return Rejection(*_CALLED_AE_TITLE_NOT_RECOGNIZED, "the called AE title is not ours")
        certificate = certificate_sha256(connection)
        verdict = self._callers.of_association(calling.strip(), address, certificate)
        reports_only = verdict is not Verdict.LISTED and self._may_report(calling.strip(), address, certificate)
        if reports_only:
            return self._place(address, reports_only=True)
        if verdict is Verdict.UNKNOWN:
            return Rejection(*_TEMPORARY_CONGESTION, verdict.value)
        if verdict is not Verdict.LISTED:
            return Rejection(*_CALLING_AE_TITLE_NOT_RECOGNIZED, verdict.value)
        return self._place(address)

    def left(self, admitted: Admitted) -> None:
        """The association is over; its place is free. Once for each `Admitted`."""
        self._counts.give_back(admitted.place)

    def disconnected(self, address: str) -> None:
        """A connection that might go on is over. Once for each that `connected` let on."""
        self._counts.closed(address_key(address))

    def _too_many(self, key: int) -> str:
        """Why there is one connection too many with this one, which is counted; "" where it is not."""
        settings = self._settings
        there = self._counts.opened(key)
        if there.lately > settings.max_connections_per_minute:
            return f"more than {settings.max_connections_per_minute} connections a minute from one address"
        if there.of_address > settings.max_associations_per_caller * CONNECTIONS_PER_ASSOCIATION:
            return "too many connections are open from one address"
        if there.of_all > settings.max_associations * CONNECTIONS_PER_ASSOCIATION:
            return "too many connections are open"
        return ""

    def _may_report(self, calling: str, address: str, certificate: str) -> bool:
        """Whether it is a destination, which is admitted to report storage commitment and for nothing else."""
        if self._reporters is None:
            return False
        return self._reporters.of_association(calling, address, certificate) is Verdict.LISTED

    def _place(self, address: str, *, reports_only: bool = False) -> Admitted | Rejection:
        place, taken = self._counts.take(address_key(address))
        if place < 0 or taken.of_all > self._settings.max_associations:
            reason = f"{self._settings.max_associations} associations are open"
        elif taken.of_address > self._settings.max_associations_per_caller:
            reason = f"{self._settings.max_associations_per_caller} associations of one address are open"
        else:
            return Admitted(address, place, reports_only)
        if place >= 0:
            self._counts.give_back(place)
        return Rejection(*_LOCAL_LIMIT_EXCEEDED, reason)
