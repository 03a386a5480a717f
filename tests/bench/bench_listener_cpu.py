"""Where the time of an object goes: processor time of each of our processes, and the database's, for one object.

    python -m tests.bench.bench_listener_cpu [--objects 600] [--bytes 131072] [--associations 4]

Unlike rates, processor time says something on a machine that others use as well.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.bench import senders
from tests.bench.receivers import Ours, pids, places
from tests.chaos.processes import descendants

_TICK = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure, and print microseconds an object."""
    options = argparse.ArgumentParser(prog="python -m tests.bench.bench_listener_cpu", description=__doc__)
    options.add_argument("--objects", type=int, default=600)
    options.add_argument("--bytes", type=int, default=131_072, help="of pixels")
    options.add_argument("--associations", type=int, default=4)
    options.add_argument("--runs", type=int, default=3)
    told = options.parse_args()
    senders.no_delay()
    with places() as place:
        paths = senders.make(place / "sent", told.objects, told.bytes)
        ours = Ours(place / "ours")
        try:
            for _ in range(told.runs):
                _print(*_run(ours, place, paths, told.associations), len(paths))
        finally:
            ours.close()


def _run(ours: Ours, place: Path, paths: list[Path], associations: int) -> tuple[Mapping[str, float], float]:
    """Seconds of processor time by process, and of the clock until all is indexed."""
    ours.empty()
    server = int((ours.server.home / "postgres" / "data" / "postmaster.pid").read_text().split()[0])
    with ours(place / "receiver") as receiver:
        spent = {pid: _seconds(pid) for pid in (*pids(receiver), server, *descendants(server))}
        began = time.perf_counter()
        senders.send(paths, receiver, associations)
        senders.until_indexed(receiver, len(paths))
        took = time.perf_counter() - began
        listener = sorted(pids(receiver))
        named = {listener[0]: "parent", listener[1]: "index"} | dict.fromkeys(listener[2:], "acceptors")
        named |= dict.fromkeys((server, *descendants(server)), "database")
        found: Counter[str] = Counter()
        for pid, name in named.items():
            user, system = _seconds(pid)
            before = spent.get(pid, (0.0, 0.0))
            found[name] += user - before[0]
            found[f"{name}, kernel"] += system - before[1]
    return found, took


def _seconds(pid: int) -> tuple[float, float]:
    """Of the process, threads that ended included: its own, and the kernel's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / _TICK, int(fields[12]) / _TICK


def _print(found: Mapping[str, float], took: float, objects: int) -> None:
    cells = [f"{name} {seconds / objects * 1e6:.0f}" for name, seconds in found.items()]
    print(f"{objects / took:.0f}/s; microseconds an object: {', '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
