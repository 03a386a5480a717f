"""The parts put together: every job has its handler, every destination its way."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from deploy import wiring
from deploy.settings import load
from fhir_records.errors import SettingsError

CONFIG = """
[[destination]]
name = "pacs"
ae_title = "ORTHANC"
host = "127.0.0.1"
port = 4242

[[orthanc]]
name = "archive"
url = "http://127.0.0.1:8042"

[[route]]
name = "brain"
when = 'study.Modality == "MR"'
models = ["nobody"]
results_to = ["pacs"]
"""


def test_every_destination_has_a_way_to_send(tmp_path: Path) -> None:
    """DICOM destinations and Orthancs can both be named in results_to."""
    (tmp_path / "wetread.toml").write_text(CONFIG)
    settings = load(None, {"WETREAD_HOME": str(tmp_path)})
    assert set(wiring.destinations(settings)) == {"pacs", "archive"}


def test_a_route_to_an_unknown_model_stops_the_start(tmp_path: Path) -> None:
    """Settings that name a model that is not registered are refused before any role runs."""
    (tmp_path / "wetread.toml").write_text(CONFIG)
    with pytest.raises(SettingsError, match="nobody"):
        wiring.check(load(None, {"WETREAD_HOME": str(tmp_path)}))


def test_every_job_is_requested_with_what_its_handler_takes() -> None:
    """The ids that a job is asked for with are the arguments of its handler."""
    from workflow.delivery import Deliver
    from workflow.reading import ReadStudy
    from workflow.rendering import RenderResult
    from workflow.routing import RouteRevision

    source = inspect.getsource(wiring.handlers)
    for handler in (RouteRevision, ReadStudy, RenderResult, Deliver):
        (argument,) = [name for name in inspect.signature(handler.__call__).parameters if name != "self"]
        assert f"lambda {argument}:" in source
