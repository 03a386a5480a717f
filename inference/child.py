"""The model's process: `python -m inference.child`, started and ended by `ModelRunner`, spoken to over its pipes.

It holds one loaded model and answers one study at a time. It never loads torch.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pydicom

from dicom_listener.faults import where
from dicom_listener.stored import open_stored
from fhir_records.errors import PixelsNotReadable, WetreadError
from inference.anatomy import Anatomies, AnatomyGuard, anatomy_of
from inference.answers import Answer, Refused, answer_to_json
from inference.backends import Backend
from inference.backends.select import open_backend
from inference.contract import Contract, load_contract
from inference.drift import InputFigures, Tally
from inference.reading import ImageFile, read_study
from inference.slices import Picture
from inference.suitability import HEADER_KEYWORDS
from inference.wire import encode, receive

_OVERHEAD = 1.5  # the hard limit over the contract's: the runner, which watches what is really in use, comes first


@dataclass(frozen=True, slots=True)
class _Loaded:
    path: str
    contract: Contract
    backend: Backend
    guard: AnatomyGuard | None


def main() -> None:
    """Answer requests until the other end of the pipe is closed."""
    # Whatever prints to stdout (a decoder, say) must not come between the messages.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # Headers' values stand in pydicom's warnings, and those are patients' data.
    logging.disable()
    warnings.simplefilter("ignore")
    requests = sys.stdin.buffer
    loaded: _Loaded | None = None
    _send(answers, {"ready": os.getpid()})
    while True:
        try:
            request = receive(lambda count: _read_exactly(requests, count))
        except EOFError:
            return
        try:
            reply: dict[str, Any]
            loaded = _load(request, loaded)
            if request.get("look"):
                anatomies = Anatomies(loaded.contract, loaded.backend)
                reply = {"anatomy": anatomy_of(anatomies, list(_greys(_images(request))))}
            else:
                tally = Tally(loaded.backend)
                answer = read_study(loaded.contract, tally, _images(request), _open, loaded.guard)
                reply = {"answer": answer_to_json(replace(answer, figures=_figures(tally, answer)))}
        except MemoryError:
            reply = {"failed": "memory"}
        except WetreadError as error:
            reply = {"failed": "error", "message": str(error)}
        except Exception as error:  # boundary: what the model raises is this read's failure alone
            reply = {"failed": "memory"} if "bad_alloc" in str(error) else {"failed": "error", "message": where(error)}
        signal.alarm(0)
        _send(answers, reply)


def _figures(tally: Tally, answer: Answer) -> InputFigures | None:
    """What passed to the network; of one that outlines these are windows, and images are what counts."""
    shown = tally.figures()
    if shown is None or isinstance(answer, Refused) or answer.outlines is None:
        return shown
    return replace(shown, images=answer.images_read)


def _load(request: Mapping[str, Any], loaded: _Loaded | None) -> _Loaded:
    """The request's model, loaded unless it is already, under its limits."""
    path = str(request["model"])
    if loaded is None or loaded.path != path:
        contract = load_contract(Path(path) / "contract.toml")
        _limit_memory(contract.memory_limit_mb)
        threads = int(request["threads"])
        guard = AnatomyGuard.beside(Path(path), contract, threads)
        loaded = _Loaded(path, contract, open_backend(Path(path), threads), guard)
    _limit_memory(loaded.contract.memory_limit_mb)
    # The runner kills at the time limit; should the runner itself be dead, nobody else would.
    signal.alarm(int(loaded.contract.time_limit_s) + 30)
    return loaded


def _limit_memory(megabytes: int) -> None:
    """The backstop under the runner's watch: private memory, so that mapped libraries do not count."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = int(megabytes * _OVERHEAD) * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def _images(request: Mapping[str, Any]) -> list[ImageFile]:
    return [ImageFile(*image) for image in request["images"]]


def _greys(images: Sequence[ImageFile]) -> Iterator[npt.NDArray[np.float32]]:
    """The first frame of each image that can be decoded."""
    for image in images:
        try:
            _, picture = _open(image.path)
            yield picture.grey(1)
        except PixelsNotReadable:
            continue


def _open(path: str) -> tuple[pydicom.Dataset, Picture]:
    return open_stored(path, HEADER_KEYWORDS)


def _read_exactly(pipe: BinaryIO, count: int) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _send(pipe: Any, message: Mapping[str, Any]) -> None:
    data = memoryview(encode(message))
    while data:
        data = data[pipe.write(data) :]


if __name__ == "__main__":
    main()
