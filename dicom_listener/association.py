"""The acceptor: who may associate, what is accepted, and what is open now."""

from __future__ import annotations

import contextlib
import datetime as dt
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import cast

import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import ThreadedAssociationServer

from dicom_listener.callers import may_call
from dicom_listener.faults import where
from dicom_listener.handlers import answer_echo, answer_store
from dicom_listener.index import Index
from dicom_listener.intake import Intake
from dicom_listener.library import prepare_library, set_no_delay
from dicom_listener.received import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_listener.reconciler import MARGIN, backlog_since, reconcile
from dicom_listener.settings import ListenerSettings
from dicom_listener.spool import Spool
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable
from fhir_records.store import associations
from fhir_records.store.associations import OpenAssociation

log = structlog.get_logger(__name__)

HEARTBEAT_S = 5.0
# Seconds that a lease runs without being renewed.
LEASE_S = 15.0
# Between tries while files wait for the index.
BACKLOG_RETRY_S = 2.0
# Between looks for files that another listener left without rows when it died.
RECONCILE_S = 600.0

# PS3.4 section A.4.
VERIFICATION = "1.2.840.10008.1.1"

# PS3.8 section 9.3.4: result (1 permanent), source (1 service user), reason.
_CALLED_AE_NOT_RECOGNIZED = (1, 1, 7)
_CALLING_AE_NOT_RECOGNIZED = (1, 1, 3)


def utc_now() -> dt.datetime:
    """The time now, in UTC."""
    return dt.datetime.now(dt.UTC)


class OpenAssociations:
    """The associations that are open in this process, and their leases in the database."""

    def __init__(self, database: Database, clock: Callable[[], dt.datetime]) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._open: dict[Association, OpenAssociation] = {}

    def opened(self, assoc: Association) -> None:
        """An association was accepted."""
        entry = OpenAssociation(
            id=uuid.uuid4(),
            caller=str(assoc.requestor.ae_title).strip(),
            address=str(assoc.requestor.address),
            opened_at=self._clock(),
        )
        with self._lock:
            self._open[assoc] = entry
        with contextlib.suppress(DatabaseUnavailable):  # the heartbeat makes it up
            self._renew([entry])

    def of(self, assoc: Association) -> OpenAssociation | None:
        """The entry of an open association."""
        with self._lock:
            return self._open.get(assoc)

    def closed(self, assoc: Association) -> None:
        """An association was released, aborted or lost; more than once changes nothing."""
        with self._lock:
            entry = self._open.pop(assoc, None)
        if entry is None:
            return
        # Should the database be away, the lease runs out by itself.
        with contextlib.suppress(DatabaseUnavailable), self._database.session() as session:
            associations.end_leases(session, [entry.id])

    def heartbeat(self) -> None:
        """Renew the leases of all that are open.

        Raises:
            DatabaseUnavailable: they could not be renewed.
        """
        with self._lock:
            entries = list(self._open.values())
        self._renew(entries)
        with self._database.session() as session:
            associations.drop_expired_leases(session)

    def _renew(self, entries: Sequence[OpenAssociation]) -> None:
        with self._database.session() as session:
            associations.renew_leases(session, entries)


class Listener:
    """The DICOM acceptor of this process.

    Args:
        settings: everything about it.
        database: for the index and the leases; it may be away, objects are taken all the same.
        spool: where objects go.
        clock: the time now, in UTC.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        database: Database,
        spool: Spool,
        *,
        clock: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        self._settings = settings
        index = Index(database, spool, timezone=settings.timezone, callers=settings.callers, clock=clock)
        self.intake = Intake(spool, index, clock=clock)
        self._open = OpenAssociations(database, clock)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._server: ThreadedAssociationServer | None = None
        # The day from which on files may lack rows; None: all days. Known when the database has told it.
        self._horizon: dt.date | None = None
        self._horizon_known = False
        self._reconciled_at = 0.0

    @property
    def port(self) -> int:
        """The port that is listened on; useful where the settings say 0."""
        if self._server is None:
            return self._settings.port
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to accept associations.

        Raises:
            OSError: the port is taken, or the spool cannot be written.
        """
        self.intake.spool.prepare()
        # What an earlier process left without rows is found before this one writes any.
        self.intake.backlog.set()
        self._server = self._serve()
        for name, work in (("lease-heartbeat", self._beat), ("index-reconciler", self._reconcile)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        log.info("listening for associations", ae_title=self._settings.ae_title, port=self.port)

    def stop(self, grace: float = 10.0) -> None:
        """Accept no more, let open associations finish for ``grace`` seconds, then abort them."""
        server, self._server = self._server, None
        if server is None:
            return
        server.shutdown()
        deadline = time.monotonic() + grace
        while server.active_associations and time.monotonic() < deadline:
            time.sleep(0.05)
        for assoc in server.active_associations:
            assoc.abort()
        self._stopping.set()
        for thread in self._threads:
            thread.join(timeout=5)
        log.info("stopped listening")

    def _serve(self) -> ThreadedAssociationServer:
        prepare_library()
        settings = self._settings
        ae = AE(ae_title=settings.ae_title)
        ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        ae.maximum_pdu_size = settings.max_pdu
        ae.maximum_associations = settings.max_associations
        ae.acse_timeout = settings.acse_timeout
        ae.dimse_timeout = settings.dimse_timeout
        ae.network_timeout = settings.network_timeout
        ae.add_supported_context(VERIFICATION)
        handlers: list[EventHandlerType] = [
            (evt.EVT_CONN_OPEN, set_no_delay),
            (evt.EVT_REQUESTED, self._admit),
            (evt.EVT_REJECTED, _log_full),
            (evt.EVT_ACCEPTED, lambda event: self._open.opened(event.assoc)),
            (evt.EVT_RELEASED, lambda event: self._open.closed(event.assoc)),
            (evt.EVT_ABORTED, lambda event: self._open.closed(event.assoc)),
            (evt.EVT_CONN_CLOSE, lambda event: self._open.closed(event.assoc)),
            (evt.EVT_C_ECHO, answer_echo),
            (evt.EVT_C_STORE, self._store),
        ]
        server = ae.start_server((settings.host, settings.port), block=False, evt_handlers=handlers)
        if server is None:
            raise OSError("pynetdicom started no server")
        return server

    def _admit(self, event: Event) -> None:
        """Reject an association that is not for us, or from nobody we know; otherwise leave it to be negotiated."""
        primitive = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
        calling, called = str(primitive.calling_ae_title).strip(), str(primitive.called_ae_title).strip()
        address = str(event.assoc.requestor.address)
        if called != self._settings.ae_title:
            verdict, reason = _CALLED_AE_NOT_RECOGNIZED, "called AE title not recognized"
        elif not may_call(self._settings.callers, calling, address):
            verdict, reason = _CALLING_AE_NOT_RECOGNIZED, "calling AE title or its host not recognized"
        else:
            return
        log.warning("association rejected", reason=reason, calling=calling, called=called, address=address)
        event.assoc.acse.send_reject(*verdict)
        event.assoc.kill()

    def _store(self, event: Event) -> Dataset:
        return answer_store(event, self.intake, self._open.of(event.assoc))

    def _beat(self) -> None:
        while not self._stopping.wait(HEARTBEAT_S):
            try:
                self._open.heartbeat()
            except DatabaseUnavailable:
                log.warning("leases could not be renewed; the database is away")

    def _reconcile(self) -> None:
        """Index what waits: at the start, whenever the database was away, and now and then."""
        while not self._stopping.is_set():
            if self.intake.backlog.is_set() or time.monotonic() - self._reconciled_at > RECONCILE_S:
                try:
                    self._reconcile_once()
                except DatabaseUnavailable:
                    self.intake.database_away.set()
                    self.intake.backlog.set()
                except Exception as error:  # boundary: the thread must live as long as the listener
                    self.intake.backlog.set()
                    log.error("files could not be indexed", error=where(error))
            self._stopping.wait(BACKLOG_RETRY_S)

    def _reconcile_once(self) -> None:
        index = self.intake.index
        if not self._horizon_known:
            self._horizon, self._horizon_known = backlog_since(index), True
        # Cleared first: what cannot be indexed from now on sets them again.
        self.intake.backlog.clear()
        self.intake.database_away.clear()
        began = index.today()
        done = reconcile(index, self._horizon)
        # Everything before is in the index now, so the next look need not go so far back.
        self._horizon = began - MARGIN
        self._reconciled_at = time.monotonic()
        if done.indexed or done.broken:
            log.info("indexed what had waited", files=done.indexed, broken=done.broken)


def _log_full(event: Event) -> None:
    log.warning(
        "association rejected", reason="as many as allowed are open", address=str(event.assoc.requestor.address)
    )
