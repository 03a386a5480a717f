"""Golden cases: inputs that need no data, the same on every machine, and the answers that a model gave to them.

`python -m inference.golden FOLDER` gives them to a registered model once more and prints one line of JSON: a process
of its own, because a graph that is damaged may take its process with it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fhir_records.errors import BundleError, WetreadError
from inference.backends import Backend
from inference.backends.onnx import OnnxBackend
from inference.contract import Contract, load_contract
from inference.preprocess import standardise

GOLDEN_FILE = "golden.json"
REGISTERED_TOLERANCE = 1e-3  # of a probability, between the day of registration and today
TRAINED_TOLERANCE = 5e-2  # of a logit, between this machine and the one that trained
_COUNT = 6

Floats = npt.NDArray[np.float32]


def golden_inputs(size: int) -> Floats:
    """Discs with waves and a spot in them, standardised; shape (6, 1, size, size)."""
    row, column = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    pictures = []
    for number in range(_COUNT):
        disc = row**2 / 0.8 + column**2 / (0.5 + 0.08 * number) < 0.9
        waves = 0.4 + 0.15 * np.cos((5 + 2 * number) * row) * np.sin((11 - number) * column + number)
        spot = (row - 0.1 * number + 0.2) ** 2 + (column + 0.12 * number - 0.3) ** 2 < 0.02 * (number + 1)
        pictures.append(standardise((disc * (waves + 0.4 * spot)).astype(np.float32)))
    return np.stack(pictures)[:, None]


def golden_record(logits: Floats) -> dict[str, Any]:
    """What training stores of the network's logits on `golden_inputs`, shape (6, classes)."""
    return {"logits": [[round(float(value), 6) for value in row] for row in logits]}


def golden_logits(backend: Backend, size: int) -> Floats:
    """A back end's logits on the golden inputs, given in two batches of different size."""
    inputs = golden_inputs(size)
    return np.concatenate([backend.run(inputs[:1]).logits, backend.run(inputs[1:]).logits])


def differences(contract: Contract, logits: Floats, others: Floats) -> dict[str, float]:
    """By class, how far apart two back ends' probabilities are at most over the golden cases."""
    apart = np.abs(_probabilities(logits, contract.temperature) - _probabilities(others, contract.temperature))
    return {item.label: round(float(most), 9) for item, most in zip(contract.classes, apart.max(axis=0), strict=True)}


def trained_difference(bundle: Path, logits: Floats) -> float | None:
    """How far these logits are from those stored at training; None where the bundle stores none.

    Raises BundleError where they are too far.
    """
    path = bundle / GOLDEN_FILE
    if not path.exists():
        return None
    try:
        stored = np.array(json.loads(path.read_text(encoding="utf-8"))["logits"], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{GOLDEN_FILE} holds no logits: {error}") from error
    difference = float(np.abs(stored - logits).max()) if stored.shape == logits.shape else float("inf")
    if not difference <= TRAINED_TOLERANCE:
        raise BundleError(
            f"The weights give other answers than when they were trained: a logit differs by {difference:.3g}; "
            f"{TRAINED_TOLERANCE:g} is allowed."
        )
    return difference


def verify(folder: Path) -> dict[str, Any]:
    """Run the golden cases on a registered model. Raises BundleError where it answers otherwise than it did."""
    contract = load_contract(folder / "contract.toml")
    backend = OnnxBackend(folder / "model.onnx")
    if contract.segmentation is not None:
        from inference.golden_volumes import verified

        return verified(folder, contract.segmentation, backend)
    logits = golden_logits(backend, contract.preprocess.size)
    record = json.loads((folder / "registered.json").read_text(encoding="utf-8"))
    registered = record["export"].get("logits")  # models registered by an older version have none
    by_class = differences(contract, logits, np.array(registered, np.float32)) if registered else {}
    if by_class and not max(by_class.values()) <= REGISTERED_TOLERANCE:
        raise BundleError(
            f"A golden case is answered otherwise than at registration: a probability differs by "
            f"{max(by_class.values()):.3g}; {REGISTERED_TOLERANCE:g} is allowed."
        )
    return {"cases": len(logits), "since_registration": by_class, "since_training": trained_difference(folder, logits)}


def _probabilities(logits: Floats, temperature: float) -> npt.NDArray[np.float64]:
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: npt.NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


def main() -> None:
    """Verify the folder named on the command line; exit status 1 and a message where that fails."""
    reply: dict[str, Any]
    try:
        reply = {"verified": verify(Path(sys.argv[1]))}
    except WetreadError as error:
        reply = {"failed": str(error)}
    except Exception as error:  # boundary: whatever a damaged folder makes of it is this model's failure
        reply = {"failed": f"{type(error).__name__}: the golden cases could not be run."}
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.exit("failed" in reply)


if __name__ == "__main__":
    main()
