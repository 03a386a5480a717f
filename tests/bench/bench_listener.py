"""How many objects a second each of four receivers takes from DCMTK's storescu, in turn, in one run.

    python -m tests.bench.bench_listener [--runs 3] [--seconds 1.5]

Sender, receiver and database share the machine, so shares can be compared, absolute figures not. Every receiver starts
anew with empty storage for each measurement, on an ordinary disk, with ``TCP_NODELAY`` on both sides where it can be
had. Ours answers when file and directory are synchronised; "and indexed" counts until the last row is there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tests.bench import senders
from tests.bench.receivers import Ours, Start, dcmtk, orthanc, places, pynetdicom

SIZES = {131_072: 1200, 524_288: 400}  # bytes of pixel data: objects of one measurement
ASSOCIATIONS = (1, 4)
Column = tuple[int, int]  # size, associations
DCMTK, ORTHANC, OURS, INDEXED = "DCMTK storescp", "Orthanc", "Wetread", "Wetread, and indexed"

# The shares aimed at: of DCMTK's over one association, of DCMTK's over four, of Orthanc's.
WANTED = {(DCMTK, 1): 0.8, (DCMTK, 4): 0.6, (ORTHANC, 1): 1.5, (ORTHANC, 4): 1.5}


def measure(runs: int, scale: float, programs: Mapping[str, Start], ours: Ours | None, place: Path) -> Rates:
    """Each program in each column, ``runs`` times, all in turn."""
    rates: Rates = defaultdict(lambda: defaultdict(list))
    for size, objects in SIZES.items():
        count = max(8, round(objects * scale))
        paths = senders.make(place / f"sent{size}", count, size)
        for run in range(runs):
            for associations in ASSOCIATIONS:
                for name, start in programs.items():
                    if ours is not None and name == OURS:
                        ours.empty()
                    with start(place / "receiver") as receiver:
                        seconds = senders.send(paths, receiver, associations)
                        behind = senders.until_indexed(receiver, count)
                        stored = receiver.stored()
                    if stored != count:
                        raise RuntimeError(f"{name} stored {stored} of {count} objects")
                    column = (size, associations)
                    rates[name][column].append(count / seconds)
                    if receiver.indexed is not None:
                        rates[INDEXED][column].append(count / (seconds + behind))
                    print(f"run {run + 1}: {name}, {size} B x {associations}: {count / seconds:.0f}/s", file=sys.stderr)
    return rates


Rates = dict[str, dict[Column, list[float]]]


def table(rates: Rates) -> list[str]:
    """Objects a second: median, smallest and largest of the runs, and medians as shares of the peers'."""
    columns = [(size, associations) for size in SIZES for associations in ASSOCIATIONS]
    heads = [f"{size // 1000} kB x {associations}" for size, associations in columns]
    lines = [_row("objects a second", heads)]
    for name, found in rates.items():
        cells = [found[column] for column in columns]
        lines.append(_row(name, [f"{statistics.median(c):.0f} ({min(c):.0f}-{max(c):.0f})" for c in cells]))
    for peer in (DCMTK, ORTHANC):
        for name in (OURS, INDEXED):
            if name in rates and peer in rates:
                shares = [statistics.median(rates[name][c]) / statistics.median(rates[peer][c]) for c in columns]
                lines.append(_row(f"{name} / {peer}", [f"{share:.2f}" for share in shares]))
        if peer in rates:
            lines.append(_row(f"wanted / {peer}", [f"{WANTED[peer, column[1]]:.2f}" for column in columns]))
    return lines


def _row(name: str, cells: list[str]) -> str:
    return f"{name:<40}" + "".join(f"{cell:>19}" for cell in cells)


def disk_rate(place: Path, size: int = 131_072, count: int = 100) -> float:
    """Files of this size that one process makes durable a second: written, synchronised, directory synchronised."""
    content = bytes(size)
    folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    began = time.perf_counter()
    for number in range(count):
        path = place / f"probe{number}"
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.fsync(folder)
    rate = count / (time.perf_counter() - began)
    os.close(folder)
    for number in range(count):
        (place / f"probe{number}").unlink()
    return rate


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_listener", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="times the usual number of objects")
    parser.add_argument("--processes", type=int, default=0, help="our acceptor processes; 0: as many as it chooses")
    parser.add_argument("--only", nargs="*", help="of the programs, by the first letters of their names")
    told = parser.parse_args(arguments)
    senders.no_delay()
    with places() as place:
        print(f"the disk alone: {disk_rate(place):.0f} files of 131 kB a second, each synchronised with its directory")
        ours = Ours(place / "ours", told.processes)
        programs: dict[str, Start] = {DCMTK: dcmtk, ORTHANC: orthanc, "pynetdicom storescp": pynetdicom, OURS: ours}
        if told.only:
            programs = {n: s for n, s in programs.items() if n.lower().startswith(tuple(map(str.lower, told.only)))}
        try:
            rates = measure(told.runs, told.scale, programs, ours, place)
        finally:
            ours.close()
    print("\n".join(table(rates)))


if __name__ == "__main__":
    main()
