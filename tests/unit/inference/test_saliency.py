"""Class activation maps: out of the graph, in the frame's geometry."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fhir_records.errors import BundleError
from inference.answers import KeyImage
from inference.backends.onnx import OnnxBackend
from inference.golden import golden_inputs
from inference.preprocess import PreprocessSettings, find_head, find_subject, prepare
from inference.registry import RegisteredModel
from inference.saliency import (
    Crop,
    activation_map,
    crop_of,
    energy_inside,
    evidence,
    packed,
    raw_map,
    unpacked,
)
from tests.unit.inference.samples import TINY_NETWORK

KEY = KeyImage("1.2", "1.2.3", "1.2.840.10008.5.1.4.1.1.4", None)
SETTINGS = PreprocessSettings(size=32)


def _picture(rows: int = 200, columns: int = 160) -> np.ndarray:
    """A bright ellipse off the middle."""
    row, column = np.mgrid[0:rows, 0:columns]
    inside = ((row - 110) / 70) ** 2 + ((column - 90) / 50) ** 2 < 1
    return np.where(inside, 500 + row, 3).astype(np.float32)


def test_the_map_of_each_class_has_the_logit_as_its_mean(tiny_model: RegisteredModel) -> None:
    """In the exported graph a class's map and its logit differ by the class's bias alone, the same for every image."""
    outputs = OnnxBackend(tiny_model.path / "model.onnx").run(golden_inputs(tiny_model.contract.preprocess.size))
    assert outputs.maps is not None
    bias = outputs.logits - outputs.maps.mean(axis=(2, 3))
    assert np.ptp(bias, axis=0) == pytest.approx(0, abs=1e-4)
    assert np.ptp(outputs.logits, axis=0).min() > 1e-4


def test_other_weights_give_other_maps() -> None:
    """A map depends on the weights: with random others it is another picture, not the same one a little scaled."""
    import torch

    from inference.class_maps import NetworkWithMaps
    from inference.networks import build_network

    pictures = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        # Larger than the tiny network's square, so that the map has enough cells to be compared.
        maps = NetworkWithMaps(build_network(TINY_NETWORK, 4), 160)(torch.from_numpy(golden_inputs(160)))[2]
        pictures.append((maps[:, 0] - maps[:, 2]).detach().numpy())
    correlation = np.corrcoef(pictures[0].ravel(), pictures[1].ravel())[0, 1]
    assert abs(correlation) < 0.8


def test_a_network_without_a_global_average_gives_no_maps() -> None:
    """Where average and last layer cannot change places, that is said, and nothing is made up."""
    import torch

    from inference.class_maps import NetworkWithMaps

    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    with pytest.raises(BundleError, match="no global average"):
        NetworkWithMaps(flat, 8)
    nonlinear = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 1),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Tanh(),
        torch.nn.Linear(4, 3),
    )
    with pytest.raises(BundleError, match="gives no maps"):
        NetworkWithMaps(nonlinear, 8)


def test_an_ensemble_gives_maps() -> None:
    """Several networks averaged in one graph, mirrored looks included, give the maps of their mean."""
    import torch

    from inference.class_maps import NetworkWithMaps
    from inference.networks import MeanOfNetworks, build_network

    torch.manual_seed(3)
    both = MeanOfNetworks([build_network(TINY_NETWORK, 4) for _ in range(2)], mirror=True).eval()
    image = torch.randn(2, 1, 160, 160)
    logits, _, maps = NetworkWithMaps(both, 160)(image)
    assert torch.allclose(logits, both(image), atol=1e-4)
    assert torch.allclose(maps.mean(dim=(2, 3)) + both.last.bias, logits, atol=1e-4)


@pytest.mark.parametrize("name", ["EfficientNetBN", "DenseNet121"])
def test_the_networks_offered_give_maps(name: str) -> None:
    """MONAI's EfficientNet and DenseNet end as the maps need it."""
    import torch

    from inference.class_maps import NetworkWithMaps
    from inference.networks import build_network

    given = {"spatial_dims": 2, "in_channels": 1, "pretrained": False}
    extra = {"model_name": "efficientnet-b0"} if name == "EfficientNetBN" else {}
    network = build_network({"_target_": f"monai.networks.nets.{name}", **given, **extra}, 3).eval()
    image = torch.randn(1, 1, 64, 64)
    logits, _, maps = NetworkWithMaps(network, 64)(image)
    assert maps.shape == (1, 3, 2, 2)
    assert torch.allclose(logits, network(image), atol=1e-4)


def test_crop_and_padding_are_undone() -> None:
    """What is bright in one corner of the network's square lies there in the frame, too."""
    image = _picture()
    head = find_head(image, SETTINGS)
    assert head is not None
    prepared = prepare(image, SETTINGS)
    assert prepared is not None
    square = prepared[0] - prepared[0].min()  # as if the network's map were its own input
    drawn = raw_map(square, crop_of(head, SETTINGS))
    assert drawn.shape == image.shape
    centre = [float((drawn.sum(axis=axis) * np.arange(drawn.shape[1 - axis])).sum() / drawn.sum()) for axis in (1, 0)]
    shown = image * head.mask
    # The picture is brighter below; percentiles and standardising keep that, so the centres of mass nearly agree.
    wanted = [float((shown.sum(axis=axis) * np.arange(shown.shape[1 - axis])).sum() / shown.sum()) for axis in (1, 0)]
    assert centre == pytest.approx(wanted, abs=6)
    assert energy_inside(drawn, head.mask) > 0.95


def test_each_cell_lies_where_its_share_of_the_square_lies() -> None:
    """A single cell's map has its middle in the middle of that cell, in a frame that the square reaches beyond."""
    cells = np.zeros((5, 5), np.float32)
    cells[1, 3] = 2.0
    crop = Crop(top=-10, left=20, side=100, rows=80, columns=130)
    drawn = raw_map(cells, crop)
    assert np.unravel_index(drawn.argmax(), drawn.shape) in {(19, 89), (20, 89), (19, 90), (20, 90)}
    assert drawn.max() == pytest.approx(2.0, rel=0.1)
    assert not drawn[:, :20].any()
    assert not drawn[:, 120:].any()


@pytest.mark.parametrize("crop", ["frame", "none"])
def test_a_film_is_not_cut_to_a_head(crop: str) -> None:
    """Where the whole picture is shown to the network its map covers the whole picture."""
    image = _picture(90, 160)
    settings = PreprocessSettings(size=32, crop=crop)
    subject = find_subject(image, settings)
    assert subject is not None
    drawn = activation_map(np.ones((5, 5), np.float32), subject, settings)
    assert drawn.shape == image.shape
    assert np.array_equal(drawn > 0.5, subject.mask)


def test_nothing_is_drawn_outside_the_head() -> None:
    """The network was not shown what lies outside the head; a map says nothing of it."""
    image = _picture()
    head = find_head(image, SETTINGS)
    assert head is not None
    drawn = activation_map(np.ones((5, 5), np.float32), head, SETTINGS)
    assert energy_inside(drawn, head.mask) == 1
    assert drawn[head.mask].min() > 0.5


def test_evidence_for_a_finding_is_against_nothing_there() -> None:
    """A finding's map is what speaks for it more than for its absence; what speaks against it is 0."""
    maps = np.zeros((3, 2, 2), np.float32)
    maps[0, 0, 0], maps[2, 0, 0], maps[2, 1, 1] = 3.0, 1.0, 2.0
    assert evidence(maps, 0, 2).tolist() == [[2, 0], [0, 0]]
    assert evidence(maps, 2, 2).tolist() == [[0, 0], [0, 2]]


def test_a_packed_map_comes_back() -> None:
    """Through JSON and back a map keeps its values to half a level, its frame's proportions and its key image."""
    image = _picture()
    head = find_head(image, SETTINGS)
    assert head is not None
    cells = np.random.default_rng(0).random((5, 5)).astype(np.float32)
    found = packed(cells, head, SETTINGS, KEY, "glioma")
    values = unpacked(found._replace(**json.loads(json.dumps({"values": found.values}))))
    assert values.shape == (64, 51)
    assert (found.image, found.label) == (KEY, "glioma")
    assert values.max() == pytest.approx(found.peak)
    whole = activation_map(cells, head, SETTINGS)
    assert values[32, 28] == pytest.approx(whole[int(32.5 * 200 / 64), int(28.5 * 160 / 51)], abs=0.05)


def test_bytes_that_are_no_map_are_refused() -> None:
    """A map whose bytes do not fit its shape raises and draws nothing."""
    head = find_head(_picture(), SETTINGS)
    assert head is not None
    found = packed(np.ones((5, 5), np.float32), head, SETTINGS, KEY, "glioma")
    with pytest.raises(ValueError):
        unpacked(found._replace(rows=found.rows + 1))
