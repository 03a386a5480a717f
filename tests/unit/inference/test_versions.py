"""Versions of a model: one in use, one on trial, the others kept; changed whole by any number of processes."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from fhir_records.errors import BundleError
from inference.live_models import LiveModels
from inference.registry import Registry, Standing
from tests.unit.inference.samples import copy_of


def _with_version(bundle: Path, folder: Path, version: str) -> Path:
    other = copy_of(bundle, folder)
    contract = other / "contract.toml"
    text = contract.read_text(encoding="utf-8")
    contract.write_text(text.replace('version = "0.1.0"', f'version = "{version}"'), encoding="utf-8")
    return other


@pytest.fixture(scope="module")
def three(tiny_root: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the versions 0.1.0 (active), 0.2.0 and 0.3.0; the later two are the first under other numbers."""
    root = tmp_path_factory.mktemp("versions") / "models"
    shutil.copytree(tiny_root, root)
    (first,) = root.glob("tiny/0.1.0-*")
    for version in ("0.2.0", "0.3.0"):
        other = root / "tiny" / f"{version}-{'a' * 12}"
        _with_version(first, other, version)
        record = json.loads((other / "registered.json").read_text(encoding="utf-8"))
        changed = subprocess.run(["sha256sum", other / "contract.toml"], capture_output=True, text=True, check=True)
        record["files"]["contract.toml"] = record["bundle_files"]["contract.toml"] = changed.stdout.split()[0]
        (other / "registered.json").write_text(json.dumps(record), encoding="utf-8")
    return root


@pytest.fixture
def root(three: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return copy_of(three, tmp_path / "models")


def _states(registry: Registry) -> dict[str, str]:
    return {entry.version: entry.standing.value for entry in registry.versions("tiny")}


def test_a_version_is_activated_and_rolled_back(root: Path) -> None:
    """Rolling back goes to the version that was in use before, and again to the one before that."""
    registry = Registry(root)
    registry.activate("tiny", "0.2.0")
    registry.activate("tiny", "0.3.0")
    assert registry.get("tiny").version == "0.3.0"
    assert [registry.rollback("tiny").version, registry.rollback("tiny").version] == ["0.2.0", "0.1.0"]
    with pytest.raises(BundleError, match="No earlier version"):
        registry.rollback("tiny")
    assert registry.get("tiny").version == "0.1.0"


def test_a_version_on_trial_stands_beside_the_active_one(root: Path) -> None:
    """A trial leaves the active version alone, ends when it is ended, and when its version is activated."""
    registry = Registry(root)
    registry.shadow("tiny", "0.2.0")
    shadow = registry.shadow_of("tiny")
    assert shadow is not None
    assert (shadow.version, registry.get("tiny").version) == ("0.2.0", "0.1.0")
    assert _states(registry) == {"0.1.0": "active", "0.2.0": "shadow", "0.3.0": "kept"}
    registry.activate("tiny", "0.2.0")
    assert registry.shadow_of("tiny") is None
    registry.shadow("tiny", "0.3.0")
    registry.shadow("tiny", None)
    assert registry.shadow_of("tiny") is None
    with pytest.raises(BundleError, match="is the active version"):
        registry.shadow("tiny", "0.2.0")


def test_only_what_is_not_in_use_is_removed(root: Path) -> None:
    """The active version and the one on trial stay; another is gone with its files, and never rolled back to."""
    registry = Registry(root)
    registry.activate("tiny", "0.2.0")
    registry.activate("tiny", "0.1.0")
    registry.shadow("tiny", "0.3.0")
    for version in ("0.1.0", "0.3.0"):
        with pytest.raises(BundleError, match="is in use"):
            registry.remove("tiny", version)
    registry.remove("tiny", "0.2.0")
    assert _states(registry) == {"0.1.0": "active", "0.3.0": "shadow"}
    assert not list(root.glob("tiny/0.2.0-*"))
    assert not list(root.glob(".removing-*"))
    with pytest.raises(BundleError, match="No earlier version"):
        registry.rollback("tiny")


def test_a_removed_shipped_version_stays_away(root: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    """A start does not bring back, let alone activate, a shipped version that a person has removed."""
    shipped = tmp_path / "shipped"
    copy_of(tiny_bundle, shipped / "tiny")
    registry = Registry(root, shipped)
    registry.activate("tiny", "0.3.0")
    registry.remove("tiny", "0.1.0")
    registry.ensure_shipped()
    assert _states(registry) == {"0.3.0": "active", "0.2.0": "kept"}


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [("lung", "0.1.0", "no model 'lung'; registered: tiny"), ("tiny", "9", "registered: 0.1.0, 0.2.0, 0.3.0")],
)
def test_what_is_not_there_is_named_with_what_is(root: Path, name: str, version: str, words: str) -> None:
    """Asking for a model or a version that there is not says which there are."""
    registry = Registry(root)
    for ask in (registry.activate, registry.shadow, registry.remove, registry.find, registry.verify):
        with pytest.raises(BundleError, match=words):
            ask(name, version)


def test_a_damaged_version_is_not_activated(root: Path) -> None:
    """A version whose network changed is listed as damaged, and neither activated nor put on trial."""
    registry = Registry(root)
    (network,) = root.glob("tiny/0.2.0-*/model.onnx")
    network.write_bytes(b"nothing")
    damaged = next(entry for entry in registry.versions() if entry.version == "0.2.0")
    assert damaged.standing is Standing.KEPT
    assert damaged.model is None
    assert "model.onnx" in damaged.fault
    for change in (registry.activate, registry.shadow):
        with pytest.raises(BundleError, match="changed after it was registered"):
            change("tiny", "0.2.0")
    assert registry.get("tiny").version == "0.1.0"


def test_verifying_runs_the_golden_cases(root: Path) -> None:
    """A sound version answers its golden cases as at registration; a changed answer or file is told."""
    registry = Registry(root)
    verified = registry.verify("tiny")
    assert verified["cases"] == 6
    assert max(verified["since_registration"].values()) < 1e-6
    assert set(verified["since_registration"]) == {"glioma", "meningioma", "notumor", "pituitary"}
    (record,) = root.glob("tiny/0.2.0-*/registered.json")
    document = json.loads(record.read_text(encoding="utf-8"))
    document["export"]["logits"][0][0] += 3
    record.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BundleError, match="answered otherwise than at registration"):
        registry.verify("tiny", "0.2.0")
    (card,) = root.glob("tiny/0.3.0-*/docs/README.md")
    card.write_text("Perfect.", encoding="utf-8")
    with pytest.raises(BundleError, match=r"docs/README\.md of .* changed"):
        registry.verify("tiny", "0.3.0")


def _flip(root: Path, version: str) -> None:
    registry = Registry(root)
    for _ in range(40):
        registry.activate("tiny", version)


def _look(root: Path, times: int) -> set[str]:
    registry = Registry(root)
    return {registry.get("tiny").version for _ in range(times)}


def test_any_number_of_processes_change_and_read_at_once(root: Path) -> None:
    """While three processes activate in turn, a reader at any moment finds one whole version."""
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        writers = [pool.submit(_flip, root, version) for version in ("0.1.0", "0.2.0", "0.3.0")]
        seen = pool.submit(_look, root, 400).result()
        for writer in writers:
            writer.result()
    assert seen <= {"0.1.0", "0.2.0", "0.3.0"}
    assert sorted(_states(Registry(root)).values()) == ["active", "kept", "kept"]


def test_a_running_process_learns_of_a_change(root: Path) -> None:
    """Without a restart the newly active version is given, and an older one still is by its number."""
    registry = Registry(root)
    models = LiveModels(Registry(root))
    before = models.stamp()
    assert (models["tiny"].version, list(models), models.stamp()) == ("0.1.0", ["tiny"], before)
    registry.activate("tiny", "0.2.0")
    registry.shadow("tiny", "0.3.0")
    assert models["tiny"].version == "0.2.0"
    assert models.stamp() != before
    older, shadow = models.find("tiny", "0.1.0"), models.shadow_of("tiny")
    assert older is not None
    assert shadow is not None
    assert (older.version, shadow.version) == ("0.1.0", "0.3.0")
    assert models.find("tiny", "7") is None


def test_a_running_process_keeps_what_was_good(root: Path) -> None:
    """Where the newly active version is damaged under its feet, a running process keeps the one that it has."""
    models = LiveModels(Registry(root))
    Registry(root).activate("tiny", "0.2.0")
    (network,) = root.glob("tiny/0.2.0-*/model.onnx")
    network.write_bytes(b"nothing")
    assert models["tiny"].version == "0.1.0"


def test_a_version_must_be_fit_for_a_folder(tiny_bundle: Path, tmp_path: Path) -> None:
    """A bundle whose version leads out of the registry's folder is refused."""
    hostile = _with_version(tiny_bundle, tmp_path / "hostile", "../../9")
    with pytest.raises(BundleError, match="version is"):
        Registry(tmp_path / "models").add(hostile)
    assert not (tmp_path / "models").exists()


def test_looking_after_versions_needs_no_torch() -> None:
    """The live registry and the drift figures stay out of torch's way."""
    program = "import sys, inference.live_models, inference.golden; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0
