"""What body part an image shows, by its pixels: a header can be wrong. Guards other models, and gives routes a fact."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fhir_records.errors import BundleError
from inference.answers import Refused
from inference.backends import Backend
from inference.backends.onnx import OnnxBackend
from inference.contract import Contract, load_contract
from inference.preprocess import prepare
from inference.registry_files import active_folder

Grey = npt.NDArray[np.float32]  # one whole frame, shape (rows, columns)
Floats = npt.NDArray[np.float32]

_BATCH = 64
_MAJORITY = 2 / 3  # of a series' frames that must pass: a few may show the ends of a body part


@dataclass(frozen=True, slots=True)
class Anatomies:
    """A classifier of single frames by what they show."""

    contract: Contract
    backend: Backend

    @classmethod
    def load(cls, folder: Path, threads: int = 1) -> Anatomies:
        """The registered model in `folder`. Raises BundleError where it is damaged."""
        return cls(load_contract(folder / "contract.toml"), OnnxBackend(folder / "model.onnx", threads))

    @property
    def labels(self) -> tuple[str, ...]:
        """What the frames can be called, in the order of the probabilities."""
        return tuple(item.label for item in self.contract.classes)

    def probabilities(self, greys: Iterable[Grey]) -> Floats:
        """Shape (frames, labels); all zero for a frame that shows nothing."""
        rows: list[Floats] = []
        batch: list[Floats] = []
        places: list[int] = []
        count = 0
        for count, grey in enumerate(greys, start=1):
            prepared = prepare(grey, self.contract.preprocess)
            if prepared is None:
                continue
            places.append(count - 1)
            batch.append(prepared[0])
            if len(batch) == _BATCH:
                rows.append(self._run(batch))
                batch.clear()
        if batch:
            rows.append(self._run(batch))
        result = np.zeros((count, len(self.labels)), dtype=np.float32)
        if rows:
            result[places] = np.concatenate(rows)
        return result

    def _run(self, batch: list[Floats]) -> Floats:
        logits = self.backend.run(np.stack(batch)[:, None]).logits / self.contract.temperature
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        result: Floats = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return result


@dataclass(frozen=True, slots=True)
class AnatomyGuard:
    """Refuses frames that do not show what a model reads, as its contract's `[guard]` says."""

    anatomies: Anatomies
    allowed: tuple[str, ...]
    threshold: float

    @classmethod
    def beside(cls, model_path: Path, contract: Contract, threads: int = 1) -> AnatomyGuard | None:
        """The guard of a registered model: the active version of the guard's name in the same registry.

        None where the contract names no guard. Raises BundleError where it names one that is not registered, or labels
        that the guard does not know.
        """
        if contract.guard is None:
            return None
        folder = active_folder(model_path.resolve().parents[1] / contract.guard.model)
        if folder is None:
            raise BundleError(
                f"{contract.name} is guarded by the model {contract.guard.model!r}, which is not registered."
            )
        anatomies = Anatomies.load(folder, threads)
        unknown = sorted(set(contract.guard.allowed) - set(anatomies.labels))
        if unknown:
            raise BundleError(f"{contract.guard.model} knows no {', '.join(unknown)}, which {contract.name} counts on.")
        return cls(anatomies, contract.guard.allowed, contract.guard.threshold)

    def shares(self, greys: Iterable[Grey]) -> Floats:
        """Shape (frames,): the probability that each shows what is allowed."""
        columns = [self.anatomies.labels.index(label) for label in self.allowed]
        result: Floats = self.anatomies.probabilities(greys)[:, columns].sum(axis=1)
        return result

    def __call__(self, greys: Iterable[Grey]) -> Refused | None:
        """The refusal of a series of which these are some frames, or None; two thirds of its frames have to pass."""
        probabilities = self.anatomies.probabilities(greys)
        if not len(probabilities):
            return None
        columns = [self.anatomies.labels.index(label) for label in self.allowed]
        passed = probabilities[:, columns].sum(axis=1) >= self.threshold
        if passed.mean() >= _MAJORITY:
            return None
        wanted = " or ".join(self.allowed)
        seen = _commonest(self.anatomies, probabilities[~passed])
        if seen in (None, *self.allowed) or seen == self._nothing:
            because = f"the images do not look like {wanted}, which alone this model reads"
        else:
            because = f"the images look like {seen} and this model reads {wanted} only"
        return Refused("anatomy", f"Not read, because {because}.")

    @property
    def _nothing(self) -> str:
        """The label for all that has no label."""
        return next(item.label for item in self.anatomies.contract.classes if item.presence == "absent")


def anatomy_of(anatomies: Anatomies, greys: Sequence[Grey]) -> str:
    """What most of the frames show: one of the classifier's labels; "" where no frame shows anything."""
    return _commonest(anatomies, anatomies.probabilities(greys)) or ""


def _commonest(anatomies: Anatomies, probabilities: Floats) -> str | None:
    called = [anatomies.labels[int(row.argmax())] for row in probabilities if row.any()]
    return Counter(called).most_common(1)[0][0] if called else None
