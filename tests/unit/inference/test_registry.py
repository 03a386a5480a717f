"""The registry: bundles become runnable models, whole or not at all."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fhir_records.errors import BundleError
from inference.backends.onnx import OnnxBackend
from inference.registry import RegisteredModel, Registry, device_uid
from tests.unit.inference.samples import copy_of


def _rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def _ensure(root: Path, shipped: Path) -> str:
    registry = Registry(root, shipped)
    registry.ensure_shipped()
    return registry.get("tiny").path.name


def test_a_registered_model_is_checked_against_torch(tiny_model: RegisteredModel) -> None:
    """Registration records how far ONNX Runtime is from torch, and the weights' own Device UID."""
    record = json.loads((tiny_model.path / "registered.json").read_text(encoding="utf-8"))
    assert record["export"]["max_difference"] < 1e-3
    assert record["export"]["golden_difference"] < 1e-3
    assert record["device_uid"] == tiny_model.device_uid == device_uid(tiny_model.weights_sha256)
    assert tiny_model.device_uid.startswith("2.25.")
    assert len(tiny_model.device_uid) <= 64


def test_the_exported_network_takes_any_batch(tiny_model: RegisteredModel) -> None:
    """One image or many: the exported network gives each the same logits and the same distance."""
    backend = OnnxBackend(tiny_model.path / "model.onnx")
    images = np.random.default_rng(0).normal(size=(5, 1, 32, 32)).astype(np.float32)
    together, alone = backend.run(images), [backend.run(image[None]) for image in images]
    assert together.logits.shape == (5, 4)
    assert together.logits == pytest.approx(np.concatenate([one.logits for one in alone]), abs=1e-5)
    assert together.distances == pytest.approx(np.concatenate([one.distances for one in alone]), rel=1e-4)


def test_the_same_bundle_again_changes_nothing(tiny_root: Path, tiny_bundle: Path) -> None:
    """Adding a bundle that is there already gives the model that is there."""
    before = sorted(path for path in tiny_root.rglob("*"))
    again = Registry(tiny_root).add(tiny_bundle)
    assert again == Registry(tiny_root).get("tiny")
    assert sorted(path for path in tiny_root.rglob("*")) == before


def test_a_changed_file_is_noticed_and_mended(tiny_root: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """A registered model whose network was exchanged is not handed out; adding its bundle again mends it."""
    root = copy_of(tiny_root, tmp_path / "models")
    (network,) = root.glob("tiny/*/model.onnx")
    network.write_bytes(network.read_bytes() + b"\0")
    with pytest.raises(BundleError, match=r"model\.onnx of .* changed"):
        Registry(root).get("tiny")
    Registry(root).add(tiny_bundle)
    assert Registry(root).get("tiny").version == "0.1.0"


def test_an_unknown_model_is_named_with_those_that_there_are(tiny_root: Path) -> None:
    """Asking for a model that is not registered says which are."""
    with pytest.raises(BundleError, match="'lung'; registered: tiny"):
        Registry(tiny_root).get("lung")


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("configs/inference.json", "monai.networks.nets.ResNet", "os.system", "'os.system'"),
        ("configs/inference.json", '"basic"', "\"$__import__('os').getcwd()\"", "expressions"),
        ("configs/inference.json", "network_def", "network", "network_def"),
        ("configs/inference.json", "[\n      4,", "[\n      6,", "does not fit network_def"),
        ("contract.toml", "temperature = 1.0", "temperature = -1.0", "calibration.temperature"),
        ("configs/metadata.json", "{", "", "no JSON"),
    ],
)
def test_a_broken_bundle_leaves_nothing_behind(
    tiny_bundle: Path, tmp_path: Path, name: str, old: str, new: str, words: str
) -> None:
    """A bundle that is wrong in one place is refused with the place, and the registry stays empty."""
    broken = copy_of(tiny_bundle, tmp_path / "broken")
    _rewrite(broken / name, old, new)
    registry = Registry(tmp_path / "models")
    with pytest.raises(BundleError) as caught:
        registry.add(broken)
    assert words in str(caught.value)
    assert registry.list() == ()
    assert not list((tmp_path / "models").glob(".adding-*"))


def test_weights_that_answer_otherwise_than_at_training_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    """Weights that do not give the stored answers to the computed pictures are not those that were trained."""
    other = copy_of(tiny_bundle, tmp_path / "other")
    golden = json.loads((other / "golden.json").read_text(encoding="utf-8"))
    golden["logits"][0][0] += 1.0
    (other / "golden.json").write_text(json.dumps(golden), encoding="utf-8")
    with pytest.raises(BundleError, match="other answers than when they were trained"):
        Registry(tmp_path / "models").add(other)


@pytest.mark.parametrize("name", ["configs/metadata.json", "models/model.safetensors", "configs/inference.json"])
def test_a_bundle_that_lacks_a_file_is_refused(tiny_bundle: Path, tmp_path: Path, name: str) -> None:
    """What is missing is named."""
    lacking = copy_of(tiny_bundle, tmp_path / "lacking")
    (lacking / name).unlink()
    with pytest.raises(BundleError, match=name.replace(".", r"\.")):
        Registry(tmp_path / "models").add(lacking)


def test_weights_that_are_no_safetensors_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    """A pickle under the weights' name is never loaded: it is refused, and its code does not run."""
    hostile = copy_of(tiny_bundle, tmp_path / "hostile")
    mark = tmp_path / "ran"
    program = f"import pathlib; pathlib.Path({str(mark)!r}).touch()"
    pickled = b"cbuiltins\nexec\n(V" + program.encode() + b"\ntR."
    (hostile / "models" / "model.safetensors").write_bytes(pickled)
    with pytest.raises(BundleError, match="does not fit"):
        Registry(tmp_path / "models").add(hostile)
    assert not mark.exists()


def test_two_processes_may_register_at_once(tiny_bundle: Path, tmp_path: Path) -> None:
    """Two processes that start together end with one registered model, and both can use it."""
    shipped = tmp_path / "shipped"
    copy_of(tiny_bundle, shipped / "tiny")
    root = tmp_path / "models"
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        names = list(pool.map(_ensure, [root, root], [shipped, shipped]))
    assert len(set(names)) == 1
    assert len(list(root.glob("tiny/*/registered.json"))) == 1


def test_what_is_active_survives_a_start(tiny_root: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """Looking for shipped bundles at a start does not put a model back that was replaced by a newer one."""
    root = copy_of(tiny_root, tmp_path / "models")
    shipped = tmp_path / "shipped"
    copy_of(tiny_bundle, shipped / "tiny")
    newer = copy_of(tiny_bundle, tmp_path / "newer")
    _rewrite(newer / "contract.toml", 'version = "0.1.0"', 'version = "0.2.0"')
    registry = Registry(root, shipped)
    registry.add(newer)
    registry.ensure_shipped()
    assert registry.get("tiny").version == "0.2.0"


def test_the_registry_does_not_load_torch() -> None:
    """The worker imports the registry and the runner; torch stays out of its process."""
    program = "import sys, inference.registry, inference.runner; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0
