"""How long the main job takes: start-up, from the last slice to the report in the PACS, and memory at rest.

    python -m tests.bench.bench_main_job SERIES_FOLDER

Absolute figures are this machine's. What can be compared is the share beyond the idle time, which is configured.
"""

from __future__ import annotations

import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

from inference.registry import Registry
from tests.peers import orthanc_server, storescu
from tests.service import Service, until

IDLE_S = 2.0
RUNS = 3


def main(series: Path) -> None:
    """Run it and print a table."""
    files = sorted(path for path in series.rglob("*") if path.is_file())
    with tempfile.TemporaryDirectory() as folder, orthanc_server(Path(folder), ae_title="BENCH") as pacs:
        home = Path(folder) / "home"
        Registry(home / "models").ensure_shipped()
        destination = f"""
[[destination]]
name = "pacs"
ae_title = "{pacs.ae_title}"
host = "127.0.0.1"
port = {pacs.dicom_port}
"""
        service = Service(home, destination, IDLE_S)
        started = time.monotonic()
        service.start()
        first_start = time.monotonic() - started
        service.stop()
        started = time.monotonic()
        service.start()
        later_start = time.monotonic() - started
        time.sleep(5)
        rest = memory(service)
        sending, beyond = [], []
        try:
            for run in range(RUNS):
                sent, read = one_run(service, pacs, files, run, Path(folder))
                sending.append(sent)
                beyond.append(read)
            after = memory(service)
        finally:
            service.stop()
    print(f"first start, new database      {first_start:6.1f} s")
    print(f"later start                    {later_start:6.1f} s")
    print(f"sending {len(files)} slices             {statistics.median(sending):6.1f} s (median of {RUNS})")
    print(f"last slice to SR in the PACS   {statistics.median(beyond):6.1f} s beyond the idle time of {IDLE_S:g} s")
    print(f"                               {min(beyond):6.1f} to {max(beyond):.1f} s")
    print("memory, proportional set size  at rest   after the reads")
    for name in after:
        print(f"  {name:<28} {rest.get(name, 0):6.0f} MiB {after[name]:6.0f} MiB")


def one_run(service: Service, pacs: object, files: list[Path], run: int, folder: Path) -> tuple[float, float]:
    """Send the series as a new study; seconds for sending, and from then to the report beyond the idle time."""
    copies = as_new_study(files, folder / f"run{run}", run)
    known = len(pacs.instances())  # type: ignore[attr-defined]
    started = time.monotonic()
    done = storescu(copies, "127.0.0.1", service.dicom_port, called="WETREAD", calling="BENCH")
    assert done.status == 0, done.output
    sent = time.monotonic()
    until(lambda: len(pacs.instances()) > known, 300, "the report")  # type: ignore[attr-defined]
    return sent - started, time.monotonic() - sent - IDLE_S


def as_new_study(files: list[Path], folder: Path, run: int) -> list[Path]:
    """Copies with UIDs of their own."""
    import pydicom

    folder.mkdir()
    copies = []
    for number, path in enumerate(files):
        ds = pydicom.dcmread(path)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            ds[keyword].value = f"{ds[keyword].value[:50]}.{run + 1}"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        copies.append(folder / f"{number:04d}.dcm")
        ds.save_as(copies[-1])
    return copies


def memory(service: Service) -> dict[str, float]:
    """Proportional set size of each process of the service, MiB, by what it is."""
    found: dict[str, float] = {}
    wanted = f"WETREAD_HOME={service.home}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            rollup = (entry / "smaps_rollup").read_text()
            ours = wanted in (entry / "environ").read_bytes()
        except OSError:
            continue
        pss = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
        if pss is None:
            continue
        if "postgres" in words[0] and str(service.home) in "".join(words) + str((entry / "cwd").readlink()):
            name = "database, all processes"
        elif ours and "deploy.listen" in words:
            name = "listen"
        elif ours and "deploy.cli" in words:
            name = words[words.index("deploy.cli") + 1]
        elif ours and "inference.child" in words:
            name = "model"
        else:
            continue
        found[name] = found.get(name, 0.0) + int(pss.group(1)) / 1024
    return dict(sorted(found.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
