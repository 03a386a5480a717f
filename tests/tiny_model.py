"""A bundle with a tiny network, and a registry with it: exporting it takes seconds, so that it is done once a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.registry import Registry
from tests.run_once import copied, made_once
from tests.unit.inference.samples import write_tiny_bundle


def _make(folder: Path) -> None:
    Registry(folder / "models").add(write_tiny_bundle(folder / "tiny"))


@pytest.fixture(scope="session")
def _made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "tiny", _make)


@pytest.fixture(scope="session")
def tiny_bundle(_made: Path) -> Path:
    """A bundle with a tiny network; copy it before breaking it."""
    return _made / "tiny"


@pytest.fixture(scope="session")
def tiny_root(_made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's root with the tiny model in it, of this process alone."""
    return copied(_made / "models", tmp_path_factory.mktemp("tiny") / "models")
