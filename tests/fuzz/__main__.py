"""The long run: ``python -m tests.fuzz --seconds 600``. Exit status 1 where a fault was found; its bytes are kept."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

import structlog

from dicom_listener.library import prepare_library
from tests.fuzz import pictures, seeds, tls_wire, wire
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import CASE_S, TARGETS, time_limit

# Of the time, for talking to a listener: there cases are slow, and there the peers are.
ON_THE_WIRE = {"wire": 0.25, "tls": 0.15}
# And for broken pictures, each decoded in a child process.
PICTURES = "pictures"
PICTURES_SHARE = 0.2


# Other makers' files, to begin with, where they are.
OTHERS = Path(os.environ.get("WETREAD_TEST_DATA") or wire.REPOSITORY.parent / "shared" / "data") / "dicom"


def main() -> int:
    """Run every target, or the one that is named."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="in all")
    parser.add_argument("--target", choices=[*TARGETS, PICTURES, *ON_THE_WIRE], help="this one alone")
    parser.add_argument("--engine", choices=("atheris", "random"), help="default: atheris where it is installed")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of what is random")
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"), help="where the bytes of faults are kept")
    parser.add_argument("--write-corpus", action="store_true", help="write the well-formed messages, and end")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # the process that atheris ends
    options = parser.parse_args()
    if options.write_corpus:
        print(f"{seeds.write_corpus()} files")
        return 0
    has_atheris = importlib.util.find_spec("atheris") is not None
    engine = options.engine or ("atheris" if has_atheris else "random")
    if options.inside:
        _atheris(options.target, options.seconds, options.found)
    # That a child died is counted; the log would tell it each time.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    names = [options.target] if options.target else [*TARGETS, PICTURES, *ON_THE_WIRE]
    print(f"engine {engine}, seed {options.seed}", flush=True)
    faults = 0
    for name in names:
        shares = {**ON_THE_WIRE, PICTURES: PICTURES_SHARE}
        rest = (1 - sum(shares.values())) / len(TARGETS)
        seconds = options.seconds * (1.0 if options.target else shares.get(name, rest))
        if name in ON_THE_WIRE:
            faults += _on_the_wire(name, seconds, options.seed, options.found)
        elif name == PICTURES:
            faults += _pictures(seconds, options.seed, options.found)
        elif engine == "atheris":
            faults += _under_atheris(name, seconds, options.found)
        else:
            faults += _at_random(name, seconds, options.seed, options.found)
    return 1 if faults else 0


def _pool(name: str) -> list[bytes]:
    return [content for kind in TARGETS[name][1] for content in seeds.corpus(kind).values()]


def _at_random(name: str, seconds: float, seed: int, found: Path) -> int:
    prepare_library()
    target, pool, rng = TARGETS[name][0], _pool(name), random.Random(seed)
    places: dict[str, str] = {}
    cases, deadline = 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        case = mutated(rng.choice(pool), pool, rng)
        cases += 1
        try:
            with time_limit():
                target(case)
        except Exception as error:  # boundary: whatever comes out of a target is a fault to be told
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
            if place not in places:
                places[place] = _keep(found, name, case)
    print(f"{name:12} {cases:9} cases  {len(places)} faults", flush=True)
    for place, path in places.items():
        print(f"    {place}: {path}")
    return len(places)


def _keep(found: Path, name: str, case: bytes) -> str:
    found.mkdir(parents=True, exist_ok=True)
    path = found / f"{name}-{time.time_ns()}.bin"
    path.write_bytes(case)
    return str(path)


def _under_atheris(name: str, seconds: float, found: Path) -> int:
    """In a process of its own, for atheris ends the one that it runs in."""
    found.mkdir(parents=True, exist_ok=True)
    known = set(found.iterdir())
    command = [sys.executable, "-m", "tests.fuzz", "--inside", "--target", name, "--seconds", f"{seconds:g}"]
    done = subprocess.run(
        [*command, "--found", str(found)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    cases = [int(number) for number in re.findall(r"^(?:Done |#)(\d+)", done.stdout, re.MULTILINE)]
    kept = sorted(set(found.iterdir()) - known)
    failed = done.returncode != 0
    print(f"{name:12} {max(cases, default=0):9} cases  {'a fault' if failed else '0 faults'}", flush=True)
    if failed:
        print(done.stdout[-3000:], *kept, sep="\n")
    return int(failed)


def _atheris(name: str, seconds: float, found: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=["dicom_listener", "pydicom"]):
        for module in [one for one in sys.modules if one.startswith(("dicom_listener", "tests.fuzz.targets"))]:
            del sys.modules[module]
        from tests.fuzz.targets import TARGETS as INSTRUMENTED
    prepare_library()
    limits = [f"-max_total_time={max(1, round(seconds))}", f"-timeout={CASE_S}", "-rss_limit_mb=2048"]
    with tempfile.TemporaryDirectory() as grown:
        folders = [grown, *(str(seeds.CORPUS / kind) for kind in INSTRUMENTED[name][1])]
        atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={found}/{name}-", *folders], INSTRUMENTED[name][0])
        atheris.Fuzz()


def _pictures(seconds: float, seed: int, found: Path) -> int:
    """What a child died of is kept, too, though it is no fault of ours."""
    prepare_library()
    others = sorted(OTHERS.rglob("*.dcm")) if OTHERS.is_dir() else []
    with tempfile.TemporaryDirectory() as folder:
        gallery = pictures.Gallery(Path(folder), seed, [path for path in others if path.stat().st_size < 300_000])
        gallery.run(seconds=seconds)
        print(f"{PICTURES:12} {gallery.cases:9} cases  {len(gallery.faults)} faults", flush=True)
        print(f"    {dict(gallery.outcomes)}; slowest case {gallery.slowest_s:.1f} s")
        for text in gallery.faults:
            print(f"    {text[:600]}")
        for path in Path(folder).glob("fault-*"):
            print(f"    {_keep(found, PICTURES, path.read_bytes())}")
        for name, content in gallery.died.items():
            print(f"    a child died over {name}: {_keep(found, 'died', content)}")
        return len(gallery.faults)


def _on_the_wire(name: str, seconds: float, seed: int, found: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        folk = tls_wire.people(Path(folder) / "people")
        (Path(folder) / "victim").mkdir()
        with wire.victim(Path(folder) / "victim", *folk.files) as there:
            storm = wire.Storm(there, seed) if name == "wire" else tls_wire.TlsStorm(there, folk, seed)
            try:
                before = wire.warmed(there)
                storm.run(seconds=seconds)
                wire.echo(there)
                after = wire.check_rest(there, before)
                wire.check_folder(there)
                print(f"    before {before}, after {after}")
            except wire.Fault as fault:
                storm.faults.append(str(fault))
            print(f"{name:12} {storm.cases:9} cases  {len(storm.faults)} faults", flush=True)
            for text in storm.faults:
                print(f"    {text[:600]}", f"    {_keep(found, name, text.encode())}", sep="\n")
            return len(storm.faults)


if __name__ == "__main__":
    sys.exit(main())
