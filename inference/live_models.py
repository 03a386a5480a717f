"""The registry as a process sees it that runs for weeks: it learns of a change without a restart."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import structlog

from fhir_records.errors import BundleError
from inference.registered import RegisteredModel
from inference.registry import Registry

_log = structlog.get_logger(__name__)


class LiveModels(Mapping[str, RegisteredModel]):
    """The active version of every model, by name, as the registry has it now. Any thread may ask.

    The registry's files are read again only where they changed; whatever is damaged then is told in the log, and what
    was good before stands. Raises BundleError where a model is damaged at the start.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._lock = threading.Lock()
        self._stamp = registry.stamp()
        self._active = {model.name: model for model in registry.list()}
        self._found: dict[tuple[str, str], RegisteredModel] = {}
        self._shadows: dict[str, RegisteredModel | None] = {}

    def __getitem__(self, name: str) -> RegisteredModel:
        return self._fresh()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fresh())

    def __len__(self) -> int:
        return len(self._fresh())

    def find(self, name: str, version: str) -> RegisteredModel | None:
        """A version of a model, active or not; None where it is not there, or damaged."""
        active = self._fresh().get(name)
        if active is not None and active.version == version:
            return active
        with self._lock:
            if (name, version) not in self._found:
                try:
                    self._found[name, version] = self._registry.find(name, version)
                except BundleError as error:
                    _log.warning("model version cannot be used", model=name, version=version, why=str(error))
                    return None
            return self._found[name, version]

    def shadow_of(self, name: str) -> RegisteredModel | None:
        """The version on trial beside the active one, if there is one that is sound."""
        self._fresh()
        with self._lock:
            if name not in self._shadows:
                try:
                    self._shadows[name] = self._registry.shadow_of(name)
                except BundleError as error:
                    _log.warning("version on trial cannot be used", model=name, why=str(error))
                    self._shadows[name] = None
            return self._shadows[name]

    def stamp(self) -> tuple[object, ...]:
        """Another one whenever what this gives has changed."""
        self._fresh()
        return self._stamp

    def _fresh(self) -> Mapping[str, RegisteredModel]:
        with self._lock:
            stamp = self._registry.stamp()
            if stamp != self._stamp:
                self._stamp, self._found, self._shadows = stamp, {}, {}
                try:
                    self._active = {model.name: model for model in self._registry.list()}
                    versions = {name: model.version for name, model in self._active.items()}
                    _log.info("models changed", models=versions)
                except BundleError as error:
                    _log.error("models changed, and one is damaged; those from before stand", why=str(error))
            return self._active
