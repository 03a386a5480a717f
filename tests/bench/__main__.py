"""Run every benchmark: ``python -m tests.bench``; the series is read from the test data."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.bench import bench_main_job

CT = "transfer_syntaxes/CTImage.dcm_LittleEndianExplicitTransferSyntax_1.2.840.10008.1.2.1.dcm"
REPOSITORY = Path(__file__).resolve().parents[2]


def main() -> int:
    """The main job, the listener, agreement, the models, DICOMweb."""
    data = Path(os.environ.get("WETREAD_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    series = data / "dicom" / "philips_brain_mr"
    if not series.is_dir():
        print(f"no series in {series}; set WETREAD_TEST_DATA", file=sys.stderr)
        return 1
    bench_main_job.main(series)
    commands = (
        [sys.executable, "-m", "tests.bench.bench_listener"],
        [sys.executable, "-m", "tests.bench.bench_full_index"],
        [sys.executable, "-m", "tests.bench.bench_index"],
        [sys.executable, "-m", "tests.bench.bench_listener_memory"],
        [sys.executable, "-m", "tests.bench.bench_agreement"],
        [sys.executable, "-m", "tests.bench.bench_inference", str(series)],
        [sys.executable, "-m", "tests.bench.bench_dicomweb", str(data / "dicom" / CT)],
    )
    return max(subprocess.run(command, cwd=REPOSITORY, check=False).returncode for command in commands)


if __name__ == "__main__":
    sys.exit(main())
