"""Networks by the name that a MONAI bundle gives them. Loads torch: only training and export import this."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from monai.bundle.config_parser import ConfigParser

from fhir_records.errors import BundleError
from inference.preprocess import standardise

_ALLOWED = "monai.networks."


def build_network(definition: Mapping[str, Any], classes: int) -> torch.nn.Module:
    """The network of a bundle's `network_def`, with `classes` outputs.

    Only MONAI's own networks are built: a configuration names any importable thing, and a bundle comes from outside.
    Raises BundleError for anything else, and where the network refuses its arguments.
    """
    target = str(definition.get("_target_", ""))
    if not target.startswith(_ALLOWED):
        raise BundleError(f"network_def: _target_ is {target!r}; a network under {_ALLOWED!r} is allowed.")
    given = {key: value for key, value in definition.items() if key not in ("num_classes", "out_channels")}
    refused = [key for key, value in given.items() if _is_expression(value)]
    if refused:
        raise BundleError(
            f"network_def: {', '.join(refused)} are no plain values; expressions and references are not allowed."
        )
    outputs = "out_channels" if "DenseNet" in target else "num_classes"
    try:
        network = ConfigParser({"net": {**given, outputs: classes}}).get_parsed_content("net")
    except Exception as error:  # boundary: MONAI instantiates by name and raises what the network raises
        raise BundleError(f"network_def: {target} could not be built: {error}") from error
    if not isinstance(network, torch.nn.Module):
        raise BundleError(f"network_def: {target} is not a network.")
    return network


class NetworkWithFamiliarity(torch.nn.Module):
    """A network whose second output is each image's distance from the training images (`contract.Familiarity`)."""

    mean: torch.Tensor
    whitening: torch.Tensor

    def __init__(self, network: torch.nn.Module, mean: torch.Tensor, whitening: torch.Tensor) -> None:
        """`mean` has shape (features,), `whitening` (features, features). Raises BundleError where they do not fit."""
        super().__init__()
        self.features, self.last = split_last_layer(network)
        if mean.shape != (self.last.in_features,) or whitening.shape != 2 * (self.last.in_features,):
            raise BundleError(
                f"models/familiarity.safetensors is not for the network's {self.last.in_features} features."
            )
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits, shape (images, classes), and distances, shape (images,)."""
        features = self.features(image)
        white = (features - self.mean) @ self.whitening
        return self.last(features), (white * white).mean(dim=1)


def split_last_layer(network: torch.nn.Module) -> tuple[torch.nn.Module, torch.nn.Linear]:
    """A copy of the network that ends in its features, and the linear layer that makes logits of them.

    Raises BundleError where the network has no linear layer.
    """
    copied = copy.deepcopy(network)
    linear = [name for name, module in copied.named_modules() if isinstance(module, torch.nn.Linear)]
    if not linear:
        raise BundleError("network_def: the network has no linear layer whose inputs could be taken as features.")
    parent, _, name = linear[-1].rpartition(".")
    last = copied.get_submodule(linear[-1])
    setattr(copied.get_submodule(parent), name, torch.nn.Identity())
    return copied, cast(torch.nn.Linear, last)


def _is_expression(value: object) -> bool:
    """Whether MONAI's parser would evaluate or resolve the value, or instantiate something inside it."""
    if isinstance(value, str):
        return value.startswith(("$", "@", "%")) or "@" in value
    if isinstance(value, Mapping):
        return True
    return isinstance(value, (list, tuple)) and any(_is_expression(item) for item in value)


def predict(network: torch.nn.Module, squares: npt.NDArray[np.uint8], batch: int = 64) -> npt.NDArray[np.float32]:
    """The network's outputs (logits, or features), shape (images, outputs), for preprocessed squares; eager, fp32."""
    network.eval()
    rows: list[npt.NDArray[np.float32]] = []
    with torch.no_grad():
        for start in range(0, len(squares), batch):
            inputs = np.stack([standardise(s.astype(np.float32) / 255.0) for s in squares[start : start + batch]])
            rows.append(network(torch.from_numpy(inputs)[:, None]).numpy())
    return np.concatenate(rows)
