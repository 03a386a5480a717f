"""A worker put together: models, routes, handlers, sweeps, and the Orthancs that are followed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from sqlalchemy.orm import Session

from deploy.settings import Settings
from deploy.wiring import index_of, installation_of, now, sender_settings, spool_of, sweeper_of, wait_for_database
from dicom_listener import orthanc, sender
from dicom_listener.intake import Intake
from dicom_listener.orthanc_follower import Follower
from dicom_listener.settings import Node, SenderSettings
from fhir_records import migrations
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable, OutOfSpace, PeerRefused, PeerUnavailable
from fhir_records.jobs import Handler, Job, JobWorker, request_route
from fhir_records.store.arrivals import FrozenRevision
from inference.registry import RegisteredModel, Registry
from inference.runner import ModelRunner
from workflow.delivery import Deliver, Send
from workflow.reading import Reader, ReadStudy
from workflow.rendering import RenderResult
from workflow.routing import ModelVersion, Route, Router, RouteRevision
from workflow.sweeps import Sweeper

log = structlog.get_logger(__name__)

SWEEP_S = 1.0
RECONCILE_S = 30.0


def router_of(settings: Settings, models: Sequence[RegisteredModel]) -> Router:
    """The compiled routes. Where none is configured every model is asked, and its contract decides.

    Raises:
        SettingsError: a rule is wrong, or names a model that is not registered.
    """
    routes = [
        Route(route.name, route.when, route.models, route.results_to, route.priority) for route in settings.file.route
    ]
    if not routes:
        everywhere = tuple(destination.name for destination in settings.file.destination)
        routes = [Route("default", "true", tuple(model.name for model in models), everywhere)]
    return Router(routes, [ModelVersion(model.name, model.version) for model in models])


def destinations(settings: Settings) -> Mapping[str, Send]:
    """A way to send for each configured destination, by its name."""
    ways: dict[str, Send] = {}
    for entry in settings.file.destination:
        node = Node(entry.name, entry.ae_title, entry.host, entry.port, entry.timeout_seconds)
        ways[entry.name] = partial(_store, node, sender_settings(settings))
    for archive in settings.file.orthanc:
        ways[archive.name] = partial(_upload, orthanc_node(settings, archive.name))
    return ways


def _store(node: Node, told: SenderSettings, content: bytes) -> tuple[int, str]:
    outcome = sender.send(content, node, told)
    return outcome.status, outcome.meaning


def _upload(node: orthanc.OrthancNode, content: bytes) -> tuple[int, str]:
    return 200, orthanc.upload(node, content).value


def orthanc_node(settings: Settings, name: str) -> orthanc.OrthancNode:
    """The configured Orthanc of this name."""
    entry = next(entry for entry in settings.file.orthanc if entry.name == name)
    return orthanc.OrthancNode(entry.name, entry.url, entry.username, entry.password, entry.timeout_seconds)


@dataclass(frozen=True, slots=True)
class WorkerParts:
    """What a worker's handlers are made of; tests hand in stand-ins."""

    database: Database
    settings: Settings
    models: Mapping[str, RegisteredModel]
    reader: Reader
    senders: Mapping[str, Send]


def handlers(parts: WorkerParts) -> Mapping[Job, Handler]:
    """What to do for each job."""
    database, settings = parts.database, parts.settings
    installation = installation_of(settings, database)
    path_of = spool_of(settings).path
    releases = {entry.name: entry.release for entry in settings.file.destination}
    route = RouteRevision(database, router_of(settings, list(parts.models.values())), installation)
    read = ReadStudy(database, parts.reader, parts.models, installation, path_of, now)
    render = RenderResult(database, installation, path_of, now, releases)
    deliver = Deliver(database, parts.senders, now)
    # Procrastinate looks at a task's own signature, so it gets functions, not the callable records themselves.
    return {
        Job.ROUTE: lambda revision_id: route(revision_id),
        Job.READ: lambda read_id: read(read_id),
        Job.RENDER: lambda result_id: render(result_id),
        Job.DELIVER: lambda delivery_id: deliver(delivery_id),
    }


class WorkRole:
    """A worker's process: jobs, sweeps, and the Orthancs that are followed."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._stop = threading.Event()
        self._worker: JobWorker | None = None

    def stop(self) -> None:
        """Finish what is under way and end."""
        self._stop.set()
        if self._worker is not None:
            self._worker.stop()

    def run(self) -> int:
        """Work until `stop`; the process's exit status."""
        if not wait_for_database(self._database, self._stop):
            return 0
        registry = Registry(self._settings.models)
        registry.ensure_shipped()
        models = {model.name: model for model in registry.list()}
        with ModelRunner(threads=self._settings.file.inference.threads) as runner:
            parts = WorkerParts(self._database, self._settings, models, runner, destinations(self._settings))
            self._worker = JobWorker(self._database, handlers(parts))
            sweeper = sweeper_of(self._settings, self._database)
            threads = [
                threading.Thread(target=self._sweep, args=(sweeper,), name="sweeps", daemon=True),
                *(
                    threading.Thread(target=self._follow, args=(entry.name,), name=f"orthanc {entry.name}", daemon=True)
                    for entry in self._settings.file.orthanc
                ),
            ]
            for thread in threads:
                thread.start()
            if self._stop.is_set():
                return 0
            log.info("worker ready", models=sorted(models))
            asked = self._worker.run()
            self._stop.set()
            for thread in threads:
                thread.join(timeout=10)
        return 0 if asked else 1

    def _sweep(self, sweeper: Sweeper) -> None:
        last_reconciled = time.monotonic()
        while not self._stop.wait(SWEEP_S):
            try:
                sweeper.sweep()
                if time.monotonic() - last_reconciled > RECONCILE_S:
                    last_reconciled = time.monotonic()
                    sweeper.reconcile()
            except DatabaseUnavailable:
                log.warning("sweep waits for the database")
            except Exception:  # boundary: one sweep that breaks must not end all later ones
                log.exception("sweep broke")

    def _follow(self, name: str) -> None:
        entry = next(entry for entry in self._settings.file.orthanc if entry.name == name)
        node = orthanc_node(self._settings, name)
        intake = Intake(spool_of(self._settings), index_of(self._settings, self._database), clock=now)

        def ask(session: Session, revision: FrozenRevision) -> None:
            request_route(session, revision.id)

        follower = Follower(node, self._database, intake, ask)
        pause = 0.0
        while not self._stop.wait(pause):
            try:
                pause = 0.0 if follower.follow_once() else entry.poll_seconds
            except (PeerUnavailable, PeerRefused, DatabaseUnavailable, OutOfSpace) as error:
                pause = min(60.0, max(pause, 1.0) * 2)
                log.warning("orthanc cannot be followed now", orthanc=name, error=type(error).__name__, pause_s=pause)
            except Exception:  # boundary: an Orthanc that cannot be followed must not end the worker
                pause = 60.0
                log.exception("following orthanc broke", orthanc=name)


def check_routes(settings: Settings) -> None:
    """See that the roles could run on these settings, without changing anything.

    Raises:
        SettingsError: the routes do not fit the models.
    """
    router_of(settings, Registry(settings.models).list())


def prepare(settings: Settings, database: Database, progress: Callable[[str], None]) -> None:
    """What has to be done once before the roles start: the schema, the folders, the shipped models, the rules.

    Args:
        settings: the configuration.
        database: answering.
        progress: told in words what is done next.

    Raises:
        SettingsError: the routes do not fit the models.
    """
    progress("Preparing the database")
    migrations.migrate(database)
    spool_of(settings).prepare()
    progress("Preparing the models")
    registry = Registry(settings.models)
    registry.ensure_shipped()
    check_routes(settings)
