"""Bundles that outline: one that is right by construction, and one as others write them, with a real U-Net."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONTRACT = """\
name = "bright_mass"
version = "1.0.0"
title = "Outlines of bright masses"
manufacturer = "The Wetread authors"
kind = "segmentation"

[question]
code = { scheme = "SCT", value = "4147007", meaning = "Mass" }
site = { scheme = "SCT", value = "12738006", meaning = "Brain" }

[[segments]]
label = "mass"
wording = "Mass"
channel = 1
code = { scheme = "SCT", value = "4147007", meaning = "Mass" }
category = { scheme = "SCT", value = "49755003", meaning = "Morphologically Abnormal Structure" }
site = { scheme = "SCT", value = "12738006", meaning = "Brain" }
colour = [246, 186, 70]
min_volume_ml = MINIMUM

[required]
modality = ["MR"]
sop_class = []
photometric = ["MONOCHROME1", "MONOCHROME2"]
image_type_excluded = ["LOCALIZER"]
body_part = []
anatomy = "a head"
min_images = 3
min_matrix = 16

[preprocess]
dimensions = DIMENSIONS
orientation = "ORIENTATION"
spacing = SPACING
intensity = "range"
low = LOW
high = HIGH

[window]
size = WINDOW
overlap = 0.25
blend = "gaussian"

[output]
activation = "softmax"
probability = "largest_part"

[calibration]
temperature = 1.0

[limits]
always = ["It outlines whatever is bright."]
time_limit_s = 120
memory_limit_mb = 4096
batch_size = 2
"""


def contract_text(
    *,
    dimensions: int = 3,
    orientation: str = "RAS",
    spacing: tuple[float, ...] = (1.5, 1.5, 2.0),
    window: tuple[int, ...] = (32, 32, 32),
    low: float = 0.0,
    high: float = 1.0,
    minimum: float = 0.5,
) -> str:
    """The contract, with these numbers."""
    values = {
        "DIMENSIONS": dimensions,
        "ORIENTATION": orientation,
        "SPACING": list(spacing),
        "WINDOW": list(window),
        "LOW": float(low),
        "HIGH": float(high),
        "MINIMUM": minimum,
    }
    text = CONTRACT
    for word, value in values.items():
        text = text.replace(word, str(value))
    return text


def metadata(dimensions: int, side: int, labels: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """What such a bundle says of itself."""
    shape = [side] * dimensions
    image = {"type": "image", "format": "magnitude", "modality": "MR", "num_channels": 1, "spatial_shape": shape}
    pred = {
        "type": "image",
        "format": "segmentation",
        "num_channels": len(labels),
        "spatial_shape": shape,
        "channel_def": dict(labels),
    }
    return {
        "name": "Outlines",
        "version": "1.0.0",
        "authors": "A hospital",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
        **more,
    }


def write_blob_bundle(
    folder: Path, *, kernel: int = 3, level: float = 0.6, steep: float = 40.0, **numbers: Any
) -> Path:
    """A network of one convolution: the mean of `kernel` voxels a side, and how far it lies above `level`."""
    import torch
    from safetensors.torch import save_file

    dimensions = int(numbers.get("dimensions", 3))
    network = {
        "_target_": "monai.networks.blocks.Convolution",
        "spatial_dims": dimensions,
        "in_channels": 1,
        "out_channels": 2,
        "kernel_size": kernel,
        "conv_only": True,
    }
    weight = torch.zeros((2, 1, *[kernel] * dimensions))
    weight[1] = steep / kernel**dimensions
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    save_file(
        {"conv.weight": weight, "conv.bias": torch.tensor([0.0, -steep * level])}, folder / "models/model.safetensors"
    )
    side = numbers.get("window", (32,))[0]
    said = metadata(dimensions, side, {"0": "background", "1": "mass"})
    (folder / "configs/metadata.json").write_text(json.dumps(said), encoding="utf-8")
    (folder / "configs/inference.json").write_text(json.dumps({"network_def": network}), encoding="utf-8")
    (folder / "contract.toml").write_text(contract_text(**numbers), encoding="utf-8")
    return folder


UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [4, 8, 16],
    "strides": [2, 2],
    "num_res_units": 1,
    "norm": "batch",
}


def foreign_config(side: int = 32) -> dict[str, Any]:
    """`inference.json` after the manner of MONAI's own bundle for the spleen in CT."""
    return {
        "device": "$torch.device('cpu')",
        "roi": [side] * 3,
        "network_def": UNET,
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
                {"_target_": "Spacingd", "keys": "image", "pixdim": [1.5, 1.5, 2.0], "mode": "bilinear"},
                {
                    "_target_": "ScaleIntensityRanged",
                    "keys": "image",
                    "a_min": -57,
                    "a_max": 164,
                    "b_min": 0,
                    "b_max": 1,
                    "clip": True,
                },
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "@roi", "sw_batch_size": 4, "overlap": 0.5},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing"},
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
            ],
        },
    }


def write_foreign_bundle(folder: Path, labels: Mapping[str, str] | None = None, modality: str = "CT") -> Path:
    """A bundle without a contract, its U-Net's weights random and stored by torch."""
    import torch
    from monai.networks.nets.unet import UNet

    torch.manual_seed(2)
    network = UNet(**{key: value for key, value in UNET.items() if key != "_target_"}).eval()
    # Random weights call everything the one or the other; about a third is to be something.
    with torch.no_grad():
        logits = network(torch.rand((2, 1, 32, 32, 32)))
        apart = torch.quantile((logits[:, 1] - logits[:, 0]).flatten(), 0.65)
        biases = [value for name, value in network.named_parameters() if name.endswith("bias")]
        [bias for bias in biases if bias.shape == (2,)][-1].add_(torch.tensor([float(apart), 0.0]))
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    torch.save(network.state_dict(), folder / "models/model.pt")
    said = metadata(3, 32, labels or {"0": "background", "1": "spleen"})
    said["network_data_format"]["inputs"]["image"]["modality"] = modality
    (folder / "configs/metadata.json").write_text(json.dumps(said), encoding="utf-8")
    (folder / "configs/inference.json").write_text(json.dumps(foreign_config()), encoding="utf-8")
    return folder
