"""What every test may use: the test data, and real DICOM peers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["tests.databases", "tests.peers", "tests.service", "tests.tiny_model"]

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of scans and messages to test with: ``WETREAD_TEST_DATA``, else ``../shared/data``."""
    folder = Path(os.environ.get("WETREAD_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"SKIPPED LOUDLY: no test data in {folder}; set WETREAD_TEST_DATA to the folder that holds it")
    return folder
