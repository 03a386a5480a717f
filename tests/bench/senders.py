"""Generated objects, and DCMTK's storescu to send them: the same sender for every receiver."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from pydicom.uid import generate_uid

from tests.bench.receivers import Receiver
from tests.peers import HOST, need
from tests.unit.dicom_listener.objects import as_file, image

# Seconds for one transmission, a long time for any of them.
_LIMIT_S = 900.0


def no_delay() -> None:
    """Let DCMTK's programs, Orthanc among them, send at once what they have to send.

    Without it delayed acknowledgements cost 40 ms an object and hide everything else.
    """
    os.environ["TCP_NODELAY"] = "1"


def make(folder: Path, count: int, pixel_bytes: int) -> list[Path]:
    """So many images of one study, of 256 columns and as many rows as it takes."""
    folder.mkdir(parents=True)
    study, series = generate_uid(), generate_uid()
    rows = pixel_bytes // 512
    paths = []
    for number in range(count):
        ds = image(
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            InstanceNumber=number + 1,
            Rows=rows,
            Columns=256,
            PixelData=number.to_bytes(4, "little") + os.urandom(508) * rows + bytes(4 * rows - 4),
        )
        paths.append(folder / f"{number:05d}.dcm")
        paths[-1].write_bytes(as_file(ds))
    return paths


def send(paths: Sequence[Path], receiver: Receiver, associations: int) -> float:
    """Send all over so many associations at once; seconds until the last answer.

    Raises:
        RuntimeError: an object was not answered with success.
    """
    commands = [
        [need("storescu"), "--call", receiver.called, HOST, str(receiver.port), *map(str, paths[n::associations])]
        for n in range(associations)
    ]
    failures: list[str] = []

    def run(command: list[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
        if done.returncode:
            failures.append(f"{receiver.name}: {done.stderr[-500:]}")

    threads = [threading.Thread(target=run, args=(command,)) for command in commands]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    if failures:
        raise RuntimeError("; ".join(failures))
    return seconds


def until_indexed(receiver: Receiver, count: int) -> float:
    """Wait until the receiver's index knows ``count`` objects; seconds."""
    began = time.perf_counter()
    while receiver.indexed is not None and receiver.indexed() < count:
        if time.perf_counter() - began > _LIMIT_S:
            raise RuntimeError(f"{receiver.name}: {receiver.indexed()} of {count} objects are in the index")
        time.sleep(0.02)
    return time.perf_counter() - began
