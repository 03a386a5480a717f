"""The whole matrix: ``python -m tests.conformance_matrix``. Exit status 1 where anybody found a fault of ours."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.conformance_matrix.checkers import Verdict, verdict_of
from tests.conformance_matrix.sources import GROUPS, Source, files, left_out, made_up, some_of
from tests.conformance_matrix.table import NAMES, Counts, markdown
from tests.conformance_matrix.written import STATES, states_of, written

Judged = tuple[str, str, str, str, Verdict]  # group and name of the source, kind and state of the object


def judged(task: tuple[Source, tuple[str, ...]]) -> list[Judged]:
    """Every object about a source in these states of a result, and what was found in it."""
    source, states = task
    found: list[Judged] = []
    try:
        known, like = source.known(), source.evidence()[0]
        with tempfile.TemporaryDirectory() as folder:
            for one in written(source, states):
                verdict = verdict_of(one.content, Path(folder), known, like)
                found.append((source.group, source.name, one.kind, one.state, verdict))
    except Exception as error:  # boundary: of a process; what cannot be written about is a fault like any other
        words = f"no object came out: {type(error).__name__}: {error}"
        found.append((source.group, source.name, "dicom_sr", states[0], Verdict((words,), (), (), (), (), (), ())))
    return found


def main() -> int:
    """Judge everything, print the tables and every fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance_matrix", description=__doc__)
    parser.add_argument("--data", type=Path, default=_test_data(), help="the folder of the test data")
    parser.add_argument("--group", help="the sources of this group alone")
    parser.add_argument("--most", type=int, default=1000, help="sources of each group, spread evenly over it")
    parser.add_argument("--states", type=int, default=len(STATES), help="of a result, for each source, in turn")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        sources = [one for one in _sources(options.data, Path(folder)) if options.group in (None, one.group)]
        chosen = some_of(sources, options.most)
        tasks = [(source, states_of(number, options.states)) for number, source in enumerate(chosen)]
        with ProcessPoolExecutor(options.processes) as pool:
            faults = report(itertools.chain.from_iterable(pool.map(judged, tasks)), chosen, sources)
    print(f"\nNo images: {', '.join(left_out(options.data))}. {time.monotonic() - start:.0f} s.")
    return 1 if faults else 0


def report(found: Iterable[Judged], chosen: list[Source], sources: list[Source]) -> int:
    """Print both tables; the number of objects with a fault of ours."""
    by_kind: defaultdict[tuple[str, ...], Counts] = defaultdict(Counts)
    by_group: defaultdict[tuple[str, ...], Counts] = defaultdict(Counts)
    faults = 0
    count = {
        group: f"{sum(one.group == group for one in chosen)} of {sum(one.group == group for one in sources)}"
        for group in GROUPS
    }
    for group, name, kind, state, verdict in found:
        by_kind[NAMES[kind], state.replace("_", " ")].add(verdict)
        by_group[group, count[group]].add(verdict)
        if not verdict.is_clean:
            faults += 1
            print(f"{group} / {name} / {kind} / {state}: {verdict}", file=sys.stderr, flush=True)
    print(
        markdown(("object", "of a result"), dict(sorted(by_kind.items()))),
        markdown(("sources", "number"), by_group),
        sep="\n\n",
    )
    return faults


def _sources(test_data: Path, folder: Path) -> Iterator[Source]:
    yield from files(test_data)
    yield from made_up(folder)


def _test_data() -> Path:
    told = os.environ.get("WETREAD_TEST_DATA")
    return Path(told) if told else Path(__file__).resolve().parents[3] / "shared" / "data"


if __name__ == "__main__":
    sys.exit(main())
