"""The network of a bundle that outlines, as ONNX, compared with torch voxel by voxel. Loads torch: only export does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from fhir_records.errors import BundleError
from inference.backends.onnx import OnnxBackend
from inference.bundle_metadata import read_metadata
from inference.foreign_volumes import volume_format
from inference.golden_volumes import block_means, differences, golden_logits, golden_windows, trained_difference
from inference.segmentation_contract import SegmentationSettings

_TOLERANCE = 1e-3  # between torch and ONNX Runtime, both fp32: of a voxel's probability


def check_format(bundle: Path, settings: SegmentationSettings) -> int:
    """How many channels the network gives. Raises BundleError where metadata.json and contract.toml do not agree."""
    form = volume_format(read_metadata(bundle))
    if form.dimensions != settings.volume.dimensions:
        raise BundleError(
            f"metadata.json has a network of {form.dimensions} dimensions, contract.toml of "
            f"{settings.volume.dimensions}."
        )
    if len(form.labels) < settings.channels:
        raise BundleError(
            f"metadata.json names {len(form.labels)} channels ({', '.join(form.labels)}); contract.toml speaks of "
            f"channel {settings.channels - 1}."
        )
    return len(form.labels)


def export_volumes(
    network: torch.nn.Module, channels: int, bundle: Path, settings: SegmentationSettings
) -> dict[str, Any]:
    """Write `model.onnx` into the bundle and compare it with torch. Raises BundleError where they differ."""
    inputs = torch.from_numpy(golden_windows(settings))
    target = bundle / "model.onnx"
    with torch.no_grad():
        made = network(inputs)
        if not isinstance(made, torch.Tensor) or made.shape != (len(inputs), channels, *inputs.shape[2:]):
            given = tuple(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__
            raise BundleError(
                f"The network gives {given} for windows of {list(settings.window.size)}; one number a voxel for each of"
                f" {channels} channels is allowed."
            )
        torch.onnx.export(
            network,
            (inputs,),
            str(target),
            input_names=["image"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=1024)},),
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    expected = made.numpy()
    logits = golden_logits(OnnxBackend(target), settings)
    apart = differences(settings, expected, logits)
    if not max(apart.values()) <= _TOLERANCE:
        raise BundleError(
            f"The exported network differs from torch by {max(apart.values()):.3g} of a voxel's probability; "
            f"{_TOLERANCE:g} is allowed."
        )
    means = block_means(logits, settings)
    return {
        "max_difference": float(np.abs(logits - expected).max()),
        "tolerance": _TOLERANCE,
        "probability_difference": {"onnx": apart},  # by segment, from torch, over all voxels of the golden cases
        "golden_difference": trained_difference(bundle, means),
        "blocks": means,
    }
