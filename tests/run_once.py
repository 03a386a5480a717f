"""What is dear to make and the same for every test is made once a run: the first process to ask makes it."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` that `make` filled, one for all processes of the run; nobody changes anything in it.

    Args:
        factory: pytest's own; under xdist the folders of its processes lie side by side.
        name: of the folder, one for each `make`.
        make: gets an empty folder, which may go elsewhere when it is filled. Where it fails, the next who asks tries
            again.
    """
    own = factory.getbasetemp()
    shared = own.parent if own.name.startswith("popen-") else own
    folder = shared / f"once-{name}"
    with (shared / f"once-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            aside = shared / f"making-{name}"
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            make(aside)
            aside.rename(folder)
    return folder


def copied(made: Path, target: Path) -> Path:
    """A copy that a test may change, owners, times and modes included; `target` is not there yet."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", str(made), str(target)], check=True)
    return target
