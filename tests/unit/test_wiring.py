"""The parts put together: every destination has its way, every role loads what it needs and no more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy import work
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
    assert set(work.destinations(settings)) == {"pacs", "archive"}


def test_a_route_to_an_unknown_model_stops_the_start(tmp_path: Path) -> None:
    """Settings that name a model that is not registered are refused before any role runs."""
    (tmp_path / "wetread.toml").write_text(CONFIG)
    with pytest.raises(SettingsError, match="nobody"):
        work.check_routes(load(None, {"WETREAD_HOME": str(tmp_path)}))


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("deploy.cli", ("torch", "monai", "onnxruntime", "highdicom", "cel_expr_python", "fastapi")),
        ("deploy.work", ("torch", "monai", "onnxruntime", "fastapi")),
        ("web.app", ("torch", "monai", "onnxruntime", "pynetdicom", "highdicom")),
    ],
)
def test_a_role_loads_no_library_that_it_has_no_use_for(module: str, absent: tuple[str, ...]) -> None:
    """Supervisor and listener load no models, the worker no torch, the pages no DICOM network."""
    code = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def model(name: str, *modalities: str, kind: str = "finding") -> SimpleNamespace:
    contract = SimpleNamespace(kind=kind, required=SimpleNamespace(modality=modalities))
    return SimpleNamespace(name=name, version="1", contract=contract)


@pytest.mark.parametrize(
    ("modalities", "readers"),
    [
        (["MR"], ["brain"]),
        (["CR"], ["chest"]),
        (["CR", "MR"], ["brain", "chest"]),
        (["CT"], ["brain"]),
        ([], ["brain"]),
    ],
)
def test_without_routes_each_model_reads_its_modalities(
    tmp_path: Path, modalities: list[str], readers: list[str]
) -> None:
    """A study goes to the models made for it, one that suits none is refused by the first, and a guard reads none."""
    settings = load(None, {"WETREAD_HOME": str(tmp_path)})
    registered = [model("anatomy", kind="guard"), model("brain", "MR"), model("chest", "CR", "DX")]
    router = work.router_of(settings, registered)  # type: ignore[arg-type]
    plan = router.plan({"study": {"modalities": modalities}})
    assert sorted(read.model.name for read in plan) == readers
