"""The installation's models: bundles added, exported, checked, and one version of each name active.

Under the registry's root: `<name>/<version>-<digest>/` holds a bundle as it came, `model.onnx` made from it and
`registered.json`; `<name>/active` names the folder in use. Folders appear whole (made aside, then renamed) and never
change afterwards. Weights are safetensors or ONNX; no pickle is ever loaded.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from fhir_records.errors import BundleError
from inference.contract import Contract, load_contract

SHIPPED = Path(__file__).resolve().parent / "bundles"
# The namespace that Device UIDs are drawn in: the same weights have the same Device UID in every installation.
DEVICE_NAMESPACE = uuid.UUID("8f0c8a5e-5f0b-4d0e-9d43-4b7c1d5a2e60")

_NEEDED = ("contract.toml", "configs/inference.json", "configs/metadata.json", "models/model.safetensors")
_FAMILIARITY = "models/familiarity.safetensors"  # only where the contract counts on it
_TAKEN = (*_NEEDED, _FAMILIARITY, "docs/README.md", "LICENSE", "metrics.json", "split.json", "golden.json")
_ANSWERS_DEPEND_ON = ("contract.toml", "configs/inference.json", "models/model.safetensors", _FAMILIARITY)
_EXPORT_LIMIT_S = 600
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model that this installation can run."""

    name: str
    version: str
    title: str
    manufacturer: str
    device_uid: str  # 2.25.…; another one whenever the weights change
    weights_sha256: str
    path: Path  # its folder: contract.toml, model.onnx, registered.json, the bundle's files
    contract: Contract


class Registry:
    """Models under `root`. Any number of processes may use one root at once."""

    def __init__(self, root: Path, shipped: Path = SHIPPED) -> None:
        self._root, self._shipped = root, shipped

    def add(self, bundle: Path) -> RegisteredModel:
        """Copy the bundle in, export and check its network, make it the active version of its name.

        One that is there already, undamaged, is only made active. Raises BundleError where it is not usable; nothing
        has changed then.
        """
        contract, digest = _inspect(bundle)
        target = self._root / contract.name / f"{contract.version}-{digest[:12]}"
        with self._locked():
            if target.exists() and not _sound(target):
                shutil.rmtree(target)
            if not target.exists():
                self._install(bundle, target)
            model = _load(target)
            _write_whole(target.parent / "active", target.name)
        _log.info("model registered", model=model.name, version=model.version, device_uid=model.device_uid)
        return model

    def ensure_shipped(self) -> None:
        """Add the bundles that come with Wetread and are not here yet. What is here is left as it is, active or not."""
        for bundle in sorted(path.parent for path in self._shipped.glob("*/contract.toml")):
            contract, digest = _inspect(bundle)
            if not (self._root / contract.name / f"{contract.version}-{digest[:12]}").exists():
                self.add(bundle)

    def get(self, name: str) -> RegisteredModel:
        """The active version of a model, verified. Raises BundleError where there is none or its files changed."""
        return self._get(name)

    def list(self) -> tuple[RegisteredModel, ...]:
        """The active version of every model, by name."""
        return tuple(self._get(path.parent.name) for path in sorted(self._root.glob("*/active")))

    def _get(self, name: str) -> RegisteredModel:
        try:
            folder = (self._root / name / "active").read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            known = ", ".join(sorted(path.parent.name for path in self._root.glob("*/active"))) or "none"
            raise BundleError(f"There is no model {name!r}; registered: {known}.") from error
        return _load(self._root / name / folder)

    def _install(self, bundle: Path, target: Path) -> None:
        """The bundle's files and what is made of them, aside, then under their name in one step."""
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".adding-", dir=self._root))
        try:
            for name in _TAKEN:
                if (bundle / name).is_file():
                    (aside / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(bundle / name, aside / name)
            exported = _export(aside)
            contract = load_contract(aside / "contract.toml")
            weights = _sha256(aside / "models/model.safetensors")
            record = {
                "name": contract.name,
                "version": contract.version,
                "device_uid": device_uid(weights),
                "weights_sha256": weights,
                "files": {name: _sha256(aside / name) for name in ("contract.toml", "model.onnx")},
                "export": exported,
            }
            (aside / "registered.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            aside.chmod(0o755)
            _sync(aside)
            aside.rename(target)
            _sync_folder(target.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process adds at a time; leavings of one that died are swept."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self._root.glob(".adding-*"):
                shutil.rmtree(left, ignore_errors=True)
            yield


def device_uid(weights_sha256: str) -> str:
    """Device UID (PS3.15 Contributing Equipment) of the model with these weights, 2.25 form (PS3.5 section B.2)."""
    return f"2.25.{uuid.uuid5(DEVICE_NAMESPACE, weights_sha256).int}"


def _inspect(bundle: Path) -> tuple[Contract, str]:
    """The bundle's contract, and a digest of all that its answers depend on."""
    missing = [name for name in _NEEDED if not (bundle / name).is_file()]
    if missing:
        raise BundleError(f"The bundle {bundle.name} lacks {', '.join(missing)}.")
    contract = load_contract(bundle / "contract.toml")
    try:
        json.loads((bundle / "configs/metadata.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"configs/metadata.json of {bundle.name} is no JSON: {error}") from error
    present = [bundle / name for name in _ANSWERS_DEPEND_ON if (bundle / name).is_file()]
    return contract, hashlib.sha256("".join(_sha256(path) for path in present).encode()).hexdigest()


def _export(folder: Path) -> dict[str, Any]:
    """Run `python -m inference.export` on the folder. Raises BundleError with what it said."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "inference.export", str(folder.resolve())],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_EXPORT_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"Exporting the model to ONNX took longer than {_EXPORT_LIMIT_S} s.") from error
    lines = done.stdout.decode(errors="replace").splitlines()
    if not lines:  # it did not come as far as an answer: torch or MONAI is missing, or broken
        said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise BundleError(f"The model could not be exported to ONNX (exit status {done.returncode}): {said[-1]}")
    reply = json.loads(lines[-1])
    if "failed" in reply:
        raise BundleError(f"The model could not be exported to ONNX: {reply['failed']}")
    exported: dict[str, Any] = reply["exported"]
    return exported


def _load(folder: Path) -> RegisteredModel:
    """The registered model in `folder`, after its files were compared with what was recorded."""
    try:
        record = json.loads((folder / "registered.json").read_text(encoding="utf-8"))
        changed = [name for name, digest in record["files"].items() if _sha256(folder / name) != digest]
        contract = load_contract(folder / "contract.toml")
        if changed:
            raise BundleError(f"{', '.join(changed)} of {folder.name} changed after it was registered; add it again.")
        return RegisteredModel(
            name=contract.name,
            version=contract.version,
            title=contract.title,
            manufacturer=contract.manufacturer,
            device_uid=record["device_uid"],
            weights_sha256=record["weights_sha256"],
            path=folder,
            contract=contract,
        )
    except (OSError, ValueError, KeyError) as error:
        kind = type(error).__name__
        raise BundleError(f"The registered model {folder.name} is damaged ({kind}); add it again.") from error


def _sound(folder: Path) -> bool:
    try:
        _load(folder)
    except BundleError:
        return False
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_whole(path: Path, text: str) -> None:
    """Replace the file in one step."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(text + "\n", encoding="utf-8")
    aside.replace(path)
    _sync_folder(path.parent)


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
