"""The routes of a site: which models read a study, where the answers and the images go, and why.

A route's rule is CEL over what `workflow.facts` names. All routes whose rule is true count; what they ask for is added
up, and the highest priority wins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from fhir_records.errors import SettingsError
from fhir_records.jobs import PRIORITIES
from fhir_records.model import Priority
from workflow.facts import Facts
from workflow.rules import Condition, Fault, Rule, RuleBroken, RuleFaults, Seen

log = structlog.get_logger(__name__)

# Facts that an explanation leaves out: a line for each image of a study says little, and a study may have thousands.
_NOT_KEPT = frozenset({"instance"})
_MOST_SERIES = 50  # that an explanation keeps


@dataclass(frozen=True, slots=True)
class Route:
    """One rule: the studies for which ``when`` is true are read by ``models``, and sent on to ``forward_to``."""

    name: str
    when: str  # CEL; must come to true or false
    models: tuple[str, ...]
    results_to: tuple[str, ...]
    priority: Priority = Priority.ROUTINE
    forward_to: tuple[str, ...] = ()
    number: int = 0  # of the `[[route]]` in its file, from 1; 0: it stands in none


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


@dataclass(frozen=True, slots=True)
class PlannedForward:
    """The images' way to another node, as all the routes together ask for it."""

    destination: str
    routes: tuple[str, ...]
    priority: Priority


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one route's rule came to for a study."""

    route: Route
    holds: bool | None  # None: it could not be evaluated, so it does not count
    condition: Condition


@dataclass(frozen=True, slots=True)
class Decision:
    """Where a study goes, and why."""

    facts: Facts
    verdicts: tuple[Verdict, ...]
    reads: tuple[PlannedRead, ...]
    forwards: tuple[PlannedForward, ...]
    order_priority: Priority = Priority.ROUTINE

    def to_json(self) -> dict[str, Any]:
        """As JSON values: what is kept beside the study, shown on its page, and given to programs."""
        facts = {name: value for name, value in self.facts.items() if name not in _NOT_KEPT}
        facts["series"] = list(facts.get("series", []))[:_MOST_SERIES]
        return {
            "facts": facts,
            "order_priority": self.order_priority.value,
            "routes": [
                {
                    "name": verdict.route.name,
                    "when": verdict.route.when,
                    "holds": verdict.holds,
                    "condition": verdict.condition.to_json(),
                    "models": list(verdict.route.models),
                    "results_to": list(verdict.route.results_to),
                    "forward_to": list(verdict.route.forward_to),
                    "priority": verdict.route.priority.value,
                }
                for verdict in self.verdicts
            ],
            "reads": [
                {
                    "model": read.model.name,
                    "version": read.model.version,
                    "routes": list(read.routes),
                    "results_to": list(read.results_to),
                    "priority": read.priority.value,
                }
                for read in self.reads
            ],
            "forwards": [
                {
                    "destination": forward.destination,
                    "routes": list(forward.routes),
                    "priority": forward.priority.value,
                }
                for forward in self.forwards
            ],
        }


# Where a rule's fault stands in the file of the rules: "line 12, column 9 of wetread.toml"; "" where that is not known.
Place = Callable[[Route, Fault], str]


class Router:
    """The compiled rules.

    Args:
        routes: in the order of the configuration.
        models: every model that a route may name.
        place: says where in its file a rule's fault stands.

    Raises:
        SettingsError: a rule does not parse, names what it does not see, or does not come to true or false; or a
            route names a model that is not there. All that is wrong is named.
    """

    def __init__(self, routes: Sequence[Route], models: Sequence[ModelVersion], place: Place | None = None) -> None:
        self._models = {model.name: model for model in models}
        self._rules: list[tuple[Route, Rule]] = []
        known = ", ".join(sorted(self._models)) or "none"
        faults: list[str] = []
        for route in routes:
            try:
                self._rules.append((route, Rule(route.when)))
            except RuleFaults as error:
                faults += [_fault_words(route, fault, place(route, fault) if place else "") for fault in error.faults]
            faults += [
                f'Route "{route.name}" names the model "{name}". Registered are: {known}.'
                for name in route.models
                if name not in self._models
            ]
        if faults:
            raise SettingsError("\n".join(faults))

    @property
    def asks_for_pixels(self) -> bool:
        """Whether a rule asks what the pixels show, which takes a moment to find out."""
        return any(rule.asks_for("image") for _, rule in self._rules)

    def plan(self, facts: Facts, order_priority: Priority = Priority.ROUTINE) -> tuple[PlannedRead, ...]:
        """What the rules ask to be read, without the reasons: see `decide`."""
        return self.decide(facts, order_priority).reads

    def decide(self, facts: Facts, order_priority: Priority = Priority.ROUTINE) -> Decision:
        """What the rules ask for: one read a model with every destination that some rule names, and the images' ways.

        Args:
            facts: as `workflow.facts.facts_of` makes them.
            order_priority: of the order behind the study; a route's priority counts where it is higher.
        """
        seen = Seen.of(facts)
        verdicts = tuple(_verdict(route, rule, seen) for route, rule in self._rules)
        asked: dict[str, list[Route]] = {}
        onward: dict[str, list[Route]] = {}
        for verdict in verdicts:
            if verdict.holds:
                for name in verdict.route.models:
                    asked.setdefault(name, []).append(verdict.route)
                for name in verdict.route.forward_to:
                    onward.setdefault(name, []).append(verdict.route)
        return Decision(
            facts=facts,
            verdicts=verdicts,
            reads=tuple(
                PlannedRead(
                    model=self._models[name],
                    routes=_names(routes),
                    results_to=tuple(dict.fromkeys(to for route in routes for to in route.results_to)),
                    priority=_highest(routes, order_priority),
                )
                for name, routes in asked.items()
            ),
            forwards=tuple(
                PlannedForward(name, _names(routes), _highest(routes, order_priority))
                for name, routes in onward.items()
            ),
            order_priority=order_priority,
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


def _verdict(route: Route, rule: Rule, seen: Seen) -> Verdict:
    try:
        holds: bool | None = rule.holds(seen)
    except RuleBroken:
        # Such as an index beyond a list. The other rules still count, and no rule matching is shown as "not routed".
        # What the library says of it may quote a value of the study, and stays out of the log.
        log.error("route could not be evaluated", route=route.name)
        holds = None
    return Verdict(route, holds, rule.explain(seen))


def _names(routes: Sequence[Route]) -> tuple[str, ...]:
    return tuple(route.name for route in routes)


def _highest(routes: Sequence[Route], order: Priority) -> Priority:
    return max((order, *(route.priority for route in routes)), key=PRIORITIES.__getitem__)


def _fault_words(route: Route, fault: Fault, place: str) -> str:
    where = f" ({place})" if place else ""
    line = route.when.split("\n")[fault.line - 1]
    pointer = " " * (fault.column - 1) + "^"
    return (
        f'Route "{route.name}", when: line {fault.line}, column {fault.column}{where}: {fault.words}.\n'
        f"    {line}\n    {pointer}"
    )
