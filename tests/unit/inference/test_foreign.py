"""MONAI bundles from elsewhere: they work if they name inputs and outputs, and say why where they do not."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fhir_records.errors import BundleError
from inference.backends.onnx import OnnxBackend
from inference.contract import parse_contract
from inference.foreign import derived_contract
from inference.registry import Registry
from tests.unit.inference.samples import copy_of

NETWORK = {
    "_target_": "ResNet",
    "block": "basic",
    "layers": [1, 1, 1, 1],
    "block_inplanes": [4, 8, 8, 8],
    "spatial_dims": 2,
    "n_input_channels": "@channels",
    "num_classes": "@outputs",
}


def _metadata(**changed: Any) -> dict[str, Any]:
    image = {
        "type": "image",
        "modality": "CT",
        "num_channels": 3,
        "spatial_shape": [32, 32],
        "dtype": "float32",
        "value_range": [0, 255],
    }
    pred = {
        "type": "probabilities",
        "format": "classes",
        "num_channels": 2,
        "spatial_shape": [],
        "channel_def": {"0": "normal", "1": "bleeding"},
    }
    for key, value in changed.items():
        place, _, name = key.partition("__")
        {"image": image, "pred": pred}[place][name] = value
    return {
        "name": "Head CT bleeding",
        "version": "1.2",
        "authors": "A hospital",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }


def _write(folder: Path, metadata: Mapping[str, Any], channels: int = 3, outputs: int = 2) -> Path:
    """A bundle as others write them: short names, references, weights by torch.save, no contract."""
    import torch
    from monai.networks.nets.resnet import ResNet

    torch.manual_seed(3)
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    config = {"channels": channels, "outputs": outputs, "device": "$torch.device('cpu')", "network_def": NETWORK}
    (folder / "configs/inference.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "configs/metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    network = ResNet("basic", [1, 1, 1, 1], [4, 8, 8, 8], 2, channels, num_classes=outputs)
    torch.save({"model": network.state_dict()}, folder / "models/model.pt")
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for colour pictures from 0 to 255, with two outputs."""
    return _write(tmp_path_factory.mktemp("foreign") / "Head-CT", _metadata())


def test_a_bundle_from_elsewhere_is_registered(foreign: Path, tmp_path: Path) -> None:
    """Its contract comes from metadata.json, its weights become safetensors, and its range and channels are kept."""
    import torch
    from monai.networks.nets.resnet import ResNet

    model = Registry(tmp_path / "models").add(foreign)
    assert (model.name, model.version, model.manufacturer) == ("head_ct", "1.2", "A hospital")
    assert [(item.label, item.presence) for item in model.contract.classes] == [
        ("normal", "absent"),
        ("bleeding", "present"),
    ]
    assert model.contract.required.modality == ("CT",)
    assert any("not calibrated" in sentence for sentence in model.contract.limits)
    assert (model.path / "models/model.safetensors").exists()
    assert not (model.path / "models/model.pt").exists()
    record = json.loads((model.path / "registered.json").read_text(encoding="utf-8"))
    by_class = record["export"]["probability_difference"]["onnx"]
    assert set(by_class) == {"normal", "bleeding"}
    assert max(by_class.values()) < 1e-4

    network = ResNet("basic", [1, 1, 1, 1], [4, 8, 8, 8], 2, 3, num_classes=2)
    network.load_state_dict(torch.load(foreign / "models/model.pt", weights_only=True)["model"])
    picture = np.random.default_rng(0).normal(size=(1, 1, 32, 32)).astype(np.float32)
    scaled = (picture - picture.min()) / np.ptp(picture) * 255
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(np.repeat(scaled, 3, axis=1))).numpy()
    assert OnnxBackend(model.path / "model.onnx").run(picture).logits == pytest.approx(expected, abs=1e-3)


def test_one_output_means_there_or_not(tmp_path: Path) -> None:
    """A network with one logit gets a class for its absence, with the logit nought."""
    metadata = _metadata(pred__num_channels=1, pred__channel_def={"0": "bleeding"}, image__num_channels=1)
    model = Registry(tmp_path / "models").add(_write(tmp_path / "one", metadata, 1, 1))
    assert [item.label for item in model.contract.classes] == ["no bleeding", "bleeding"]
    logits = OnnxBackend(model.path / "model.onnx").run(np.zeros((2, 1, 32, 32), np.float32)).logits
    assert logits.shape == (2, 2)
    assert (logits[:, 0] == 0).all()


def test_a_contract_may_be_given(foreign: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Whoever knows the model better brings the contract; the bundle stays as it came."""
    given = tmp_path / "mine.toml"
    text = derived_contract(foreign).replace('name = "head_ct"', 'name = "bleeding_ct"')
    given.write_text(text.replace("min_images = 1", "min_images = 10"), encoding="utf-8")
    model = Registry(tmp_path / "models").add(foreign, contract=given)
    assert (model.name, model.contract.required.min_images) == ("bleeding_ct", 10)
    assert not (foreign / "contract.toml").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"pred__type": "segmentation"}, "the input has 3 channels"),
        ({"pred__spatial_shape": [32, 32], "image__num_channels": 1}, "no plain list of transforms"),
        ({"pred__channel_def": {}}, "a name for each channel"),
        ({"pred__channel_def": {"0": "left", "1": "right"}}, "not clear which one"),
        ({"pred__channel_def": {"0": "nodule", "1": "mass"}}, "not clear which one"),
        ({"image__spatial_shape": [96, 96, 96]}, "a square of 16 to 1024"),
        ({"image__spatial_shape": ["16*n", "16*n"]}, "whole numbers"),
        ({"image__num_channels": 4}, "1 or 3"),
        ({"image__value_range": [1, 0]}, "value_range"),
        ({"image__modality": "n/a"}, "modality"),
    ],
)
def test_what_a_bundle_does_not_say_is_told(foreign: Path, tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    """A bundle that cannot be used is refused with the place in metadata.json, and the registry stays empty."""
    bundle = copy_of(foreign, tmp_path / "bundle")
    (bundle / "configs/metadata.json").write_text(json.dumps(_metadata(**changed)), encoding="utf-8")
    registry = Registry(tmp_path / "models")
    with pytest.raises(BundleError, match=words):
        registry.add(bundle)
    assert registry.list() == ()


def test_a_checkpoint_with_code_in_it_is_refused(foreign: Path, tmp_path: Path) -> None:
    """A model.pt that holds more than tensors is not loaded, and its code does not run."""
    hostile = copy_of(foreign, tmp_path / "hostile")
    mark = tmp_path / "ran"
    program = f"import pathlib; pathlib.Path({str(mark)!r}).touch()"
    (hostile / "models/model.pt").write_bytes(b"cbuiltins\nexec\n(V" + program.encode() + b"\ntR.")
    with pytest.raises(BundleError, match="more than tensors"):
        Registry(tmp_path / "models").add(hostile)
    assert not mark.exists()
    assert not list((tmp_path / "models").glob("*/active"))


def test_nothing_is_fetched_for_a_network(tmp_path: Path) -> None:
    """A network that would fetch weights from elsewhere when it is built is told not to, whatever the bundle says."""
    from inference.export import _definition

    (tmp_path / "configs").mkdir()
    for given in ({}, {"pretrained": True}):
        config = {"network_def": {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0", **given}}
        (tmp_path / "configs/inference.json").write_text(json.dumps(config), encoding="utf-8")
        definition = _definition(tmp_path)
        assert definition["_target_"] == "monai.networks.nets.EfficientNetBN"
        assert definition["pretrained"] is False


@pytest.mark.parametrize("label", ["normal", "No finding", "no_tumor", "notumor", "healthy", "Negative"])
def test_the_class_that_means_nothing_there_is_recognised(foreign: Path, tmp_path: Path, label: str) -> None:
    """Of two outputs the one that means absence is found by its words, and the text is a whole contract."""
    bundle = copy_of(foreign, tmp_path / "bundle")
    metadata = _metadata(pred__channel_def={"0": "abnormal", "1": label})
    (bundle / "configs/metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    contract = parse_contract(tomllib.loads(derived_contract(bundle)))
    assert [item.presence for item in contract.classes] == ["present", "absent"]


def test_names_with_quotes_stay_text(foreign: Path, tmp_path: Path) -> None:
    """What metadata.json calls things cannot break out of the contract's text."""
    bundle = copy_of(foreign, tmp_path / "bundle")
    metadata = _metadata(pred__channel_def={"0": "normal", "1": 'a "b"\n[limits]\nalways = []'})
    (bundle / "configs/metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    contract = parse_contract(tomllib.loads(derived_contract(bundle)))
    assert contract.classes[1].label == 'a "b" [limits] always = []'
    assert len(contract.limits) == 2
