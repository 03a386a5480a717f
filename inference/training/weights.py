"""Weights on their way: into a run, between networks, into a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from fhir_records.errors import TrainingError
from inference.networks import MeanOfNetworks, build_network


def assembled(
    definition: Mapping[str, Any],
    state: Mapping[str, torch.Tensor],
    classes: int,
    others: Sequence[torch.nn.Module] = (),
    mirror: bool = False,
) -> tuple[Mapping[str, Any], torch.nn.Module]:
    """The network as it is shipped, with its definition: the trained one, or its mean with others of its build."""
    trained = build_network(definition, classes)
    trained.load_state_dict(_full(state))
    if not others and not mirror:
        return definition, trained.eval()
    together = MeanOfNetworks([trained, *others], mirror)
    together.load_state_dict(_full(weights_of(together)))  # measured as it is stored, in 16 bits
    whole = {
        "_target_": "inference.networks.MeanOfNetworks",
        "members": [dict(definition)] * (1 + len(others)),
        "mirror": mirror,
    }
    return whole, together.eval()


def warm(network: torch.nn.Module, bundle: Path) -> None:
    """Weights of another bundle's network of the same build, but for those whose shape differs."""
    stored = _full(load_file(bundle / "models" / "model.safetensors"))
    given = {name.removeprefix("trunks.0."): value for name, value in stored.items()}  # of several, the first
    own = network.state_dict()
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if len(fitting) < len(own) // 2:
        raise TrainingError(f"The weights of {bundle.name} are of a network of another build.")
    network.load_state_dict({**own, **fitting})


def _full(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}


def weights_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The network's state, contiguous as safetensors demands; in 16 bits, which halves the file."""
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
