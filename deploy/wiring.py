"""The settings turned into what each part is told, and the parts that every role shares."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import structlog

from deploy import embedded_postgres
from deploy.settings import Destination, Settings
from dicom_listener.arrivals import CompletionRules, rules_of
from dicom_listener.index import Index
from dicom_listener.processes import ListenerProcesses
from dicom_listener.settings import Caller, ClientTls, ListenerSettings, Node, SenderSettings, TlsSettings
from dicom_listener.spool import Spool
from fhir_records import migrations
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable
from fhir_records.model import Installation
from fhir_records.store.studies import installation_namespace
from web.settings import WebSettings

if TYPE_CHECKING:  # the listener is many processes, and needs none of them
    from workflow.confirmation import TakeCommitmentReport
    from workflow.expecting import Expecting
    from workflow.sweeps import Sweeper

log = structlog.get_logger(__name__)


def now() -> dt.datetime:
    """The instant, in UTC: the one clock that the parts are given."""
    return dt.datetime.now(dt.UTC)


@contextmanager
def open_database(settings: Settings) -> Iterator[Database]:
    """The configured database, or the embedded one, started where it does not run and kept for as long as needed."""
    with ExitStack() as stack:
        url = settings.database_url or stack.enter_context(embedded_postgres.lifetime(settings.home))
        database = Database(url)
        stack.callback(database.close)
        yield database


def wait_for_database(database: Database, stop: threading.Event) -> bool:
    """Wait until the database answers with the right schema; False where it was asked to stop meanwhile.

    Raises:
        SchemaError: the database answers with another version's schema.
    """
    told = False
    while not stop.is_set():
        try:
            migrations.check(database)
            return True
        except DatabaseUnavailable:
            if not told:
                log.warning("waiting for the database")
                told = True
            stop.wait(1.0)
    return False


def installation_of(settings: Settings, database: Database) -> Installation:
    """What is particular to this installation."""
    with database.session() as session:
        namespace = installation_namespace(session)
    site = settings.file.site
    return Installation(
        namespace=namespace,
        statement=site.statement,
        organization=site.organization,
        signed_is_final=settings.file.signing.signed_is_final,
    )


def spool_of(settings: Settings) -> Spool:
    """The folder of received objects."""
    return Spool(settings.spool, min_free_bytes=settings.file.dicom.min_free_mb * 2**20)


def index_of(settings: Settings, database: Database) -> Index:
    """The index of that folder."""
    return Index(
        database,
        spool_of(settings),
        timezone=ZoneInfo(settings.file.site.timezone),
        callers=listener_settings(settings).callers,
        clock=now,
    )


def listener_settings(settings: Settings) -> ListenerSettings:
    """What the listener has to be told."""
    dicom = settings.file.dicom
    destinations = {destination.name: destination for destination in settings.file.destination}
    callers = (
        Caller(
            entry.ae_title,
            entry.host,
            entry.issuer,
            certificate_sha256=entry.certificate_sha256,
            study_idle_seconds=entry.study_idle_seconds,
            study_max_seconds=entry.study_max_seconds,
            expected_numbers=entry.expected_numbers,
            ask=node_of(settings, destinations[entry.ask]) if entry.ask else None,
        )
        for entry in settings.file.caller
    )
    # A destination reports storage commitment to us, on an association of its own if it likes.
    reporters = (Caller(entry.ae_title, entry.host) for entry in settings.file.destination if entry.storage_commitment)
    return ListenerSettings(
        ae_title=dicom.ae_title,
        host=dicom.host,
        port=dicom.port,
        callers=tuple(callers),
        reporters=tuple(reporters),
        timezone=ZoneInfo(settings.file.site.timezone),
        processes=dicom.processes,
        max_associations=dicom.max_associations,
        max_associations_per_caller=dicom.max_associations_per_caller,
        max_connections_per_minute=dicom.max_connections_per_minute,
        max_object_bytes=dicom.max_object_mb * 2**20,
        min_bytes_per_second=dicom.min_bytes_per_second,
        acse_timeout=dicom.acse_timeout_seconds,
        dimse_timeout=dicom.dimse_timeout_seconds,
        network_timeout=dicom.network_timeout_seconds,
        tls=_tls_of(settings),
        min_free_bytes=dicom.min_free_mb * 2**20,
        study_idle_seconds=dicom.study_idle_seconds,
        study_max_seconds=dicom.study_max_seconds,
    )


def _tls_of(settings: Settings) -> TlsSettings | None:
    tls = settings.file.dicom.tls
    if tls is None:
        return None
    return TlsSettings(
        certificate=settings.beside(tls.certificate),
        key=settings.beside(tls.key),
        port=tls.port,
        client_ca=settings.beside(tls.client_ca) if tls.client_ca else None,
        only=tls.only,
    )


def node_of(settings: Settings, destination: Destination) -> Node:
    """The node that a `[[destination]]` is."""
    tls = None
    if destination.tls:
        tls = ClientTls(
            ca=settings.beside(destination.tls_ca) if destination.tls_ca else None,
            certificate=settings.beside(destination.tls_certificate) if destination.tls_certificate else None,
            key=settings.beside(destination.tls_key) if destination.tls_key else None,
            server_name=destination.tls_server_name,
        )
    return Node(
        destination.name, destination.ae_title, destination.host, destination.port, destination.timeout_seconds, tls
    )


def web_settings(settings: Settings) -> WebSettings:
    """What the pages have to be told."""
    http = settings.file.http
    return WebSettings(
        public_url=settings.public_url,
        spool_root=settings.spool,
        statement=settings.file.site.statement,
        timezone=ZoneInfo(settings.file.site.timezone),
        version=version("wetread"),
        secure_cookies=http.secure_cookies,
        session_hours=http.session_hours,
        idle_minutes=http.idle_minutes,
        store_max_object_bytes=http.store_max_object_mb * 2**20,
        store_max_objects=http.store_max_objects,
        ae_title=settings.file.dicom.ae_title,
        dicom_port=settings.file.dicom.port,
        min_free_bytes=settings.file.dicom.min_free_mb * 2**20,
        organization=settings.file.site.organization,
        identifier_scheme=settings.file.signing.identifier_scheme,
    )


def completion_rules(settings: Settings) -> CompletionRules:
    """When a study is complete."""
    dicom = settings.file.dicom
    callers = listener_settings(settings).callers
    return rules_of(callers, dicom.study_idle_seconds, dicom.study_max_seconds)


def sweeper_of(settings: Settings, database: Database) -> Sweeper:
    """What looks for work that has come due."""
    from fhir_records.store.destinations import Fallback
    from workflow.sweeps import Sweeper

    fallbacks = {
        entry.name: Fallback(entry.fallback, dt.timedelta(seconds=entry.fallback_after_seconds))
        for entry in settings.file.destination
        if entry.fallback
    }
    return Sweeper(database, completion_rules(settings), now, fallbacks)


def commitment_reports(settings: Settings, database: Database) -> TakeCommitmentReport:
    """What writes reports of storage commitment down, wherever they come in."""
    from workflow.confirmation import TakeCommitmentReport

    ae_titles = {entry.name: entry.ae_title for entry in settings.file.destination if entry.storage_commitment}
    return TakeCommitmentReport(database, ae_titles, now)


def expecting_of(settings: Settings, database: Database) -> Expecting:
    """What asks PACS for the numbers of instances."""
    from dicom_listener.asking import study_numbers
    from workflow.expecting import Expecting

    us = sender_settings(settings)
    nodes = {caller.ae_title: caller.ask for caller in listener_settings(settings).callers if caller.ask}
    return Expecting(database, nodes, lambda node, study_uid: study_numbers(node, us, study_uid))


def sender_settings(settings: Settings) -> SenderSettings:
    """What sending has to be told."""
    return SenderSettings(ae_title=settings.file.dicom.ae_title)


class ListenRole:
    """The listener's parent process."""

    def __init__(self, settings: Settings, database: Database) -> None:
        # The engine of this process is never used: a connection does not live through a fork.
        told = listener_settings(settings)
        self._processes = ListenerProcesses(
            told,
            spool_of(settings),
            lambda: Database(database.url),
            clock=now,
            reports=(lambda: commitment_reports(settings, Database(database.url))) if told.reporters else None,
        )
        self._stop = threading.Event()
        self._grace_s = 20.0

    def stop(self) -> None:
        """Let the associations that are open finish what they send, and end."""
        self._stop.set()

    def run(self) -> int:
        """Listen until `stop`; the process's exit status.

        The database may be away: what arrives is safe in its file, and is indexed later.
        """
        self._processes.run(self._stop, self._grace_s)
        return 0


def viewer_is_built() -> bool:
    """Whether the viewer's files are there; the pages work without it, but show no images."""
    return (Path(__file__).parents[1] / "web" / "static" / "viewer" / "viewer.js").is_file()
