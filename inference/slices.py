"""A series through the network: decoding and preparing in threads beside it, a batch at a time.

However long the series, memory holds a few batches of pictures: what is kept of a slice is its place and what the
network said of it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fhir_records.errors import PixelsNotReadable
from inference.backends import Backend, Outputs
from inference.contract import Contract
from inference.preprocess import PreprocessSettings, prepare
from inference.suitability import ImageFacts

Floats = npt.NDArray[np.float32]
Place = TypeVar("Place")

_DECODERS = 2  # threads; what they do lets go of the interpreter's lock for most of the time
_MOST_CELLS = 4096  # of one slice's maps; a network with larger ones is read without them


class Picture(Protocol):
    """The way to an object's pixels: `dicom_listener.stored.StoredImage`, or a test's."""

    def grey(self, frame: int = 1) -> Floats:
        """The frame (from 1) as float32, shape (rows, columns). Raises PixelsNotReadable."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of the stack."""

    image: ImageFacts
    number: int  # from 1
    picture: Picture


@dataclass(frozen=True, slots=True)
class Slices:
    """What the network said of the slices that show something, in the order of the stack."""

    frames: list[Frame]
    logits: Floats  # shape (slices, classes)
    distances: Floats | None  # shape (slices,), from the training images
    maps: Floats | None  # shape (slices, classes, rows, columns): class activation maps
    areas: list[float]  # share of the slice that the head covers
    decoded: int
    undecodable: int
    repeated: int  # left out, because another slice shows the very same picture


@dataclass(frozen=True, slots=True)
class _Prepared:
    square: Floats  # shape (size, size)
    area: float
    digest: bytes  # of the square


def stack_frames(images: Sequence[ImageFacts], pictures: dict[str, Picture]) -> list[Frame]:
    """Every frame of the images, by its place where all places are known, else in the order given."""
    placed = []
    for image in images:
        known = image.frame_positions if len(image.frame_positions) == image.number_of_frames else ()
        for number in range(1, image.number_of_frames + 1):
            position = known[number - 1] if known else image.position if image.single_frame else None
            placed.append((position, Frame(image, number, pictures[image.path])))
    if all(position is not None for position, _ in placed):
        placed.sort(key=lambda item: item[0] or 0.0)
    return [frame for _, frame in placed]


def clean(grey: Floats) -> Floats:
    """Without the numbers that are none, which floating point pixels may hold."""
    return np.nan_to_num(grey, posinf=0.0, neginf=0.0)


def run_network(contract: Contract, backend: Backend, frames: Iterable[Frame]) -> Slices:
    """Every frame of the series through the network.

    Raises MemoryError where a frame, or what is made of it, does not fit the process's limit.
    """
    kept = _Kept(backend, contract.batch_size)
    lookahead = 2 * contract.batch_size
    with ThreadPoolExecutor(_DECODERS, thread_name_prefix="decode") as pool:
        try:
            for frame, prepared in _ahead(pool, iter(frames), contract.preprocess, lookahead):
                kept.add(frame, prepared)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return kept.finished(len(contract.classes))


def _ahead(
    pool: ThreadPoolExecutor, frames: Iterator[Frame], settings: PreprocessSettings, lookahead: int
) -> Iterator[tuple[Frame, _Prepared | PixelsNotReadable | None]]:
    """The frames in their order with what became of them; so many are under way or wait at most."""
    waiting: deque[tuple[Frame, Future[_Prepared | PixelsNotReadable | None]]] = deque()
    for frame in islice(frames, lookahead):
        waiting.append((frame, pool.submit(_prepared, frame, settings)))
    while waiting:
        frame, future = waiting.popleft()
        result = future.result()
        for following in islice(frames, 1):
            waiting.append((following, pool.submit(_prepared, following, settings)))
        yield frame, result


def _prepared(frame: Frame, settings: PreprocessSettings) -> _Prepared | PixelsNotReadable | None:
    """The network's square; None where nothing is bright (air above the head), the error where it does not decode."""
    try:
        grey = frame.picture.grey(frame.number)
    except PixelsNotReadable as error:
        if isinstance(error.__cause__, MemoryError):  # the image is not broken: this process reached its limit
            raise error.__cause__ from error
        return error
    prepared = prepare(clean(grey), settings)
    if prepared is None:
        return None
    square, head = prepared
    return _Prepared(square, head.fraction, hashlib.blake2b(square.tobytes(), digest_size=12).digest())


@dataclass(slots=True)
class _Kept:
    """What is known so far, and the batch that is being filled."""

    backend: Backend
    batch_size: int
    frames: list[Frame] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    batch: list[Floats] = field(default_factory=list)
    outputs: list[Outputs] = field(default_factory=list)
    seen: set[bytes] = field(default_factory=set)
    decoded: int = 0
    undecodable: int = 0
    repeated: int = 0

    def add(self, frame: Frame, prepared: _Prepared | PixelsNotReadable | None) -> None:
        if isinstance(prepared, PixelsNotReadable):
            self.undecodable += 1
            return
        self.decoded += 1
        if prepared is None:
            return
        if prepared.digest in self.seen:
            self.repeated += 1
            return
        self.seen.add(prepared.digest)
        self.frames.append(frame)
        self.areas.append(prepared.area)
        self.batch.append(prepared.square)
        if len(self.batch) == self.batch_size:
            self._run()

    def _run(self) -> None:
        output = self.backend.run(np.stack(self.batch)[:, None])
        fits = output.maps is not None and output.maps[0].size <= _MOST_CELLS
        self.outputs.append(output if fits else Outputs(output.logits, output.distances))
        self.batch.clear()

    def finished(self, classes: int) -> Slices:
        if self.batch:
            self._run()
        distances = [output.distances for output in self.outputs if output.distances is not None]
        maps = [output.maps for output in self.outputs if output.maps is not None]
        none = np.zeros((0, classes), np.float32)
        return Slices(
            frames=self.frames,
            logits=np.concatenate([none, *(output.logits for output in self.outputs)]),
            distances=np.concatenate(distances) if distances else None,
            maps=np.concatenate(maps) if maps else None,
            areas=self.areas,
            decoded=self.decoded,
            undecodable=self.undecodable,
            repeated=self.repeated,
        )
