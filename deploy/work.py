"""A worker put together: models, routes, handlers, sweeps, and the Orthancs that are followed."""

from __future__ import annotations

import datetime as dt
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy.orm import Session

from deploy.model_changes import ensure_shipped
from deploy.rule_places import place_in
from deploy.settings import Route as RouteEntry
from deploy.settings import Settings, parse_routes
from deploy.wiring import (
    commitment_reports,
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
from dicom_listener.bounded import BoundedDecoder, Bounds
from dicom_listener.commitment import request_commitment
from dicom_listener.intake import Intake
from dicom_listener.orthanc_follower import Follower
from dicom_listener.pixels import Decoder
from dicom_listener.query import has_object
from dicom_listener.settings import Node, SenderSettings
from fhir_records import migrations
from fhir_records.database import Database
from fhir_records.errors import DatabaseUnavailable, ModelFailed, OutOfSpace, PeerRefused, PeerUnavailable
from fhir_records.jobs import Handler, Job, JobWorker, request_route
from fhir_records.model import Instance
from fhir_records.renderings.kinds import KIND_OF_WORD, SR_CLASS_OF_WORD
from fhir_records.store.completeness import FrozenRevision
from inference.live_models import LiveModels
from inference.reading import ImageFile
from inference.registry import RegisteredModel, Registry
from inference.runner import ModelRunner
from workflow.confirmation import ByCommitment, ByReadingBack, Confirm, ConfirmWay
from workflow.delivery import Deliver, Send
from workflow.forwarding import ForwardImages, SendFiles, Sent
from workflow.headers import read_headers
from workflow.reading import Reader, ReadStudy
from workflow.rendering import RenderResult
from workflow.report_classes import ReportClasses
from workflow.router import CurrentRouter, ModelVersion, Route, Router
from workflow.routing import Look, RouteRevision
from workflow.rule_trials import TryRules
from workflow.sweeps import Sweeper
from workflow.withdrawal import ByDeletion, ByNote, Way, Withdraw

log = structlog.get_logger(__name__)

SWEEP_S = 1.0
EXPECT_S = 2.0
RECONCILE_S = 30.0


def router_of(settings: Settings, models: Sequence[RegisteredModel]) -> Router:
    """The compiled routes; where none is configured, those of `default_routes`.

    Raises:
        SettingsError: a rule is wrong, or names a model that is not registered.
    """
    routes = routes_of(settings.file.route)
    if not routes:
        finding = [model for model in models if model.contract.kind != "guard"]
        routes = default_routes(finding, tuple(destination.name for destination in settings.file.destination))
    place = place_in(settings.config_path) if settings.config_path else None
    return Router(routes, versions_of(models), place)


def routes_of(entries: Sequence[RouteEntry]) -> list[Route]:
    """The configured routes, as routing takes them."""
    return [
        Route(entry.name, entry.when, entry.models, entry.results_to, entry.priority, entry.forward_to, number)
        for number, entry in enumerate(entries, start=1)
    ]


def versions_of(models: Sequence[RegisteredModel]) -> list[ModelVersion]:
    """The models that a route may name: no guard, which answers other models alone."""
    return [ModelVersion(model.name, model.version) for model in models if model.contract.kind != "guard"]


def router_for(settings: Settings, models: Sequence[RegisteredModel], rules: str) -> Router:
    """The routes of a text of `[[route]]` tables, which stand in no file.

    Raises:
        SettingsError: the text is no TOML, a route is wrong, or a rule is.
    """
    return Router(routes_of(parse_routes(rules, settings)), versions_of(models), place_in(rules))


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
    classes = sr_classes_of(settings)
    for entry in settings.file.destination:
        ways[entry.name] = partial(_store, node_of(settings, entry), sender_settings(settings), classes[entry.name])
    for archive in settings.file.orthanc:
        ways[archive.name] = partial(_upload, orthanc_node(settings, archive.name))
    return ways


def image_senders(settings: Settings, decoder: Decoder) -> Mapping[str, SendFiles]:
    """A way to send images on to each configured destination, by its name."""
    ways: dict[str, SendFiles] = {}
    for entry in settings.file.destination:
        ways[entry.name] = partial(_store_all, node_of(settings, entry), sender_settings(settings), decoder)
    for archive in settings.file.orthanc:
        ways[archive.name] = partial(_upload_all, orthanc_node(settings, archive.name))
    return ways


def sr_classes_of(settings: Settings) -> Mapping[str, tuple[str, ...]]:
    """The SOP classes in which each destination is offered reports, the first choice first, by its name."""
    chosen = [(entry.name, entry.sr_classes) for entry in settings.file.destination]
    chosen += [(entry.name, entry.sr_classes) for entry in settings.file.orthanc]
    return {name: tuple(SR_CLASS_OF_WORD[word] for word in words) for name, words in chosen}


def sources_of(settings: Settings) -> Mapping[str, frozenset[str]]:
    """As whose source the record knows each destination: what came from there is not sent back."""
    nodes = {entry.name: frozenset({f"dicom:{entry.ae_title}"}) for entry in settings.file.destination}
    return nodes | {entry.name: frozenset({f"orthanc:{entry.name}"}) for entry in settings.file.orthanc}


def _store_all(node: Node, told: SenderSettings, decoder: Decoder, paths: Sequence[Path]) -> Iterator[Sent]:
    with closing(sender.send_files(paths, node, told, decoder=decoder)) as outcomes:
        for outcome in outcomes:
            if outcome.may_pass:
                raise PeerUnavailable(outcome.meaning, status=outcome.status)
            yield Sent(outcome.delivered, outcome.status, outcome.meaning)


def _upload_all(node: orthanc.OrthancNode, paths: Sequence[Path]) -> Iterator[Sent]:
    for path in paths:
        try:
            yield Sent(True, 200, orthanc.upload(node, path.read_bytes()).value)
        except PeerRefused as error:
            yield Sent(False, error.status, str(error))
        except OSError:
            yield Sent(False, None, "The file cannot be read; run `wetread doctor`.")


def ways_to_withdraw(settings: Settings) -> Mapping[str, Way]:
    """How each destination's objects are taken back, by its name."""
    ways: dict[str, Way] = {}
    for entry in settings.file.destination:
        if entry.withdraw == "iocm":
            ways[entry.name] = ByNote(entry.rejection_title, entry.rejection_reason)
        elif entry.withdraw == "orthanc_rest":
            ways[entry.name] = ByDeletion(partial(orthanc.remove, orthanc_node(settings, entry.orthanc)))
    for archive in settings.file.orthanc:
        if archive.withdraw == "orthanc_rest":
            ways[archive.name] = ByDeletion(partial(orthanc.remove, orthanc_node(settings, archive.name)))
    return ways


def ways_to_confirm(settings: Settings) -> Mapping[str, ConfirmWay]:
    """How each destination is asked whether it keeps what it took, by its name."""
    ways: dict[str, ConfirmWay] = {}
    told = sender_settings(settings)
    for entry in settings.file.destination:
        node = node_of(settings, entry)
        if entry.storage_commitment:
            ways[entry.name] = ByCommitment(partial(request_commitment, node, told))
        elif entry.read_back:
            ways[entry.name] = ByReadingBack(partial(has_object, node, told))
    for archive in settings.file.orthanc:
        if archive.read_back:
            ways[archive.name] = ByReadingBack(partial(_has_instance, orthanc_node(settings, archive.name)))
    return ways


def _has_instance(node: orthanc.OrthancNode, _study_uid: str, _series_uid: str, sop_uid: str) -> bool:
    return orthanc.has_instance(node, sop_uid)


def _store(node: Node, told: SenderSettings, sr_classes: Sequence[str], content: bytes) -> tuple[int, str]:
    outcome = sender.send(content, node, told, sr_classes)
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
    image_senders: Mapping[str, SendFiles] = field(default_factory=dict)


def handlers(parts: WorkerParts) -> Mapping[Job, Handler]:
    """What to do for each job."""
    database, settings = parts.database, parts.settings
    installation = installation_of(settings, database)
    path_of = spool_of(settings).path
    releases = {entry.name: entry.release for entry in settings.file.destination}
    chosen = [(entry.name, entry.objects) for entry in settings.file.destination]
    chosen += [(entry.name, entry.objects) for entry in settings.file.orthanc]
    objects = {name: frozenset(KIND_OF_WORD[word] for word in words) for name, words in chosen}
    router = CurrentRouter(lambda: router_of(settings, list(parts.models.values())), parts.models.stamp)
    look = look_with(parts.models, parts.reader, path_of)
    read = ReadStudy(database, parts.reader, parts.models, installation, path_of, now)
    # A decoder of its own process: no image can hang or end the worker.
    display = BoundedDecoder(Bounds(processes=1)).display_frame
    render = RenderResult(database, installation, path_of, now, releases, objects, display)
    forward = ForwardImages(database, parts.image_senders, path_of, now)
    zone = ZoneInfo(settings.file.site.timezone)
    headers = partial(read_headers, path_of)
    sources = sources_of(settings)

    def clock() -> dt.datetime:
        return now().astimezone(zone)

    def route(revision_id: int) -> None:
        RouteRevision(database, router(), installation, look, headers, clock, sources)(revision_id)

    def rules_router(rules: str) -> Router:
        return router_for(settings, list(parts.models.values()), rules)

    try_rules = TryRules(database, rules_router, look, headers, zone, now)
    asked = ways_to_confirm(settings)
    limits = {entry.name: entry.max_at_once for entry in settings.file.destination}
    classes = ReportClasses(installation, now, sr_classes_of(settings))
    deliver = Deliver(database, parts.senders, now, limits, asked, classes)
    confirm = Confirm(database, asked, commitment_reports(settings, database), now)
    withdraw = Withdraw(database, installation, ways_to_withdraw(settings), now)
    # Procrastinate looks at a task's own signature, so it gets functions, not the callable records themselves.
    return {
        Job.ROUTE: route,
        Job.READ: lambda read_id: read(read_id),
        Job.RENDER: lambda result_id: render(result_id),
        Job.DELIVER: lambda delivery_id: deliver(delivery_id),
        Job.FORWARD: lambda forward_id: forward(forward_id),
        Job.TRY_RULES: lambda trial_id: try_rules(trial_id),
        Job.WITHDRAW: lambda delivery_id: withdraw(delivery_id),
        Job.CONFIRM: lambda delivery_id: confirm(delivery_id),
    }


def look_with(models: Mapping[str, RegisteredModel], reader: Reader, path_of: Callable[[str], Path]) -> Look:
    """Tells what images show, by the model `anatomy`; "" where that is not registered or cannot tell."""

    def look(instances: Sequence[Instance]) -> str:
        model = models.get("anatomy")
        if model is None:
            return ""
        images = [
            ImageFile(str(path_of(entry.file_key)), entry.series_uid, entry.sop_uid, entry.sop_class_uid)
            for entry in instances
        ]
        try:
            return reader.look(model, images)
        except ModelFailed as error:
            log.warning("anatomy could not be told", why=str(error))
            return ""

    return look


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
        ensure_shipped(registry, self._database)
        models = LiveModels(registry)
        with ModelRunner(threads=self._settings.file.inference.threads) as runner, BoundedDecoder() as decoder:
            parts = WorkerParts(
                self._database,
                self._settings,
                models,
                runner,
                destinations(self._settings),
                image_senders(self._settings, decoder),
            )
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
    ensure_shipped(registry, database)
    check_routes(settings)
