"""Bundles that outline: registered, exported, verified, and read with as they stand."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fhir_records.errors import BundleError
from inference.answers import Classified
from inference.backends.onnx import OnnxBackend
from inference.contract import parse_contract
from inference.foreign import derived_contract
from inference.registry import RegisteredModel, Registry
from inference.segmentation_contract import SegmentClass, VolumeSettings, WindowSettings
from tests.unit.inference.outlining_bundles import (
    contract_text,
    foreign_config,
    metadata,
    write_blob_bundle,
    write_foreign_bundle,
)
from tests.unit.inference.samples import copy_of
from tests.unit.inference.test_outlining import dice, masks_of, truth
from tests.unit.inference.volumes import Cut, Study, ball, oblique

REPOSITORY = Path(__file__).resolve().parents[3]
CENTRE, RADIUS = (3.0, -4.0, 2.0), 13.0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's root with the network of one convolution in it."""
    folder = tmp_path_factory.mktemp("outlining")
    Registry(folder / "models").add(write_blob_bundle(folder / "bright"))
    return folder / "models"


@pytest.fixture
def model(root: Path) -> RegisteredModel:
    """The network of one convolution."""
    return Registry(root).get("bright_mass")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a U-Net and no contract, as others write them."""
    return write_foreign_bundle(tmp_path_factory.mktemp("foreign") / "Spleen-CT")


def test_a_registered_model_outlines_a_ball(model: RegisteredModel) -> None:
    """The exported network of one convolution outlines a tilted ball of noise-free brightness where it is."""
    cut = Cut(ball(CENTRE, RADIUS), directions=oblique())
    study = Study.of(cut)
    answer = study.read(model.contract, OnnxBackend(model.path / "model.onnx"))
    assert isinstance(answer, Classified) and answer.outlines is not None
    assert dice(masks_of(answer.outlines), truth(cut, study, answer.outlines)) > 0.92


def test_a_model_answers_as_it_did(root: Path, model: RegisteredModel) -> None:
    """Verification runs the golden windows again, and finds no difference; another network is found out."""
    verified = Registry(root).verify("bright_mass")
    assert verified["cases"] == 2 and verified["since_registration"]["mass"] < 1e-6
    record = json.loads((model.path / "registered.json").read_text(encoding="utf-8"))
    assert record["export"]["probability_difference"]["onnx"]["mass"] < 1e-3
    from inference.golden_volumes import verified as verify

    class Other:
        """A network that gives a little more everywhere."""

        def __init__(self) -> None:
            self._network = OnnxBackend(model.path / "model.onnx")

        def run(self, inputs: np.ndarray) -> Any:
            outputs = self._network.run(inputs)
            outputs.logits[:, 1] += 0.1
            return outputs

    assert model.contract.segmentation is not None
    with pytest.raises(BundleError, match="otherwise than at registration"):
        verify(model.path, model.contract.segmentation, Other())


def test_what_training_stored_is_compared(model: RegisteredModel, tmp_path: Path) -> None:
    """A bundle's own golden blocks are compared when it is added; weights that were changed since are refused."""
    record = json.loads((model.path / "registered.json").read_text(encoding="utf-8"))
    bundle = write_blob_bundle(tmp_path / "bright")
    (bundle / "golden.json").write_text(json.dumps({"blocks": record["export"]["blocks"]}), encoding="utf-8")
    assert Registry(tmp_path / "first").add(bundle).name == "bright_mass"
    other = write_blob_bundle(tmp_path / "other", level=0.5)
    (other / "golden.json").write_text((bundle / "golden.json").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(BundleError, match="than when they were trained"):
        Registry(tmp_path / "second").add(other)


def monai_masks(bundle: Path, cut: Cut) -> np.ndarray:
    """What the bundle's own way with MONAI gives on a cut: mask of shape (slices, rows, columns), in stack order."""
    import torch
    from monai.data import MetaTensor
    from monai.inferers import SlidingWindowInferer
    from monai.networks.nets.unet import UNet
    from monai.transforms import Orientation, ScaleIntensityRange, Spacing
    from monai.transforms.utils import convert_applied_interp_mode

    from tests.unit.inference.outlining_bundles import UNET

    network = UNet(**{key: value for key, value in UNET.items() if key != "_target_"})
    network.load_state_dict(torch.load(bundle / "models/model.pt", weights_only=True))
    slices = [cut.scene(cut.points(number)) for number in range(cut.count)]
    normal = np.cross(cut.directions[0], cut.directions[1])
    affine = np.eye(4)
    affine[:3, :3] = (np.stack([cut.directions[0] * cut.spacing[1], cut.directions[1] * cut.spacing[0],
                                normal * cut.gap]) * [-1, -1, 1]).T  # fmt: skip
    image = MetaTensor(torch.from_numpy(np.stack(slices).transpose(2, 1, 0)[None].copy()), torch.from_numpy(affine))
    turn = Orientation(axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S")))
    space = Spacing(pixdim=(1.5, 1.5, 2.0), mode="bilinear", padding_mode="border")
    volume = ScaleIntensityRange(-57, 164, 0, 1, clip=True)(space(turn(image)))
    with torch.no_grad():
        logits = SlidingWindowInferer((32, 32, 32), 4, overlap=0.5)(volume[None], network.eval())
    mask = logits[0].argmax(0, keepdim=True).float()
    # Back to the slices as Invert does, with the nearest voxel.
    steps = convert_applied_interp_mode(volume.applied_operations, mode="nearest", align_corners=None)
    back = turn.inverse(space.inverse(MetaTensor(mask, volume.affine, applied_operations=steps)))
    return np.asarray(back)[0].transpose(2, 1, 0) > 0.5


def test_a_bundle_from_elsewhere_reads_as_it_does_in_monai(foreign: Path, tmp_path: Path) -> None:
    """A U-Net with preprocessing, windows and inverse of MONAI's own gives the same voxels when we run the bundle."""
    model = Registry(tmp_path / "models").add(foreign)
    settings = model.contract.segmentation
    assert settings is not None
    assert (settings.volume.orientation, settings.volume.spacing) == ("RAS", (1.5, 1.5, 2.0))
    assert (settings.volume.low, settings.volume.high, settings.volume.clip) == (-57, 164, True)
    assert (settings.window.size, settings.window.overlap, settings.activation) == ((32, 32, 32), 0.5, "softmax")
    assert model.contract.question.code == ("SCT", "78961009", "Spleen")
    assert any("without a contract" in limit for limit in model.contract.limits)
    assert (model.path / "models/model.safetensors").exists() and not (model.path / "models/model.pt").exists()

    def scene(points: np.ndarray) -> np.ndarray:
        waves = 60 * np.sin(points @ [0.2, 0.13, 0.17]) + 40 * np.cos(points @ [-0.1, 0.22, 0.3])
        return (waves + 50).astype(np.float32)

    cut = Cut(scene, count=20, shape=(52, 60), spacing=(1.2, 0.9), gap=2.8, directions=oblique(12))
    with_specks = replace(settings, segments=(replace(settings.segments[0], min_volume_ml=0.0),))
    contract = replace(model.contract, segmentation=with_specks)  # which MONAI's way does not leave out
    answer = Study.of(cut, Modality="CT").read(contract, OnnxBackend(model.path / "model.onnx"))
    assert isinstance(answer, Classified) and answer.outlines is not None, answer
    ours, theirs = masks_of(answer.outlines), monai_masks(foreign, cut)
    share = theirs.mean()
    print(f"share {share:.3f}, dice {dice(ours, theirs):.4f}")
    assert 0.05 < share < 0.95
    assert dice(ours, theirs) > 0.999


def _set(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return lambda config: config.__setitem__(key, value)


def _transform(place: int, **values: object) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["preprocessing"]["transforms"][place].update(values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_transform(2, _target_="RandFlipd"), "preprocessing has RandFlipd"),
        (_transform(3, pixdim="$[1, 1, 1]"), "a plain value is allowed"),
        (_transform(4, a_min="low"), "no number"),
        (_transform(5, _target_="Orientationd", axcodes="RAS"), "after the intensities"),
        (_set("preprocessing", "$make()"), "no plain list of transforms"),
        (_set("roi", [32, 32]), "roi_size"),
        (_set("inferer", {"_target_": "SlidingWindowInferer", "roi_size": "$[8] * 3"}), "a plain value"),
    ],
)
def test_what_cannot_be_repeated_is_named(
    foreign: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    """A bundle whose preprocessing Wetread cannot repeat is refused with the transform's name; nothing is run."""
    bundle = copy_of(foreign, tmp_path / "bundle")
    config = foreign_config()
    change(config)
    (bundle / "configs/inference.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        derived_contract(bundle)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "words"),
    [({"0": "spleen", "1": "liver"}, "should be the background"), ({"0": "background"}, "should be the background")],
)
def test_channels_that_are_not_clear_are_refused(
    foreign: Path, tmp_path: Path, labels: dict[str, str], words: str
) -> None:
    """Where each voxel has one answer, the first channel has to be the one for nothing."""
    bundle = copy_of(foreign, tmp_path / "bundle")
    (bundle / "configs/metadata.json").write_text(json.dumps(metadata(3, 32, labels)), encoding="utf-8")
    with pytest.raises(BundleError, match=words):
        derived_contract(bundle)


def test_several_channels_of_input_are_refused(foreign: Path, tmp_path: Path) -> None:
    """A model that wants several sequences at once is refused: one series is shown."""
    bundle = copy_of(foreign, tmp_path / "bundle")
    said = metadata(3, 32, {"0": "background", "1": "tumor"})
    said["network_data_format"]["inputs"]["image"]["num_channels"] = 4
    (bundle / "configs/metadata.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(BundleError, match="has 4 channels"):
        derived_contract(bundle)


def test_an_organ_with_a_tumour_asks_for_the_tumour(foreign: Path, tmp_path: Path) -> None:
    """Of pancreas and tumour the tumour answers; the pancreas is outlined beside it, and is the site."""
    bundle = copy_of(foreign, tmp_path / "bundle")
    labels = {"0": "background", "1": "pancreas", "2": "pancreatic tumor"}
    (bundle / "configs/metadata.json").write_text(json.dumps(metadata(3, 32, labels)), encoding="utf-8")
    contract = parse_contract(tomllib.loads(derived_contract(bundle)))
    assert contract.segmentation is not None
    assert (contract.question.code.meaning, contract.question.site.meaning) == ("Neoplasm", "Pancreas")
    assert [(one.label, one.code.meaning, one.answers) for one in contract.segmentation.segments] == [
        ("pancreas", "Pancreas", False),
        ("pancreatic tumor", "Neoplasm", True),
    ]


def test_the_documented_contract_is_one() -> None:
    """The example in the documentation is read as it stands, and the table names every key of such a contract."""
    text = (REPOSITORY / "docs/models.md").read_text(encoding="utf-8")
    example = re.search(r"```text\n(kind = .*?)```", text, re.DOTALL)
    assert example is not None
    rest = contract_text()
    whole = {**tomllib.loads(rest), **tomllib.loads(example[1])}
    settings = parse_contract(whole).segmentation
    assert settings is not None and [segment.label for segment in settings.segments] == ["tumour"]
    table = text[text.index("### Models that outline") : example.start()]
    keys = {field.name for part in (SegmentClass, VolumeSettings, WindowSettings) for field in fields(part)}
    keys |= {"question", "segments", "activation", "threshold", "probability", "temperature"}
    assert {key for key in keys if f"`{key}`" not in table and f"[{key}]" not in table} == set()


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("channel = 1", "channel = 0", "segments[0].channel"),
        ("channel = 1", "channel = 2", "speaks of channel 2"),
        ("colour = [246, 186, 70]", "colour = [256, 0, 0]", "3 numbers from 0 to 255"),
        ('orientation = "RAS"', 'orientation = "RRS"', "preprocess.orientation"),
        ("spacing = [1.5, 1.5, 2.0]", "spacing = [1.5, 1.5]", "3 numbers"),
        ("size = [32, 32, 32]", "size = [32, 32]", "3 numbers"),
        ("size = [32, 32, 32]", "size = [512, 512, 512]", "voxels in all"),
        ('activation = "softmax"', 'activation = "relu"', "output.activation"),
        ("high = 1.0", "high = 0.0", "preprocess.high"),
        ("min_volume_ml = 0.5", "min_volume_ml = 0.5\nanswers = false", "'answers' is true"),
        ("dimensions = 3", "dimensions = 2", "2 numbers from 8"),
        ('kind = "segmentation"', 'kind = "finding"', "classes"),
        ("[output]", "[familiarity]\nusual = 1.0\nlimit = 2.0\n\n[output]", "no such table"),
    ],
)
def test_a_wrong_contract_is_named(tmp_path: Path, before: str, after: str, words: str) -> None:
    """A contract with one wrong value is refused with the key and what is allowed; the registry stays empty."""
    bundle = write_blob_bundle(tmp_path / "bundle")
    assert before in contract_text()
    (bundle / "contract.toml").write_text(contract_text().replace(before, after), encoding="utf-8")
    with pytest.raises(BundleError) as caught:
        Registry(tmp_path / "models").add(bundle)
    assert words in str(caught.value)
    assert not list((tmp_path / "models").glob("*/active"))
