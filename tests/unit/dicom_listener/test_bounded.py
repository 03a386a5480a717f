"""Decoding in child processes that may hang, crash or run out of memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dicom_listener.bounded import BoundedDecoder, Bounds
from dicom_listener.pixels import display_frame, native_frame
from fhir_records.errors import PixelsNotReadable
from tests.unit.dicom_listener.objects import as_file, image

REPOSITORY = Path(__file__).resolve().parents[3]
CHILDREN = "tests.unit.dicom_listener.children"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small image."""
    path = tmp_path / "object.dcm"
    path.write_bytes(as_file(image(WindowCenter="12", WindowWidth="11")))
    return path


@pytest.fixture(scope="module")
def decoder() -> Iterator[BoundedDecoder]:
    """The real one, for pictures that do no harm."""
    with BoundedDecoder(Bounds(processes=1)) as decoder:
        yield decoder


def test_frames_are_those_of_the_decoder_itself(decoder: BoundedDecoder, path: Path) -> None:
    """What comes out of a child is what would have been decoded here, values and attributes."""
    assert np.array_equal(decoder.display_frame(path), display_frame(path))
    assert np.array_equal(decoder.display_frame(path, 1, (5.0, 2.0)), display_frame(path, 1, (5.0, 2.0)))
    ours, theirs = native_frame(path), decoder.native_frame(path)
    assert np.array_equal(ours.pixels, theirs.pixels) and ours.pixels.dtype == theirs.pixels.dtype
    assert (ours.photometric_interpretation, ours.bits_stored) == (
        theirs.photometric_interpretation,
        theirs.bits_stored,
    )


def test_refusals_come_with_their_words(decoder: BoundedDecoder, path: Path) -> None:
    """What the decoder refuses is refused in the same words, and the child goes on."""
    with pytest.raises(PixelsNotReadable, match="Frame 2 was asked for; the object has 1"):
        decoder.display_frame(path, 2)
    with pytest.raises(PixelsNotReadable, match="cannot be opened"):
        decoder.native_frame(path.with_name("absent"))
    assert decoder.display_frame(path).shape == (4, 6)


def test_decoding_that_takes_too_long_is_ended(path: Path) -> None:
    """A decoder that hangs is killed when its time is over, and the caller told so."""
    started = time.monotonic()
    with (
        BoundedDecoder(Bounds(seconds=0.5, processes=1), f"{CHILDREN}.hangs") as decoder,
        pytest.raises(PixelsNotReadable, match=r"longer than 0\.5 seconds"),
    ):
        decoder.display_frame(path)
    assert time.monotonic() - started < 60


def test_crash_of_a_decoder_is_survived(path: Path) -> None:
    """A segmentation fault ends the child alone, and the next picture gets a new child."""
    with BoundedDecoder(Bounds(processes=1), f"{CHILDREN}.crashes") as decoder:
        for _ in range(2):
            with pytest.raises(PixelsNotReadable, match="broke down"):
                decoder.display_frame(path)


def test_memory_is_limited(tmp_path: Path, path: Path) -> None:
    """A frame that needs more memory than a child may have is refused; smaller ones go on."""
    large = tmp_path / "large.dcm"
    large.write_bytes(as_file(image(Rows=9000, Columns=9000, PixelData=bytes(2 * 9000 * 9000))))
    with BoundedDecoder(Bounds(processes=1, memory_mb=250)) as decoder:
        with pytest.raises(PixelsNotReadable, match=r"memory|broke down"):
            decoder.display_frame(large)
        assert decoder.display_frame(path).shape == (4, 6)


def test_more_requests_than_children_wait_for_each_other(decoder: BoundedDecoder, path: Path) -> None:
    """Ten threads and one child: everybody gets the picture."""
    shapes: list[tuple[int, ...]] = []
    threads = [threading.Thread(target=lambda: shapes.append(decoder.display_frame(path).shape)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shapes == [(4, 6)] * 10


def test_children_end_with_their_parent(path: Path) -> None:
    """Closing leaves no process behind."""
    with BoundedDecoder(Bounds(processes=1)) as decoder:
        decoder.display_frame(path)
        (process,) = [child._process for child in decoder._all]
        assert process is not None and process.poll() is None
    assert process.returncode is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.parametrize("what", ["long", "no json", "deep", "a list", "no shape", "wrong shape"])
def test_a_child_that_babbles_is_not_believed(what: str) -> None:
    """Whatever a spoiled child says, no memory is taken for it, and the caller is told in words."""
    with (
        BoundedDecoder(Bounds(seconds=10, processes=1), f"{CHILDREN}.babbles") as decoder,
        pytest.raises(PixelsNotReadable, match="broke down"),
    ):
        decoder.display_frame(what)


def test_a_child_whose_caller_died_ends(path: Path, tmp_path: Path) -> None:
    """A decoder that hangs, with nobody left to end it, is ended by the kernel."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # reading it never ends
    command = [sys.executable, "-m", "dicom_listener.bounded_child", "512", "1"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY)
    assert child.stdin is not None
    child.stdin.write(json.dumps({"what": "native", "path": str(fifo), "frame": 1}).encode() + b"\n")
    child.stdin.flush()
    assert child.wait(60) == -signal.SIGALRM
