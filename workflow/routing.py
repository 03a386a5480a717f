"""Which model reads a study, and where the answer goes: the rules of `[[route]]`, in CEL.

CEL (https://cel.dev) is a language of expressions without side effects or loops, so a rule can do no harm and ends.
A rule sees:

- ``study``: ``Modality`` (of the images; the first where there are several), ``modalities`` (list),
  ``StudyDescription``, ``AccessionNumber``, ``images`` and ``series`` (numbers)
- ``series``: a list with ``Modality``, ``SeriesDescription``, ``images`` each
- ``patient``: ``PatientSex``, ``age`` in years (-1 where the birth date is not known)
- ``caller``: ``ae_title``, ``source`` ("dicom:CT1", "orthanc:archive")
- ``image``: ``anatomy``, what the pixels of the longest series show ("brain MR", "chest film", …, "" where that cannot
  be told): a header can be wrong. Looked at only where a rule asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import celpy
import celpy.adapter
import structlog
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError
from sqlalchemy.orm import Session

from fhir_records import audit, tables
from fhir_records.database import Database
from fhir_records.errors import SettingsError
from fhir_records.identities import log_id
from fhir_records.jobs import PRIORITIES, request_read
from fhir_records.model import AuditEntry, Installation, Instance, Priority, Study
from fhir_records.renderings.fhir import render_study
from fhir_records.store import fhir, results, steps, studies

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """One rule: the studies for which ``when`` is true are read by ``models``."""

    name: str
    when: str  # CEL; must come to true or false
    models: tuple[str, ...]
    results_to: tuple[str, ...]
    priority: Priority = Priority.ROUTINE


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A model that can be asked to read."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class PlannedRead:
    """One model's read, as all the routes together ask for it."""

    model: ModelVersion
    routes: tuple[str, ...]
    results_to: tuple[str, ...]
    priority: Priority


Facts = Mapping[str, Any]

# What the rules are tried on at start, so that a wrong name or type is found then and not with the first patient.
_SAMPLE_FACTS: Facts = {
    "study": {
        "Modality": "MR",
        "modalities": ["MR"],
        "StudyDescription": "",
        "AccessionNumber": "",
        "images": 1,
        "series": 1,
    },
    "series": [{"Modality": "MR", "SeriesDescription": "", "images": 1}],
    "patient": {"PatientSex": "", "age": -1},
    "caller": {"ae_title": "", "source": ""},
    "image": {"anatomy": ""},
}

# Images of a series that are looked at to tell what it shows.
_LOOKED_AT = 12

# Tells what these images show, by their pixels; "" where it cannot.
Look = Callable[[Sequence[Instance]], str]


class Router:
    """The compiled rules.

    Args:
        routes: in the order of the configuration.
        models: every model that a route may name.

    Raises:
        SettingsError: a rule does not parse, names what it does not see, or does not come to true or false; or a
            route names a model that is not there.
    """

    def __init__(self, routes: Sequence[Route], models: Sequence[ModelVersion]) -> None:
        self._models = {model.name: model for model in models}
        environment = celpy.Environment()
        self._rules = [(route, _compile(environment, route)) for route in routes]
        for route in routes:
            for name in route.models:
                if name not in self._models:
                    known = ", ".join(sorted(self._models)) or "none"
                    raise SettingsError(f'Route "{route.name}" names the model "{name}". Registered are: {known}.')

    @property
    def asks_for_pixels(self) -> bool:
        """Whether a rule asks what the pixels show, which takes a moment to find out."""
        return any(re.search(r"\bimage\b", route.when) for route, _ in self._rules)

    def plan(self, facts: Facts) -> tuple[PlannedRead, ...]:
        """What the rules ask for: one read a model, with every destination that some rule names.

        Args:
            facts: as `facts_of` makes them.
        """
        asked: dict[str, list[Route]] = {}
        for route, rule in self._rules:
            if _holds(route, rule, facts):
                for name in route.models:
                    asked.setdefault(name, []).append(route)
        return tuple(
            PlannedRead(
                model=self._models[name],
                routes=tuple(route.name for route in routes),
                results_to=tuple(dict.fromkeys(to for route in routes for to in route.results_to)),
                priority=max((route.priority for route in routes), key=PRIORITIES.__getitem__),
            )
            for name, routes in asked.items()
        )


class CurrentRouter:
    """The router for the models as they are now: made again where they have changed.

    Args:
        make: makes one.
        stamp: another value whenever the models have changed.

    Raises:
        SettingsError: the routes do not fit the models. Later on that is told in the log, and the last router stands.
    """

    def __init__(self, make: Callable[[], Router], stamp: Callable[[], object]) -> None:
        self._make, self._stamp_of = make, stamp
        self._stamp, self._router = stamp(), make()

    def __call__(self) -> Router:
        """The router."""
        stamp = self._stamp_of()
        if stamp != self._stamp:
            try:
                self._stamp, self._router = stamp, self._make()
            except SettingsError as error:
                log.error("routes do not fit the models any more; the last ones stand", why=str(error))
        return self._router


def _compile(environment: celpy.Environment, route: Route) -> celpy.Runner:
    where = f'Route "{route.name}", when = {route.when!r}'
    try:
        rule = environment.program(environment.compile(route.when))
    except CELParseError as error:
        raise SettingsError(f"{where}: not valid CEL at line {error.line}, column {error.column}.") from error
    try:
        answer = rule.evaluate(_activation(_SAMPLE_FACTS))
    except CELEvalError as error:
        raise SettingsError(
            f"{where}: line {error.line}, column {error.column}: a name that a rule does not see, or a comparison of"
            " different types. A rule sees study, series, patient, caller and image."
        ) from error
    if not isinstance(answer, celpy.celtypes.BoolType):
        raise SettingsError(f"{where}: comes to a {type(answer).__name__}, and must come to true or false.")
    return rule


def _holds(route: Route, rule: celpy.Runner, facts: Facts) -> bool:
    try:
        return bool(rule.evaluate(_activation(facts)))
    except CELEvalError as error:
        # Such as an index beyond a list. The other rules still count, and no rule matching is shown as "not routed".
        log.error("route could not be evaluated", route=route.name, line=error.line, column=error.column)
        return False


def _activation(facts: Facts) -> dict[str, Any]:
    return {name: celpy.adapter.json_to_cel(value) for name, value in facts.items()}


def facts_of(study: Study, caller: str, instances: Sequence[Instance], anatomy: str = "") -> Facts:
    """What the rules may know of a study's revision; ``anatomy`` is what its pixels show."""
    series = _by_series(instances)
    modalities = list(dict.fromkeys(instance.modality for instance in instances))
    birth, started = study.patient.birth_date, study.started_at
    had_birthday = birth and started and (started.month, started.day) >= (birth.month, birth.day)
    return {
        "study": {
            "Modality": modalities[0] if modalities else "",
            "modalities": modalities,
            "StudyDescription": study.description,
            "AccessionNumber": study.accession_number,
            "images": len(instances),
            "series": len(series),
        },
        "series": [
            {
                "Modality": images[0].modality,
                "SeriesDescription": images[0].series_description,
                "images": len(images),
            }
            for images in series
        ],
        "patient": {
            "PatientSex": study.patient.sex,
            "age": started.year - birth.year - (0 if had_birthday else 1) if birth and started else -1,
        },
        "caller": {"ae_title": caller, "source": study.source},
        "image": {"anatomy": anatomy},
    }


def some_images(instances: Sequence[Instance]) -> list[Instance]:
    """Images spread evenly over the longest series: enough to tell what it shows."""
    longest = max(_by_series(instances), key=len, default=[])
    count = min(_LOOKED_AT, len(longest))
    return [longest[(2 * number + 1) * len(longest) // (2 * count)] for number in range(count)]


def _by_series(instances: Sequence[Instance]) -> list[list[Instance]]:
    """The instances of each series, the series in the order in which they are met."""
    series: dict[str, list[Instance]] = {}
    for instance in instances:
        series.setdefault(instance.series_uid, []).append(instance)
    return list(series.values())


@dataclass(frozen=True, slots=True)
class RouteRevision:
    """The job: decide on a revision, once, and queue the reads that the rules ask for."""

    database: Database
    router: Router
    installation: Installation
    look: Look

    def __call__(self, revision_id: int) -> None:
        """Route the revision with this number; nothing happens where that is done."""
        anatomy = self._anatomy(revision_id) if self.router.asks_for_pixels else ""
        with self.database.session() as session:
            revision = studies.revision_row(session, revision_id)
            row = revision.study
            if not steps.finish(session, f"study:{row.id}", revision.number, "route"):
                return
            study = studies.study_record(session, row)
            instances = studies.revision_instances(session, row, revision.number)
            row.routed_revision = max(row.routed_revision, revision.number)
            if revision.number < row.revision:
                return  # newer images are there already, and their revision is routed by itself
            resources = render_study(self.installation, study, instances)
            fhir.put(session, resources, patient_id=study.patient.id, study_id=study.id)
            plan = self.router.plan(facts_of(study, row.caller, instances, anatomy))
            for read in plan:
                self._queue(session, row, read)
            audit.record(
                session,
                AuditEntry(
                    action="route",
                    actor="wetread",
                    study_uid=row.study_uid,
                    detail={"revision": revision.number, "reads": [read.model.name for read in plan]},
                ),
            )
            log.info("study routed", study=log_id(row.study_uid), revision=revision.number, reads=len(plan))

    def _anatomy(self, revision_id: int) -> str:
        """What the pixels show, found out before the study's row is locked: images of it may be arriving."""
        with self.database.session() as session:
            revision = studies.revision_row(session, revision_id)
            if steps.is_finished(session, f"study:{revision.study_id}", revision.number, "route"):
                return ""
            instances = studies.revision_instances(session, revision.study, revision.number)
        return self.look(some_images(instances))

    def _queue(self, session: Session, row: tables.Study, read: PlannedRead) -> None:
        priority = max(row.priority, read.priority, key=PRIORITIES.__getitem__)
        row.priority = priority
        read_id = results.queue_read(
            session,
            row,
            model=read.model.name,
            model_version=read.model.version,
            routes=read.routes,
            results_to=(*read.results_to, *_home(row.source)),
            priority=priority,
        )
        if read_id is not None:
            request_read(session, read_id, row.id, priority=priority)


def _home(source: str) -> tuple[str, ...]:
    """The Orthanc that a study was fetched from: its results go back there, whatever the routes say."""
    door, _, name = source.partition(":")
    return (name,) if door == "orthanc" else ()
