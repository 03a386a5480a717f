"""A bundle's network as ONNX, checked against torch: `python -m inference.export BUNDLE`, run by the registry.

A process of its own, because it loads torch, which no process that serves may. Prints one line of JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from fhir_records.errors import BundleError, WetreadError
from inference.backends.onnx import OnnxBackend
from inference.contract import load_contract
from inference.golden import GOLDEN_FILE, golden_inputs
from inference.networks import NetworkWithFamiliarity, build_network

_TOLERANCE = 1e-3  # between torch and ONNX Runtime, both fp32: of a logit, and of a distance as a share of it
_GOLDEN_TOLERANCE = 5e-2  # between this machine's torch and the logits stored at training


def load_network(bundle: Path, classes: int) -> torch.nn.Module:
    """The bundle's network with its weights, fp32, in evaluation mode. Raises BundleError."""
    try:
        definition = json.loads((bundle / "configs/inference.json").read_text(encoding="utf-8"))["network_def"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"configs/inference.json has no network_def that can be read: {error}") from error
    network = build_network(definition, classes)
    try:
        state = load_file(bundle / "models" / "model.safetensors")
        network.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in state.items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise BundleError(f"models/model.safetensors does not fit network_def: {_first_line(error)}") from error
    return network.eval()


def with_familiarity(network: torch.nn.Module, bundle: Path) -> torch.nn.Module:
    """The network with the second output that the bundle's contract counts on. Raises BundleError."""
    try:
        stored = load_file(bundle / "models" / "familiarity.safetensors")
        return NetworkWithFamiliarity(network, stored["mean"].float(), stored["whitening"].float()).eval()
    except (OSError, KeyError, SafetensorError) as error:
        raise BundleError(f"models/familiarity.safetensors cannot be read: {_first_line(error)}") from error


def export(bundle: Path) -> dict[str, Any]:
    """Write `model.onnx` into the bundle and compare it with torch. Raises BundleError where they differ."""
    torch.set_num_threads(1)
    contract = load_contract(bundle / "contract.toml")
    network: torch.nn.Module = load_network(bundle, len(contract.classes))
    names = ["logits"]
    if contract.familiarity is not None:
        network, names = with_familiarity(network, bundle), ["logits", "distance"]
    inputs = torch.from_numpy(golden_inputs(contract.preprocess.size))
    target = bundle / "model.onnx"
    with torch.no_grad():
        made = network(inputs)
        expected = [output.numpy() for output in (made if len(names) > 1 else (made,))]
        torch.onnx.export(
            network,
            (inputs[:2],),
            str(target),
            input_names=["image"],
            output_names=names,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    backend = OnnxBackend(target)
    parts = [backend.run(inputs[:1].numpy()), backend.run(inputs[1:].numpy())]  # two sizes of batch
    difference = float(np.abs(np.concatenate([part.logits for part in parts]) - expected[0]).max())
    if len(names) > 1:
        distances = np.concatenate([cast(Any, part.distances) for part in parts])
        difference = max(difference, float(np.abs(distances / expected[1] - 1).max()))
    if not difference <= _TOLERANCE:
        raise BundleError(f"The exported network differs from torch by {difference:.3g}; {_TOLERANCE:g} is allowed.")
    return {"max_difference": difference, "golden_difference": _golden(bundle, expected[0]), "tolerance": _TOLERANCE}


def _golden(bundle: Path, logits: np.ndarray[Any, Any]) -> float | None:
    """How far these logits are from those stored at training; None where the bundle stores none."""
    path = bundle / GOLDEN_FILE
    if not path.exists():
        return None
    stored = np.array(json.loads(path.read_text(encoding="utf-8"))["logits"])
    difference = float(np.abs(stored - logits).max()) if stored.shape == logits.shape else float("inf")
    if not difference <= _GOLDEN_TOLERANCE:
        raise BundleError(
            f"The weights give other answers than when they were trained: a logit differs by {difference:.3g}; "
            f"{_GOLDEN_TOLERANCE:g} is allowed."
        )
    return difference


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def main() -> None:
    """Export the bundle named on the command line; exit status 1 and a message where that fails."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # the exporter prints
    warnings.simplefilter("ignore")
    logging.disable()
    reply: dict[str, Any]
    try:
        reply = {"exported": export(Path(sys.argv[1]))}
    except WetreadError as error:
        reply = {"failed": str(error)}
    except Exception as error:  # boundary: torch's exporter raises anything
        reply = {"failed": f"{type(error).__name__}: {_first_line(error)}"}
    answers.write(json.dumps(reply) + "\n")
    answers.flush()
    sys.exit("failed" in reply)


if __name__ == "__main__":
    main()
