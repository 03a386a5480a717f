"""A network's last layer fitted anew to few images, without losing what it said of the images before.

With a few dozen people the network's features cannot be learned better, only read otherwise: moving all weights on so
few images bends the features and loses other images (Kumar et al., ICLR 2022). The fit has one best answer, which no
epochs, no learning rate and no chance have a part in.

What is kept needs none of the former images. A bundle stores the mean and the covariance of its training images'
features (`familiarity.KnownImages`). In coordinates in which that covariance is the identity, the squared length of a
change of the layer is the mean square by which it changes the logits of those images; so that length is what costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize

from inference.networks import split_last_layer
from inference.training.familiarity import KnownImages

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

# Cost of a mean squared change of one in a logit of the former images, in units of the loss. Found on the shipped brain
# model: from 0.01 to 0.1 new images are learned equally well, and the former ones are kept better.
KEEP = 0.1
_STEPS = 300


@dataclass(frozen=True, slots=True)
class LastLayer:
    """The linear layer that makes logits of features."""

    weight: Floats  # shape (classes, features)
    bias: Floats  # shape (classes,)

    @classmethod
    def of(cls, network: torch.nn.Module) -> LastLayer:
        """The network's own. Raises BundleError where it has none."""
        _, last = split_last_layer(network)
        return cls(last.weight.detach().double().numpy(), last.bias.detach().double().numpy())

    def logits(self, looks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Shape (images, classes), of features of shape (images, features)."""
        result: npt.NDArray[np.float32] = (looks @ self.weight.T + self.bias).astype(np.float32)
        return result

    def put_into(self, network: torch.nn.Module) -> None:
        """Make it the network's last layer."""
        linear = [module for module in network.modules() if isinstance(module, torch.nn.Linear)]
        with torch.no_grad():
            linear[-1].weight.copy_(torch.from_numpy(self.weight))
            linear[-1].bias.copy_(torch.from_numpy(self.bias))


def fitted_anew(
    before: LastLayer,
    known: KnownImages,
    looks: npt.NDArray[np.float32],
    labels: Labels,
    importance: Floats,
    keep: float = KEEP,
) -> LastLayer:
    """The layer that fits the images best for what its change costs.

    Args:
        before: the layer that it starts from.
        known: the features of the images that `before` was trained on.
        looks: features, shape (images, features).
        labels: shape (images,).
        importance: of each image, shape (images,); only their proportions count.
        keep: the price of change, see `KEEP`.
    """
    white = np.c_[(looks - known.mean) @ known.whitening, np.ones(len(looks))]
    said = before.logits(looks).astype(np.float64)
    share = importance / importance.sum()
    truth = np.eye(len(before.bias))[labels]

    def cost(values: Floats) -> tuple[float, Floats]:
        change = values.reshape(len(before.bias), -1)
        logs = _log_softmax(said + white @ change.T)
        loss = -(share * (truth * logs).sum(axis=1)).sum() + keep * np.square(change).sum()
        slope = ((np.exp(logs) - truth) * share[:, None]).T @ white + 2 * keep * change
        return float(loss), slope.ravel()

    start = np.zeros(len(before.bias) * white.shape[1])
    found = minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": _STEPS})
    change = found.x.reshape(len(before.bias), -1)
    turned = change[:, :-1] @ known.whitening.T
    return LastLayer(before.weight + turned, before.bias + change[:, -1] - turned @ known.mean)


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
