"""Changes of the registry in the audit trail: which model reads the scans, since when, and on whose word.

The registry is files, the trail is rows, and no transaction spans both. So the trail is opened first: where it cannot
be written nothing is changed, and a change that fails leaves no row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fhir_records import audit
from fhir_records.database import Database
from fhir_records.model import AuditEntry
from inference.registry import RegisteredModel, Registry, Standing

COMMAND_LINE = "command line"
WETREAD = "wetread"  # what it does by itself


@contextmanager
def recorded(database: Database, registry: Registry, action: str) -> Iterator[dict[str, Any]]:
    """A change that a person makes of one model.

    Args:
        database: for the trail.
        registry: that is changed inside.
        action: for the row, which also has what was in use before and after.

    Yields:
        The row's detail, to be told `model` and `version`.

    Raises:
        DatabaseUnavailable: the trail cannot be written; where that is so before the change, there is none.
    """
    detail: dict[str, Any] = {}
    with database.session() as session:
        session.connection()
        before = in_use(registry)
        yield detail
        name = str(detail["model"])
        detail |= {"before": before.get(name, {}), "after": in_use(registry).get(name, {})}
        audit.record(session, AuditEntry(action, COMMAND_LINE, detail=detail))


def told_of(model: RegisteredModel) -> dict[str, str]:
    """Which version of which model, for a row."""
    return {"model": model.name, "version": model.version, "device_uid": model.device_uid}


def ensure_shipped(registry: Registry, database: Database) -> None:
    """Add the models that come with Wetread and are not here yet, and say so in the trail.

    Raises:
        DatabaseUnavailable: the trail cannot be written.
    """
    with database.session() as session:
        session.connection()
        before = {(version.name, version.folder) for version in registry.versions()}
        registry.ensure_shipped()
        for version in registry.versions():
            if (version.name, version.folder) not in before:
                detail = {"model": version.name, "version": version.version, "after": in_use(registry)[version.name]}
                audit.record(session, AuditEntry("model registered", WETREAD, detail=detail))


def in_use(registry: Registry) -> dict[str, dict[str, str]]:
    """Of each model the folders of the versions that are active and on trial."""
    found: dict[str, dict[str, str]] = {}
    for version in registry.versions():
        used = found.setdefault(version.name, {})
        if version.standing is not Standing.KEPT:
            used[version.standing.value] = version.folder
    return found
