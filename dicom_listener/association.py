"""The listener within one process: gate, acceptor and index together; `processes` has them apart."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from dicom_listener.acceptor import Acceptor, listening_sockets, utc_now
from dicom_listener.admission import Admission
from dicom_listener.index import Index
from dicom_listener.index_keeper import IndexKeeper
from dicom_listener.settings import ListenerSettings
from dicom_listener.spool import Spool
from fhir_records.database import Database

if TYPE_CHECKING:
    from dicom_listener.commitment import TakeReport

log = structlog.get_logger(__name__)


class Listener:
    """The DICOM acceptor of this process, and the index of what it takes.

    Args:
        settings: everything about it; `processes` is of no meaning here.
        database: for the index and the leases; it may be away, objects are taken all the same.
        spool: where objects go.
        clock: the time now, in UTC.
        reports: makes what writes reports of storage commitment down, when the first one comes.

    Raises:
        SettingsError: the TLS files cannot be used.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        database: Database,
        spool: Spool,
        *,
        clock: Callable[[], dt.datetime] = utc_now,
        reports: Callable[[], TakeReport] | None = None,
    ) -> None:
        self._settings = settings
        self.spool = spool
        self.keeper = IndexKeeper(settings, database, spool, clock=clock)
        self._acceptor = Acceptor(settings, spool, self.keeper, Admission(settings), clock=clock, reports=reports)
        self._plain: socket.socket | None = None
        self._tls: socket.socket | None = None
        self._port = settings.port
        self._tls_port = settings.tls.port if settings.tls is not None else 0

    @property
    def index(self) -> Index:
        """The index of the spool."""
        return self.keeper.index

    @property
    def port(self) -> int:
        """The port that is listened on without TLS; useful where the settings say 0."""
        return self._port

    @property
    def tls_port(self) -> int:
        """The port that is listened on with TLS, likewise; 0: none."""
        return self._tls_port

    def start(self) -> None:
        """Begin to accept associations.

        Raises:
            OSError: a port is taken, or the spool cannot be written.
        """
        self.spool.prepare()
        plain, tls = listening_sockets(self._settings)
        self._port = plain.getsockname()[1] if plain is not None else self._port
        self._tls_port = tls.getsockname()[1] if tls is not None else 0
        self.keeper.start()
        self._acceptor.serve(plain, tls)
        log.info("listening for associations", ae_title=self._settings.ae_title, port=self._port, tls=self._tls_port)

    def stop(self, grace: float = 10.0) -> None:
        """Accept no more, let open associations finish for ``grace`` seconds, then abort them."""
        self._acceptor.stop(grace)
        self.keeper.stop()
        log.info("stopped listening")
