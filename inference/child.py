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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from dicom_listener.pixels import grey_frame, read_header
from fhir_records.errors import WetreadError
from inference.answers import answer_to_json
from inference.backends import Backend
from inference.backends.onnx import OnnxBackend
from inference.contract import Contract, load_contract
from inference.reading import ImageFile, Pixels, read_study
from inference.wire import encode, receive

_OVERHEAD = 1.5  # the hard limit over the contract's: the runner, which watches what is really in use, comes first


@dataclass(frozen=True, slots=True)
class _Loaded:
    path: str
    contract: Contract
    backend: Backend


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
            loaded = _load(request, loaded)
            answer = read_study(loaded.contract, loaded.backend, _images(request), Pixels(read_header, grey_frame))
            reply: dict[str, Any] = {"answer": answer_to_json(answer)}
        except MemoryError:
            reply = {"failed": "memory"}
        except WetreadError as error:
            reply = {"failed": "error", "message": str(error)}
        except Exception as error:  # boundary: what the model raises is this read's failure alone
            reply = {"failed": "memory"} if "bad_alloc" in str(error) else {"failed": "error", "message": _named(error)}
        signal.alarm(0)
        _send(answers, reply)


def _load(request: Mapping[str, Any], loaded: _Loaded | None) -> _Loaded:
    """The request's model, loaded unless it is already, under its limits."""
    path = str(request["model"])
    if loaded is None or loaded.path != path:
        contract = load_contract(Path(path) / "contract.toml")
        _limit_memory(contract.memory_limit_mb)
        loaded = _Loaded(path, contract, OnnxBackend(Path(path) / "model.onnx", int(request["threads"])))
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


def _named(error: Exception) -> str:
    """The error's kind and where it was raised; not its text, which may hold a header's values."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" in {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__}{place}"


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
