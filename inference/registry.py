"""The installation's models: bundles added, exported, checked, and one version of each name active.

Under the registry's root: `<name>/<version>-<digest>/` holds a bundle as it came, `model.onnx` made from it and
`registered.json`; `<name>/active` names the folder in use and those that were in use before, `<name>/shadow` the one
on trial. Folders appear and go whole (renamed) and never change in between; the small files are replaced whole. So
any process sees at any moment one state or the next. Weights are safetensors or ONNX; no pickle is ever loaded.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog

from fhir_records.errors import BundleError
from inference.contract import Contract
from inference.registered import RECORD, RegisteredModel, Standing, Version, device_uid, load, sound
from inference.registration import answer_of, inspect_bundle, install
from inference.registry_files import (
    ACTIVE,
    REMOVED,
    SHADOW,
    SHIPPED,
    active_folder,
    lines,
    sha256,
    sync_folder,
    write_lines,
)

__all__ = ["SHIPPED", "RegisteredModel", "Registry", "Standing", "Version", "device_uid"]

_VERIFY_LIMIT_S = 120
_ORDER = {Standing.ACTIVE: 0, Standing.SHADOW: 1, Standing.KEPT: 2}
_log = structlog.get_logger(__name__)


class Registry:
    """Models under `root`. Any number of processes may use one root at once."""

    def __init__(self, root: Path, shipped: Path = SHIPPED) -> None:
        self._root, self._shipped = root, shipped

    def add(self, bundle: Path, *, contract: Path | None = None, activate: bool = True) -> RegisteredModel:
        """Copy the bundle in, export and check its network, and make it the active version of its name.

        One that is there already, undamaged, is only made active. `contract` stands in for the bundle's own
        contract.toml; without either one is made of what metadata.json says. Without `activate` it is active only
        where its name has no active version. Raises BundleError where it is not usable; nothing has changed then.
        """
        return self._add(bundle, contract, activate=activate, origin="added")

    def ensure_shipped(self) -> None:
        """Add the bundles that come with Wetread and are not here yet. What is here is left as it is, active or not.

        A new one becomes active in place of one that came with Wetread too, never of one that a person added.
        """
        for bundle in sorted(path.parent for path in self._shipped.glob("*/contract.toml")):
            contract, _, digest = inspect_bundle(bundle, None)
            folder = _folder_name(contract, digest)
            model = self._root / contract.name
            if not (model / folder).exists() and folder not in lines(model / REMOVED):
                self._add(bundle, None, activate=self._active_is_shipped(model), origin="shipped")

    def get(self, name: str) -> RegisteredModel:
        """The active version of a model, verified. Raises BundleError where there is none or its files changed."""
        folder = active_folder(self._root / name) if name in self._names() else None
        if folder is None:
            known = ", ".join(self._names()) or "none"
            raise BundleError(f"There is no model {name!r}; registered: {known}.")
        return load(folder)

    def list(self) -> tuple[RegisteredModel, ...]:
        """The active version of every model, by name."""
        return tuple(self.get(name) for name in self._names())

    def versions(self, name: str | None = None) -> tuple[Version, ...]:
        """Every version of every model, or of one; the active one of a name first."""
        names = self._names() if name is None else (name,)
        found = [self._version(model, path) for model in names for path in self._folders(model)]
        return tuple(sorted(found, key=lambda version: (version.name, _ORDER[version.standing], version.folder)))

    def find(self, name: str, version: str) -> RegisteredModel:
        """A version of a model, verified; of several of one number the active one, then the newest.

        Raises BundleError where there is none, or its files changed.
        """
        return load(self._folder(name, version))

    def activate(self, name: str, version: str) -> RegisteredModel:
        """Make a version the one in use; a trial of it ends. Raises BundleError where it is not there, or damaged."""
        with self._locked():
            model = self.find(name, version)
            self._set_active(model.path)
        _log.info("model activated", model=name, version=model.version, device_uid=model.device_uid)
        return model

    def rollback(self, name: str) -> RegisteredModel:
        """Go back to the version that was in use before. Raises BundleError where there was none, or it is damaged."""
        with self._locked():
            there = {path.name for path in self._folders(name)}
            path = self._root / name / ACTIVE
            earlier = [folder for folder in lines(path)[1:] if folder in there]
            if not earlier:
                raise BundleError(f"No earlier version of {name!r} was in use.")
            model = load(path.parent / earlier[0])
            self._end_trial_of(model.path)
            write_lines(path, earlier)
        _log.info("model rolled back", model=name, version=model.version, device_uid=model.device_uid)
        return model

    def shadow(self, name: str, version: str | None) -> RegisteredModel | None:
        """Put a version on trial beside the active one; None ends the trial.

        Raises BundleError where it is not there, damaged, or the active one.
        """
        with self._locked():
            if version is None:
                (self._root / name / SHADOW).unlink(missing_ok=True)
                return None
            model = self.find(name, version)
            if self._standing(model.path) is Standing.ACTIVE:
                raise BundleError(f"{name} {model.version} is the active version; another one can be put on trial.")
            write_lines(model.path.parent / SHADOW, [model.path.name])
        _log.info("model on trial", model=name, version=model.version, device_uid=model.device_uid)
        return model

    def shadow_of(self, name: str) -> RegisteredModel | None:
        """The version on trial beside the active one, verified. Raises BundleError where its files changed."""
        folders = lines(self._root / name / SHADOW) if name in self._names() else []
        path = self._root / name / folders[0] if folders else None
        return None if path is None or path == active_folder(path.parent) else load(path)

    def remove(self, name: str, version: str) -> None:
        """Take a version away for good. Raises BundleError where it is not there, is active, or is on trial."""
        with self._locked():
            path = self._folder(name, version)
            standing = self._standing(path)
            if standing is not Standing.KEPT:
                first = "activate another version" if standing is Standing.ACTIVE else "end its trial"
                raise BundleError(f"{name} {version} is in use ({standing.value}): {first} first.")
            write_lines(path.parent / REMOVED, [*lines(path.parent / REMOVED), path.name])
            earlier = [folder for folder in lines(path.parent / ACTIVE) if folder != path.name]
            write_lines(path.parent / ACTIVE, earlier)
            going = Path(tempfile.mkdtemp(prefix=".removing-", dir=self._root))
            path.rename(going / path.name)
            sync_folder(path.parent)
            shutil.rmtree(going)
        _log.info("model removed", model=name, version=version)

    def verify(self, name: str, version: str | None = None) -> dict[str, Any]:
        """Compare every file of a version with what was registered, and run its golden cases again.

        Returns what the golden cases came to: their number, and how far their answers are from those of registration
        and training. Raises BundleError where a file changed or an answer did.
        """
        model = self.get(name) if version is None else self.find(name, version)
        record = json.loads((model.path / RECORD).read_text(encoding="utf-8"))
        kept = record.get("bundle_files", {})
        changed = [file for file, digest in kept.items() if not _is(model.path / file, digest)]
        if changed:
            raise BundleError(
                f"{', '.join(changed)} of {model.path.name} changed after it was registered; add it again."
            )
        return answer_of("inference.golden", model.path, _VERIFY_LIMIT_S, "verified", "verified")

    def stamp(self) -> tuple[object, ...]:
        """Another one whenever an active version or a trial has changed; cheap to ask for."""
        files = sorted(path for kind in (ACTIVE, SHADOW) for path in self._root.glob(f"*/{kind}"))
        return tuple((str(path), _identity(path)) for path in files)

    def _names(self) -> tuple[str, ...]:
        return tuple(sorted(path.parent.name for path in self._root.glob(f"*/{ACTIVE}")))

    def _folders(self, name: str) -> tuple[Path, ...]:
        if name not in self._names():
            known = ", ".join(self._names()) or "none"
            raise BundleError(f"There is no model {name!r}; registered: {known}.")
        return tuple(path.parent for path in sorted((self._root / name).glob(f"*/{RECORD}")))

    def _folder(self, name: str, version: str) -> Path:
        folders = self._folders(name)
        fitting = [path for path in folders if version in (path.name, path.name.rpartition("-")[0])]
        if not fitting:
            there = ", ".join(path.name.rpartition("-")[0] for path in folders) or "none"
            raise BundleError(f"There is no version {version!r} of {name}; registered: {there}.")
        return max(fitting, key=lambda path: (self._standing(path) is Standing.ACTIVE, path.stat().st_mtime_ns))

    def _standing(self, path: Path) -> Standing:
        if active_folder(path.parent) == path:
            return Standing.ACTIVE
        return Standing.SHADOW if path.name in lines(path.parent / SHADOW) else Standing.KEPT

    def _version(self, name: str, path: Path) -> Version:
        try:
            model, fault = load(path), ""
        except BundleError as error:
            model, fault = None, str(error)
        return Version(name, path.name.rpartition("-")[0], path.name, self._standing(path), model, fault)

    def _add(self, bundle: Path, contract_file: Path | None, *, activate: bool, origin: str) -> RegisteredModel:
        contract, text, digest = inspect_bundle(bundle, contract_file)
        target = self._root / contract.name / _folder_name(contract, digest)
        with self._locked():
            if target.exists() and not sound(target):
                shutil.rmtree(target)
            if not target.exists():
                install(self._root, bundle, text, target, origin)
            model = load(target)
            if activate or active_folder(target.parent) is None:
                self._set_active(target)
            left = lines(target.parent / REMOVED)
            if target.name in left:
                write_lines(target.parent / REMOVED, [name for name in left if name != target.name])
        _log.info("model registered", model=model.name, version=model.version, device_uid=model.device_uid)
        return model

    def _set_active(self, path: Path) -> None:
        self._end_trial_of(path)
        earlier = lines(path.parent / ACTIVE)
        if earlier[:1] != [path.name]:
            write_lines(path.parent / ACTIVE, [path.name, *(folder for folder in earlier if folder != path.name)])

    def _end_trial_of(self, path: Path) -> None:
        if path.name in lines(path.parent / SHADOW):
            (path.parent / SHADOW).unlink(missing_ok=True)

    def _active_is_shipped(self, model: Path) -> bool:
        folder = active_folder(model)
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8")) if folder else {}
        except (OSError, ValueError):
            return False
        return bool(record.get("origin", "shipped") == "shipped")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process changes something at a time; leavings of one that died are swept."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in (*self._root.glob(".adding-*"), *self._root.glob(".removing-*")):
                shutil.rmtree(left, ignore_errors=True)
            yield


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _is(path: Path, digest: str) -> bool:
    try:
        return sha256(path) == digest
    except OSError:
        return False


def _folder_name(contract: Contract, digest: str) -> str:
    return f"{contract.version}-{digest[:12]}"
