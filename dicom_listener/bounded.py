"""Decoding in child processes, within a limit of time and of memory.

Whatever a stored object does to a decoder, the process that asked lives on, and answers others.

A progressive JPEG of a thousand scans, an allocation without end, a fault in a decoder's C code: each ends one child,
and becomes a `PixelsNotReadable` in words.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import structlog

from dicom_listener.lookup import Array
from dicom_listener.pixels import NativeFrame
from fhir_records.errors import PixelsNotReadable

log = structlog.get_logger(__name__)

LENGTH = struct.Struct(">IQ")  # of the JSON, of the pixels after it
_LONGEST_JSON = 1 << 20
# More than a caller waits, for a child whose caller died.
_ALONE_S = 10.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much decoding one frame may take."""

    seconds: float = 20.0
    start_seconds: float = 30.0  # for a child to come up
    memory_mb: int = 3072  # private memory of one child
    processes: int = 2  # children at once; more requests wait


class BoundedDecoder:
    """The functions of `pixels`, each frame decoded in a child process; any thread may ask.

    Children are started when they are needed and kept for the next frame. They end with this process.
    """

    def __init__(self, bounds: Bounds | None = None, module: str = "dicom_listener.bounded_child") -> None:
        self.bounds = bounds or Bounds()
        self._module = module
        # The child that was used last is used next, so that the others are only started where they are needed.
        self._free: queue.LifoQueue[_Child] = queue.LifoQueue()
        self._all = [_Child(self.bounds, module) for _ in range(self.bounds.processes)]
        for child in self._all:
            self._free.put(child)

    def display_frame(
        self,
        path: str | Path,
        frame: int = 1,
        window: tuple[float, float] | None = None,
        function: str = "LINEAR_EXACT",
    ) -> npt.NDArray[np.uint8]:
        """As `pixels.display_frame`.

        Raises:
            PixelsNotReadable: likewise; or decoding took too long, needed too much memory, or crashed.
        """
        request = {"what": "display", "path": str(path), "frame": frame, "window": window, "function": function}
        _, pixels = self._ask(request)
        return cast(npt.NDArray[np.uint8], pixels)

    def native_frame(self, path: str | Path, frame: int = 1) -> NativeFrame:
        """As `pixels.native_frame`.

        Raises:
            PixelsNotReadable: likewise; or decoding took too long, needed too much memory, or crashed.
        """
        told, pixels = self._ask({"what": "native", "path": str(path), "frame": frame})
        return NativeFrame(pixels=pixels, **told["attributes"])

    def start(self) -> None:
        """Start the children that are not running, so that the next to ask need not wait for that."""
        for child in self._all:
            child.start()

    def close(self) -> None:
        """End the children."""
        for child in self._all:
            child.close()

    def __enter__(self) -> BoundedDecoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytearray]:
        """What the module that the children run answers: words, and bytes.

        Raises:
            PixelsNotReadable: it refused; or it took too long, needed too much memory, or crashed.
        """
        try:
            child = self._free.get(timeout=self.bounds.seconds)
        except queue.Empty as error:
            raise PixelsNotReadable("Too many pictures are asked for at once. Try again.") from error
        try:
            told, raw = child.ask(request)
        finally:
            self._free.put(child)
        if "refused" in told:
            raise PixelsNotReadable(str(told["refused"]))
        return told, raw

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], Array]:
        told, raw = self.ask(request)
        try:
            return told, np.frombuffer(raw, told["dtype"]).reshape(told["shape"])
        except (KeyError, TypeError, ValueError) as error:
            raise PixelsNotReadable("The decoder broke down over this image.") from error


class _Child:
    """One process, started by the first request and again after it died."""

    def __init__(self, bounds: Bounds, module: str) -> None:
        self._bounds, self._module = bounds, module
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bytearray]:
        """The child's answer. Raises PixelsNotReadable where it passed a limit or died; it is gone then."""
        with self._lock:
            try:
                process = self._running()
                pipe = cast(IO[bytes], process.stdin)
                pipe.write(json.dumps(request).encode() + b"\n")
                pipe.flush()
                return _receive(process, self._bounds)
            except TimeoutError as error:
                self._kill()
                log.warning("decoding was ended", reason="time", seconds=self._bounds.seconds)
                raise PixelsNotReadable(
                    f"Decoding took longer than {self._bounds.seconds:g} seconds and was ended."
                ) from error
            except (EOFError, BrokenPipeError, ValueError, RecursionError) as error:
                code = self._kill()
                log.warning("decoding was ended", reason="the decoder died", status=code)
                raise PixelsNotReadable("The decoder broke down over this image.") from error
            except BaseException:
                self._kill()
                raise

    def start(self) -> None:
        """Start it, where it is not running. Should that fail, it is tried again by whoever asks, who is told."""
        with self._lock:
            try:
                self._running()
            except (OSError, EOFError, ValueError):
                self._kill()

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._kill()
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module, str(self._bounds.memory_mb), str(self._bounds.seconds + _ALONE_S)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders written in C write there, and may quote what they read
            cwd=Path(__file__).resolve().parents[1],  # so that `-m` finds our packages, however we were started
            start_new_session=True,
        )
        # It says that it is ready.
        _receive(self._process, replace(self._bounds, seconds=self._bounds.start_seconds))
        return self._process

    def _kill(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return code


def _receive(process: subprocess.Popen[bytes], bounds: Bounds) -> tuple[dict[str, Any], bytearray]:
    """The next message.

    Raises:
        EOFError: the child died.
        TimeoutError: it did not come in time.
        ValueError: it is none: a child whose memory a decoder spoiled may say anything.
    """
    descriptor = cast(IO[bytes], process.stdout).fileno()
    deadline = time.monotonic() + bounds.seconds
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)

        def read(count: int) -> bytearray:
            found, done = bytearray(count), 0
            view = memoryview(found)
            while done < count:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise TimeoutError
                got = os.readv(descriptor, [view[done:]])
                if not got:
                    raise EOFError
                done += got
            return found

        told, pixels = LENGTH.unpack(read(LENGTH.size))
        if told > _LONGEST_JSON or pixels > bounds.memory_mb * 2**20:
            raise ValueError("no message")
        words = json.loads(read(told))
        if not isinstance(words, dict):
            raise ValueError("no message")
        return words, read(pixels)
