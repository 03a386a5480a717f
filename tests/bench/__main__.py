"""Run every benchmark: ``python -m tests.bench``; the series is read from the test data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.bench import bench_main_job

REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> int:
    """The main job, then the listener."""
    data = Path(os.environ.get("WETREAD_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    series = data / "dicom" / "philips_brain_mr"
    if not series.is_dir():
        print(f"no series in {series}; set WETREAD_TEST_DATA", file=sys.stderr)
        return 1
    bench_main_job.main(series)
    command = [sys.executable, "-m", "pytest", "-q", "-s", "tests/bench/bench_listener.py"]
    return subprocess.run(command, cwd=REPOSITORY, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
