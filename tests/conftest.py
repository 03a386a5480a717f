"""What every test may use: the test data, real DICOM peers, and what is made once for the whole run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest_plugins = ["tests.databases", "tests.peers", "tests.service", "tests.tiny_model"]

REPOSITORY = Path(__file__).resolve().parents[1]
# Files that take half a minute and more, each in one process: begun last, they would keep the others waiting at the
# end. The very first make what is made once, while the next ones need none of it.
LONGEST = (
    "integration/test_main_job.py",
    "e2e/test_every_page.py",
    "integration/test_conformance_matrix.py",
    "integration/test_durability.py",
    "integration/test_embedded_postgres.py",
    "integration/test_model_runner.py",
    "e2e/test_overlays.py",
    "integration/test_demo.py",
    "integration/test_serve.py",
    "integration/test_jobs.py",
    "integration/test_listener_processes.py",
    "integration/test_delivery_storm.py",
    "unit/inference/test_outlining_models.py",
    "integration/test_orthanc_service.py",
    "integration/test_training_from_reviews.py",
    "integration/test_outlined_heads.py",
    "integration/test_trial_in_service.py",
    "integration/test_routed_service.py",
    "e2e/test_viewer_page.py",
    "e2e/test_signing_page.py",
    "e2e/test_pages.py",
    "chaos/test_power.py",
    "integration/test_route_cli.py",
    "integration/test_models_cli.py",
    "integration/test_indexer.py",
    "unit/inference/test_registry.py",
    "unit/inference/test_foreign.py",
    "integration/test_sr_conformance.py",
    "integration/test_role_takes_all.py",
    "integration/test_one_truth.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first; the order is otherwise as it was."""
    tests = REPOSITORY / "tests"
    place = {tests / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of scans and messages to test with: ``WETREAD_TEST_DATA``, else ``../shared/data``."""
    folder = Path(os.environ.get("WETREAD_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"SKIPPED LOUDLY: no test data in {folder}; set WETREAD_TEST_DATA to the folder that holds it")
    return folder
