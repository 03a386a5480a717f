"""A worker put together: models, routes, handlers, sweeps, and the Orthancs that are followed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
from sqlalchemy.orm import Session

from deploy.settings import Settings
from deploy.wiring import (
    expecting_of,
    index_of,
    installation_of,
    node_of,
    now,
    sender_settings,
    spool_of,
    sweeper_of,
    wait_for_database,
)
from dicom_listener import orthanc, sender
from dicom_listener.intake import Intake
from dicom_listener.orthanc_follower import Follower
from dicom_listener.settings import Node, SenderSettings
from fhir_records import migrations
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable, ModelFailed, OutOfSpace, PeerRefused, PeerUnavailable
from fhir_records.jobs import Handler, Job, JobWorker, request_route
from fhir_records.model import Instance
from fhir_records.store.completeness import FrozenRevision
from inference.live_models import LiveModels
from inference.reading import ImageFile
from inference.registry import RegisteredModel, Registry
from inference.runner import ModelRunner
from workflow.delivery import Deliver, Send
from workflow.reading import Reader, ReadStudy
from workflow.rendering import RenderResult
from workflow.routing import CurrentRouter, ModelVersion, Route, Router, RouteRevision
from workflow.sweeps import Sweeper

log = structlog.get_logger(__name__)

SWEEP_S = 1.0
EXPECT_S = 2.0
RECONCILE_S = 30.0


def router_of(settings: Settings, models: Sequence[RegisteredModel]) -> Router:
    """The compiled routes; where none is configured, those of `default_routes`.

    Raises:
        SettingsError: a rule is wrong, or names a model that is not registered.
    """
    models = [model for model in models if model.contract.kind != "guard"]
    routes = [
        Route(route.name, route.when, route.models, route.results_to, route.priority) for route in settings.file.route
    ]
    if not routes:
        routes = default_routes(models, tuple(destination.name for destination in settings.file.destination))
    return Router(routes, [ModelVersion(model.name, model.version) for model in models])


def default_routes(models: Sequence[RegisteredModel], results_to: tuple[str, ...]) -> list[Route]:
    """Routes for a site that has configured none: each model reads the modalities that its contract asks for.

    A study that suits none is given to the first model, which refuses it in words: silence would look like "normal".
    """
    routes: list[Route] = []
    read: dict[str, None] = {}
    for model in models:
        modalities = model.contract.required.modality
        read.update(dict.fromkeys(modalities))
        when = _has_any(modalities) if modalities else "true"
        routes.append(Route(f"{model.name} by default", when, (model.name,), results_to))
    if models and all(model.contract.required.modality for model in models):
        routes.append(Route("read by none", f"!{_has_any(tuple(read))}", (models[0].name,), results_to))
    return routes


def _has_any(modalities: Sequence[str]) -> str:
    """The CEL expression that one of the study's modalities is among these."""
    # JSON's strings and lists are CEL's.
    return f"study.modalities.exists(modality, modality in {json.dumps(list(modalities))})"


def destinations(settings: Settings) -> Mapping[str, Send]:
    """A way to send for each configured destination, by its name."""
    ways: dict[str, Send] = {}
    for entry in settings.file.destination:
        ways[entry.name] = partial(_store, node_of(settings, entry), sender_settings(settings))
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
    models: LiveModels
    reader: Reader
    senders: Mapping[str, Send]


def handlers(parts: WorkerParts) -> Mapping[Job, Handler]:
    """What to do for each job."""
    database, settings = parts.database, parts.settings
    installation = installation_of(settings, database)
    path_of = spool_of(settings).path
    releases = {entry.name: entry.release for entry in settings.file.destination}
    router = CurrentRouter(lambda: router_of(settings, list(parts.models.values())), parts.models.stamp)
    look = partial(_look, parts, path_of)
    read = ReadStudy(database, parts.reader, parts.models, installation, path_of, now)
    render = RenderResult(database, installation, path_of, now, releases)
    deliver = Deliver(database, parts.senders, now)
    # Procrastinate looks at a task's own signature, so it gets functions, not the callable records themselves.
    return {
        Job.ROUTE: lambda revision_id: RouteRevision(database, router(), installation, look)(revision_id),
        Job.READ: lambda read_id: read(read_id),
        Job.RENDER: lambda result_id: render(result_id),
        Job.DELIVER: lambda delivery_id: deliver(delivery_id),
    }


def _look(parts: WorkerParts, path_of: Callable[[str], Path], instances: Sequence[Instance]) -> str:
    """What the images show, by the model `anatomy`; "" where that is not registered or cannot tell."""
    model = parts.models.get("anatomy")
    if model is None:
        return ""
    images = [
        ImageFile(str(path_of(entry.file_key)), entry.series_uid, entry.sop_uid, entry.sop_class_uid)
        for entry in instances
    ]
    try:
        return parts.reader.look(model, images)
    except ModelFailed as error:
        log.warning("anatomy could not be told", why=str(error))
        return ""


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
        models = LiveModels(registry)
        with ModelRunner(threads=self._settings.file.inference.threads) as runner:
            parts = WorkerParts(self._database, self._settings, models, runner, destinations(self._settings))
            self._worker = JobWorker(self._database, handlers(parts))
            sweeper = sweeper_of(self._settings, self._database)
            threads = [
                threading.Thread(target=self._sweep, args=(sweeper,), name="sweeps", daemon=True),
                threading.Thread(target=self._expect, name="expected numbers", daemon=True),
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

    def _expect(self) -> None:
        expecting = expecting_of(self._settings, self._database)
        while expecting.nodes and not self._stop.wait(EXPECT_S):
            try:
                expecting.look()
            except DatabaseUnavailable:
                log.warning("asking for numbers waits for the database")
            except Exception:  # boundary: a question that breaks must not end all later ones
                log.exception("asking for numbers broke")

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
