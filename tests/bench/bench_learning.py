"""What a department's reviewed cases teach the shipped brain model: the whole way, and a curve over their number.

    python -m tests.bench.bench_learning [--cases 100] [--severity 0.75] [--models FOLDER] [--curve]

The department's slices look as no slice of the collection does. They are read, signed, exported, trained on,
registered and put on trial by the commands; both versions are then measured on slices of other people, as the
department shows them and as they are. `--curve` fits to fewer and more cases besides, in memory. The collection is
`brain_mr` under `WETREAD_TEST_DATA`, else `../shared/data`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from click.testing import Result
from typer.testing import CliRunner

from deploy.cli import app
from deploy.embedded_postgres import EmbeddedPostgres
from fhir_records.database import Database
from fhir_records.migrations import migrate
from inference.registry import SHIPPED, Registry
from tests.bench.learning_curve import curve
from tests.bench.learning_department import Slice, add_cases, collection, write_pictures

MODEL = "brain_mr_tumour"
_REHEARSED = 60  # slices of each class that the model was trained on, given by --data


@dataclass(frozen=True, slots=True)
class Groups:
    """Who is who: no cluster is in two of them."""

    department: list[Slice]  # one of a cluster
    test: list[Slice]
    former: list[Slice]  # held out of the model's training, at the department's hand
    rehearsed: list[Slice]  # of its training


def dealt(slices: Sequence[Slice], cases: int, seed: int = 5) -> Groups:
    """So many cases, as many of each class as there are; a third of the clusters left is for the test."""
    rng = np.random.default_rng(seed)
    groups = Groups([], [], [], [])
    labels = sorted({one.label for one in slices})
    for label in labels:
        held = [one for one in slices if one.label == label and one.held_out]
        clusters = rng.permutation(sorted({one.cluster for one in held})).tolist()
        third = len(clusters) // 4
        test, former = set(clusters[:third]), set(clusters[third : third + third // 2])
        groups.test.extend(one for one in held if one.cluster in test)
        groups.former.extend(one for one in held if one.cluster in former)
        firsts = {one.cluster: one for one in reversed(held) if one.cluster not in test | former}
        trained = [one for one in slices if one.label == label and not one.held_out]
        more = rng.permutation(len(trained)).tolist()
        groups.rehearsed.extend(trained[i] for i in more[:_REHEARSED])
        known = {trained[i].cluster: trained[i] for i in more[_REHEARSED:]}
        groups.department.extend([*firsts.values(), *known.values()][: cases // len(labels)])
    return groups


def wetread(*words: str) -> Result:
    """A command, printed with what it says; ends everything where it fails."""
    print(f"\n$ wetread {' '.join(words)}", flush=True)
    began = time.perf_counter()
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    print(f"{result.output.strip()}\n[{time.perf_counter() - began:.0f} s]", flush=True)
    if result.exit_code:
        raise SystemExit(result.exit_code)
    return result


def the_whole_way(database: Database, home: Path, work: Path, groups: Groups, severity: float) -> None:
    """From signed cases to two versions that are measured on people whom neither has seen."""
    (home / "spool").mkdir(parents=True)
    registry = Registry(home / "models")
    registry.ensure_shipped()
    counts = add_cases(database, home / "spool", registry.get(MODEL), groups.department, severity, work / "pictures")
    print(f"{len(groups.department)} people, one image each: {counts}")
    write_pictures(work / "collection", [*groups.rehearsed, *groups.former], None)
    write_pictures(work / "as-they-are", groups.test, None)
    write_pictures(work / "as-shown-there", groups.test, severity)
    export, bundle = str(work / "export"), str(work / "next")
    wetread("reviews", "export", "--model", MODEL, "--include-unchanged", "--output", export)
    wetread("train", "--from-reviews", export, "--data", str(work / "collection"), "--output", bundle)
    wetread("models", "add", bundle)
    wetread("models", "shadow", MODEL, "0.4.0")
    wetread("models", "list")
    for data in ("as-shown-there", "as-they-are"):
        for version in ("0.3.0", "0.4.0"):
            wetread("evaluate", "--model", MODEL, "--version", version, "--data", str(work / data))
    print((Path(bundle) / "docs" / "README.md").read_text(encoding="utf-8"))


def main() -> None:
    """Deal, go the whole way, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_learning", description=__doc__)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--severity", type=float, default=0.75)
    parser.add_argument("--models", type=Path, help="registered models to copy, which saves their export")
    parser.add_argument("--curve", action="store_true", help="the curve alone")
    told = parser.parse_args()
    repository = Path(__file__).resolve().parents[2]
    data = Path(os.environ.get("WETREAD_TEST_DATA") or repository.parent / "shared" / "data") / "brain_mr"
    slices = collection(data, SHIPPED / MODEL / "split.json")
    if told.curve:
        curve(slices, told.severity)
        return
    with tempfile.TemporaryDirectory() as folder:
        home, work = Path(folder) / "home", Path(folder) / "work"
        if told.models:
            shutil.copytree(told.models, home / "models")
        server = EmbeddedPostgres(Path(folder) / "postgres")
        server.start()
        try:
            os.environ |= {"WETREAD_HOME": str(home), "WETREAD_DATABASE_URL": server.url, "COLUMNS": "180"}
            database = Database(server.url)
            migrate(database)
            the_whole_way(database, home, work, dealt(slices, told.cases), told.severity)
            database.close()
        finally:
            server.stop(even_if_used=True)


if __name__ == "__main__":
    main()
