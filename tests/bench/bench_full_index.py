"""Whether the listener slows down as it fills: its rate with a million objects in the index, beside its rate with none.

    python -m tests.bench.bench_full_index [--runs 3] [--full 1000000]

Both indexes stand side by side, each on a server of its own, and are measured in turn.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import psutil

from tests.bench import senders
from tests.bench.bench_index import fill
from tests.bench.receivers import Ours, Receiver, pids, places

OBJECTS = 1200
PIXEL_BYTES = 131_072
_PARTS = 4
_CALM = 0.05  # seconds of processor time in one second


def _at_rest(receiver: Receiver) -> None:
    """Wait until the comparison of all files and rows that follows a start is over: it comes once a day."""
    before, calm = 0.0, 0
    while calm < 3:
        time.sleep(1.0)
        used = sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids(receiver))
        calm = calm + 1 if used - before < _CALM else 0
        before = used


def measure(ours: Ours, place: Path, number: int, associations: int) -> tuple[float, float]:
    """Send new objects; objects a second until the last answer, and until the last row."""
    paths = senders.make(place / f"sent{number}", OBJECTS, PIXEL_BYTES)
    with ours(place / "receiver") as receiver:
        _at_rest(receiver)
        answered = senders.send(paths, receiver, associations)
        behind = senders.until_indexed(receiver, OBJECTS)
    for path in paths:
        path.unlink()
    return OBJECTS / answered, OBJECTS / (answered + behind)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_full_index", description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--full", type=int, default=1_000_000)
    told = parser.parse_args()
    senders.no_delay()
    with places() as place:
        kinds = {"none": Ours(place / "none"), f"{told.full:,}": Ours(place / "full")}
        try:
            *_, full = kinds.values()
            fill(full.database, told.full)
            found: dict[tuple[str, int], list[tuple[float, float]]] = {}
            number = 0
            for _ in range(told.runs):
                for associations in (1, _PARTS):
                    for name, ours in kinds.items():
                        number += 1
                        found.setdefault((name, associations), []).append(measure(ours, place, number, associations))
        finally:
            for ours in kinds.values():
                ours.close()
    print(f"{OBJECTS} objects of {PIXEL_BYTES // 1000} kB a run, {told.runs} runs in turn; objects a second, medians")
    for associations in (1, _PARTS):
        rates = {}
        for name in kinds:
            answered, indexed = zip(*found[name, associations], strict=True)
            rates[name] = (statistics.median(answered), statistics.median(indexed))
            print(
                f"x {associations}, {name:>10} in the index before: {rates[name][0]:6.0f} answered "
                f"({min(answered):.0f}-{max(answered):.0f}), {rates[name][1]:6.0f} and indexed "
                f"({min(indexed):.0f}-{max(indexed):.0f})"
            )
        empty, filled = rates.values()
        print(
            f"x {associations}, full / empty: {filled[0] / empty[0]:.2f} answered, {filled[1] / empty[1]:.2f} indexed"
        )


if __name__ == "__main__":
    main()
