"""The registry's folders and small files, written so that a reader at any moment finds a whole state."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

SHIPPED = Path(__file__).resolve().parent / "bundles"  # those that come with Wetread
ACTIVE = "active"  # first line: the folder in use; below it, newest first, those that were in use before
SHADOW = "shadow"  # the folder of the version on trial
REMOVED = "removed"  # folders that a person has removed: not to be brought back by a start


def active_folder(model: Path) -> Path | None:
    """The folder of the version in use, of the model whose versions lie in `model`; None where there is none."""
    names = lines(model / ACTIVE)
    return model / names[0] if names else None


def lines(path: Path) -> list[str]:
    """The lines of a small file; none where it is not there. Raises OSError for what cannot be read."""
    try:
        return [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line]
    except (FileNotFoundError, NotADirectoryError):
        return []


def write_lines(path: Path, values: list[str]) -> None:
    """Replace the file in one step."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w", encoding="utf-8") as file:
        file.write("".join(f"{value}\n" for value in values))
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
    sync_folder(path.parent)


def sha256(path: Path) -> str:
    """Of the file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(folder: Path) -> None:
    """Have every file of the folder on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Have the folder's names on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
