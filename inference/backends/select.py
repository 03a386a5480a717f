"""Which engine runs a registered model here: the fastest whose answers were found to be the model's own."""

from __future__ import annotations

import json
from pathlib import Path

from fhir_records.errors import BundleError
from inference.backends import Backend
from inference.backends.onnx import OnnxBackend
from inference.backends.openvino import OpenVinoBackend, installed

EQUIVALENT = 0.02  # of a class's probability, from torch in fp32, on the golden cases


def open_backend(folder: Path, threads: int = 1) -> Backend:
    """The network in a registered model's folder. Raises BundleError where it does not load."""
    network = folder / "model.onnx"
    if installed() and _recorded(folder):
        try:
            fast = OpenVinoBackend(network, threads)
        except BundleError:
            return OnnxBackend(network, threads)
        if equivalent(_recorded(folder).get(fast.name)):
            return fast
    return OnnxBackend(network, threads)


def equivalent(by_class: dict[str, float] | None) -> bool:
    """Whether the recorded differences, by class, let a back end answer for the model."""
    return bool(by_class) and max((by_class or {}).values()) <= EQUIVALENT


def _recorded(folder: Path) -> dict[str, dict[str, float]]:
    """Differences by back end and class, as registration found them; of the quicker back ends alone."""
    try:
        record = json.loads((folder / "registered.json").read_text(encoding="utf-8"))
        found = record["export"]["probability_difference"]
    except (OSError, KeyError, TypeError, ValueError):  # registered by an older version: nothing was compared
        return {}
    return {name: by_class for name, by_class in (found or {}).items() if name != "onnx"}
