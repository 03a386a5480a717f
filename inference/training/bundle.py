"""A trained model as a MONAI bundle with our contract in it."""

from __future__ import annotations

import json
import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from safetensors.torch import save_file

from fhir_records.errors import BundleError, TrainingError
from inference.contract import parse_contract, preprocess_table
from inference.drift import REFERENCE_FILE
from inference.golden import GOLDEN_FILE, golden_inputs, golden_record
from inference.networks import build_network, with_outputs
from inference.preprocess import PreprocessSettings
from inference.training.familiarity import KnownImages
from inference.training.report import model_card

_SHOWN = {"head": "head, cropped", "frame": "picture without its border", "none": "picture"}
LINEAGE = "lineage"  # key of metadata.json
_LICENSE = Path(__file__).with_name("recipes") / "LICENSE"


@dataclass(frozen=True, slots=True)
class Found:
    """The numbers of a contract that training finds."""

    temperature: float
    usual: float  # distance from the training images, see `contract.Familiarity`
    limit: float


@dataclass(frozen=True, slots=True)
class BundleParts:
    """What a bundle is made of."""

    contract: str  # contract.toml
    network_def: Mapping[str, Any]
    state: Mapping[str, torch.Tensor]  # the network's weights
    known: KnownImages
    metrics: Mapping[str, Any]
    split: Mapping[str, Any]
    drift: Mapping[str, Any] | None = None  # `drift.reference` of the training images
    lineage: Mapping[str, Any] | None = None  # the version and the cases that it was trained from


def contract_text(recipe: str, preprocess: PreprocessSettings, found: Found) -> str:
    """The recipe with what training found out added to it. Raises BundleError where the whole is no contract."""
    calibration = f"[calibration]\ntemperature = {found.temperature}\n"
    familiarity = f"[familiarity]\nusual = {found.usual}\nlimit = {found.limit}\n"
    text = "\n".join([recipe.rstrip() + "\n", preprocess_table(preprocess), calibration, familiarity])
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BundleError(f"The recipe is not TOML, or already has what training adds: {error}") from error
    parse_contract(document)
    if not {"source", "licence"} <= set(document.get("training_data", {})):
        raise BundleError("The recipe's [training_data] lacks source or licence.")
    return text


def write_bundle(output: Path, parts: BundleParts) -> None:
    """Write the bundle aside, then put it in its place; raises TrainingError where something else is there."""
    if output.exists() and not (output / "contract.toml").exists():
        raise TrainingError(f"{output} exists and is no bundle; name another folder.")
    document = tomllib.loads(parts.contract)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".bundle-", dir=output.parent) as made:
        folder = Path(made) / "bundle"
        for name in ("configs", "models", "docs"):
            (folder / name).mkdir(parents=True)
        (folder / "contract.toml").write_text(parts.contract, encoding="utf-8")
        network_def = with_outputs(parts.network_def, len(document["classes"]))
        _write_json(folder / "configs/inference.json", {"network_def": network_def})
        _write_json(folder / "configs/metadata.json", _metadata(document, parts.lineage))
        save_file(dict(parts.state), folder / "models/model.safetensors")
        save_file(parts.known.tensors(), folder / "models/familiarity.safetensors")
        _write_json(folder / "metrics.json", parts.metrics)
        (folder / "split.json").write_text(json.dumps(parts.split, separators=(",", ":")) + "\n", encoding="utf-8")
        if parts.drift is not None:
            _write_json(folder / REFERENCE_FILE, parts.drift)
        (folder / GOLDEN_FILE).write_text(
            json.dumps(_golden(document, parts.network_def, parts.state)) + "\n", encoding="utf-8"
        )
        (folder / "docs/README.md").write_text(model_card(parts.metrics, document), encoding="utf-8")
        shutil.copyfile(_LICENSE, folder / "LICENSE")
        if output.exists():
            shutil.rmtree(output)
        folder.rename(output)


def _golden(
    document: Mapping[str, Any], network_def: Mapping[str, Any], state: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    network = build_network(network_def, len(document["classes"]))
    network.load_state_dict({name: v.float() if v.is_floating_point() else v for name, v in state.items()})
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(golden_inputs(document["preprocess"]["size"]))).numpy()
    return golden_record(logits)


def _metadata(document: Mapping[str, Any], lineage: Mapping[str, Any] | None) -> dict[str, Any]:
    """MONAI's metadata.json (MONAI bundle specification, `metadata.json` schema), with the lineage if there is one."""
    size = document["preprocess"]["size"]
    labels = [item["label"] for item in document["classes"]]
    return {
        "name": document["title"],
        "version": document["version"],
        "changelog": {document["version"]: _change(lineage)},
        **({LINEAGE: dict(lineage)} if lineage else {}),
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {},
        "task": document["title"],
        "description": f"Classifies slices: {', '.join(labels)}. contract.toml says which it may be shown.",
        "authors": document["manufacturer"],
        "copyright": f"Copyright {document['manufacturer']}, Apache-2.0",
        "data_source": "{source} ({licence})".format(**document["training_data"]),
        "data_type": "image",
        "intended_use": "Evaluation only. Not a certified medical device.",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": " ".join(document["required"]["modality"]),
                    "num_channels": 1,
                    "spatial_shape": [size, size],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {"0": f"{_SHOWN[document['preprocess']['crop']]}, zero mean and unit variance"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "probabilities",
                    "format": "classes",
                    "num_channels": len(labels),
                    "spatial_shape": [],
                    "dtype": "float32",
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {str(number): label for number, label in enumerate(labels)},
                }
            },
        },
    }


def _change(lineage: Mapping[str, Any] | None) -> str:
    if lineage is None:
        return "trained by wetread train"
    return "trained by wetread train on reviewed cases, from {name} {version}".format(**lineage["base"])


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
