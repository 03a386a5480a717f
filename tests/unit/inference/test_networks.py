"""Networks by name, and several of them as one."""

from __future__ import annotations

import pytest
import torch
from monai.bundle.config_parser import ConfigParser

from fhir_records.errors import BundleError
from inference.networks import NETWORKS, MeanOfNetworks, build_network, split_last_layer, with_outputs
from tests.unit.inference.samples import TINY_NETWORK


@pytest.fixture
def images() -> torch.Tensor:
    """Two pictures of noise."""
    return torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["resnet_tiny", "resnet_small", "efficientnet_b0", "seed_cnn64", "seed_cnn5"])
def test_a_named_network_is_built_and_takes_a_step(name: str, images: torch.Tensor) -> None:
    """Each network by name answers with the classes asked for, ends in a linear layer, and learns."""
    torch.manual_seed(1)
    network = build_network(NETWORKS[name], 4)
    optimizer = torch.optim.RMSprop(network.parameters(), lr=1e-3)
    loss = torch.nn.functional.cross_entropy(network(images), torch.tensor([0, 3]))
    loss.backward()  # type: ignore[no-untyped-call]
    before = split_last_layer(network)[1].weight.clone()
    optimizer.step()
    assert network(images).shape == (2, 4)
    assert not torch.equal(before, split_last_layer(network)[1].weight)


def test_the_mean_of_networks_is_the_mean_of_their_logits(images: torch.Tensor) -> None:
    """Two networks as one answer with the mean of what each says, in one last layer over both's features."""
    members = [build_network(definition, 4).eval() for definition in (TINY_NETWORK, NETWORKS["resnet_tiny"])]
    together = MeanOfNetworks(members).eval()
    with torch.no_grad():
        expected = (members[0](images) + members[1](images)) / 2
        assert torch.allclose(together(images), expected, atol=1e-5)
    assert split_last_layer(together)[1].in_features == 8 + 128


def test_a_mirrored_picture_has_the_same_answer_where_both_are_looked_at(images: torch.Tensor) -> None:
    """With mirroring, left and right do not matter; without, they do."""
    member = build_network(TINY_NETWORK, 4).eval()
    with torch.no_grad():
        both, one = MeanOfNetworks([member], mirror=True).eval(), MeanOfNetworks([member]).eval()
        assert torch.allclose(both(images), both(images.flip(3)), atol=1e-5)
        assert not torch.allclose(one(images), one(images.flip(3)), atol=1e-5)


def test_a_stored_definition_is_one_that_monai_builds_too(images: torch.Tensor) -> None:
    """The network_def of several networks goes through MONAI's own parser and takes the same weights."""
    definition = {"_target_": "inference.networks.MeanOfNetworks", "members": [TINY_NETWORK] * 2, "mirror": True}
    ours = build_network(definition, 3).eval()
    theirs = ConfigParser({"net": with_outputs(definition, 3)}).get_parsed_content("net")
    theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs.eval()(images), atol=1e-6)


@pytest.mark.parametrize(
    "definition",
    [
        {"_target_": "os.system", "command": "true"},
        {"_target_": "inference.networks.MeanOfNetworks", "members": []},
        {"_target_": "inference.networks.MeanOfNetworks", "members": [{"_target_": "os.system"}]},
        {"_target_": "inference.networks.split_last_layer"},
        {**TINY_NETWORK, "block_inplanes": "$__import__('os').getpid()"},
    ],
)
def test_anything_but_a_network_is_refused(definition: dict[str, object]) -> None:
    """A definition that names something else, or hides an expression, is refused before anything is imported."""
    with pytest.raises(BundleError, match="network_def"):
        build_network(definition, 4)
