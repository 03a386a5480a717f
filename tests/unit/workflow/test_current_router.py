"""The router of a worker that runs for weeks."""

from __future__ import annotations

import pytest

from fhir_records.errors import SettingsError
from workflow.router import CurrentRouter, ModelVersion, Route, Router


def _router(*versions: ModelVersion) -> Router:
    return Router([Route("all", "true", ("brain",), ())], versions)


def _planned(router: Router) -> str:
    (read,) = router.plan({"study": {}, "series": [], "patient": {}, "caller": {}})
    return read.model.version


def test_routes_ask_for_the_version_that_is_active_now() -> None:
    """After another version was activated, the next study is routed to it; nothing is compiled in between."""
    versions = [ModelVersion("brain", "1")]
    made = []

    def make() -> Router:
        made.append(versions[0].version)
        return _router(*versions)

    current = CurrentRouter(make, lambda: tuple(versions))
    assert [_planned(current()), _planned(current())] == ["1", "1"]
    versions[0] = ModelVersion("brain", "2")
    assert [_planned(current()), _planned(current())] == ["2", "2"]
    assert made == ["1", "2"]


def test_routes_that_no_longer_fit_leave_the_last_ones() -> None:
    """A model that a route names goes missing: the worker goes on with the routes that it has."""
    versions = [ModelVersion("brain", "1")]
    current = CurrentRouter(lambda: _router(*versions), lambda: tuple(versions))
    versions[0] = ModelVersion("chest", "1")
    assert _planned(current()) == "1"
    with pytest.raises(SettingsError, match="brain"):
        CurrentRouter(lambda: _router(*versions), lambda: tuple(versions))
