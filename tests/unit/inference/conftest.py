"""The tiny model, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.registry import RegisteredModel, Registry


@pytest.fixture
def tiny_model(tiny_root: Path) -> RegisteredModel:
    """The tiny model, registered."""
    return Registry(tiny_root).get("tiny")
