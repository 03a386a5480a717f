"""Class activation maps out of the network's own graph (Zhou et al., CVPR 2016). Loads torch: only export imports this.

Where a network ends in a global average and one linear layer, the average and the layer change places: the layer, put
to every cell of the last features, gives a map for each class whose mean, with the bias, is the class's logit. Nothing
is estimated and no gradient is needed.
"""

from __future__ import annotations

import torch

from fhir_records.errors import BundleError
from inference.networks import split_last_layer, without_pooling


class NetworkWithMaps(torch.nn.Module):
    """A network's logits, its features and its class activation maps.

    Raises BundleError where the network does not end in a global average and one linear layer.
    """

    def __init__(self, network: torch.nn.Module, size: int) -> None:
        """`size` is the pixels a side of the input, for which the cells are counted."""
        super().__init__()
        features, self.last = split_last_layer(network.eval())
        self.features = without_pooling(features)
        with torch.no_grad():
            cells = self.features(torch.zeros(1, 1, size, size)).numel() / self.last.in_features
            self.side = round(cells**0.5)
            same = self.side**2 == cells and self._agrees(network, size)
        if not same:
            raise BundleError("The network does not end in a global average and one linear layer; it gives no maps.")

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Logits (images, classes), features (images, features) and maps (images, classes, side, side)."""
        cells = self.features(image).reshape(-1, self.last.in_features, self.side, self.side)
        features = cells.mean(dim=(2, 3))
        maps = torch.nn.functional.conv2d(cells, self.last.weight[:, :, None, None])
        return self.last(features), features, maps

    def _agrees(self, network: torch.nn.Module, size: int) -> bool:
        probe = torch.linspace(-1, 1, 2 * size * size).reshape(2, 1, size, size).sin()
        return torch.allclose(self(probe)[0], network(probe), atol=1e-3, rtol=1e-3)


class Exported(torch.nn.Module):
    """What is exported: logits, then the distance where the contract counts on it, then the maps."""

    mean: torch.Tensor
    whitening: torch.Tensor

    def __init__(self, network: NetworkWithMaps, known: tuple[torch.Tensor, torch.Tensor] | None) -> None:
        """`known` is the mean, shape (features,), and the whitening, shape (features, features), of training."""
        super().__init__()
        self.network, self.knows = network, known is not None
        width = network.last.in_features
        mean, whitening = known if known is not None else (torch.zeros(0), torch.zeros(0))
        if known is not None and (mean.shape != (width,) or whitening.shape != (width, width)):
            raise BundleError(f"models/familiarity.safetensors is not for the network's {width} features.")
        self.register_buffer("mean", mean)
        self.register_buffer("whitening", whitening)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Logits, distances (images,) where known, maps."""
        logits, features, maps = self.network(image)
        if not self.knows:
            return logits, maps
        white = (features - self.mean) @ self.whitening
        return logits, (white * white).mean(dim=1), maps
