"""A registered model: its folder, read and compared with what was recorded of it."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fhir_records.errors import BundleError
from inference.contract import Contract, load_contract
from inference.registry_files import sha256

# The namespace that Device UIDs are drawn in: the same weights have the same Device UID in every installation.
DEVICE_NAMESPACE = uuid.UUID("8f0c8a5e-5f0b-4d0e-9d43-4b7c1d5a2e60")
RECORD = "registered.json"


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


class Standing(StrEnum):
    """What a version is to the installation."""

    ACTIVE = "active"
    SHADOW = "shadow"  # on trial: reads the same studies, for administrators only
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Version:
    """One registered version, sound or not."""

    name: str
    version: str
    folder: str  # tells versions of one number apart
    standing: Standing
    model: RegisteredModel | None  # None: damaged
    fault: str  # in words, where it is damaged


def device_uid(weights_sha256: str) -> str:
    """Device UID (PS3.15 Contributing Equipment) of the model with these weights, 2.25 form (PS3.5 section B.2)."""
    return f"2.25.{uuid.uuid5(DEVICE_NAMESPACE, weights_sha256).int}"


def load(folder: Path) -> RegisteredModel:
    """The registered model in `folder`, after its files were compared with what was recorded.

    Raises BundleError where a file changed or is missing.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        changed = [name for name, digest in record["files"].items() if sha256(folder / name) != digest]
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


def sound(folder: Path) -> bool:
    """Whether the folder holds a registered model whose files are as they were."""
    try:
        load(folder)
    except BundleError:
        return False
    return True
