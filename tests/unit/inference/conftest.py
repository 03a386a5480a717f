"""One tiny registered model for all tests of this folder: exporting it takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.registry import RegisteredModel, Registry
from tests.unit.inference.samples import write_tiny_bundle


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a tiny network; copy it before breaking it."""
    return write_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def tiny_root(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's root with the tiny model in it."""
    root = tmp_path_factory.mktemp("models")
    Registry(root).add(tiny_bundle)
    return root


@pytest.fixture
def tiny_model(tiny_root: Path) -> RegisteredModel:
    """The tiny model, registered."""
    return Registry(tiny_root).get("tiny")
