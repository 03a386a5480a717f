"""The worker's side of a model: a child process with a time and a memory limit, replaced when it dies."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import structlog

from fhir_records.errors import ModelFailed
from inference.answers import Answer, answer_from_json
from inference.reading import ImageFile
from inference.registry import RegisteredModel
from inference.wire import encode, receive

_START_LIMIT_S = 60.0
_WATCH_S = 0.05  # between two looks at the child's memory
_log = structlog.get_logger(__name__)


class ModelRunner:
    """One child process that reads one study at a time; any thread may ask.

    The process is started by the first read and kept for the next. `module` is what it runs.
    """

    def __init__(self, threads: int = 1, module: str = "inference.child") -> None:
        self._threads, self._module = threads, module
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def read(self, model: RegisteredModel, images: Sequence[ImageFile]) -> Answer:
        """The model's answer to the study made of `images`; a refusal is an answer.

        Raises ModelFailed, with the reason in words, where the process crashed, passed a limit or reported an error.
        """
        with self._lock:
            started = time.monotonic()
            reply = self._ask(model, images, "answer")
            try:
                answer = answer_from_json(reply["answer"])
            except (KeyError, TypeError, ValueError) as error:
                self._kill()
                raise ModelFailed("The model's process gave an answer that cannot be understood.") from error
        _log.info(
            "study read by model", model=model.name, images=len(images), seconds=round(time.monotonic() - started, 2)
        )
        return answer

    def look(self, model: RegisteredModel, images: Sequence[ImageFile]) -> str:
        """What most of the images show, by a model that tells anatomies; "" where none can be told.

        Raises ModelFailed, like `read`.
        """
        with self._lock:
            return str(self._ask(model, images, "anatomy", look=True)["anatomy"])

    def _ask(self, model: RegisteredModel, images: Sequence[ImageFile], wanted: str, **more: bool) -> dict[str, Any]:
        """The child's reply that has what is wanted. The caller holds the lock."""
        request = {
            "model": str(model.path.resolve()),
            "threads": self._threads,
            "images": [
                [str(Path(image.path).resolve()), image.series_uid, image.sop_uid, image.sop_class_uid]
                for image in images
            ],
            **more,
        }
        reply = self._exchange(request, model.contract.time_limit_s, model.contract.memory_limit_mb)
        if wanted not in reply:
            raise self._failure(reply, model)
        return reply

    @property
    def process_id(self) -> int | None:
        """The child that waits for the next read; None where there is none."""
        return None if self._child is None else self._child.pid

    def close(self) -> None:
        """End the process; waits for a read in progress."""
        with self._lock:
            self._kill()

    def __enter__(self) -> ModelRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _failure(self, reply: dict[str, Any], model: RegisteredModel) -> ModelFailed:
        if reply.get("failed") == "memory":
            self._kill()  # its heap is full or in pieces
            return ModelFailed(_memory_words(model.contract.memory_limit_mb))
        return ModelFailed(f"The model's process reported: {reply.get('message', 'an unknown error')}")

    def _exchange(self, request: dict[str, Any], time_limit: float, memory_limit_mb: int) -> dict[str, Any]:
        """Send the request, wait for the reply; the child is dead and gone whenever this raises."""
        child = self._running()
        try:
            requests = cast(IO[bytes], child.stdin)
            requests.write(encode(request))
            requests.flush()
            return self._await(child, time_limit, memory_limit_mb)
        except (EOFError, BrokenPipeError) as error:
            raise ModelFailed(self._death_words(child)) from error
        except ValueError as error:
            self._kill()
            raise ModelFailed("The model's process sent something that is no message.") from error
        except BaseException:
            self._kill()
            raise
        finally:
            if child.poll() is not None:
                self._kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._kill()
        # From the packages' own root, so that `-m` finds them however this process was started.
        self._child = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[1],
            start_new_session=True,  # a group of its own, to be killed whole; and no Ctrl-C before the worker is done
        )
        try:
            self._await(self._child, _START_LIMIT_S, None)
        except (EOFError, ValueError) as error:
            raise ModelFailed(self._death_words(self._child)) from error
        _log.info("model process started", pid=self._child.pid)
        return self._child

    def _await(self, child: subprocess.Popen[bytes], time_limit: float, memory_limit_mb: int | None) -> dict[str, Any]:
        """The next message of the child. Raises EOFError where it ended, ModelFailed where it passed a limit."""
        descriptor = cast(IO[bytes], child.stdout).fileno()
        deadline = time.monotonic() + time_limit
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)

            def read_exactly(count: int) -> bytes:
                parts = bytearray()
                while len(parts) < count:
                    if memory_limit_mb is not None and _resident_mb(child.pid) > memory_limit_mb:
                        self._kill()
                        raise ModelFailed(_memory_words(memory_limit_mb))
                    if time.monotonic() > deadline:
                        self._kill()
                        raise ModelFailed(f"The model's process was killed after {time_limit:g} s, its time limit.")
                    if not selector.select(_WATCH_S):
                        continue
                    part = os.read(descriptor, count - len(parts))
                    if not part:
                        raise EOFError
                    parts += part
                return bytes(parts)

            return receive(read_exactly)

    def _death_words(self, child: subprocess.Popen[bytes]) -> str:
        try:
            code = child.wait(timeout=5)
        except subprocess.TimeoutExpired:  # it closed its pipe and lives on
            self._kill()
            return "The model's process stopped answering."
        self._kill()
        if code < 0:
            return f"The model's process crashed (signal {-code}, {signal.Signals(-code).name})."
        return f"The model's process ended by itself (exit status {code})."

    def _kill(self) -> None:
        """End the child and whatever it started, and collect it."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # closing flushes what it no longer read
                    pipe.close()


def _memory_words(limit_mb: int) -> str:
    return f"The model's process ran out of its memory limit of {limit_mb} MB."


def _resident_mb(pid: int) -> float:
    """Memory in use by the process; 0 where the system does not tell (the child's own limit holds there)."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2
