"""Networks by the name that a MONAI bundle gives them. Loads torch: only training and export import this."""

from __future__ import annotations

import copy
import inspect
import math
import pydoc
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from monai.bundle.config_parser import ConfigParser

from fhir_records.errors import BundleError
from inference.preprocess import standardise

_ALLOWED = "monai.networks."
_OUTPUT_KEYS = ("num_classes", "out_channels")
_OURS = "inference.networks."
_RESNET: Mapping[str, Any] = {
    "_target_": "monai.networks.nets.ResNet",
    "block": "basic",
    "spatial_dims": 2,
    "n_input_channels": 1,
    "conv1_t_stride": 2,
}
# What a training run may name instead of writing the definition out. The last two are baselines: networks of student
# projects, kept to be measured against.
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "resnet_tiny": {**_RESNET, "layers": [1, 1, 1, 1], "block_inplanes": [16, 32, 64, 128]},
    "resnet_small": {**_RESNET, "layers": [2, 2, 2, 2], "block_inplanes": [32, 64, 128, 256]},
    "resnet18": {**_RESNET, "layers": [2, 2, 2, 2], "block_inplanes": [64, 128, 256, 512]},
    "densenet121": {"_target_": "monai.networks.nets.DenseNet121", "spatial_dims": 2, "in_channels": 1},
    "efficientnet_b0": {
        "_target_": "monai.networks.nets.EfficientNetBN",
        "model_name": "efficientnet-b0",
        "spatial_dims": 2,
        "in_channels": 1,
        "pretrained": False,
    },
    "seed_cnn64": {"_target_": "inference.networks.SeedCnn64"},
    "seed_cnn5": {"_target_": "inference.networks.SeedCnn5"},
}


def build_network(definition: Mapping[str, Any], classes: int) -> torch.nn.Module:
    """The network of a bundle's `network_def`, with `classes` outputs.

    Only MONAI's networks and those of this module are built: a configuration names any importable thing, and a bundle
    comes from outside. Raises BundleError for anything else, and where the network refuses its arguments.
    """
    target = str(definition.get("_target_", ""))
    if target == f"{_OURS}MeanOfNetworks":
        members = definition.get("members")
        if not isinstance(members, list) or not members or not all(isinstance(item, Mapping) for item in members):
            raise BundleError("network_def: MeanOfNetworks needs a list of members, each a network definition.")
        if any(str(item.get("_target_")) == target for item in members):
            raise BundleError("network_def: a member of MeanOfNetworks is no MeanOfNetworks itself.")
        return MeanOfNetworks([build_network(item, classes) for item in members], bool(definition.get("mirror", False)))
    if target in (f"{_OURS}SeedCnn64", f"{_OURS}SeedCnn5"):
        return (SeedCnn64 if target.endswith("64") else SeedCnn5)(classes)
    if not target.startswith(_ALLOWED):
        raise BundleError(f"network_def: _target_ is {target!r}; a network under {_ALLOWED!r} is allowed.")
    given = {key: value for key, value in definition.items() if key not in _OUTPUT_KEYS}
    refused = [key for key, value in given.items() if _is_expression(value)]
    if refused:
        raise BundleError(
            f"network_def: {', '.join(refused)} are no plain values; expressions and references are not allowed."
        )
    try:
        network = ConfigParser({"net": with_outputs(given, classes)}).get_parsed_content("net")
    except Exception as error:  # boundary: MONAI instantiates by name and raises what the network raises
        raise BundleError(f"network_def: {target} could not be built: {error}") from error
    if not isinstance(network, torch.nn.Module):
        raise BundleError(f"network_def: {target} is not a network.")
    return network


def with_outputs(definition: Mapping[str, Any], classes: int) -> dict[str, Any]:
    """The definition as it stands in a bundle, where MONAI itself can build it: with the number of outputs."""
    if "members" in definition:
        return {**definition, "members": [with_outputs(item, classes) for item in definition["members"]]}
    given = {key: value for key, value in definition.items() if key not in _OUTPUT_KEYS}
    return {**given, _outputs_word(str(definition.get("_target_"))): classes}


def _outputs_word(target: str) -> str:
    """What a network of MONAI's calls the number of its outputs."""
    found = pydoc.locate(target)
    words = inspect.signature(found).parameters if callable(found) else {}
    named = [word for word in _OUTPUT_KEYS if word in words]
    if named:
        return named[0]
    return "out_channels" if "DenseNet" in target else "num_classes"  # those that pass it on unnamed


class MeanOfNetworks(torch.nn.Module):
    """Several networks as one: their features side by side, and one last layer whose logits are the mean of theirs.

    With `mirror`, each also looks at the image mirrored left to right, and the mean of both looks counts. Members end
    in a global average and one linear layer; what they see before the average is kept apart by place, so that
    activation maps come out as they do from one network. Raises BundleError for other members.
    """

    def __init__(self, members: Sequence[torch.nn.Module], mirror: bool = False) -> None:
        super().__init__()
        parts = [split_last_layer(member) for member in members]
        self.trunks = torch.nn.ModuleList([without_pooling(features) for features, _ in parts])
        self.widths = [last.in_features for _, last in parts]
        self.mirror = mirror
        self.pool = torch.nn.AdaptiveAvgPool2d(1)
        self.last = torch.nn.Linear(sum(self.widths), parts[0][1].out_features)
        with torch.no_grad():
            self.last.weight.copy_(torch.cat([last.weight for _, last in parts], dim=1) / len(parts))
            self.last.bias.copy_(torch.stack([last.bias for _, last in parts]).mean(dim=0))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, shape (images, classes)."""
        cells = self._cells(image)
        if self.mirror:
            cells = (cells + self._cells(image.flip(3)).flip(3)) / 2
        logits: torch.Tensor = self.last(self.pool(cells).flatten(1))
        return logits

    def _cells(self, image: torch.Tensor) -> torch.Tensor:
        """Every member's last features, shape (images, features, side, side); the first member sets the side."""
        looks: list[torch.Tensor] = []
        for trunk, width in zip(self.trunks, self.widths, strict=True):
            flat = trunk(image).flatten(1)
            side = math.isqrt(flat.shape[1] // width)
            cells = flat.reshape(-1, width, side, side)
            if looks and side != looks[0].shape[-1]:
                cells = torch.nn.functional.interpolate(cells, size=looks[0].shape[-1], mode="area")
            looks.append(cells)
        return torch.cat(looks, dim=1)


class SeedCnn64(torch.nn.Module):
    """A baseline: the student project's network for 64×64 grey slices, five 2×2 convolutions and two dense layers."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        for given, made in pairwise((1, 16, 32, 64, 64, 64)):
            layers += [torch.nn.Conv2d(given, made, 2, padding="same"), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        self.features = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(64 * 4, 128), torch.nn.ReLU())
        self.last = torch.nn.Linear(128, num_classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, shape (images, classes), for images of shape (images, 1, 64, 64)."""
        logits: torch.Tensor = self.last(self.features(image))
        return logits


class SeedCnn5(torch.nn.Module):
    """A baseline: the mammography project's five convolution layers, fed with filtered images (`filters.FILTERS`)."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        for given, made in pairwise((1, 32, 64, 128, 128, 256)):
            layers += [torch.nn.Conv2d(given, made, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        self.features = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        self.last = torch.nn.Linear(256, num_classes)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits, shape (images, classes)."""
        logits: torch.Tensor = self.last(self.features(image))
        return logits


def without_pooling(features: torch.nn.Module) -> torch.nn.Module:
    """The network, changed in place, without its last global average, so that it ends in the cells, flattened.

    Raises BundleError where it has none.
    """
    pools = [name for name, module in features.named_modules() if isinstance(module, torch.nn.AdaptiveAvgPool2d)]
    whole = [name for name in pools if cast(Any, features.get_submodule(name)).output_size in (1, (1, 1), [1, 1])]
    if not whole:
        raise BundleError("network_def: the network has no global average before its last layer.")
    parent, _, name = whole[-1].rpartition(".")
    setattr(features.get_submodule(parent), name, torch.nn.Identity())
    return features


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
