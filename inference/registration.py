"""From a bundle to a registered model's folder: looked at, copied, exported, checked, recorded."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fhir_records.errors import BundleError
from inference.bundle_metadata import read_metadata
from inference.contract import Contract, load_contract
from inference.drift import REFERENCE_FILE, load_reference
from inference.foreign import derived_contract
from inference.registered import RECORD, device_uid
from inference.registry_files import sha256, sync, sync_folder

_CONTRACT = "contract.toml"
_WEIGHTS = "models/model.safetensors"
_TORCH_WEIGHTS = "models/model.pt"  # of a bundle from elsewhere: read by the exporter as tensors alone
_FAMILIARITY = "models/familiarity.safetensors"  # only where the contract counts on it
_NEEDED = ("configs/inference.json", "configs/metadata.json")
_EXTRA = ("docs/README.md", "LICENSE", "metrics.json", "split.json", "golden.json", REFERENCE_FILE)
_TAKEN = (*_NEEDED, _WEIGHTS, _TORCH_WEIGHTS, _FAMILIARITY, *_EXTRA)
_ANSWERS_DEPEND_ON = ("configs/inference.json", _WEIGHTS, _TORCH_WEIGHTS, _FAMILIARITY)
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]{0,63}")  # it is part of a folder's name
_EXPORT_LIMIT_S = 600


def inspect_bundle(bundle: Path, contract_file: Path | None) -> tuple[Contract, str, str]:
    """The bundle's contract, its text, and a digest of all that its answers depend on.

    `contract_file` stands in for the bundle's own contract.toml. Raises BundleError that says what is wrong.
    """
    missing = [name for name in _NEEDED if not (bundle / name).is_file()]
    if not (bundle / _WEIGHTS).is_file() and not (bundle / _TORCH_WEIGHTS).is_file():
        missing.append(_WEIGHTS)
    if missing:
        raise BundleError(f"The bundle {bundle.name} lacks {', '.join(missing)}.")
    read_metadata(bundle)
    file = contract_file or bundle / _CONTRACT
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / _CONTRACT
        if contract_file is not None or file.is_file():
            try:
                given.write_bytes(file.read_bytes())
            except OSError as error:
                raise BundleError(f"{file} cannot be read: {error.strerror}.") from error
        else:
            given.write_text(derived_contract(bundle), encoding="utf-8")
        contract, text, digest = load_contract(given), given.read_text(encoding="utf-8"), sha256(given)
    if not _VERSION.fullmatch(contract.version):
        raise BundleError(f"contract.toml: version is {contract.version!r}; letters, digits and . _ + - are allowed.")
    load_reference(bundle)
    present = [bundle / name for name in _ANSWERS_DEPEND_ON if (bundle / name).is_file()]
    digests = digest + "".join(sha256(path) for path in present)
    return contract, text, hashlib.sha256(digests.encode()).hexdigest()


def install(root: Path, bundle: Path, contract_text: str, target: Path, origin: str) -> None:
    """The bundle's files and what is made of them, aside in `root`, then under their name in one step.

    Raises BundleError where the network cannot be exported, or answers otherwise than in torch.
    """
    aside = Path(tempfile.mkdtemp(prefix=".adding-", dir=root))
    try:
        for name in _TAKEN:
            if (bundle / name).is_file():
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(bundle / name, aside / name)
        (aside / _CONTRACT).write_text(contract_text, encoding="utf-8")
        exported = answer_of("inference.export", aside, _EXPORT_LIMIT_S, "exported", "exported to ONNX")
        contract = load_contract(aside / _CONTRACT)
        weights = sha256(aside / _WEIGHTS)
        files = sorted(str(path.relative_to(aside)) for path in aside.rglob("*") if path.is_file())
        record = {
            "name": contract.name,
            "version": contract.version,
            "origin": origin,
            "device_uid": device_uid(weights),
            "weights_sha256": weights,
            "files": {name: sha256(aside / name) for name in (_CONTRACT, "model.onnx")},
            "bundle_files": {name: sha256(aside / name) for name in files},
            "export": exported,
        }
        (aside / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        aside.chmod(0o755)
        sync(aside)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def answer_of(module: str, folder: Path, limit_s: float, key: str, verb: str) -> dict[str, Any]:
    """Run `python -m module` on the folder. Raises BundleError with what it said."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, str(folder.resolve())],
            cwd=Path(__file__).resolve().parents[1],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"The model could not be {verb} within {limit_s:g} s.") from error
    said = done.stdout.decode(errors="replace").splitlines()
    if not said:  # it did not come as far as an answer: a library is missing, or broke
        errors = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
        raise BundleError(f"The model could not be {verb} (exit status {done.returncode}): {errors[-1]}")
    reply = json.loads(said[-1])
    if "failed" in reply:
        raise BundleError(f"The model could not be {verb}: {reply['failed']}")
    answer: dict[str, Any] = reply[key]
    return answer
