"""What is made once for all processes of a test run."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.run_once import copied, made_once


def test_of_many_who_ask_one_makes(tmp_path_factory: pytest.TempPathFactory) -> None:
    """All get the same folder, filled, and it was filled once."""
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        time.sleep(0.1)
        (folder / "whole").touch()

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(lambda _: made_once(tmp_path_factory, "asked-by-many", make), range(8)))
    assert len(made) == 1
    assert len(set(given)) == 1
    assert [path.name for path in given[0].iterdir()] == ["whole"]


def test_what_fails_is_made_by_the_next_who_asks(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A folder that was left half filled is given to nobody."""

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        made_once(tmp_path_factory, "fails-at-first", fail)
    folder = made_once(tmp_path_factory, "fails-at-first", lambda folder: (folder / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_a_copy_is_independent(tmp_path: Path) -> None:
    """What is written into a copy does not reach what it was copied from; modes are kept."""
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "file").write_text("as it was")
    (tmp_path / "made" / "file").chmod(0o640)
    copy = copied(tmp_path / "made", tmp_path / "deep" / "copy")
    (copy / "file").write_text("changed")
    assert (tmp_path / "made" / "file").read_text() == "as it was"
    assert (copy / "file").stat().st_mode & 0o777 == 0o640
