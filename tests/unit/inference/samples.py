"""Contracts, image facts and tiny bundles made for tests."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference.contract import Contract, parse_contract
from inference.preprocess import PreprocessSettings
from inference.suitability import ImageFacts

RECIPE = Path(__file__).resolve().parents[3] / "inference" / "training" / "recipes" / "brain_mr_tumour.toml"
MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
TINY_NETWORK = {
    "_target_": "monai.networks.nets.ResNet",
    "block": "basic",
    "layers": [1, 1, 1, 1],
    "block_inplanes": [4, 8, 8, 8],
    "spatial_dims": 2,
    "n_input_channels": 1,
    "conv1_t_stride": 2,
}
TINY_PREPROCESS = PreprocessSettings(size=32)


def recipe_text() -> str:
    """The shipped recipe as version 0.1.0 without its guard: a tiny model stands alone in its registry."""
    text = RECIPE.read_text(encoding="utf-8").partition("\n[guard]")[0]
    return re.sub(r'^version = ".*"$', 'version = "0.1.0"', text, count=1, flags=re.MULTILINE)


def contract_document() -> dict[str, Any]:
    """The shipped recipe as parsed TOML, completed as training completes it."""
    document = tomllib.loads(recipe_text())
    document["preprocess"] = {
        "size": 32,
        "margin": 0.03,
        "foreground": 0.35,
        "low_percentile": 1,
        "high_percentile": 99.5,
    }
    document["calibration"] = {"temperature": 1.0}
    return document


def contract(**changed: Any) -> Contract:
    """The contract of the shipped recipe; `changed` sets fields."""
    return replace(parse_contract(contract_document()), **changed)


def facts(number: int = 1, **changed: Any) -> ImageFacts:
    """What the header of a suitable image says; `changed` sets fields."""
    return replace(
        ImageFacts(
            path=f"{number}.dcm",
            series_uid="1.2.3",
            sop_uid=f"1.2.3.{number}",
            sop_class_uid=MR_IMAGE,
            modality="MR",
            image_type=("ORIGINAL", "PRIMARY"),
            rows=256,
            columns=256,
            photometric="MONOCHROME2",
            body_part="BRAIN",
            contrast_agent="GADOLINIUM",
            instance_number=number,
            number_of_frames=1,
            single_frame=True,
            position=float(number),
        ),
        **changed,
    )


def series(count: int, **changed: Any) -> list[ImageFacts]:
    """`count` suitable images of one series."""
    return [facts(number, **changed) for number in range(1, count + 1)]


def write_tiny_bundle(folder: Path, name: str = "tiny") -> Path:
    """A bundle with a tiny network of random weights, as training writes one."""
    import numpy as np
    import torch

    from inference.networks import build_network
    from inference.training.bundle import BundleParts, Found, contract_text, write_bundle
    from inference.training.familiarity import KnownImages
    from inference.training.weights import weights_of

    torch.manual_seed(1)
    network = build_network(TINY_NETWORK, 4)
    recipe = recipe_text().replace('name = "brain_mr_tumour"', f'name = "{name}"')
    figures = json.loads((Path(__file__).with_name("figures.json")).read_text(encoding="utf-8"))
    known = KnownImages.of(np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32))
    write_bundle(
        folder,
        BundleParts(
            contract=contract_text(recipe, TINY_PREPROCESS, Found(1.0, 1e8, 1e9)),
            network_def=TINY_NETWORK,
            state=weights_of(network),
            known=known,
            metrics=figures,
            split={"train": [], "calibration": [], "validation": []},
        ),
    )
    return folder


def copy_of(bundle: Path, folder: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(bundle, folder))
