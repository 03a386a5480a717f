"""The acceptor of one process: connections taken off listening sockets, a thread for each."""

from __future__ import annotations

import datetime as dt
import errno
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from dicom_listener.conversation import House, converse
from dicom_listener.faults import where
from dicom_listener.gate import Gate
from dicom_listener.handover import Handover, Rejected
from dicom_listener.library import prepare_library
from dicom_listener.pdu_stream import Limits
from dicom_listener.reports import Reports
from dicom_listener.settings import ListenerSettings
from dicom_listener.spool import Spool
from dicom_listener.storing import Store
from dicom_listener.turned_away import Tally

if TYPE_CHECKING:
    from dicom_listener.commitment import TakeReport

log = structlog.get_logger(__name__)

BACKLOG = 256  # connections that the kernel keeps until they are accepted
# Seconds after which an acceptor that nobody calls looks whether it is to stop.
_TICK_S = 0.25
# Of descriptors, threads or memory there are too few for now; a connection waits in the kernel meanwhile.
_SHORT_OF = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE_S = 0.1


def utc_now() -> dt.datetime:
    """The time now, in UTC."""
    return dt.datetime.now(dt.UTC)


def listening_sockets(settings: ListenerSettings) -> tuple[socket.socket | None, socket.socket | None]:
    """The plain socket and the one for TLS, as far as the settings ask for them.

    Raises:
        OSError: a port is taken.
    """
    wants_plain = settings.tls is None or not settings.tls.only
    plain = _listening_socket(settings.host, settings.port) if wants_plain else None
    try:
        tls = _listening_socket(settings.host, settings.tls.port) if settings.tls is not None else None
    except OSError:
        if plain is not None:
            plain.close()
        raise
    return plain, tls


def _listening_socket(host: str, port: int) -> socket.socket:
    """A socket that listens on an IPv4 or IPv6 address; "::" takes both.

    Raises:
        OSError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dualstack = host == "::" and socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=dualstack)


class Acceptor:
    """Accepts associations, and holds each in a thread of its own.

    Args:
        settings: the limits, and who we are.
        spool: where objects go.
        handover: where notes go.
        gate: who may come in.
        clock: the time now, in UTC.
        reports: makes what writes reports of storage commitment down, when the first one comes.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        spool: Spool,
        handover: Handover,
        gate: Gate,
        *,
        clock: Callable[[], dt.datetime] = utc_now,
        reports: Callable[[], TakeReport] | None = None,
    ) -> None:
        self._tally = Tally(handover)
        self._stopping = threading.Event()
        self._aborting = threading.Event()
        limits = Limits(
            max_pdu=settings.max_pdu,
            artim_s=settings.acse_timeout,
            message_s=settings.dimse_timeout,
            min_bytes_per_second=settings.min_bytes_per_second,
            idle_s=settings.network_timeout,
        )
        store = Store(spool, settings.max_object_bytes, clock)
        taker = Reports((one.ae_title for one in settings.reporters), reports) if reports is not None else None
        self._house = House(
            gate, self._tally, store, limits, clock, self._stopping.is_set, self._aborting.is_set, taker
        )
        self._acceptors: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._open = 0  # connections; guarded by `_changed`

    def serve(self, plain: socket.socket | None, tls: socket.socket | None) -> None:
        """Begin to accept on these listening sockets, which other processes may share."""
        prepare_library()
        for listening, is_tls in ((plain, False), (tls, True)):
            if listening is None:
                continue
            # Bounded by the kernel: several processes wait in accept(2), and one is woken for each connection.
            listening.settimeout(None)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, int(_TICK_S * 1e6)))
            thread = threading.Thread(target=self._accept, args=(listening, is_tls), name="acceptor", daemon=True)
            thread.start()
            self._acceptors.append(thread)

    def stop(self, grace: float = 10.0) -> None:
        """Accept no more, let open associations finish for ``grace`` seconds, then abort them."""
        self._stopping.set()
        for thread in self._acceptors:
            thread.join()
        if not self._left_within(grace):
            self._aborting.set()
            self._left_within(5.0)
        self._aborting.set()
        self._tally.flush()

    def _left_within(self, seconds: float) -> bool:
        """Wait until no connection is open."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, seconds)

    def _accept(self, listening: socket.socket, is_tls: bool) -> None:
        with listening:
            while not self._stopping.is_set():
                try:
                    connection, peer = listening.accept()
                except BlockingIOError:
                    continue
                except OSError as error:
                    if error.errno in _SHORT_OF:
                        log.error("a connection has to wait", error=error.strerror)
                        time.sleep(_PAUSE_S)
                    continue
                self._admit(connection, str(peer[0]), is_tls)

    def _admit(self, connection: socket.socket, address: str, is_tls: bool) -> None:
        """Hold a conversation in a thread of its own, unless the connection is not wanted."""
        reason = self._house.gate.connected(address)
        if reason:
            connection.close()
            self._tally.tell(Rejected("", "", address, reason, self._house.clock()))
            return
        with self._changed:
            self._open += 1
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            arguments = (connection, address, is_tls)
            threading.Thread(target=self._hold, args=arguments, name="association", daemon=True).start()
        except (OSError, RuntimeError) as error:
            # The peer is gone already, or there is no thread to be had.
            log.error("a connection could not be served", error=where(error))
            self._close(connection, address)

    def _hold(self, connection: socket.socket, address: str, is_tls: bool) -> None:
        try:
            converse(connection, address, self._house, tls=is_tls)
        except Exception as error:  # boundary: one connection must not end the acceptor
            log.error("a connection failed", error=where(error))
        finally:
            self._close(connection, address)

    def _close(self, connection: socket.socket, address: str) -> None:
        connection.close()
        self._house.gate.disconnected(address)
        with self._changed:
            self._open -= 1
            self._changed.notify_all()
