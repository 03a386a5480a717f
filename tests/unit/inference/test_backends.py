"""Which engine runs a model, and that each gives the model's answers."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from inference.backends import Outputs
from inference.backends.onnx import OnnxBackend
from inference.backends.openvino import OpenVinoBackend, installed
from inference.backends.select import equivalent, open_backend
from inference.golden import golden_inputs
from inference.registry import RegisteredModel


@pytest.fixture
def registered(tiny_model: RegisteredModel, tmp_path: Path) -> Path:
    """A copy of the tiny model's folder that a test may change."""
    return Path(shutil.copytree(tiny_model.path, tmp_path / "model"))


def _record(folder: Path, differences: object) -> None:
    path = folder / "registered.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["export"]["probability_difference"] = differences
    path.write_text(json.dumps(record), encoding="utf-8")


def test_outputs_go_by_their_names() -> None:
    """The order of a graph's outputs does not matter; a graph that names none of ours has its logits first."""
    logits, maps = np.zeros((2, 3)), np.ones((2, 3, 4, 4))
    assert Outputs.named({"maps": maps, "logits": logits}).logits is logits
    assert Outputs.named({"pred": logits}).logits is logits
    assert Outputs.named({"pred": logits}).maps is None


def test_two_back_ends_are_equivalent_only_where_all_classes_are() -> None:
    """One class that differs too far, or no record at all, keeps a back end away."""
    assert equivalent({"a": 0.001, "b": 0.019})
    assert not equivalent({"a": 0.001, "b": 0.021})
    assert not equivalent({})
    assert not equivalent(None)


@pytest.mark.parametrize("differences", [None, {}, {"onnx": {"glioma": 0.0}}, {"openvino f8": {"glioma": 0.0}}])
def test_without_a_comparison_the_model_runs_as_registered(registered: Path, differences: object) -> None:
    """A quick back end that was not compared with torch is not used, however it got onto the machine."""
    _record(registered, differences)
    assert isinstance(open_backend(registered), OnnxBackend)


def test_openvino_answers_as_the_model_does(registered: Path) -> None:
    """Where its recorded differences are small it is used, gives what ONNX Runtime gives, and reports nowhere."""
    if not installed():
        pytest.skip("SKIPPED LOUDLY: the optional extra openvino is not installed")
    network = registered / "model.onnx"
    name = OpenVinoBackend(network).name
    _record(registered, {name: {"glioma": 0.001}})
    chosen = open_backend(registered, 2)
    assert isinstance(chosen, OpenVinoBackend)
    inputs = golden_inputs(32)
    ours, theirs = chosen.run(inputs), OnnxBackend(network).run(inputs)
    assert ours.logits == pytest.approx(theirs.logits, abs=0.05)
    assert ours.maps is not None
    assert ours.maps.shape == (6, 4, 1, 1)
    assert chosen.run(inputs[:1]).logits.shape == (1, 4)
    assert sys.modules["openvino_telemetry"] is None
    _record(registered, {name: {"glioma": 0.3}})
    assert isinstance(open_backend(registered), OnnxBackend)
