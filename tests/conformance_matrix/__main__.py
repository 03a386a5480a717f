"""The whole matrix: ``python -m tests.conformance_matrix``. Exit status 1 where anybody found a fault of ours."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.conformance_matrix.checkers import Verdict, verdicts_of
from tests.conformance_matrix.ledger import Judged, Ledger
from tests.conformance_matrix.sources import GROUPS, Source, files, left_out, made_up, some_of
from tests.conformance_matrix.table import NAMES, Counts, markdown
from tests.conformance_matrix.written import STATES, states_of, written

Task = tuple[Source, tuple[str, ...]]  # a source, and the states of a result to write about it


def judged(task: Task) -> list[Judged]:
    """Every object about a source in these states of a result, and what was found in it."""
    source, states = task
    try:
        known, like = source.known(), source.evidence()[0]
        objects = list(written(source, states))
        with tempfile.TemporaryDirectory() as folder:
            verdicts = verdicts_of([one.content for one in objects], Path(folder), known, like)
    except Exception as error:  # boundary: of a process; what cannot be written about is a fault like any other
        words = f"no object came out: {type(error).__name__}: {error}"
        return [Judged(source.group, source.name, "dicom_sr", states[0], Verdict((words,), (), (), (), (), (), ()))]
    return [
        Judged(source.group, source.name, one.kind, one.state, verdict)
        for one, verdict in zip(objects, verdicts, strict=True)
    ]


def main() -> int:
    """Judge everything, print the tables and every fault."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance_matrix", description=__doc__)
    parser.add_argument("--data", type=Path, default=_test_data(), help="the folder of the test data")
    parser.add_argument("--group", help="the sources of this group alone")
    parser.add_argument("--most", type=int, default=1000, help="sources of each group, spread evenly over it")
    parser.add_argument("--states", type=int, default=len(STATES), help="of a result, for each source, in turn")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="0: the tables of what the ledger has")
    parser.add_argument("--ledger", type=Path, help="what is found is kept in this file; what stands in it is done")
    options = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        sources = [one for one in _sources(options.data, Path(folder)) if options.group in (None, one.group)]
        chosen = some_of(sources, options.most)
        tasks = [(source, states_of(number, options.states)) for number, source in enumerate(chosen)]
        ledger = Ledger(options.ledger)
        if options.processes == 0:
            known = ledger.found()
            tasks = [(source, states) for source, states in tasks if (source.group, source.name, states) in known]
            chosen = [source for source, _ in tasks]
        faults = report(through(tasks, ledger, options.processes), chosen, sources)
    print(f"\nNo images: {', '.join(left_out(options.data))}. {time.monotonic() - start:.0f} s.")
    return 1 if faults else 0


def through(tasks: list[Task], ledger: Ledger, processes: int) -> Iterator[Judged]:
    """What the ledger has of these tasks; then the others, each written into it as it is done."""
    known = ledger.found()
    keys = {(source.group, source.name, states): (source, states) for source, states in tasks}
    for key in keys:
        yield from known.get(key, [])
    with ProcessPoolExecutor(processes or 1) as pool:
        coming = {pool.submit(judged, task): key for key, task in keys.items() if key not in known}
        for number, done in enumerate(as_completed(coming), start=1):
            ledger.add(*coming[done], done.result())
            print(f"\r{number} of {len(coming)} sources", end="", file=sys.stderr, flush=True)
            yield from done.result()


def report(found: Iterable[Judged], chosen: list[Source], sources: list[Source]) -> int:
    """Print both tables; the number of objects with a fault of ours."""
    by_kind: defaultdict[tuple[str, ...], Counts] = defaultdict(Counts)
    counts = {
        group: f"{sum(one.group == group for one in chosen)} of {sum(one.group == group for one in sources)}"
        for group in GROUPS
    }
    by_group = {(group, counts[group]): Counts() for group in GROUPS}
    faults = 0
    for one in found:
        by_kind[NAMES[one.kind], one.state.replace("_", " ")].add(one.verdict)
        by_group[one.group, counts[one.group]].add(one.verdict)
        if not one.verdict.is_clean:
            faults += 1
            what = f"{one.group} / {one.source} / {one.kind} / {one.state}"
            print(f"\n{what}: {one.verdict}", file=sys.stderr, flush=True)
    print(
        markdown(("object", "of a result"), dict(sorted(by_kind.items()))),
        markdown(("sources", "number"), {key: counts for key, counts in by_group.items() if counts.objects}),
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
