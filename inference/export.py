"""A bundle's network as ONNX, every back end checked against torch: `python -m inference.export BUNDLE`.

Run by the registry: a process of its own, because it loads torch, which no process that serves may. Prints one line of
JSON. Weights are safetensors; a bundle from elsewhere may bring a `model.pt`, of which torch takes tensors alone
(`weights_only`), and which is kept as safetensors.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import pydoc
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from fhir_records.errors import BundleError, WetreadError
from inference.backends import Backend, openvino
from inference.backends.onnx import OnnxBackend
from inference.bundle_metadata import read_metadata
from inference.class_maps import Exported, NetworkWithMaps
from inference.contract import Contract, load_contract
from inference.export_volumes import check_format, export_volumes
from inference.foreign import Format, network_format
from inference.golden import differences, golden_inputs, golden_logits, trained_difference
from inference.networks import NetworkWithFamiliarity, build_network

_TOLERANCE = 1e-3  # between torch and ONNX Runtime, both fp32: of a logit, and of a distance as a share of it
_WEIGHTS = "models/model.safetensors"
_TORCH_WEIGHTS = "models/model.pt"
_NAMES_OF_WEIGHTS = ("state_dict", "model", "model_state_dict", "net")  # under which a checkpoint may hold them


def load_network(bundle: Path, classes: int) -> torch.nn.Module:
    """The bundle's network with its weights, fp32, in evaluation mode. Raises BundleError."""
    network = build_network(_definition(bundle), classes)
    state = _state(bundle)
    try:
        network.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in state.items()})
    except RuntimeError as error:
        raise BundleError(f"{_weights_of(bundle)} does not fit network_def: {_first_line(error)}") from error
    return network.eval()


def _definition(bundle: Path) -> dict[str, Any]:
    """The bundle's network_def: MONAI's short names made long, and references to plain values replaced by these."""
    try:
        config = json.loads((bundle / "configs/inference.json").read_text(encoding="utf-8"))
        definition = dict(config["network_def"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"configs/inference.json has no network_def that can be read: {error}") from error
    target = str(definition.get("_target_", ""))
    if target and "." not in target:
        definition["_target_"] = f"monai.networks.nets.{target}"
    for key, value in definition.items():
        named = config.get(value[1:]) if isinstance(value, str) and value.startswith("@") else None
        if isinstance(named, bool | int | float | list):
            definition[key] = named
    if _takes(str(definition.get("_target_", "")), "pretrained"):
        definition["pretrained"] = False  # its weights come with it; nothing is fetched from anywhere
    return definition


def _takes(target: str, argument: str) -> bool:
    """Whether a network of MONAI's has an argument of this name."""
    found = pydoc.locate(target) if target.startswith("monai.networks.") else None
    return callable(found) and argument in inspect.signature(found).parameters


def _weights_of(bundle: Path) -> str:
    return _WEIGHTS if (bundle / _WEIGHTS).is_file() else _TORCH_WEIGHTS


def _state(bundle: Path) -> dict[str, torch.Tensor]:
    """The bundle's weights: tensors by name, whatever else a file of torch's may hold refused."""
    if _weights_of(bundle) == _WEIGHTS:
        try:
            loaded: dict[str, torch.Tensor] = load_file(bundle / _WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{_WEIGHTS} does not fit: {_first_line(error)}") from error
        return loaded
    try:
        found = torch.load(bundle / _TORCH_WEIGHTS, map_location="cpu", weights_only=True)
    except Exception as error:  # boundary: torch raises whatever its reader of archives raises
        raise BundleError(
            f"{_TORCH_WEIGHTS} holds more than tensors, or cannot be read ({type(error).__name__}); it is not loaded. "
            "Store the weights as safetensors."
        ) from error
    for name in _NAMES_OF_WEIGHTS:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise BundleError(f"{_TORCH_WEIGHTS} is no table of tensors by name.")
    return {str(name).removeprefix("module."): value for name, value in found.items()}


class Adapted(torch.nn.Module):
    """A network from elsewhere that takes and gives what Wetread's own do.

    It takes the standardised grey picture, shape (images, 1, size, size), scales it to the range that the network was
    trained on, and puts it into each of its channels. Where the network has one output, the logit of a finding, the
    logit of its absence, nought, is put before it.
    """

    def __init__(self, network: torch.nn.Module, form: Format) -> None:
        super().__init__()
        self.network, self.form = network, form

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, shape (images, classes)."""
        if self.form.value_range is not None:
            low, high = self.form.value_range
            least, most = image.amin(dim=(2, 3), keepdim=True), image.amax(dim=(2, 3), keepdim=True)
            image = low + (high - low) * (image - least) / (most - least).clamp(min=1e-6)
        logits: torch.Tensor = self.network(image.expand(-1, self.form.channels, -1, -1))
        logits = logits.flatten(1)
        return torch.nn.functional.pad(logits, (1, 0)) if len(self.form.labels) == 1 else logits


def adapted(bundle: Path, contract: Contract) -> torch.nn.Module:
    """The bundle's network, made to take and give what its contract says. Raises BundleError where it cannot."""
    form = network_format(read_metadata(bundle))
    outputs = len(contract.classes)
    if len(form.labels) not in ({outputs, 1} if outputs == 2 else {outputs}):
        raise BundleError(
            f"metadata.json names {len(form.labels)} outputs ({', '.join(form.labels)}), contract.toml {outputs}."
        )
    if form.size != contract.preprocess.size:
        raise BundleError(
            f"metadata.json has pictures of {form.size} pixels, contract.toml of {contract.preprocess.size}."
        )
    network = load_network(bundle, len(form.labels))
    own = form.channels == 1 and form.value_range is None and len(form.labels) > 1
    return network if own else Adapted(network, form).eval()


def with_familiarity(network: torch.nn.Module, bundle: Path) -> torch.nn.Module:
    """The network with the second output that the bundle's contract counts on. Raises BundleError."""
    return NetworkWithFamiliarity(network, *_known(bundle)).eval()


def exported_network(network: torch.nn.Module, bundle: Path, contract: Contract) -> tuple[torch.nn.Module, list[str]]:
    """What is exported, and the names of its outputs: class activation maps too where the network can give them."""
    known = contract.familiarity is not None
    try:
        with_maps = NetworkWithMaps(network, contract.preprocess.size)
    except BundleError:  # no global average: the model answers without saying where it looked
        return (with_familiarity(network, bundle), ["logits", "distance"]) if known else (network, ["logits"])
    whole = Exported(with_maps, _known(bundle) if known else None).eval()
    return whole, ["logits", *(["distance"] if known else []), "maps"]


def _known(bundle: Path) -> tuple[torch.Tensor, torch.Tensor]:
    try:
        stored = load_file(bundle / "models" / "familiarity.safetensors")
        return stored["mean"].float(), stored["whitening"].float()
    except (OSError, KeyError, SafetensorError) as error:
        raise BundleError(f"models/familiarity.safetensors cannot be read: {_first_line(error)}") from error


def export(bundle: Path) -> dict[str, Any]:
    """Write `model.onnx` into the bundle and compare it with torch. Raises BundleError where they differ."""
    torch.set_num_threads(1)
    contract = load_contract(bundle / "contract.toml")
    if contract.segmentation is not None:
        channels = check_format(bundle, contract.segmentation)
        network = load_network(bundle, channels)
        exported = export_volumes(network, channels, bundle, contract.segmentation)
        _keep_tensors_only(bundle)
        return exported
    network, names = exported_network(adapted(bundle, contract), bundle, contract)
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
    if expected[0].shape != (len(inputs), len(contract.classes)):
        raise BundleError(f"The network gives {expected[0].shape[1:]} logits for {len(contract.classes)} classes.")
    difference, apart = 0.0, {}
    for name, backend in _back_ends(target).items():
        logits = golden_logits(backend, contract.preprocess.size)
        difference = max(difference, float(np.abs(logits - expected[0]).max()))
        apart[name] = differences(contract, expected[0], logits)
        if "distance" in names:
            distances = cast(Any, backend.run(inputs.numpy()).distances)
            difference = max(difference, float(np.abs(distances / expected[1] - 1).max()))
    if not difference <= _TOLERANCE:
        raise BundleError(f"The exported network differs from torch by {difference:.3g}; {_TOLERANCE:g} is allowed.")
    apart.update(_lower_precision(target, contract, expected[0]))
    _keep_tensors_only(bundle)
    return {
        "max_difference": difference,
        "tolerance": _TOLERANCE,
        "probability_difference": apart,  # by back end and class, from torch, over the golden cases
        "golden_difference": trained_difference(bundle, expected[0]),
        "logits": golden_logits(OnnxBackend(target), contract.preprocess.size).tolist(),
    }


def _back_ends(network: Path) -> dict[str, Backend]:
    """What may run the exported network here in fp32."""
    return {"onnx": OnnxBackend(network)}


def _lower_precision(network: Path, contract: Contract, expected: np.ndarray[Any, Any]) -> dict[str, dict[str, float]]:
    """How far back ends of less precision are from torch: recorded, and judged by whoever would use them."""
    if not openvino.installed():
        return {}
    try:
        backend = openvino.OpenVinoBackend(network)
        return {backend.name: differences(contract, expected, golden_logits(backend, contract.preprocess.size))}
    except BundleError:  # it does not load the network: one back end less, and nothing wrong with the bundle
        return {}


def _keep_tensors_only(bundle: Path) -> None:
    """Weights that came in torch's own format stay as safetensors."""
    if not (bundle / _WEIGHTS).is_file():
        save_file({name: value.contiguous().clone() for name, value in _state(bundle).items()}, bundle / _WEIGHTS)
    (bundle / _TORCH_WEIGHTS).unlink(missing_ok=True)


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
